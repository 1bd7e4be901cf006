"""sendmail(1): hand over a message on standard input, and the commands that go by sendmail's name.

    sendmail [-C config_dir] [-i] [-t] [-v] [-f sender] [-F name] [-B type] [-N dsn] [-R what] [-V envid]
             [-O requiretls=yes|no] [recipient ...]
    sendmail -bv [-C config_dir] [-f sender] [recipient ...]
    sendmail -bs | -bp | -bi | -bd | -q[Iid|Rsite]          also mailq, newaliases

`-v`: the sender gets a report of the first delivery attempt; a second `-v` asks for more output instead. `-bv`: no text
is read and nothing is delivered, and the report says what would happen.
`-O requiretls=yes`: the message goes on as `smtp_requiretls_policy` allows (RFC 8689).

The message is a file in maildrop/ when the command ends with status 0, whether or not a mail system runs. Exit
statuses are those of sysexits.h: 64 usage, 65 bad data, 69 refused, 71 system error, 75 try again, 77 not allowed,
78 configuration.
"""

from __future__ import annotations

import os
import pwd
import sys
import time

from postillion.config import Config, ConfigError
from postillion.config.match_list import match_word

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType
    from typing import Final, Literal, NoReturn

READ_OCTETS: Final = 64 * 1024
VALUED: Final = "ABCFLNORVXbefhopqr"
"""Options with a value, in the same word or the next."""
PLAIN: Final = "GIUcimnstvx"
MODES: Final = "mspidlvhHa"
NOTIFY: Final = {"never": 1, "success": 2, "failure": 4, "delay": 8}
BODIES: Final = {"7bit": "7BIT", "8bitmime": "8BITMIME"}
RETURNS: Final = {"hdrs": "HDRS", "full": "FULL"}
ENVID_MAX_CHARS: Final = 100
RECORD_OVERHEAD: Final = 2
"""Maximum ratio of a file to its message: the head of a record is as long as the CRLF of a line."""
ENVELOPE_MAX_OCTETS: Final = 64 * 1024 * 1024


class Failure(Exception):
    """The command ends with this exit status (sysexits.h) and this text on standard error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request:
    """The command line, parsed. Raises `Failure` for a bad one."""

    def __init__(self, program: str, argv: list[str]) -> None:
        self.mode = {"mailq": "p", "newaliases": "i", "smtpd": "s"}.get(program, "m")
        self.config_directory: str | None = None
        self.sender: str | None = None
        self.full_name: str | None = None
        self.body = ""
        self.notify = 0
        self.ret = ""
        self.envid: str | None = None
        self.requiretls = False
        self.gateway = False
        self.extract = False
        self.dot_ends = True
        self.flush = ""
        self.verbose = int("MAIL_VERBOSE" in os.environ)
        self.recipients: list[str] = []
        self._words = argv
        self._at = 0
        self._parse()
        if self.mode == "s" and self.requiretls:
            raise Failure(os.EX_USAGE, "-O requiretls=yes cannot be used with -bs: the client asks for REQUIRETLS")
        if self.mode == "v":
            given = {"-t": self.extract, "-v": self.verbose, "-N": self.notify, "-R": self.ret}
            for option in (option for option, value in given.items() if value):
                raise Failure(os.EX_USAGE, f"{option} option cannot be used with -bv")

    @property
    def trace(self) -> Literal["", "record", "probe"]:
        """The report that the user asks for."""
        if self.mode == "v":
            return "probe"
        return "record" if self.verbose == 1 else ""

    def _parse(self) -> None:
        while self._at < len(self._words):
            word = self._words[self._at]
            self._at += 1
            if word == "-q":
                # The only option that may or may not have a value: then it is part of the word.
                self.mode = "q"
            elif len(word) < 2 or word[0] != "-" or word == "--":
                # Behind a recipient there are no options: the next recipients may come from a stranger.
                self.recipients += self._words[self._at - (word != "--") :]
                return
            else:
                self._letters(word)

    def _letters(self, word: str) -> None:
        for position, letter in enumerate(word[1:], 2):
            if letter in VALUED:
                value = word[position:]
                if not value:
                    if self._at == len(self._words):
                        raise Failure(os.EX_USAGE, f"option -{letter} needs a value")
                    value = self._words[self._at]
                    self._at += 1
                self._valued(letter, value)
                return
            if letter not in PLAIN:
                raise Failure(os.EX_USAGE, f"unknown option -{letter}; see sendmail(1)")
            self.gateway |= letter == "G"
            self.extract |= letter == "t"
            self.dot_ends &= letter != "i"
            self.verbose += letter == "v"
            if letter in "Is":
                self.mode = {"I": "i", "s": "s"}[letter]

    def _valued(self, letter: str, value: str) -> None:
        match letter:
            case "b":
                if value not in MODES:
                    raise Failure(os.EX_USAGE, f"unsupported: -b{value}")
                self.mode = {"l": "d", "a": "s"}.get(value, value)
            case "C":
                self.config_directory = value if os.path.isdir(value) else os.path.dirname(value) or "."
            case "f" | "r":
                self.sender = value
            case "F":
                self.full_name = value
            case "B":
                if value.lower() not in BODIES:
                    raise Failure(os.EX_USAGE, f"-B wants 7BIT or 8BITMIME, not {value}")
                self.body = BODIES[value.lower()]
            case "R":
                self.ret = RETURNS.get(value.lower(), "")
                if not self.ret:
                    warn(f"-R {value} is ignored: give hdrs or full")
            case "N":
                self.notify = notify_bits(value)
            case "V":
                if len(value) <= ENVID_MAX_CHARS and value.isprintable():
                    self.envid = value
                else:
                    warn(f"-V is ignored: give at most {ENVID_MAX_CHARS} printable characters")
            case "q":
                self._queue(value)
            case "o":
                self._old_option(value)
            case "O":
                self._option(value)
            case _:
                pass  # -A, -L, -X, -e, -h, -p have no effect here.

    def _queue(self, value: str) -> None:
        if value[:1].isdigit():
            return  # The parameter queue_run_delay sets the interval.
        if value[:1] not in ("I", "R") or len(value) < 2:
            raise Failure(os.EX_USAGE, f"-q{value[:1]} is not implemented")
        self.mode, self.flush = "q", value

    def _option(self, value: str) -> None:
        if "requiretls" not in value.lower():
            return
        name, _, word = value.lower().partition("=")
        if name != "requiretls" or word not in ("yes", "no"):
            # A request that is not understood must not become mail in the clear.
            raise Failure(os.EX_USAGE, f"-O {value}: give requiretls=yes or requiretls=no, and other options apart")
        self.requiretls = word == "yes"

    def _old_option(self, value: str) -> None:
        if value == "i":
            self.dot_ends = False
        elif len(value) == 1 and value not in "im78" and self._words[self._at : self._at + 1]:
            # -o x value
            self._at += not self._words[self._at].startswith("-")


def notify_bits(text: str) -> int:
    """Return the NOTIFY= bits of a list such as `failure,delay` (RFC 3461 §4.1); as in Postfix, 0 for a bad list."""
    words = [word.strip().lower() for word in text.split(",")]
    if any(word not in NOTIFY for word in words) or ("never" in words and len(words) > 1):
        warn(f"-N {text} is ignored: give never, or some of success, failure and delay")
        return 0
    return sum({NOTIFY[word] for word in words})


def warn(text: str) -> None:
    """Print a warning on standard error."""
    print(f"sendmail: warning: {text}", file=sys.stderr)


def main(argv: list[str] | None = None, program: str | None = None) -> int:
    """Do what the command line asks for; return the exit status."""
    program = program or os.path.basename(sys.argv[0])
    try:
        return run(Request(program, sys.argv[1:] if argv is None else argv))
    except Failure as failure:
        status, text = failure.status, str(failure)
    except ConfigError as error:
        status, text = os.EX_CONFIG, str(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        status, text = os.EX_TEMPFAIL, f"queue file write error: {where}{error.strerror}"
    except KeyboardInterrupt:
        status, text = os.EX_TEMPFAIL, "interrupted"
    print(f"sendmail: fatal: {text}", file=sys.stderr)
    return status


def run(request: Request) -> int:
    """Do what is asked for; return the exit status. Raises `Failure`, `ConfigError`, `OSError`."""
    where = [] if request.config_directory is None else ["-c", request.config_directory]
    match request.mode:
        case "p":
            from postillion.commands.postqueue import main as postqueue

            return postqueue([*where, "-p"])
        case "q":
            from postillion.commands.postqueue import main as postqueue

            what = {"": ["-f"], "I": ["-i", request.flush[1:]], "R": ["-s", request.flush[1:]]}[request.flush[:1]]
            return postqueue([*where, *what])
        case "i":
            from postillion.commands.newaliases import main as newaliases

            return newaliases(where)
        case "d":
            from postillion.commands.postillion import main as postillion

            return postillion([*where, "start"])
        case "s":
            stand_alone(where)
        case "m" | "v":
            return submit(request, Config.load(request.config_directory))
    return os.EX_OK  # -bh, -bH: there is no host status to show


def stand_alone(where: list[str]) -> NoReturn:
    """Become an SMTP server on standard input and output."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", "postillion.smtpd", "-S", *where])  # noqa: S606 - no shell is wanted


def submit(request: Request, config: Config) -> int:
    """Write the message on standard input, or a probe, into maildrop/; return the exit status."""
    import signal

    from postillion._core.pickup import HeaderRecipients, MaildropWriter, maildrop_envelope
    from postillion.pickup.submit import MaildropFile, TooBig, trigger

    account = authorized(config)
    recipients = addresses(request.recipients)
    if not recipients and not request.extract:
        raise Failure(os.EX_USAGE, "Recipient addresses must be specified on the command line or via the -t option")
    limit = config.number("message_size_limit")
    line_endings = config.text("sendmail_fix_line_endings")
    os.chdir(config.text("queue_directory"))
    for ending in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, interrupted)
    from_address = sender(request, account)
    requiretls = request.requiretls and config.flag("requiretls_enable")
    if request.requiretls and not requiretls:
        warn("-O requiretls=yes is ignored: main.cf has requiretls_enable = no")
    file = MaildropFile(limit * RECORD_OVERHEAD + ENVELOPE_MAX_OCTETS if limit else 0)
    try:
        file.write(
            maildrop_envelope(
                from_address,
                [(address, None, None, request.notify) for address in recipients],
                wall_now=time.time(),
                full_name=full_name(request, account),
                body=request.body,
                ret=request.ret,
                envid=xtext(request.envid),
                trace=request.trace,
                requiretls=requiretls,
                remote=request.gateway,
            )
        )
        is_probe = request.trace == "probe"
        writer = MaildropWriter(dot_ends=request.dot_ends and not is_probe, line_endings=line_endings)
        if is_probe:
            file.write(writer.feed(probe(from_address, request.recipients))[0])
        headers = HeaderRecipients() if request.extract else None
        octets = 0
        while not is_probe and (data := os.read(0, READ_OCTETS)):
            # As cleanup will count them: with CRLF at the end of each line.
            octets += len(data) + data.count(b"\n") - data.count(b"\r\n")
            if limit and octets > limit:
                raise TooBig
            if headers is not None:
                headers.feed(data)
            records, goes_on = writer.feed(data)
            file.write(records)
            if not goes_on:
                break
        found = [] if headers is None else headers.finish()
        if not found and not recipients:
            raise Failure(os.EX_USAGE, "No recipient addresses found in message header")
        file.write(writer.finish([(address, None, None, request.notify) for address in found]))
        file.complete()
    except TooBig:
        raise Failure(os.EX_UNAVAILABLE, f"message file too big: more than {limit} octets") from None
    except ValueError as problem:
        raise Failure(os.EX_DATAERR, str(problem)) from None
    finally:
        file.close()
    if not trigger() and request.verbose:
        warn("nobody listens on public/pickup: the message waits in maildrop")
    if request.trace:
        print(f"Mail Delivery Status Report will be mailed to <{from_address}>.")
    return os.EX_OK


def probe(from_address: str, recipients: Iterable[str]) -> bytes:
    """Return the text of a probe. Each word of the command line has a line in `To:`."""
    head = f"From: {from_address}\n" if from_address else ""
    text = f"{head}Subject: probe\nTo:" + ",\n".join(f"\t{word}" for word in recipients) + "\n"
    return os.fsencode(text)


def interrupted(number: int, _frame: FrameType | None) -> NoReturn:
    """Raise `Failure` for a signal, so that the incomplete file is removed."""
    import signal

    raise Failure(os.EX_TEMPFAIL, f"ended by {signal.Signals(number).name}")


def authorized(config: Config) -> pwd.struct_passwd | None:
    """Return the invoking user's account, None when there is none. Raises `Failure` if they may not submit mail."""
    try:
        account = pwd.getpwuid(os.getuid())
    except KeyError:
        account = None
    name = account.pw_name if account is not None else str(os.getuid())
    for pattern in config.items("authorized_submit_users"):
        allowed, bare = match_word(pattern)
        if matches(bare, name, config):
            if allowed:
                return account
            break
    raise Failure(os.EX_NOPERM, f"User {name}({os.getuid()}) is not allowed to submit mail")


def matches(pattern: str, name: str, config: Config) -> bool:
    """Return whether a word of `authorized_submit_users` names a user: a name, or a table that has it."""
    if pattern.startswith("static:"):
        return True
    if ":" not in pattern:
        return pattern == name
    from postillion.tables import TableError, open_word
    from postillion.tables.deferred import completed

    table = open_word("authorized_submit_users", pattern, config)
    try:
        return completed(lambda: table.lookup(name)) is not None
    except TableError as problem:
        raise Failure(os.EX_TEMPFAIL, f"authorized_submit_users: {problem}") from None


def addresses(words: Iterable[str]) -> list[str]:
    """Return the addresses in the words of the command line, each of which may be a list."""
    from postillion._core.pickup import parse_addresses

    found: list[str] = []
    for word in words:
        try:
            found += parse_addresses(word)
        except UnicodeEncodeError:
            raise Failure(os.EX_DATAERR, f"no address: {word!a}") from None
    return found


def sender(request: Request, account: pwd.struct_passwd | None) -> str:
    """Return the envelope sender: what `-f` says, or the user. `-f ""` and `-f "<>"`: the null sender."""
    if request.sender is not None:
        return next(iter(addresses([request.sender])), "")
    if account is None:
        raise Failure(os.EX_OSERR, f"unable to find local user name for uid {os.getuid()}; give -f")
    return account.pw_name


def full_name(request: Request, account: pwd.struct_passwd | None) -> str:
    """Return the name for a From: header: `-F`, `$NAME`, or what the account says."""
    name = request.full_name if request.full_name is not None else os.environ.get("NAME")
    if name is None and account is not None:
        # In the comment field `&` stands for the login name.
        name = account.pw_gecos.partition(",")[0].replace("&", account.pw_name.capitalize())
    return os.fsencode(name or "").decode("utf-8", "replace")


def xtext(envid: str | None) -> str | None:
    """Return an envelope ID in its xtext form (RFC 3461 §4)."""
    if envid is None:
        return None
    plain = set(range(33, 127)) - {ord("+"), ord("=")}
    return "".join(chr(octet) if octet in plain else f"+{octet:02X}" for octet in os.fsencode(envid))


if __name__ == "__main__":
    raise SystemExit(main())
