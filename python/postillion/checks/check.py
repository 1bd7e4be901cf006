"""Checks: the objects that decide about a client, and the verdicts that they return.

    core: "RCPT?" -> Connection asks each check in turn: rate limits, restriction lists, the site's handler
                  <- the first refusal, or the last reply that accepts

A check answers a stage of the dialogue with a `Verdict`, at once or later: an awaitable becomes a task. A check that
cannot decide refuses for now (451). An exception in a check is a bug: the connection replies 451 in its place.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Final, Literal, NamedTuple, Protocol

from postillion.checks.reply import Reply
from postillion.config import Config

Stage = Literal["connect", "helo", "mail", "rcpt", "vrfy", "data", "end_of_data", "rset", "noop", "quit", "auth"]
"""A point of the dialogue, by the name of the check's method."""


class Rule(NamedTuple):
    """The rule that decided: a restriction, a limit or a hook; file and line where it is written."""

    name: str
    path: str = ""
    line: int | None = None

    @classmethod
    def of(cls, config: Config, parameter: str, name: str | None = None) -> Rule:
        """Return a rule that a parameter of main.cf names; by default the parameter itself is the rule."""
        setting = config.setting(parameter)
        path, line = (config.path, None) if setting is None else (setting.path, setting.line)
        return cls(name or parameter, path, line)


Listing = Literal["all", "aliases", "local", "relay", "virtual"]
"""The recipients of a domain that exist: all, those that aliases change, or these and those in the table of a class."""


class Remember(NamedTuple):
    """Accept `scope`, a recipient or `@domain`, without asking for some seconds, from clients of the same group.

    `listing`: the recipients of the domain that are accepted.
    """

    scope: str
    listing: Listing = "all"


class Authenticate(NamedTuple):
    """Authenticate the client as this user, if the reply is 235."""

    method: str
    user: str


class Dismiss(NamedTuple):
    """Close the connection with the reply; the check has logged the reason."""


class CompleteHeaders(NamedTuple):
    """Complete the headers of the client's messages as those of local mail (local_header_rewrite_clients)."""


Action = Remember | Authenticate | Dismiss | CompleteHeaders


class Verdict(NamedTuple):
    """An answer to a question of the dialogue.

    `reply` None: accept, with the dialogue's own reply. `actions`: further work, once every check accepts or with the
    refusal. `rule`: the rule that decided; None without one.
    """

    reply: Reply | None = None
    actions: tuple[Action, ...] = ()
    rule: Rule | None = None

    @property
    def refuses(self) -> bool:
        """Whether the client's command fails."""
        return self.reply is not None and self.reply.refuses

    def then(self, later: Verdict) -> Verdict:
        """Return this acceptance together with the verdict of a check that was asked later."""
        if self is ACCEPT or later.refuses:
            return later
        if later is ACCEPT:
            return self
        return Verdict(later.reply or self.reply, self.actions + later.actions, later.rule or self.rule)


ACCEPT: Final = Verdict()
Answer = Verdict | Awaitable[Verdict]


class Client(Protocol):
    """The facts about a client before the dialogue."""

    @property
    def address(self) -> str:
        """The IP address."""
        ...

    @property
    def name(self) -> str:
        """The verified host name, or `unknown`."""
        ...

    @property
    def reverse_name(self) -> str:
        """The host name of the address, verified or not, or `unknown`."""
        ...

    @property
    def trusted(self) -> bool:
        """Whether the client is in mynetworks."""
        ...

    @property
    def inside(self) -> bool:
        """Whether the address is one of this system's own."""
        ...


class Dialogue(Protocol):
    """The dialogue so far; see `postillion._core.smtpd.SmtpdSession`."""

    @property
    def helo(self) -> str | None:
        """The name in HELO or EHLO; None before it."""
        ...

    @property
    def extended(self) -> bool:
        """Whether the client said EHLO."""
        ...

    @property
    def ehlo_text(self) -> str:
        """The reply to EHLO: the host's name, then one keyword in each line, without codes."""
        ...

    @property
    def sender(self) -> str | None:
        """The reverse path, accepted or in question; None before MAIL."""
        ...

    @property
    def mail_parameters(self) -> list[str]:
        """The parameters of MAIL: `SIZE=5`, `BODY=8BITMIME`."""
        ...

    @property
    def recipient(self) -> str | None:
        """The recipient in question."""
        ...

    @property
    def unlisted(self) -> str | None:
        """The listing (`Listing`) whose tables the core has asked in vain about the recipient; None for none."""
        ...

    @property
    def rcpt_parameters(self) -> list[str]:
        """The parameters of the RCPT in question."""
        ...

    @property
    def recipients(self) -> list[str]:
        """The accepted recipients."""
        ...

    @property
    def recipient_count(self) -> int:
        """The number of accepted recipients."""
        ...

    @property
    def transactions(self) -> int:
        """The number of accepted MAIL commands."""
        ...

    @property
    def talked_early(self) -> bool:
        """Whether the client sent a command before the reply that it must wait for."""
        ...

    @property
    def authenticated(self) -> bool:
        """Whether the client is authenticated."""
        ...

    @property
    def certificate(self) -> tuple[str, str, bool] | None:
        """The TLS certificate that the client has shown; None without one.

        Its fingerprint, that of its public key, and whether a trusted authority has issued it.
        """
        ...

    @property
    def argument(self) -> str:
        """The argument of the command in question."""
        ...

    @property
    def group(self) -> int | None:
        """The group whose accepted recipients are remembered for the client; None without one."""
        ...

    def content(self) -> bytes:
        """Return the message in question."""
        ...


class NoDialogue:
    """A dialogue that has not begun."""

    helo: str | None = None
    extended: bool = False
    ehlo_text: str = ""
    sender: str | None = None
    mail_parameters: list[str] = []  # noqa: RUF012
    recipient: str | None = None
    unlisted: str | None = None
    rcpt_parameters: list[str] = []  # noqa: RUF012
    recipients: list[str] = []  # noqa: RUF012
    recipient_count: int = 0
    transactions: int = 0
    talked_early: bool = False
    authenticated: bool = False
    certificate: tuple[str, str, bool] | None = None
    argument: str = ""
    group: int | None = None

    def content(self) -> bytes:
        """Return no octets: there is no message."""
        return b""


class Check(Protocol):
    """Decides about a client, in the stages that `stages` names; a subclass overrides the methods of these stages."""

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages in which this check is asked."""
        ...

    @property
    def remembers(self) -> bool:
        """Whether an accepted recipient may be accepted again, for some seconds, without asking this check."""
        ...

    def connect(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide whether to greet the client. A 421 with `Dismiss` closes; another refusal replaces the greeting."""
        return ACCEPT

    def helo(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide about the name in HELO or EHLO, `dialogue.helo`."""
        return ACCEPT

    def mail(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide about the sender, `dialogue.sender`."""
        return ACCEPT

    def rcpt(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide about a recipient, `dialogue.recipient`."""
        return ACCEPT

    def vrfy(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide whether VRFY of `dialogue.recipient` is allowed."""
        return ACCEPT

    def data(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide whether content may follow."""
        return ACCEPT

    def end_of_data(self, client: Client, dialogue: Dialogue) -> Answer:
        """Decide whether the whole message, `dialogue.content()`, is queued."""
        return ACCEPT

    def rset(self, client: Client, dialogue: Dialogue) -> Answer:
        """Return the reply to RSET. The transaction ends in any case."""
        return ACCEPT

    def noop(self, client: Client, dialogue: Dialogue) -> Answer:
        """Return the reply to NOOP."""
        return ACCEPT

    def quit(self, client: Client, dialogue: Dialogue) -> Answer:
        """Return the reply to QUIT. The session ends in any case."""
        return ACCEPT

    def auth(self, client: Client, dialogue: Dialogue) -> Answer:
        """Answer AUTH or a line of its exchange, `dialogue.argument`: 334 is a challenge, 235 a success."""
        return ACCEPT

    def gone(self) -> None:
        """Forget the client: its connection is closed."""
        return
