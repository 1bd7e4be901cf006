"""local(8): delivery to this system's users, with their aliases and .forward files.

`recipient` decides where a recipient's mail goes, in this order: aliases, .forward, mailbox_command(_maps),
home_mailbox, mail_spool_directory, luser_relay. `maildir`, `mbox` and `command` deliver; `resubmit` hands mail for
other addresses back to the queue as a new message. `account` is whose rights all of that is done with.
"""
