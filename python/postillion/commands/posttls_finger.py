"""posttls-finger(1): show what smtp or lmtp gets from a server when it asks for TLS.

    posttls-finger [options] [inet:]domain[:port] [match ...]
    posttls-finger -S [options] unix:pathname [match ...]

The connection is made by the code of smtp(8): the same library, policy, ciphers and checks. It says EHLO, begins TLS,
says EHLO again and quits. No tables are read. Output goes to standard output; exit status 0, also when the server
cannot be reached; 1 for a bad option, or a key or authority that cannot be used.

match: names for secure and verify, digests for fingerprint.

    -a family       ipv4, ipv6 or any: the addresses that are tried first
    -A file         trust anchors in place of authorities, at secure and verify; may be repeated
    -c              no dialogue, only what is about TLS
    -C              print the server's chain in PEM format
    -d digest       of fingerprints; default: smtp_tls_fingerprint_digest
    -f              ask for TLSA records of hosts whose addresses are not secure, too
    -F file         authorities; default: none
    -g grade        of ciphers; default: medium
    -h lookup       dns, native; default: dns
    -H files        chains of the client with their keys
    -k file         certificate of the client; -K file: its key
    -l level        default: dane, and secure for a host without TLSA records
    -L options      routine (1), certmatch, peercert, untrusted, cache, verbose, debug (2), none (0);
                    default: routine,certmatch
    -m count        maximum number of reconnections with -r; default: 5
    -M level        may, encrypt or dane, for TLSA records behind insecure MX records; default: dane
    -o name=value   a value in place of main.cf's
    -p versions     default: >=TLSv1
    -P directory    authorities; default: none
    -r seconds      connect again, and tell whether the TLS session is resumed
    -s name         to ask the server for (SNI); TLSA records come first
    -S              LMTP; default port 24
    -t seconds      timeout of connection and greeting; -T seconds: of each command and of the handshake; default: 30
    -v              without effect
    -w              TLS begins with the connection

Not implemented: -X (tlsproxy), and the options of -L for steps and octets of the handshake, which print a warning.
"""

from __future__ import annotations

import asyncio
import os
import sys

from postillion.commands import getopt
from postillion.commands.finger import Finger, Stop
from postillion.commands.finger_options import LETTERS, Options, say
from postillion.config import ConfigError
from postillion.delivery.account import NoAnswerError, NotPermittedError
from postillion.delivery.smtp.nexthop import BadNextHop

USAGE = """\
usage: posttls-finger [-acCfSvw] [-t conn_tmout] [-T cmd_tmout] [-L logopts] \\
\t[-h host_lookup] [-l level] [-d mdalg] [-g grade] [-p protocols] \\
\t[-A tafile] [-F CAfile.pem] [-P CApath/] [-s servername] \\
\t[ [-H chainfiles] | [-k certfile [-K keyfile]] ] \\
\t[-m count] [-r delay] [-o name=value] destination [match ...]"""


def main(argv: list[str] | None = None) -> int:
    """Probe a server; return the exit status."""
    try:
        given, words = getopt.getopt(sys.argv[1:] if argv is None else argv, LETTERS)
    except getopt.GetoptError as error:
        print(f"posttls-finger: {error.msg}", file=sys.stderr)
        words = []
    if not words:
        print(USAGE, file=sys.stderr)
        return 1
    try:
        asyncio.run(Finger(Options.of(given, words)).run())
    except (BadNextHop, ConfigError, NoAnswerError, NotPermittedError, Stop, ValueError) as problem:
        say(f"fatal: {problem}")
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads further, so the rest of the output is lost on purpose.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
