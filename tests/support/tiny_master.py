"""Master that starts `tiny_program` instead of every program.

LIVED_S in the environment: seconds within which a program that ends has failed to start. A busy machine takes longer
than master's own second to start one.
"""

import os
import sys

from postillion.master import programs, service
from postillion.master.__main__ import main

if __name__ == "__main__":
    service.LIVED_S = float(os.environ.get("LIVED_S", service.LIVED_S))
    programs.PROGRAMS = dict.fromkeys(programs.PROGRAMS, "support.tiny_program")
    sys.exit(main())
