"""Owners and modes of the queue, and what else Postfix's post-install does to an installation.

`postfix set-permissions` and `postfix upgrade-configuration` take `name=value` words, which they write to main.cf
first. Program files are the package manager's, so no owner or mode of theirs is changed.
"""

import os

from postillion.commands.console import Console
from postillion.commands.failure import Failure
from postillion.config import Config, edit
from postillion.config.main_cf import split_assignment
from postillion.master import directories


def set_permissions(directory: str, console: Console, *assignments: str) -> None:
    """Give the queue's directories and files the owners and modes that main.cf asks for; create what is missing."""
    if os.geteuid() != 0:
        raise Failure("set-permissions is reserved for the superuser")
    config = _assigned(directory, console, assignments)
    directories.create(config)
    directories.prepare_data(config)
    for path in directories.set_permissions(config):
        console.detail(f"{path}: owner or mode changed")


def create_missing(directory: str, console: Console, *assignments: str) -> None:
    """Create the directories of the queue that are not there."""
    config = _assigned(directory, console, assignments)
    console.detail(f"queue {directories.create(config)}, data {directories.prepare_data(config)}")


def _assigned(directory: str, console: Console, assignments: tuple[str, ...]) -> Config:
    """Write the `name=value` words to main.cf and return what it says then; nothing is written for a bad word."""
    values = dict(split_assignment(word, "command line", None) for word in assignments)
    config = Config.load(directory, tuple(values.items()))
    for name in values:
        error = config.bad_value(name)
        if error is not None:
            raise error
    if values:
        for warning in edit.assign(os.path.join(directory, "main.cf"), values):
            console.warning(warning)
    return Config.load(directory)
