"""postalias: postmap for alias files, whose lines read `name: value` (postalias(1)).

The options are postmap's, without -b, -F, -h, -m and -U.
"""

import sys

from postillion.commands.postmap import run
from postillion.commands.postmap_request import Tool

POSTALIAS = Tool("postalias", "alias", "Nfijnoprsuvw", ":\t")


def main(argv: list[str] | None = None) -> int:
    """Run postalias; the exit status."""
    return run(POSTALIAS, sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    raise SystemExit(main())
