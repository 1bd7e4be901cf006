"""The SMTP and LMTP client (smtp(8)): where to deliver, over which connection, and what came of it."""
