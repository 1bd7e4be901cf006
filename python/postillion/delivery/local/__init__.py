"""local(8): delivery to this system's users, with their aliases and .forward files.

`recipient` tries the destinations in this order: aliases, .forward, mailbox_command(_maps), home_mailbox,
mail_spool_directory, luser_relay. `postillion.delivery`'s `mailbox`, `command` and `account` deliver with the user's
rights; its `submit` queues mail for other addresses as a new message.
"""
