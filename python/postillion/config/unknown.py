"""Unused parameters in main.cf, each with the name that was probably meant."""

import os

from postillion.config import expansion, main_cf, parameters
from postillion.config.errors import ConfigError, place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from postillion.config.settings import Config


def warnings(config: "Config") -> list[str]:
    """Return a warning for each unknown parameter that main.cf sets.

    Known parameters are those of the parameter table and of the transports in master.cf, names that other values
    refer to, restriction classes, and the settings of a table source (`ldap:accounts` has `accounts_server_host`).
    """
    found = []
    known = in_use(config)
    for name in _undeclared(config):
        if name in known:
            continue
        setting = config.settings[name]
        meant = parameters.nearest(name)
        advice = f" (did you mean {meant}?)" if meant is not None else ""
        found.append(f"{place(setting.path, setting.line)}: unused parameter: {name}={setting.value}{advice}")
    return found


def in_use(config: "Config") -> set[str]:
    """Return the undeclared names in main.cf that a value, a restriction class or a table source refers to."""
    candidates = _undeclared(config)
    if not candidates:
        return set()
    values = [setting.value for setting in config.settings.values()]
    values += _master_values(config.directory)
    used = {name for value in values for name in expansion.names(value)}
    used.update(main_cf.split_list(config.raw("smtpd_restriction_classes")))
    sources = {word.partition(":")[2] for value in values for word in main_cf.split_list(value) if ":" in word}
    return {
        name
        for name in candidates
        if name in used or any(source and name.startswith(source + "_") for source in sources)
    }


def _undeclared(config: "Config") -> list[str]:
    return [name for name in config.settings if parameters.row(name) is None]


def _master_values(directory: str) -> list[str]:
    """Return the lines of master.cf, which may refer to names; none when the file is missing."""
    path = os.path.join(directory, "master.cf")
    try:
        return [line for _, line in main_cf.logical_lines(main_cf.read(path))]
    except ConfigError:
        return []
