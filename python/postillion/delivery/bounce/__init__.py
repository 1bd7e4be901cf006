"""bounce(8): tells senders what became of their mail, by messages of its own (RFC 3464).

`report` writes a notification; `__main__` is the agent that queues it before it calls the recipients reported.
"""
