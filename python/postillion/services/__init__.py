"""Small programs of master.cf: anvil, error, discard."""
