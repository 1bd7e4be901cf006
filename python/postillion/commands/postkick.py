"""postkick(1): send a request to a service of the mail system.

    postkick [-c config_directory] [-v] class service request

class: public or private. Requests: W to public/pickup, to look for new mail; W, I, A and D to public/qmgr, to look for
mail that nobody announced; F to public/qmgr, to try every deferred message now as well.

Exit status 0 when the service took the request, else 1 with a line on standard error.
"""

import os
import sys

from postillion.commands import getopt
from postillion.config import Config, ConfigError
from postillion.pickup.submit import trigger

USAGE = "usage: postkick [-c config_dir] [-v] class service request"


def main(argv: list[str] | None = None) -> int:
    """Send a request; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, "c:v")
        if len(words) != 3:
            raise getopt.GetoptError(USAGE)
    except getopt.GetoptError as error:
        return _say("fatal", error.msg if error.msg == USAGE else f"{error.msg}; {USAGE}")
    channel, service, request = words
    try:
        queue = Config.load(dict(given).get("-c")).text("queue_directory")
    except ConfigError as error:
        return _say("fatal", str(error))
    if "/" in service or not trigger(os.path.join(queue, channel, service), request.encode()):
        where = f"class {channel} service {service}"
        return _say("warning", f"Cannot contact {where} - perhaps the mail system is down")
    return 0


def _say(severity: str, text: str) -> int:
    print(f"postkick: {severity}: {text}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
