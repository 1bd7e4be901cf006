"""What the tests share: sites, peers, clients, sinks, damage, and a ledger of what was acknowledged."""
