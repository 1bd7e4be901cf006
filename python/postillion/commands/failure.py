"""The errors of a control command."""


class Failure(Exception):
    """The one line that says why a command did not do its work."""


class NotRunning(Failure):
    """No mail system runs on the configuration."""
