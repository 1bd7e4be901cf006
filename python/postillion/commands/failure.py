"""How a control command says that it did not do its work."""


class Failure(Exception):
    """Why a command did not do its work, in one line."""


class NotRunning(Failure):
    """No mail system runs on the configuration."""
