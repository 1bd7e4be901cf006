"""Limits on the connections, messages and recipients of one client, counted by anvil (anvil(8))."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from postillion.checks.check import ACCEPT, Check, Client, Dialogue, Dismiss, Rule, Stage, Verdict
from postillion.checks.reply import Reply
from postillion.config import Config
from postillion.smtpd.counts import Counts

CONNECTIONS: Final = "smtpd_client_connection_count_limit"
CONNECTION_RATE: Final = "smtpd_client_connection_rate_limit"
MAIL_RATE: Final = "smtpd_client_message_rate_limit"
RCPT_RATE: Final = "smtpd_client_recipient_rate_limit"


class Limit(NamedTuple):
    """One limit; `number` 0 means no limit."""

    number: int = 0
    rule: Rule | None = None

    @classmethod
    def of(cls, config: Config, parameter: str) -> Limit:
        """Return the limit that a parameter sets."""
        return cls(config.number(parameter), Rule.of(config, parameter))

    def exceeded(self, count: int) -> bool:
        """Return whether there is a limit, and a count is above it."""
        return 0 < self.number < count


class Limits:
    """The limits of one service for each of its clients."""

    def __init__(self, config: Config) -> None:
        """Read the limits. Raises `ConfigError`."""
        self.connections = Limit.of(config, CONNECTIONS)
        self.connection_rate = Limit.of(config, CONNECTION_RATE)
        self.mail_rate = Limit.of(config, MAIL_RATE)
        self.rcpt_rate = Limit.of(config, RCPT_RATE)
        limits: dict[Stage, int] = {
            "connect": self.connections.number or self.connection_rate.number,
            "mail": self.mail_rate.number,
            "rcpt": self.rcpt_rate.number,
        }
        self.stages: frozenset[Stage] = frozenset(stage for stage, number in limits.items() if number)
        """The stages with a limit."""


class RateCheck(Check):
    """Counts the requests of one client, and refuses those above a limit.

    `bucket`: the clients that count as one. When anvil does not answer, nothing is refused, as in Postfix.
    """

    def __init__(self, limits: Limits, counts: Counts, bucket: str, service: str, warn: Callable[[str], None]) -> None:
        self._limits = limits
        self._counts = counts
        self._bucket = bucket
        self._service = service
        self._warn = warn
        self._connected = False

    @property
    def stages(self) -> frozenset[Stage]:
        """Each stage with a limit."""
        return self._limits.stages

    @property
    def remembers(self) -> bool:
        """Whether recipients are not counted: each counted recipient must be asked about."""
        return "rcpt" not in self.stages

    async def connect(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Count the connection; refuse a client with too many."""
        self._connected = True
        limits = self._limits
        connections, rate = await self._counts.connected(self._bucket)
        if limits.connections.exceeded(connections):
            limit, reason = limits.connections, f"Connection concurrency limit exceeded: {connections}"
        elif limits.connection_rate.exceeded(rate):
            limit, reason = limits.connection_rate, f"Connection rate limit exceeded: {rate}"
        else:
            return ACCEPT
        self._log(reason, client)
        reply = Reply(421, "4.7.0", f"Error: too many connections from {client.address}")
        return Verdict(reply, (Dismiss(),), limit.rule)

    async def mail(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Count the message; refuse it above the limit."""
        rate = await self._counts.requested("mail", self._bucket)
        if not self._limits.mail_rate.exceeded(rate):
            return ACCEPT
        self._log(f"Message delivery request rate limit exceeded: {rate}", client)
        reply = Reply(450, "4.7.1", f"Error: too much mail from {client.address}")
        return Verdict(reply, rule=self._limits.mail_rate.rule)

    async def rcpt(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Count the recipient; refuse it above the limit."""
        rate = await self._counts.requested("rcpt", self._bucket)
        if not self._limits.rcpt_rate.exceeded(rate):
            return ACCEPT
        self._log(f"Recipient address rate limit exceeded: {rate}", client)
        reply = Reply(450, "4.7.1", f"Error: too many recipients from {client.address}")
        return Verdict(reply, rule=self._limits.rcpt_rate.rule)

    def gone(self) -> None:
        """Count the end of the connection."""
        if self._connected:
            self._counts.ended(self._bucket)

    def _log(self, reason: str, client: Client) -> None:
        self._warn(f"{reason} from {client.name}[{client.address}] for service {self._service}")
