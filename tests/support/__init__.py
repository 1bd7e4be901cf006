"""Shared code of the tests: sites, peers, clients, sinks, damage, and a ledger of acknowledged messages."""
