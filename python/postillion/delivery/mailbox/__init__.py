"""Mailboxes as files: Maildir and mbox."""
