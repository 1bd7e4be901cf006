"""master(8): starts, watches, restarts and stops the other programs."""
