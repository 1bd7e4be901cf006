"""The restriction lists of main.cf as a check: who may send what to whom (SMTPD_ACCESS_README, postconf(5)).

With smtpd_delay_reject, the lists for client, HELO and sender are asked at RCPT, so that the log can say which
recipient the refused mail was for. A table that fails is a temporary failure, never "not found".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from postillion.address.resolve import Resolver
from postillion.checks.check import ACCEPT, Answer, Check, Client, Dialogue, Remember, Stage, Verdict
from postillion.checks.reply import Reply
from postillion.config import Config
from postillion.restrictions import language
from postillion.restrictions.known_certificates import KnownCertificates
from postillion.restrictions.known_users import RecipientTables
from postillion.restrictions.language import Step
from postillion.restrictions.question import OK, Question
from postillion.restrictions.recipient import reject_unlisted_recipient
from postillion.restrictions.rows import REMEMBERED, Reads
from postillion.restrictions.site import Site
from postillion.tables import TableError, WarnedError
from postillion.tables.deferred import decide, once

POSTMASTER: Final = "postmaster"
"""Always accepted without a domain (RFC 5321 §4.5.1)."""


class Access(Check):
    """The lists of one site."""

    def __init__(self, config: Config, warn: Callable[[str], None], resolver: Resolver | None = None) -> None:
        """Read the lists and open the tables. `resolver`: the one of other lists of the site, to share it.

        Raises `ConfigError` that names the restriction that is wrong or missing, and `TableTypeError`.
        """
        self._warn = once(warn)
        self._site = Site(config, warn, resolver)
        self.mynetworks = self._site.mynetworks
        self.own_addresses = self._site.own_addresses

        def steps(parameter: str) -> list[Step]:
            return language.steps(config, parameter, warn)

        early = [
            ("client", steps("smtpd_client_restrictions")),
            ("helo", steps("smtpd_helo_restrictions")),
            ("sender", steps("smtpd_sender_restrictions")),
        ]
        self._data = steps("smtpd_data_restrictions")
        late = [
            ("recipient", steps("smtpd_relay_restrictions")),
            ("recipient", steps("smtpd_recipient_restrictions")),
        ]
        language.require_relay_control(config)
        if not config.flag("smtpd_relay_before_recipient_restrictions"):
            late.reverse()
        if config.flag("smtpd_reject_unlisted_recipient"):
            unlisted = language.step(config, "smtpd_reject_unlisted_recipient", "reject_unlisted_recipient")
            late.append(("recipient", [unlisted]))
        _warn_of_certificates(config, [step for _, found in early + late for step in found] + self._data, warn)
        delay = config.flag("smtpd_delay_reject")
        self._at_rcpt = [(noun, found) for noun, found in (early + late if delay else late) if found]
        self._connect, self._helo, self._mail = ([] if delay else found for _, found in early)
        self._stages = self._stages_of_lists()
        asked = [step for _, found in self._at_rcpt for step in found]
        self._remembers = all(step.reads in REMEMBERED for step in asked)
        self._refuses_unlisted = any(step.function is reject_unlisted_recipient for step in asked)

    @property
    def certificates(self) -> KnownCertificates:
        """The certificates of relay_clientcerts."""
        return self._site.certificates

    @property
    def resolver(self) -> Resolver:
        """The resolver of addresses."""
        return self._site.resolver

    @property
    def recipient_tables(self) -> RecipientTables:
        """The tables that list the recipients of a domain."""
        return self._site.known_users.tables

    @property
    def stages(self) -> frozenset[Stage]:
        """RCPT and VRFY, and each other stage with a list."""
        return self._stages

    @property
    def remembers(self) -> bool:
        """Whether the lists at RCPT depend on nothing but the recipient and the client's standing."""
        return self._remembers

    def connect(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask smtpd_client_restrictions, only with smtpd_delay_reject = no."""
        return decide(lambda: self._ask("client", self._connect, Question(self._site, client, dialogue)))

    def helo(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask smtpd_helo_restrictions, only with smtpd_delay_reject = no."""
        return decide(lambda: self._ask("helo", self._helo, Question(self._site, client, dialogue)))

    def mail(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask smtpd_sender_restrictions, only with smtpd_delay_reject = no."""
        return decide(lambda: self._ask("sender", self._mail, Question(self._site, client, dialogue)))

    def data(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask smtpd_data_restrictions."""
        return decide(lambda: self._ask("data", self._data, Question(self._site, client, dialogue)))

    def vrfy(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask the lists that are due at RCPT."""
        return decide(lambda: self._about_recipient(client, dialogue))

    def rcpt(self, client: Client, dialogue: Dialogue) -> Answer:
        """Ask the lists that are due at RCPT; an acceptance names the recipients for which it may be remembered."""
        return decide(lambda: self._about_rcpt(client, dialogue))

    def _about_recipient(self, client: Client, dialogue: Dialogue) -> Verdict:
        recipient = dialogue.recipient or ""
        if recipient.lower() == POSTMASTER:
            return ACCEPT
        question = Question(self._site, client, dialogue, recipient)
        verdict = ACCEPT
        for noun, found in self._at_rcpt:
            spoken = self._ask(noun, found, question)
            if spoken is not ACCEPT:
                verdict = spoken
            if spoken.reply is not None:
                break
        return verdict

    def _about_rcpt(self, client: Client, dialogue: Dialogue) -> Verdict:
        verdict = self._about_recipient(client, dialogue)
        if verdict.reply is not None or dialogue.group is None:
            return verdict
        remember = self.accepted_with(dialogue.recipient or "")
        return verdict if remember is None else verdict._replace(actions=(remember,))

    def accepted_with(self, recipient: str) -> Remember | None:
        """Return what to remember after an acceptance, None if nothing may be remembered.

        It is the listed recipients of the domain, or the recipient alone if that has a route of its own or needs no
        table.
        """
        domain = recipient.rpartition("@")[2]
        resolver, known_users = self._site.resolver, self._site.known_users
        if recipient.find("@") < 1 or resolver.by_sender:
            return None
        try:
            destination = self._site.destination(recipient)
            if destination.routed or destination.domain != domain or not resolver.by_domain:
                return Remember(recipient)
            route = resolver.route(destination, "")
        except TableError:
            return None
        listing = known_users.listing(destination.kind, route) if self._refuses_unlisted else "all"
        if listing != "all" and known_users.needs_no_table(destination):
            return Remember(recipient)
        return Remember(f"@{domain}", listing)

    def _ask(self, noun: str, found: Iterable[Step], question: Question) -> Verdict:
        """Ask a list: its first answer counts."""
        question.about(noun)
        for step in found:
            try:
                outcome = step.function(question)
            except TableError as problem:
                if not isinstance(problem, WarnedError):
                    self._warn(f"access check of <{question.subject}>: {problem}")
                return Verdict(Reply(451, "4.3.0", f"<{question.subject}>: Temporary lookup failure"), rule=step.rule)
            if isinstance(outcome, Reply):
                return Verdict(outcome, rule=step.rule)
            if outcome is OK:
                return step.accepts
        return ACCEPT

    def _stages_of_lists(self) -> frozenset[Stage]:
        lists: dict[Stage, list[Step]] = {
            "connect": self._connect,
            "helo": self._helo,
            "mail": self._mail,
            "data": self._data,
        }
        always: set[Stage] = {"rcpt", "vrfy"}
        return frozenset(always | {stage for stage, found in lists.items() if found})


def _warn_of_certificates(config: Config, steps: Iterable[Step], warn: Callable[[str], None]) -> None:
    """Warn of each restriction that needs a certificate which no client is asked for."""
    if config.flag("smtpd_tls_ask_ccert") or config.flag("smtpd_tls_req_ccert"):
        return
    for name in dict.fromkeys(step.rule.name for step in steps if Reads.TLS in step.reads):
        warn(f'{name} is requested, but "smtpd_tls_ask_ccert = no"')
