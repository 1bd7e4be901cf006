"""`python -m postillion.checker.keys OPTIONS`: check whether smtpd can use its keys, before a new process reads them.

The options are those of the program. Standard output gets the lines of `python -m postillion.checker`. Unlike there, a
problem with the keys is always an error: at `smtpd_tls_security_level = may`, a new process would serve without TLS.
"""

import os
import sys

from postillion._core.tls import TlsServer
from postillion.checker.lines import error, say
from postillion.config import Config, ConfigError
from postillion.program.daemon import Arguments


def main(argv: list[str]) -> int:
    """Check the keys of a service; return the exit status."""
    try:
        options = Arguments(argv)
        runtime = (("service_name", options.service),)
        config = Config.load(options.config_directory, (*runtime, *options.overrides), options.in_force)
        for own in config.by_stress():
            _check(own)
    except ConfigError as problem:
        error(problem)
        return 1
    say("ok")
    return 0


def _check(config: Config) -> None:
    problem = TlsServer(config).problem
    if problem is not None:
        name, text, fix = problem
        raise config.error(name, f"{name}: {text}", fix)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
