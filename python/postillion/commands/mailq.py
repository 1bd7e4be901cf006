"""mailq(1): list the queue; `sendmail -bp` by another name."""

import sys

from postillion.commands import sendmail


def main(argv: list[str] | None = None) -> int:
    """List the queue; return the exit status."""
    return sendmail.main(sys.argv[1:] if argv is None else argv, "mailq")


if __name__ == "__main__":
    raise SystemExit(main())
