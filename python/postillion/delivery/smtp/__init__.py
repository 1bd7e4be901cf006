"""The SMTP and LMTP client (smtp(8)): destinations, hosts, connections, and the agent."""
