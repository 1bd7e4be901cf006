"""Master that starts `tiny_program` instead of every program."""

import sys

from postillion.master import programs
from postillion.master.__main__ import main

if __name__ == "__main__":
    programs.PROGRAMS = dict.fromkeys(programs.PROGRAMS, "support.tiny_program")
    sys.exit(main())
