"""postalias: postmap for alias files, whose lines read `name: value` (postalias(1)).

The options are postmap's. As with postmap, a good source is in force as it stands and no index is written.
"""

import sys

from postillion.commands.postmap import Tool, run


def main(argv: list[str] | None = None) -> int:
    """Run postalias; the exit status."""
    return run(Tool("postalias", "alias"), sys.argv[1:] if argv is None else argv)


if __name__ == "__main__":
    raise SystemExit(main())
