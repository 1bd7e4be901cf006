"""newaliases: check the alias files that `alias_database` names (newaliases(1)).

They are read as they stand, so nothing has to be built: exit status 0 says that all of them are good and in force.
"""

import getopt
import sys

from postillion.commands.postmap import EDITABLE_TYPES, Tool, check
from postillion.config import Config, ConfigError

OPTIONS = "C:c:v"


def main(argv: list[str] | None = None) -> int:
    """Run newaliases; the exit status."""
    tool = Tool("newaliases", "alias")
    try:
        given, rest = getopt.gnu_getopt(sys.argv[1:] if argv is None else argv, OPTIONS)
    except getopt.GetoptError as error:
        tool.fatal(f"{error.msg}; usage: newaliases [-v] [-c config_dir]")
    if rest:
        tool.fatal("usage: newaliases [-v] [-c config_dir]")
    options = dict(given)
    try:
        names = Config.load(options.get("-c", options.get("-C"))).items("alias_database")
    except ConfigError as error:
        tool.fatal(str(error))
    status = 0
    for name in names:
        if name.partition(":")[0] not in EDITABLE_TYPES:
            tool.say("warning", f"alias_database: {name} is not made from a text file")
            continue
        try:
            status |= check(tool, name, verbose="-v" in options)
        except OSError as error:
            tool.say("error", f"open {error.filename}: {error.strerror}")
            status = 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
