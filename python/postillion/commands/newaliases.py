"""newaliases: write the indexes of the alias files that `alias_database` names (newaliases(1))."""

import sys

from postillion.commands import getopt
from postillion.commands.postalias import POSTALIAS
from postillion.commands.postmap import run
from postillion.commands.postmap_request import Tool
from postillion.config import Config, ConfigError
from postillion.tables.maps import INDEXED_TYPES

OPTIONS = "C:c:v"


def main(argv: list[str] | None = None) -> int:
    """Run newaliases; the exit status."""
    tool = Tool("newaliases", POSTALIAS.form, POSTALIAS.letters, POSTALIAS.separator)
    try:
        given, rest = getopt.gnu_getopt(sys.argv[1:] if argv is None else argv, OPTIONS)
    except getopt.GetoptError as error:
        tool.fatal(f"{error.msg}; usage: newaliases [-v] [-c config_dir]")
    if rest:
        tool.fatal("usage: newaliases [-v] [-c config_dir]")
    options = dict(given)
    directory = options.get("-c", options.get("-C"))
    try:
        config = Config.load(directory)
        names = config.items("alias_database")
        default_type = config.text("default_database_type")
    except ConfigError as error:
        tool.fatal(str(error))
    made = []
    for name in names:
        kind = name.partition(":")[0] if ":" in name else default_type
        if kind in INDEXED_TYPES:
            made.append(name)
        else:
            tool.say("warning", f"alias_database: {name} has no index")
    return run(tool, [*(["-c", directory] if directory else []), "--", *made]) if made else 0


if __name__ == "__main__":
    raise SystemExit(main())
