"""bounce(8): sends delivery status notifications to senders (RFC 3464).

`report` writes a notification with the words of a `template`; `template_file` reads those of a site. `__main__` is the
agent, which marks recipients as reported when the notification is in the queue.
"""
