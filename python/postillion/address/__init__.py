"""Addresses: the class of a domain, the parts of a local recipient, and the route of a recipient."""
