"""postmulti(1): list the instances of the mail system.

    postmulti -l [-aR] [-g group] [-i name]

One line an instance: name, group, y when it is enabled, configuration directory; `-` for no name or group. The first is
the one in the default configuration directory, then those that its multi_instance_directories names.

    -a        all instances, the default
    -g group  those of a group
    -i name   the one of this name or configuration directory; `-` for the first
    -R        in reverse order

Exit status 0, or 1 with a line on standard error. Instances are started with `postfix -c config_directory start`, and
made with `postillion -c config_directory init`: `-e`, `-p` and `-x` are not implemented.
"""

import os
import sys
from typing import NamedTuple

from postillion.commands import getopt
from postillion.config import Config, ConfigError
from postillion.config.settings import DEFAULT_DIRECTORY

USAGE = "usage: postmulti -l [-aRv] [-g group] [-i name]"
REFUSED = {
    "-e": "edit multi_instance_directories, multi_instance_name and multi_instance_enable with postconf",
    "-p": "run postfix -c config_directory command for each instance that postmulti -l shows",
    "-x": "run the command with MAIL_CONFIG=config_directory for each instance that postmulti -l shows",
}


class Instance(NamedTuple):
    """An instance: its configuration directory and what its main.cf says of it."""

    name: str
    group: str
    enabled: bool
    directory: str


def main(argv: list[str] | None = None) -> int:
    """List instances; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, "ae:g:G:i:I:lpRvx")
    except getopt.GetoptError as error:
        return _refuse(f"{error.msg}; {USAGE}")
    options = dict(given)
    for letter in options.keys() & REFUSED.keys():
        return _refuse(f"{letter} is not implemented: {REFUSED[letter]}")
    if "-l" not in options or words:
        return _refuse(USAGE)
    directory = os.environ.get("MAIL_CONFIG") or DEFAULT_DIRECTORY
    if directory != DEFAULT_DIRECTORY:
        return _refuse(f"non-default configuration directory: {directory}")
    try:
        found = [each for each in instances(directory) if _is_wanted(each, options)]
    except ConfigError as error:
        return _refuse(str(error))
    if "-i" in options and not found:
        return _refuse(f"no matching instance: {options['-i']}")
    for name, group, enabled, path in reversed(found) if "-R" in options else found:
        print(f"{name or '-':<15} {group or '-':<15} {'y' if enabled else 'n':<9} {path}")
    return 0


def instances(directory: str) -> list[Instance]:
    """Return the instance in `directory` and the others that it names. Raises `ConfigError`."""
    first = Config.load(directory)
    found = [_instance(first, primary=True)]
    return found + [_instance(Config.load(other)) for other in first.items("multi_instance_directories")]


def _instance(config: Config, *, primary: bool = False) -> Instance:
    enabled = primary or config.flag("multi_instance_enable")
    name, group = config.text("multi_instance_name"), config.text("multi_instance_group")
    return Instance(name, group, enabled, config.directory)


def _is_wanted(instance: Instance, options: dict[str, str]) -> bool:
    name = options.get("-i")
    if name is not None:
        return instance.directory == (DEFAULT_DIRECTORY if name == "-" else name) or instance.name == name
    return options.get("-g") in (None, instance.group)


def _refuse(text: str) -> int:
    print(f"postmulti: fatal: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
