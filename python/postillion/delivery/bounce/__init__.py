"""bounce(8): sends delivery status notifications to senders (RFC 3464).

`report` writes a notification; `__main__` is the agent, which marks recipients as reported when it is in the queue.
"""
