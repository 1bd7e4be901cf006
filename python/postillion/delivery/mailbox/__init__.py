"""Mailboxes in files: Maildir and mbox."""
