"""A template of a notification: its header fields, and its text with the parameters of main.cf (bounce(5)).

| template | notification | `Postmaster-Subject` |
|---|---|---|
| failure | mail that was not delivered | yes |
| delay | mail that waits | yes |
| success | mail that was delivered | no |
| verify | the report of an attempt (`sendmail -bv`, `-v`) | no |

In the text, `$name` is a parameter of main.cf, and `$$` a dollar. `$delay_warning_time_hours` and similar names are a
time in a unit, rounded down. `$myhostname` and `$mydomain` are in UTF-8 with `smtputf8_enable`. A reference ends in its
line.

Texts are `str` with surrogates for octets that are not UTF-8: their charset is that of the template.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from postillion.config import ConfigError, domain, expansion, parameters
from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from postillion.config import Config

FAILURE, DELAY, SUCCESS, VERIFY = NAMES = ("failure", "delay", "success", "verify")
WITH_POSTMASTER_SUBJECT = (FAILURE, DELAY)
US_ASCII = "us-ascii"
UNIVERSAL = ("utf-8", US_ASCII)
"""Charsets of a text that may have UTF-8: with us-ascii, the notification says utf-8 where it needs this."""
EXPANDED_MAX_OCTETS = 256 * 1024
"""Maximum size of a template's text, before and with the values of its parameters."""
TIMES = ("delay_warning_time", "maximal_queue_lifetime")
"""Parameters whose value a text may have in a unit."""
UNITS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86_400, "weeks": 604_800}
COUNT_MAX = 999
"""Maximum of a time in a unit, without a warning that a larger unit reads better."""
DOMAINS = ("myhostname", "mydomain")
MARKER = "EOF"
QUOTED_CHARS = 60


@dataclass(frozen=True)
class Template:
    """A template. `text`: its lines, each with its LF. `path`, `line`: the place of the first line of the text.

    `sender`: the field From. `postmaster_subject`: the subject of copies for the postmaster; None: that of the sender.
    """

    name: str
    text: str
    subject: str
    postmaster_subject: str | None = None
    sender: str = "Mail Delivery System <MAILER-DAEMON>"
    charset: str = US_ASCII
    path: str = "built-in template"
    line: int | None = None

    def subject_of(self, *, postmaster_copy: bool) -> str:
        """Return the subject of the notification, or of its copy for the postmaster."""
        return (postmaster_copy and self.postmaster_subject) or self.subject

    def octets(self) -> bytes:
        """Return the text in its charset."""
        return self.text.encode("utf-8", "surrogateescape")

    def is_universal(self) -> bool:
        """Return whether UTF-8 may follow the text."""
        return self.charset.casefold() in UNIVERSAL

    def printed(self) -> str:
        """Return the template as a file has it, with a marker that is no line of the text."""
        fields = [f"Charset: {self.charset}", f"From: {self.sender}", f"Subject: {self.subject}"]
        if self.postmaster_subject is not None:
            fields.append(f"Postmaster-Subject: {self.postmaster_subject}")
        return _here_document(f"{self.name}_template", "\n".join(fields) + "\n\n" + self.text)

    def printed_text(self) -> str:
        """Return the text as `postconf -b` prints it."""
        return _here_document(f"expanded_{self.name}_text", self.text)

    def expanded(self, config: Config, warn: Callable[[str], None]) -> Template:
        """Return the template with the values of the parameters in its text. `warn` gets a text for each odd time.

        Raises `ConfigError` at the line with an unknown name or a bad reference, and for a text that gets too large.
        """
        values = _Values(self, config, warn)
        lines: list[str] = []
        if len(self.octets()) > EXPANDED_MAX_OCTETS:
            raise self._too_large(self.line)
        size = 0
        for number, line in enumerate(self.text.split("\n")):
            values.line = None if self.line is None else self.line + number
            lines.append(values.expanded(line))
            size += len(lines[-1].encode("utf-8", "surrogateescape")) + 1
            if size > EXPANDED_MAX_OCTETS:
                raise self._too_large(values.line)
        return replace(self, text="\n".join(lines))

    def _too_large(self, line: int | None) -> ConfigError:
        problem = f"the {self.name} template is larger than {EXPANDED_MAX_OCTETS} octets with its parameters"
        return ConfigError(self.path, line, problem, "shorten it")


class _Values:
    """The values that the names in a text have."""

    def __init__(self, template: Template, config: Config, warn: Callable[[str], None]) -> None:
        self._template = template
        self._config = config
        self._warn = warn
        self._found: dict[str, str | None] = {}
        self.line: int | None = None

    def expanded(self, line: str) -> str:
        """Return a line with its references replaced. Raises `ConfigError`."""
        try:
            return expansion.expand(line, self._value, strict=True)
        except expansion.ExpansionError as error:
            raise self._error(str(error), error.fix) from None

    def _value(self, name: str) -> str | None:
        """Return the value of a name, with `$$` for a dollar; None for an unknown name."""
        if name not in self._found:
            value = self._read(name)
            self._found[name] = None if value is None else value.replace("$", "$$")
        return self._found[name]

    def _read(self, name: str) -> str | None:
        for time in TIMES:
            if name.startswith(time + "_"):
                return self._time(time, name)
        config = self._config
        try:
            # A notification goes to strangers: no password is in it.
            value = config.shown(name, config.raw(name), expanded=not parameters.is_raw(name))
        except KeyError:
            return None
        if name in DOMAINS and self._template.is_universal() and config.flag("smtputf8_enable"):
            return domain.to_unicode(value)
        return value

    def _time(self, time: str, name: str) -> str:
        """Return a time in the unit at the end of a name."""
        unit = name.removeprefix(time + "_")
        if unit not in UNITS:
            raise self._error(f'"{name}": unknown unit "{unit}"', f"give one of {', '.join(UNITS)}")
        seconds = int(self._config.seconds(time))
        count = seconds // UNITS[unit]
        if count > COUNT_MAX or (seconds and not count):
            than = "a larger" if count else "a smaller"
            problem = f"${name} in the {self._template.name} template is {count}"
            self._warn(str(ConfigError(self._template.path, self.line, problem, f"name {than} unit")))
        return str(count)

    def _error(self, problem: str, fix: str) -> ConfigError:
        problem = printable(f"{self._template.name} template: {problem}")
        return ConfigError(self._template.path, self.line, problem, fix)


def expanded(templates: Mapping[str, Template], config: Config, warn: Callable[[str], None]) -> dict[str, Template]:
    """Return the templates of notifications, by name, with the values of their parameters.

    A template that cannot be expanded gives a warning, and the built-in one takes its place. `ConfigError`: a value of
    main.cf that the built-in one needs is bad.
    """
    found = {}
    for name in NAMES:
        template = templates[name]
        try:
            found[name] = template.expanded(config, _say_nothing if template is BUILT_IN[name] else warn)
        except ConfigError as error:
            if template is BUILT_IN[name]:
                raise
            warn(f"{error} (the built-in text of the {name} template is used)")
            found[name] = BUILT_IN[name].expanded(config, _say_nothing)
    return found


def quoted(text: str) -> str:
    """Return a part of a template for an error."""
    return printable(text if len(text) <= QUOTED_CHARS else text[:QUOTED_CHARS] + "...")


def _say_nothing(text: str) -> None:
    """Drop a warning about a text that no site wrote."""


def _here_document(name: str, text: str) -> str:
    lines = set(text.split("\n"))
    marker, count = MARKER, 0
    while marker in lines:
        count += 1
        marker = f"{MARKER}{count}"
    return f"{name} = <<{marker}\n{text}{marker}\n"


_HELP = "\nIf you need help, write to postmaster, and include this report.\n\n                   The mail system\n"
_HOST = "This is the mail system at host $myhostname.\n\n"

BUILT_IN = {
    template.name: template
    for template in (
        Template(
            FAILURE,
            f"""\
{_HOST}Your message could not be delivered to one or more of its recipients, and no
further attempt will be made. The reason for each is given below. The message
itself, or its headers, follows as an attachment.
{_HELP}""",
            "Undelivered Mail Returned to Sender",
            "Postmaster Copy: Undelivered Mail",
        ),
        Template(
            DELAY,
            f"""\
{_HOST}####################################################################
# This is a warning only. There is no need to send the mail again. #
####################################################################

Your message could not be delivered yet to one or more of its recipients.
Delivery is tried again until the message is $maximal_queue_lifetime_hours hour(s) old; you
will hear if that fails as well.
{_HELP}""",
            "Delayed Mail (still being retried)",
            "Postmaster Warning: Delayed Mail",
        ),
        Template(
            SUCCESS,
            f"""\
{_HOST}Your message was delivered to the recipients below, or was handed to a mail
system that sends no reports of its own.
{_HELP}""",
            "Successful Mail Delivery Report",
        ),
        Template(
            VERIFY,
            f"""\
{_HOST}This is the report on the delivery of your mail that you asked for.

                   The mail system
""",
            "Mail Delivery Status Report",
        ),
    )
}
"""The templates of a site without a file of its own. Programs parse the subjects, which are Postfix's."""
