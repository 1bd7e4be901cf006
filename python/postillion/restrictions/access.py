"""The restriction lists of main.cf: who may send what to whom (SMTPD_ACCESS_README, postconf(5)).

Lists are turned into functions once, when the program starts; a name that is none of a restriction stops it there.
A restriction says OK (this list is done), a `Reply` (refused), or None (ask the next one). With smtpd_delay_reject,
the lists for client, HELO and sender are asked at RCPT, so that the log can say whom the refused mail was for.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from postillion.address.classes import FINAL, Class
from postillion.address.destination import Destination, Destinations
from postillion.config import Config, ConfigError
from postillion.tables import Maps, TableError, open_maps
from postillion.tables.lists import NetworkList

POSTMASTER: Final = "postmaster"
"""Always accepted without a domain (RFC 5321 §4.5.1)."""
KNOWN_FOR_S: Final = 10.0
"""A user who was there is not looked up again for so long; one who was not is, every time."""
KNOWN_MAX: Final = 10_000
LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


class Reply(NamedTuple):
    """A refusal: SMTP code, enhanced status code, text."""

    code: int
    dsn: str
    text: str


class Ok:
    """The verdict that ends a list in the client's favour."""


OK: Final = Ok()
Verdict = Reply | Ok | None


class Client(Protocol):
    """What is known of a client before it says anything."""

    @property
    def address(self) -> str:
        """The IP address."""

    @property
    def name(self) -> str:
        """The verified host name, or "unknown"."""

    @property
    def reverse_name(self) -> str:
        """The host name of the address, verified or not, or "unknown"."""

    @property
    def trusted(self) -> bool:
        """Whether the client is in mynetworks."""

    @property
    def inside(self) -> bool:
        """Whether the address is one of this system's own."""


class Dialogue(Protocol):
    """What the dialogue knows; `postillion._core.smtpd.SmtpdSession` does."""

    @property
    def helo(self) -> str | None:
        """The name in HELO or EHLO."""

    @property
    def sender(self) -> str | None:
        """The reverse path."""

    @property
    def recipient(self) -> str | None:
        """The forward path that is asked about."""

    @property
    def recipient_count(self) -> int:
        """How many recipients were accepted."""

    @property
    def talked_early(self) -> bool:
        """Whether the client sent commands before it was allowed to."""

    @property
    def authenticated(self) -> bool:
        """Whether AUTH has succeeded."""


class Request:
    """One question: the client, the dialogue as far as it went, and what it is about.

    `subject` and `noun` name that in replies: `<x@example.org>: Recipient address rejected`.
    """

    __slots__ = ("client", "dialogue", "noun", "recipient", "sender", "subject")

    def __init__(self, client: Client, dialogue: Dialogue, recipient: str = "") -> None:
        self.client = client
        self.dialogue = dialogue
        self.recipient = recipient
        self.sender = dialogue.sender or ""
        self.subject = recipient
        self.noun = "Recipient address"

    def about(self, stage: str) -> None:
        """The next restrictions are of this stage."""
        if stage == "recipient":
            self.subject, self.noun = self.recipient, "Recipient address"
        elif stage == "sender":
            self.subject, self.noun = self.sender, "Sender address"
        elif stage == "helo":
            self.subject, self.noun = self.dialogue.helo or "", "Helo command"
        elif stage == "data":
            self.subject, self.noun = "DATA", "Data command"
        else:
            self.subject, self.noun = f"{self.client.name}[{self.client.address}]", "Client host"

    def rejected(self, code: int, dsn: str, why: str) -> Reply:
        """A refusal of what the question is about."""
        return Reply(code, dsn, f"<{self.subject}>: {self.noun} rejected: {why}")


Check = Callable[[Request], Verdict]

REPLY_CODES = (
    "reject_code",
    "defer_code",
    "relay_domains_reject_code",
    "non_fqdn_reject_code",
    "invalid_hostname_reject_code",
    "unknown_client_reject_code",
    "multi_recipient_bounce_reject_code",
)

WORKING = ("reject_unauth_destination", "defer_unauth_destination", "reject", "defer")
"""One of these must stand in the relay or recipient list, or the server would relay for everybody."""

NOT_YET = frozenset(
    {
        "check_ccert_access",
        "check_client_a_access",
        "check_client_access",
        "check_client_mx_access",
        "check_client_ns_access",
        "check_etrn_access",
        "check_helo_a_access",
        "check_helo_access",
        "check_helo_mx_access",
        "check_helo_ns_access",
        "check_policy_service",
        "check_recipient_a_access",
        "check_recipient_access",
        "check_recipient_mx_access",
        "check_recipient_ns_access",
        "check_reverse_client_hostname_a_access",
        "check_reverse_client_hostname_access",
        "check_reverse_client_hostname_mx_access",
        "check_reverse_client_hostname_ns_access",
        "check_sasl_access",
        "check_sender_a_access",
        "check_sender_access",
        "check_sender_mx_access",
        "check_sender_ns_access",
        "defer_if_permit",
        "defer_if_reject",
        "permit_dnswl_client",
        "permit_mx_backup",
        "permit_rhswl_client",
        "permit_tls_all_clientcerts",
        "permit_tls_clientcerts",
        "reject_authenticated_sender_login_mismatch",
        "reject_known_sender_login_mismatch",
        "reject_plaintext_session",
        "reject_rbl",
        "reject_rbl_client",
        "reject_rhsbl_client",
        "reject_rhsbl_helo",
        "reject_rhsbl_recipient",
        "reject_rhsbl_reverse_client",
        "reject_rhsbl_sender",
        "reject_sender_login_mismatch",
        "reject_unauthenticated_sender_login_mismatch",
        "reject_unknown_address",
        "reject_unknown_helo_hostname",
        "reject_unknown_hostname",
        "reject_unknown_recipient_domain",
        "reject_unknown_sender_domain",
        "reject_unlisted_sender",
        "reject_unverified_recipient",
        "reject_unverified_sender",
        "sleep",
        "warn_if_reject",
    }
)
"""Restrictions of Postfix that are not there yet. To skip one silently would let mail in that a site refuses."""

BY_CLIENT_AND_RECIPIENT: Final = frozenset(
    {
        "permit",
        "reject",
        "defer",
        "permit_mynetworks",
        "permit_inet_interfaces",
        "permit_auth_destination",
        "permit_sasl_authenticated",
        "reject_unauth_destination",
        "defer_unauth_destination",
        "reject_unlisted_recipient",
        "check_recipient_maps",
        "reject_non_fqdn_recipient",
        "reject_unknown_client_hostname",
        "reject_unknown_client",
        "reject_unknown_reverse_client_hostname",
    }
)
"""Restrictions that look at the recipient and at what `Client.group` tells of the client, and at nothing else."""

REMOVED = {
    "permit_naked_ip_address": "permit_mynetworks or permit_sasl_authenticated",
    "reject_maps_rbl": "reject_rbl_client and a domain",
    "check_relay_domains": "permit_mynetworks, reject_unauth_destination",
}
"""Restrictions that Postfix has no more, and what it says to use."""


class Access:
    """The lists of one site, ready to be asked. Each question is answered by a `Reply` to refuse, None to accept."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        """Read the lists. Raises `ConfigError` naming the restriction or the missing one."""
        self._config = config
        self._warn = warn
        self.destinations = Destinations(config)
        self.mynetworks = NetworkList("mynetworks", config)
        self.own_addresses = self.destinations.classes.own_addresses
        self._known_users = KnownUsers(config, warn)
        self._code = {name: config.number(name) for name in REPLY_CODES}
        self._checks: dict[str, Check] = {
            "permit": lambda _: OK,
            "reject": lambda r: r.rejected(self._code["reject_code"], "5.7.1", "Access denied"),
            "defer": lambda r: r.rejected(self._code["defer_code"], "4.3.2", "Try again later"),
            "permit_mynetworks": lambda r: OK if r.client.trusted else None,
            "permit_inet_interfaces": lambda r: OK if r.client.inside else None,
            "permit_sasl_authenticated": lambda r: OK if r.dialogue.authenticated else None,
            "reject_unauth_pipelining": self._reject_unauth_pipelining,
            "reject_multi_recipient_bounce": self._reject_multi_recipient_bounce,
            "reject_unknown_client_hostname": self._reject_unknown_client_hostname,
            "reject_unknown_client": self._reject_unknown_client_hostname,
            "reject_unknown_reverse_client_hostname": self._reject_unknown_reverse_client_hostname,
            "reject_invalid_helo_hostname": self._reject_invalid_helo_hostname,
            "reject_invalid_hostname": self._reject_invalid_helo_hostname,
            "reject_non_fqdn_helo_hostname": self._reject_non_fqdn_helo_hostname,
            "reject_non_fqdn_hostname": self._reject_non_fqdn_helo_hostname,
            "reject_non_fqdn_sender": self._reject_non_fqdn_sender,
            "reject_non_fqdn_recipient": self._reject_non_fqdn_recipient,
            "permit_auth_destination": lambda r: OK if self._is_ours(r.recipient) else None,
            "reject_unauth_destination": lambda r: (
                None if self._is_ours(r.recipient) else self._relay_denied(r, self._code["relay_domains_reject_code"])
            ),
            "defer_unauth_destination": lambda r: None if self._is_ours(r.recipient) else self._relay_denied(r, 454),
            "reject_unlisted_recipient": self._reject_unlisted_recipient,
            "check_recipient_maps": self._reject_unlisted_recipient,
        }
        client, helo = self._list("smtpd_client_restrictions"), self._list("smtpd_helo_restrictions")
        sender = self._list("smtpd_sender_restrictions")
        self._data = self._list("smtpd_data_restrictions")
        relay, recipient = self._list("smtpd_relay_restrictions"), self._list("smtpd_recipient_restrictions")
        self._require_relay_control()
        delay = config.flag("smtpd_delay_reject")
        relay_first = config.flag("smtpd_relay_before_recipient_restrictions")
        early = [("client", client), ("helo", helo), ("sender", sender)]
        late = [("recipient", relay), ("recipient", recipient)]
        stages = (early if delay else []) + (late if relay_first else late[::-1])
        self._at_rcpt = [(stage, checks) for stage, checks in stages if checks]
        self._at_connect, self._at_helo, self._at_mail = ([], [], []) if delay else (client, helo, sender)
        self._checks_unlisted = config.flag("smtpd_reject_unlisted_recipient")
        at_rcpt = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"]
        if delay:
            at_rcpt += ["smtpd_client_restrictions", "smtpd_helo_restrictions", "smtpd_sender_restrictions"]
        named = {word.lower() for parameter in at_rcpt for word in config.items(parameter)}
        self.remembers = named <= BY_CLIENT_AND_RECIPIENT
        """A recipient that was accepted may be accepted again, for a while, from a client of the same group."""
        self.asks_connect = bool(self._at_connect)
        self.asks_helo = bool(self._at_helo)
        self.asks_mail = bool(self._at_mail)
        self.asks_data = bool(self._data)

    def connect(self, client: Client, dialogue: Dialogue) -> Reply | None:
        """May this client talk? Only with smtpd_delay_reject = no."""
        return self._ask("client", self._at_connect, Request(client, dialogue))

    def helo(self, client: Client, dialogue: Dialogue) -> Reply | None:
        """May it call itself so?"""
        return self._ask("helo", self._at_helo, Request(client, dialogue))

    def mail(self, client: Client, dialogue: Dialogue) -> Reply | None:
        """May it send in this name?"""
        return self._ask("sender", self._at_mail, Request(client, dialogue))

    def data(self, client: Client, dialogue: Dialogue) -> Reply | None:
        """May content follow?"""
        return self._ask("data", self._data, Request(client, dialogue))

    def rcpt(self, client: Client, dialogue: Dialogue, recipient: str) -> Reply | None:
        """May it send to `recipient`?"""
        if recipient.lower() == POSTMASTER:
            return None
        request = Request(client, dialogue, recipient)
        for stage, checks in self._at_rcpt:
            refusal = self._ask(stage, checks, request)
            if refusal is not None:
                return refusal
        if self._checks_unlisted:
            refusal = self._ask("recipient", [self._reject_unlisted_recipient], request)
        return refusal if self._checks_unlisted else None

    def scope(self, recipient: str) -> str:
        """Return what else would be accepted where `recipient` was: itself, `@domain` for all of it, or nothing.

        A domain of which not every recipient is known, or an address with a way of its own, is not taken as a whole.
        """
        domain = recipient.rpartition("@")[2]
        if "@" not in recipient:
            return ""
        try:
            destination = self.destinations.of(recipient)
        except TableError:
            return ""
        whole = not destination.routed and destination.domain == domain
        return f"@{domain}" if whole and self._known_users.knows_all(destination.kind) else recipient

    def _ask(self, stage: str, checks: Iterable[Check], request: Request) -> Reply | None:
        request.about(stage)
        for check in checks:
            try:
                verdict = check(request)
            except TableError as problem:
                self._warn(f"access check of <{request.subject}>: {problem}")
                return Reply(451, "4.3.0", f"<{request.subject}>: Temporary lookup failure")
            if isinstance(verdict, Reply):
                return verdict
            if verdict is OK:
                return None
        return None

    def _list(self, parameter: str) -> list[Check]:
        """The functions of a restriction list. Names are not told apart by case, as in Postfix."""
        checks = []
        for word in self._config.items(parameter):
            name = word.lower()
            check = self._checks.get(name)
            if check is None:
                raise self._bad(parameter, word)
            checks.append(check)
        return checks

    def _bad(self, parameter: str, word: str) -> ConfigError:
        name = word.lower()
        if name in REMOVED:
            problem, fix = "is a restriction that Postfix has no more", f"use {REMOVED[name]}"
        elif name in NOT_YET or ":" in word:
            problem, fix = "is not supported yet", "remove it, or keep Postfix for this service"
        elif name in self._config.items("smtpd_restriction_classes"):
            problem, fix = "is a restriction class, not supported yet", "write its restrictions out"
        else:
            problem, fix = "is no restriction", f"known are: {' '.join(sorted(self._checks))}"
        return self._config.error(parameter, f'{parameter}: "{word}" {problem}', fix)

    def _require_relay_control(self) -> None:
        named = self._config.items("smtpd_relay_restrictions") + self._config.items("smtpd_recipient_restrictions")
        if not any(name.lower() in WORKING for name in named):
            problem = "smtpd_relay_restrictions and smtpd_recipient_restrictions would relay mail for everybody"
            raise self._config.error("smtpd_relay_restrictions", problem, f"add one of: {', '.join(WORKING)}")

    def _is_ours(self, recipient: str) -> bool:
        """Is the destination one that we deliver or relay for, whoever asks?"""
        destination = self.destinations.of(recipient)
        if destination.routed:
            return False
        return destination.kind in FINAL or destination.kind is Class.RELAY

    def _relay_denied(self, request: Request, code: int) -> Reply:
        return Reply(code, f"{code // 100}.7.1", f"<{request.recipient}>: Relay access denied")

    def _reject_unlisted_recipient(self, request: Request) -> Verdict:
        destination = self.destinations.of(request.recipient)
        table = self._known_users.missing_from(destination)
        if table is None:
            return None
        code, name = table
        return request.rejected(code, f"{code // 100}.1.1", f"User unknown{name}")

    def _reject_unauth_pipelining(self, request: Request) -> Verdict:
        if not request.dialogue.talked_early:
            return None
        return request.rejected(503, "5.5.0", "Improper use of SMTP command pipelining")

    def _reject_multi_recipient_bounce(self, request: Request) -> Verdict:
        if request.dialogue.sender == "" and request.dialogue.recipient_count > 1:
            return request.rejected(self._code["multi_recipient_bounce_reject_code"], "5.5.3", "Multi-recipient bounce")
        return None

    def _reject_unknown_client_hostname(self, request: Request) -> Verdict:
        if request.client.name != "unknown":
            return None
        text = f"Client host rejected: cannot find your hostname, [{request.client.address}]"
        return Reply(self._code["unknown_client_reject_code"], "4.7.25", text)

    def _reject_unknown_reverse_client_hostname(self, request: Request) -> Verdict:
        if request.client.reverse_name != "unknown":
            return None
        text = f"Client host rejected: cannot find your reverse hostname, [{request.client.address}]"
        return Reply(self._code["unknown_client_reject_code"], "4.7.25", text)

    def _reject_invalid_helo_hostname(self, request: Request) -> Verdict:
        helo = request.dialogue.helo
        if helo is None or _is_hostname(helo) or _is_literal(helo):
            return None
        request.about("helo")
        return request.rejected(self._code["invalid_hostname_reject_code"], "5.5.2", "Invalid name")

    def _reject_non_fqdn_helo_hostname(self, request: Request) -> Verdict:
        helo = request.dialogue.helo
        if helo is None or _is_literal(helo) or (_is_hostname(helo) and "." in helo.rstrip(".")):
            return None
        request.about("helo")
        return request.rejected(self._code["non_fqdn_reject_code"], "5.5.2", "need fully-qualified hostname")

    def _reject_non_fqdn_sender(self, request: Request) -> Verdict:
        if not request.sender or _has_full_domain(request.sender):
            return None
        request.about("sender")
        return request.rejected(self._code["non_fqdn_reject_code"], "5.5.2", "need fully-qualified address")

    def _reject_non_fqdn_recipient(self, request: Request) -> Verdict:
        if _has_full_domain(request.recipient):
            return None
        return request.rejected(self._code["non_fqdn_reject_code"], "5.5.2", "need fully-qualified address")


class KnownUsers:
    """Which recipients exist: local_recipient_maps and its kin (LOCAL_RECIPIENT_README)."""

    def __init__(self, config: Config, warn: Callable[[str], None]) -> None:
        def maps(name: str) -> Maps:
            return open_maps(name, config, warn=warn)

        self._rewriting = [maps(name) for name in ("recipient_canonical_maps", "canonical_maps", "virtual_alias_maps")]
        self._rewriting = [table for table in self._rewriting if table]
        self._delimiters = config.text("recipient_delimiter")
        names = config.flag("show_user_unknown_table_name")

        def table(parameter: str, code: str, name: str) -> tuple[Maps, int, str]:
            return maps(parameter), config.number(code), f" in {name} table" if names else ""

        self._tables: dict[Class, tuple[Maps, int, str]] = {
            Class.LOCAL: table("local_recipient_maps", "unknown_local_recipient_reject_code", "local recipient"),
            Class.RELAY: table("relay_recipient_maps", "unknown_relay_recipient_reject_code", "relay recipient"),
            Class.VIRTUAL_MAILBOX: table(
                "virtual_mailbox_maps", "unknown_virtual_mailbox_reject_code", "virtual mailbox"
            ),
        }
        self._known: dict[tuple[Class, str, str], float] = {}
        alias_code = config.number("unknown_virtual_alias_reject_code")
        self._no_alias = alias_code, " in virtual alias table" if names else ""

    def knows_all(self, kind: Class) -> bool:
        """Does every recipient of this class exist, as far as smtpd is told?"""
        maps, _, _ = self._tables.get(kind, (None, 0, ""))
        return kind is Class.DEFAULT or (maps is not None and not maps)

    def missing_from(self, destination: Destination) -> tuple[int, str] | None:
        """Return the reply code and the words ` in local recipient table` for an unknown recipient, else None.

        A class without a table knows everybody, but for virtual aliases, which are nothing else. Raises `TableError`.
        """
        if self.knows_all(destination.kind):
            return None
        maps, code, name = self._tables.get(destination.kind, (None, *self._no_alias))
        known_as = destination.kind, destination.local, destination.domain
        now = time.monotonic()
        if self._known.get(known_as, 0.0) > now:
            return None
        keys = self._keys(destination)
        tables = self._rewriting if maps is None else [*self._rewriting, maps]
        if any(found.lookup(key) is not None for found in tables for key in keys):
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[known_as] = now + KNOWN_FOR_S
            return None
        return code, name

    def _keys(self, destination: Destination) -> list[str]:
        """What the tables are asked: the address first, without its extension next, the whole domain last."""
        local, domain = destination.local.lower(), destination.domain
        locals_ = [local]
        base = next((local[:at] for at in range(1, len(local)) if local[at] in self._delimiters), None)
        if base is not None:
            locals_.append(base)
        keys = [f"{part}@{domain}" for part in locals_]
        if destination.kind is Class.LOCAL:
            keys += locals_
        return [*keys, f"@{domain}"]


def _is_hostname(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= 255 and all(LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def _is_literal(text: str) -> bool:
    return text.startswith("[") and text.endswith("]")


def _has_full_domain(address: str) -> bool:
    domain = address.rpartition("@")[2] if "@" in address else ""
    return _is_literal(domain) or (_is_hostname(domain) and "." in domain.rstrip("."))
