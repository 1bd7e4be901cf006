"""The master program: starts, watches, restarts and stops all others (master(8))."""
