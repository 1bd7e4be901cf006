"""postillion explain: what the mail system does with an address, step by step.

    postillion [-c config_directory] explain ADDRESS [--sender ADDRESS] [--client IP]

It prints how the address is completed, the class of its domain, the check of the recipient, how cleanup maps sender and
recipient, and for each resulting recipient the aliases, the route, and the hosts that DNS names, each with its TLS
policy and the login there. Each lookup is a line `table: key -> answer`; passwords are hidden. With `--client`, it
prints what the restriction lists of the first smtpd service answer to this client up to RCPT, and the rule that spoke;
also under stress, if they depend on `$stress`. `--sender`: the envelope sender; by default the null sender. Nothing is
queued or sent.

The programs' own code decides. A listener to their tables (`tables.traced`) prints the lookups.
"""

import asyncio
import contextlib
import inspect
import ipaddress
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar, cast

from postillion._core.address import canonical
from postillion._core.cleanup import Options, Rehearsal
from postillion.address.classes import DOMAINS, Class
from postillion.address.destination import Destination
from postillion.address.local import take_apart
from postillion.address.resolve import REPORTING, Route, Unresolved
from postillion.checker.absorbed import configured
from postillion.checks.check import NoDialogue, Stage, Verdict
from postillion.commands.console import Console
from postillion.commands.explain_hosts import Hosts
from postillion.commands.explain_steps import Steps
from postillion.commands.failure import Failure
from postillion.config import Config, master_cf
from postillion.config.errors import place
from postillion.config.master_cf import Entry
from postillion.delivery.account import NoAnswerError, NotPermittedError
from postillion.delivery.accounts import Accounts
from postillion.delivery.local.aliases import AliasError, Aliases, rights
from postillion.delivery.local.settings import LocalSettings
from postillion.delivery.local.targets import ADDRESS
from postillion.errors import MessageRefused
from postillion.program import cleanup
from postillion.restrictions.access import Access
from postillion.restrictions.site import Site
from postillion.smtpd.clients import Client
from postillion.smtpd.mode import Mode, modes
from postillion.smtpd.names import UNKNOWN
from postillion.tables import TableError
from postillion.tables.answers import answer_all
from postillion.tables.deferred import decided
from postillion.tables.remote import remote_tables

USAGE = "usage: postillion [-c config_directory] explain ADDRESS [--sender ADDRESS] [--client IP]"
ALIASES_MAX = 20
"""Maximum number of alias expansions that are printed."""
T = TypeVar("T")
STAGES: tuple[Stage, ...] = ("connect", "helo", "mail", "rcpt")


def explain(directory: str, _console: Console, sender: str, client: str, *addresses: str) -> int:
    """Print the steps of one address; return the exit status. Raises `Failure` and `ConfigError`.

    `sender`: empty for the null sender. `client`: its IP address, empty for none.
    """
    if len(addresses) != 1:
        raise Failure(USAGE)
    if client:
        try:
            ipaddress.ip_address(client)
        except ValueError:
            raise Failure(f"{client} is not an IP address\n{USAGE}") from None
    config = Config.load(directory)
    queue = config.text("queue_directory")
    if os.path.isdir(queue):
        os.chdir(queue)  # As programs do: a table may have a relative path.
    asyncio.run(Explanation(config, _address(addresses[0]), _address(sender), client).tell())
    return 0


def _address(text: str) -> str:
    """Return an address in its written form. A text that is no address stays as it is."""
    return canonical(text.removeprefix("<").removesuffix(">")) or text


class Trial(NoDialogue):
    """The dialogue of a client that has sent MAIL and RCPT."""

    def __init__(self, helo: str, sender: str, recipient: str) -> None:
        self.helo = helo
        self.extended = True
        self.sender = sender
        self.recipient = recipient


class Explanation:
    """The steps of one address."""

    def __init__(self, config: Config, address: str, sender: str, client: str) -> None:
        self._steps = Steps()
        self._address = address
        self._sender = sender
        self._client = client
        self._config = config
        self._configs: list[Config] = []
        config.trace = self._steps
        self._entries, _ = master_cf.load(config.in_force)
        self._warn: Callable[[str], None] = lambda text: self._steps.note(f"warning: {text}")
        config.warn = self._warn

    async def tell(self) -> None:
        """Print every step."""
        try:
            await self._tell()
        finally:
            for table in {id(table): table for config in self._configs for table in remote_tables(config)}.values():
                await table.close()

    async def _tell(self) -> None:
        steps = self._steps
        site = await self._opened(self._config, Site)
        rules = site.resolver.destinations.rules
        complete = rules.complete(self._address)
        steps.heading(f"address {self._address or '<>'}" + f", sender {self._sender or '<>'}")
        steps.heading("rewriting")
        for parameter in rules.completing(self._address):
            steps.note(f"{parameter} = {self._config.text(parameter)}")
        steps.note(f"{self._address} -> {complete}" if complete != self._address else "the address is complete")
        if self._client:
            await self._tell_client()
        try:
            steps.heading("class")
            destination = await decided(lambda: site.resolver.destinations.of(complete))
            self._tell_class(destination)
            with contextlib.suppress(Unresolved):
                route = await steps.quietly(lambda: site.resolver.resolve(complete, self._sender))
                steps.heading("recipient check")
                await decided(lambda: self._tell_check(site, destination, route))
        except TableError as problem:
            steps.note(f"mail waits: 4.3.0 {problem}")
            return
        try:
            sender, recipients = await self._mapped(complete)
        except MessageRefused as refusal:
            fate = "bounces" if refusal.permanent else "waits"
            steps.note(f"mail {fate}: {refusal.dsn} {refusal.text}")
            return
        for recipient in recipients:
            await self._tell_recipient(site, complete, recipient, sender)

    async def _mapped(self, complete: str) -> tuple[str, list[str]]:
        """Return the sender and the recipients as cleanup maps them. Raises `MessageRefused`."""
        steps = self._steps
        settings = await self._opened(self._config, lambda config, _: cleanup.settings(config))
        options = Options.received(self._config)
        rehearsal = Rehearsal(settings, options, self._sender, complete, time.time())
        steps.await_first("maps")
        try:
            await answer_all(rehearsal)
            sender, found = rehearsal.result()
            # A copy may go to a recipient that has the mail already: the two differ in their reports.
            recipients = list(dict.fromkeys(found))
            own = cleanup.service(self._config)
            if sender != self._sender:
                self._tell_masquerade(own, "envelope_sender", sender)
                steps.note(f"sender {self._sender} -> {sender}")
            if recipients != [complete]:
                if own.text("always_bcc"):
                    steps.note(f"always_bcc = {own.text('always_bcc')}")
                self._tell_masquerade(own, "envelope_recipient", *recipients)
                steps.note(f"recipient {complete} -> {', '.join(recipients) or 'nobody'}")
        finally:
            for warning in rehearsal.warnings:
                steps.note(f"warning: {warning}")
            steps.await_first("")
        return sender, recipients

    def _tell_masquerade(self, config: Config, address_class: str, *addresses: str) -> None:
        """Print masquerade_domains if it may have changed one of the addresses."""
        if address_class not in config.items("masquerade_classes"):
            return
        domains = {word.lstrip("!").lower() for word in config.items("masquerade_domains")}
        if any(address.rpartition("@")[2].lower() in domains for address in addresses):
            self._steps.note(f"masquerade_domains = {config.text('masquerade_domains')}")

    async def _tell_recipient(self, site: Site, complete: str, recipient: str, sender: str) -> None:
        """Print where the mail for one resulting recipient goes."""
        steps = self._steps
        try:
            destination = await steps.quietly(lambda: site.resolver.destinations.of(recipient))
            if recipient != complete:
                steps.heading(f"recipient {recipient}")
                await decided(lambda: site.resolver.destinations.of(recipient))
                self._tell_class(destination)
            with contextlib.suppress(Unresolved):
                route = await steps.quietly(lambda: site.resolver.resolve(recipient, sender))
                if self._program(route) == "local":
                    steps.heading("aliases")
                    await self._tell_aliases(destination)
            steps.heading("route")
            route = await decided(lambda: site.resolver.resolve(recipient, sender))
        except TableError as problem:
            steps.note(f"mail waits: 4.3.0 {problem}")
            return
        except Unresolved as problem:
            fate = "bounces" if problem.dsn.startswith("5") else "waits"
            steps.note(f"mail {fate}: {problem.dsn} {problem.text}")
            return
        await self._tell_route(recipient if recipient != complete else self._address, route)

    async def _opened(self, config: Config, make: Callable[[Config, Callable[[str], None]], T]) -> T:
        """Return what `make` makes of a configuration, with its tables ready to be asked."""
        self._configs.append(config)
        made = await self._steps.quietly(lambda: make(config, self._warn))
        for table in remote_tables(config):
            with contextlib.suppress(TableError):  # Its lookups will fail, and say why.
                table.refresh()
        return made

    def _tell_class(self, destination: Destination) -> None:
        if not destination.domain:
            self._steps.note("the address has no domain")
            return
        parameter = DOMAINS.get(destination.kind)
        if destination.kind is Class.LOCAL and destination.domain.startswith("["):
            parameter = "inet_interfaces or proxy_interfaces"
        why = f"a domain of {parameter}" if parameter else "in no list of domains"
        self._steps.note(f"{destination.domain}: {destination.kind.value}, {why}")

    def _tell_check(self, site: Site, destination: Destination, route: Route) -> None:
        unlisted = site.known_users.unlisted(destination, route)
        if unlisted is None:
            self._steps.note("the recipient is known, or its class has no list of recipients")
        else:
            code, dsn, why = unlisted
            self._steps.note(f"smtpd refuses the recipient: {code} {dsn} {why}")

    async def _tell_aliases(self, destination: Destination) -> None:
        settings = await self._opened(self._config, LocalSettings.load)
        aliases = Aliases(
            settings.alias_maps,
            owner_request_special=settings.owner_request_special,
            expand_owner_alias=settings.expand_owner_alias,
        )
        accounts = Accounts()
        waiting, seen = [destination.address], set[str]()
        while waiting and len(seen) < ALIASES_MAX:
            where = take_apart(waiting.pop(0), settings.address_rules)
            if where.domain and where.domain not in (destination.domain, settings.myorigin.lower()):
                continue
            for name in dict.fromkeys((where.local, where.user)):
                if name in seen:
                    break
                seen.add(name)
                try:
                    expansion = await decided(partial(aliases.expand, name, where.domain))
                    if expansion is not None:
                        await rights(expansion, accounts, settings.default_privs)
                except (AliasError, NoAnswerError, NotPermittedError) as problem:
                    self._steps.note(f"{name}: {problem}")
                    break
                if expansion is not None:
                    waiting += [target.text for target in expansion.targets if target.kind == ADDRESS]
                    break

    def _entry(self, transport: str) -> Entry | None:
        """Return the service of master.cf that a transport names."""
        return next((found for found in self._entries if found.service == transport and found.type == "unix"), None)

    def _program(self, route: Route) -> str:
        entry = self._entry(route.transport)
        return "" if entry is None else entry.command

    async def _tell_route(self, recipient: str, route: Route) -> None:
        steps = self._steps
        if route.recipient is not None and route.recipient != recipient:
            steps.note(f"recipient {route.recipient}")
        steps.note(f"transport {route.transport}, next hop {route.nexthop}")
        entry = self._entry(route.transport)
        if entry is None:
            steps.note(f"master.cf has no service {route.transport}: mail waits")
            return
        if route.transport in REPORTING:
            return
        steps.note(f"program {entry.command} ({place(entry.path, entry.line)})")
        if entry.command in ("smtp", "lmtp"):
            await self._tell_hosts(entry, route.nexthop)

    async def _tell_hosts(self, entry: Entry, nexthop: str) -> None:
        config = configured(self._config, entry)
        self._configs.append(config)
        hosts = Hosts(self._steps, config, entry.command, self._sender, self._warn)
        self._steps.heading("hosts")
        try:
            await hosts.tell(nexthop)
        finally:
            await hosts.close()

    async def _tell_client(self) -> None:
        """Print what the restriction lists of the first smtpd service answer."""
        entry = next((found for found in self._entries if found.command == "smtpd"), None)
        config = self._config if entry is None else configured(self._config, entry)
        service = "main.cf" if entry is None else f"smtpd service {entry.service}, {place(entry.path, entry.line)}"
        calm, stressed = await self._opened(config, modes)
        await self._tell_lists(calm, service)
        if stressed.access is not calm.access:
            await self._tell_lists(stressed, f"{service}, stress = yes")

    async def _tell_lists(self, mode: Mode, service: str) -> None:
        """Print what the restriction lists of one mode answer."""
        access = mode.access
        client = await mode.clients.identify(self._client)
        helo = f"[{self._client}]" if client.name == UNKNOWN else client.name
        self._steps.heading(f"client {client.name}[{client.address}], EHLO {helo} ({service})")
        self._steps.note("it is in mynetworks" if client.trusted else "it is not in mynetworks")
        for stage in STAGES:
            if stage in access.stages and (await self._ask(access, stage, client, helo)).refuses:
                return
        self._steps.note("every list accepts")

    async def _ask(self, access: Access, stage: Stage, client: Client, helo: str) -> Verdict:
        answer = getattr(access, stage)(client, Trial(helo, self._sender, self._address))
        verdict = cast(Verdict, await cast(Any, answer) if inspect.isawaitable(answer) else answer)
        rule, reply = verdict.rule, verdict.reply
        said = "accepts" if reply is None else f"{reply.code} {reply.dsn} {reply.text}"
        by = "" if rule is None else f", by {rule.name} ({place(rule.path, rule.line)})"
        self._steps.note(f"{stage}: {said}{by}")
        return verdict
