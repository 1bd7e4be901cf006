"""Logins of the client (smtp_sasl_*): the user name and password for a server, and the mechanisms that may be used.

`smtp_sasl_password_maps` is asked for the sender (smtp_sender_dependent_authentication), for the server's host name and
for the next hop as it is written, in this order. A sender has the keys of other tables of senders: with and without its
extension, without its domain if this is ours, and `@domain`. No text here holds a password.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from postillion._core.address import AddressRules, quote
from postillion._core.smtp import SASL_MECHANISMS, SmtpLogin
from postillion.config import core_dumps
from postillion.config.match_list import match_word
from postillion.delivery.smtp.refused import Account, Refusal, RefusedLogins
from postillion.tables import Maps, TableError, open_maps, open_word
from postillion.tables.deferred import decided
from postillion.tables.lists import DomainList

if TYPE_CHECKING:
    from postillion.config import Config
    from postillion.delivery.smtp.nexthop import NextHop
    from postillion.delivery.smtp.targets import Target

TYPE = "cyrus"
"""The only type: there, too, it means that the client knows the mechanisms itself."""


class Login(NamedTuple):
    """A login at a server; `core` is None without one. `account`: to be noted if the server refuses it."""

    core: SmtpLogin | None
    account: Account | None = None


NO_LOGIN: Final = Login(None)


class Logins:
    """The accounts of this site at other servers. `protocol`: smtp or lmtp, the prefix of the parameters.

    `warn`: gets the warnings for the log.

    `is_enabled`: the client logs in at all. `by_sender`: an account may depend on the sender, so a connection carries
    the mail of one job only.
    """

    def __init__(self, config: Config, protocol: str, warn: Callable[[str], None]) -> None:
        """Open the tables. Raises `ConfigError`."""
        self.is_enabled = config.flag(f"{protocol}_sasl_auth_enable")
        self.by_sender = self.is_enabled and config.flag(f"{protocol}_sender_dependent_authentication")
        self._warn = warn
        self._parameter = f"{protocol}_sasl_password_maps"
        self._delimiter = config.text(f"{protocol}_sasl_password_result_delimiter")
        self._hostname = config.text("myhostname")
        self._maps = Maps([])
        self._refused: RefusedLogins | None = None
        if not self.is_enabled:
            return
        # From here on, the process has passwords.
        core_dumps.forbid()
        _check_type(config, protocol)
        self._maps = open_maps(self._parameter, config)
        self._refused = RefusedLogins.of(config, protocol, warn)
        if not self._maps:
            enabled = f"{protocol}_sasl_auth_enable"
            problem = f"{enabled} = yes needs accounts, and {self._parameter} is empty"
            raise config.error(enabled, problem, "give a table such as hash:/etc/postfix/sasl_passwd")
        if self.by_sender:
            self._rules = AddressRules(config)
            self._origin = config.text("myorigin").lower()
            self._own_domains = DomainList("mydestination", config, exact=True)

    async def of(self, target: Target, site: NextHop, sender: str, queue_id: str, wall_now: float) -> Login:
        """Return the login at a server. `site`: the next hop that it belongs to.

        When a table fails, the login is unknown: mail waits if the server offers AUTH.
        """
        if not self.is_enabled:
            return NO_LOGIN
        try:
            value = await self.account(target, site, sender)
        except TableError as problem:
            self._warn(f"{queue_id}: {self._parameter} lookup error: {problem}")
            return Login(SmtpLogin.unknown())
        if value is None:
            return NO_LOGIN
        user, _, password = value.partition(self._delimiter)
        account = Account(self._host(target, site), user.strip(), password.encode("utf-8", "surrogateescape"))
        try:
            login = SmtpLogin(account.user, account.password)
        except UnicodeEncodeError:
            self._warn(f"{queue_id}: {self._parameter}: the user name for {self._host(target, site)} is not UTF-8")
            return Login(SmtpLogin.unknown())
        if self._refused is None:
            return Login(login)
        refusal = self._refused.find(account, wall_now)
        return Login(login, account) if refusal is None else Login(SmtpLogin.refused(*refusal))

    def note_refusal(self, account: Account, refusal: Refusal, wall_now: float) -> None:
        """Remember that a server has refused an account."""
        if self._refused is not None:
            self._refused.note(account, refusal, wall_now)

    async def account(self, target: Target, site: NextHop, sender: str) -> str | None:
        """Return the account for a server as its table has it, with the password; None without one.

        Raises `TableError`.
        """
        nexthop = site.path or site.text.removeprefix("inet:")
        return await decided(lambda: self._found(self._host(target, site), nexthop, sender))

    def _host(self, target: Target, site: NextHop) -> str:
        # As in Postfix, a socket in the file system has this system's name.
        return self._hostname if site.path else target.host

    def _found(self, host: str, nexthop: str, sender: str) -> str | None:
        """Return the account for a server. Raises `TableError`."""
        groups = [[host], [nexthop]]
        if self.by_sender and sender:
            groups = [*self._sender_keys(sender), *groups]
        for keys in groups:
            value = self._maps.first(keys)
            if value is not None:
                return value
        return None

    def _sender_keys(self, sender: str) -> list[list[str]]:
        local, domain = self._rules.parts(sender)
        is_local = domain is not None and (domain.lower() == self._origin or domain.lower() in self._own_domains)
        keys = self._rules.sender_keys(local, domain, is_local=is_local)
        quoted = quote(local)
        if quoted == local:
            return [keys]
        whole = quoted.lower() if domain is None else f"{quoted}@{domain}".lower()
        return [[whole], keys]


def allowed_mechanisms(config: Config, protocol: str) -> list[str] | None:
    """Return the mechanisms that smtp_sasl_mechanism_filter has; None without a filter. Raises `ConfigError`.

    The list and its tables are read once.
    """
    parameter = f"{protocol}_sasl_mechanism_filter"
    if not config.flag(f"{protocol}_sasl_auth_enable") or not config.items(parameter):
        return None
    rules: list[tuple[bool, str | Maps]] = []
    for word in config.items(parameter):
        wanted, bare = match_word(word)
        rules.append((wanted, Maps([open_word(parameter, bare, config)]) if ":" in bare else bare.lower()))
    try:
        return [name for name in SASL_MECHANISMS if _has(rules, name.lower())]
    except TableError as problem:
        raise config.error(parameter, f"{parameter}: {problem}", "list the mechanisms, or use a local table") from None


def _has(rules: list[tuple[bool, str | Maps]], name: str) -> bool:
    for wanted, rule in rules:
        if rule == name if isinstance(rule, str) else rule.lookup(name) is not None:
            return wanted
    return False


def _check_type(config: Config, protocol: str) -> None:
    parameter = f"{protocol}_sasl_type"
    given = config.text(parameter)
    if given != TYPE:
        raise config.error(parameter, f'{parameter}: "{given}" is no type of SASL client', f"give {TYPE}")
