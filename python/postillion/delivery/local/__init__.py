"""local(8): delivery to this system's users, with their aliases and .forward files.

`recipient` decides where a recipient's mail goes, in this order: aliases, .forward, mailbox_command(_maps),
home_mailbox, mail_spool_directory, luser_relay. `postillion.delivery`'s `mailbox`, `command` and `account` deliver with
the user's rights; `submit` there puts mail for other addresses back into the queue as a new message.
"""
