"""The work of posttls-finger: find the hosts of a destination, connect to the first, and tell what TLS is like."""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401 - mail_owner may not be able to read Python's library
import encodings.idna
import encodings.punycode  # noqa: F401 - the same
import os
import sys
from typing import TYPE_CHECKING, Final

from postillion.commands.finger_dialogue import Dialogue, LostError, Reply
from postillion.commands.finger_options import CACHE, CERTMATCH, PEERCERT, SUMMARY, UNTRUSTED, say
from postillion.config import Config
from postillion.delivery.account import privileged, rest_as
from postillion.delivery.smtp.nexthop import parse
from postillion.delivery.smtp.targets import NoTargets, Target, TargetSettings, targets
from postillion.delivery.smtp.tls.connector import CLEAR, HALF_DANE, Connector, Wanted
from postillion.delivery.smtp.tls.dane import UNUSABLE
from postillion.delivery.smtp.tls.level import BY_DANE, Level
from postillion.delivery.smtp.tls.policy import NoPolicy
from postillion.dns import Resolver

if TYPE_CHECKING:
    from postillion._core.tls import TlsChannel, TlsClient
    from postillion.commands.finger_options import Options

DEFAULT_PORTS: Final = {"smtp": 25, "lmtp": 24}
NO_HOST: Final = "TLS policy lookup for "
"""The begin of a warning about a host without a policy: the line about the host says it."""


class Stop(Exception):
    """The command ends with exit status 1; the text says why."""


class Finger:
    """One run of the command."""

    def __init__(self, options: Options) -> None:
        """Read main.cf, keys and authorities: this needs root's rights.

        Raises `ConfigError`, `BadNextHop`, and `NotPermittedError` when root cannot become mail_owner.
        """
        self._options = options
        self._site = parse(options.destination, DEFAULT_PORTS[options.prefix], lmtp=options.prefix == "lmtp")
        config = Config.load(overrides=options.overrides(options.level))
        self._name = config.text("myhostname")
        self._resolver = Resolver(idna2003=config.flag("enable_idna2003_compatibility"))
        # Mail loops are no concern here.
        self._hosts = TargetSettings.of(config, options.prefix)._replace(own_addresses=frozenset())
        self._connectors = {level: self._connector(level) for level in self._levels()}
        self._client: TlsClient | None = None
        self._logged = options.logged
        self._left = options.reconnects_max
        self._is_first = True
        self._servers: set[str] = set()
        """The names of the servers so far: several may be behind one address."""
        self._server = ""
        rest_as(config.text("mail_owner"))

    async def run(self) -> None:
        """Probe the destination, and again after each delay. Raises `Stop`."""
        try:
            found = await self._reach()
            while found is not None and await self._talk(*found) and self._goes_on(found[0]):
                say(f"Reconnecting after {self._options.delay_s} seconds")
                self._is_first = False
                await asyncio.sleep(self._options.delay_s)
                found = await self._reach_again(found)
        finally:
            for connector in self._connectors.values():
                await connector.close()

    def _levels(self) -> tuple[Level, ...]:
        """Return the levels that a connection may have."""
        if self._options.level not in BY_DANE:
            return (self._options.level,)
        return ("dane", "secure", "may") if self._options.insecure_mx == "may" else ("dane", "secure")

    def _connector(self, level: Level) -> Connector:
        config = Config.load(overrides=self._options.overrides(level))
        connector = Connector(config, self._options.prefix, self._resolver, _warn)
        if connector.client is not None and connector.client.problem is not None:
            parameter, text, fix = connector.client.problem
            raise config.error(parameter, f"{parameter}: {text}", fix)
        return connector

    async def _reach(self) -> tuple[Dialogue, Target, Wanted] | None:
        """Return a connection to the first host that takes one; tell why there is none."""
        try:
            hosts = await targets(self._site, self._hosts, self._resolver)
        except NoTargets as none:
            say(f"Destination address lookup failed: {none}")
            return None
        for target in hosts:
            try:
                wanted = await self._wanted(target)
                return await self._connect(target), target, wanted
            except (NoPolicy, OSError) as problem:
                via = "" if self._site.path else f" via {target.host}"
                say(f"Failed to establish session to {self._site.text.removeprefix('inet:')}{via}: {problem}")
        return None

    async def _reach_again(self, found: tuple[Dialogue, Target, Wanted]) -> tuple[Dialogue, Target, Wanted] | None:
        """Return a new connection to the same host."""
        _, target, wanted = found
        try:
            return await self._connect(target), target, wanted
        except OSError as problem:
            say(f"Failed to establish session to {self._site.text} via {target.host}: {problem}")
            return None

    async def _connect(self, target: Target) -> Dialogue:
        """Return a connection. Raises `OSError` with a text."""
        if self._site.path:
            where = f"{self._name}[{target.address}]"
            opening = asyncio.open_unix_connection(target.address)
        else:
            where = f"{target.host}[{target.address}]:{target.port}"
            opening = asyncio.open_connection(target.address, target.port)
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                reader, writer = await opening
        except TimeoutError:
            raise OSError(f"connect to {where}: Connection timed out") from None
        except OSError as error:
            # asyncio puts words of its own around the system's.
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise OSError(f"connect to {where}: {reason}") from None
        return Dialogue(reader, writer, self._chat)

    async def _wanted(self, target: Target) -> Wanted:
        """Return the policy for a host. Raises `NoPolicy`."""
        level = self._options.level
        if level == "none":
            return CLEAR
        if level in BY_DANE:
            if self._site.path:
                return await self._at("secure", target)
            return await self._by_dane(target)
        return await self._at(level, target)

    async def _by_dane(self, target: Target) -> Wanted:
        """Return the policy that the TLSA records of a host give, or that of level secure without usable ones."""
        options = self._options
        if target.mx_secure is False and options.insecure_mx == "may":
            say("MX RRset is insecure: try to encrypt")
            return await self._at("may", target)
        wanted = await self._at("dane", target)
        assert wanted.source is not None
        level, why = wanted.source.level, wanted.source.why
        if level == HALF_DANE:
            say("MX RRset insecure: log verified as trusted")
        elif level == "encrypt" and not why.endswith(UNUSABLE):
            say("TLSA RRs found, MX RRset insecure: just encrypt")
        elif level in ("may", "encrypt"):
            if options.level == "dane-only":
                usable = "usable " if level == "encrypt" else ""
                say(f'no {usable}TLSA records found, resorting to "secure"')
            return await self._at("secure", target)
        return wanted

    async def _at(self, level: Level, target: Target) -> Wanted:
        connector = self._connectors[level]
        self._client = connector.client
        # Trust anchors are read with the policy, which then waits for nothing.
        with privileged():
            known = connector.known(self._site, target)
        return await connector.of(self._site, target) if known is None else known

    async def _talk(self, dialogue: Dialogue, target: Target, wanted: Wanted) -> bool:
        """Have the dialogue of one connection; return whether it came to QUIT. Raises `Stop`."""
        peer = f"{target.host}[{target.address}]:{target.port}"
        if self._site.path:
            peer = f"{self._name}[{target.address}]"
        if self._is_first:
            self._chat(f"Connected to {peer}")
        try:
            has_tls = self._options.wrapper
            if not has_tls:
                if not await self._greeting(dialogue) or (reply := await self._ehlo(dialogue)) is None:
                    return False
                self._server = next(iter(reply.lines[0].split()), "")
                has_tls = any(line.split("=")[0].split()[:1] == ["STARTTLS"] for line in _upper(reply))
            if has_tls and wanted.policy is not None and not await self._start_tls(dialogue, peer, wanted):
                return False
            await self._quit(dialogue)
        finally:
            dialogue.close()
        return True

    async def _greeting(self, dialogue: Dialogue) -> bool:
        try:
            reply = await dialogue.reply(self._options.connect_timeout_s)
        except LostError as lost:
            say(f"{lost} while reading server greeting")
            return False
        if not reply.is_good:
            say(f"SMTP service not available: {reply}")
        return reply.is_good

    async def _ehlo(self, dialogue: Dialogue) -> Reply | None:
        verb = "EHLO" if self._options.prefix == "smtp" else "LHLO"
        dialogue.command(f"{verb} {self._name}", shown=self._is_first)
        try:
            reply = await dialogue.reply(self._options.command_timeout_s, shown=self._is_first)
        except LostError as lost:
            say(f"{lost} while sending {verb}")
            return None
        if not reply.is_good:
            say(f"{verb} rejected: {reply}")
            return None
        return reply

    async def _start_tls(self, dialogue: Dialogue, peer: str, wanted: Wanted) -> bool:
        options = self._options
        assert self._client is not None
        assert wanted.policy is not None
        if not options.wrapper:
            dialogue.command("STARTTLS", shown=self._is_first)
            try:
                reply = await dialogue.reply(options.command_timeout_s, shown=self._is_first)
            except LostError as lost:
                raise Stop(f"{lost} while sending STARTTLS") from None
            if not reply.is_good:
                say(f"STARTTLS rejected: {reply}")
                return False
        failure = await dialogue.secure(self._client, wanted.policy, options.command_timeout_s)
        if failure is not None:
            reason, problems = failure
            say(f"SSL_connect error to {peer}: {reason}")
            for problem in problems:
                say(f"warning: TLS library problem: {problem}")
            return False
        assert dialogue.channel is not None
        self._tell(dialogue.channel, peer)
        if options.wrapper and not await self._greeting(dialogue):
            return False
        if self._is_first:
            await self._ehlo(dialogue)
            if not dialogue.channel.chain:
                say("Server is anonymous")
            elif options.prints_chain:
                _print_chain(dialogue.channel)
            self._logged = self._logged - {CERTMATCH, PEERCERT, UNTRUSTED} | {CACHE, SUMMARY}
        return True

    def _tell(self, channel: TlsChannel, peer: str) -> None:
        """Print what the handshake has shown."""
        lines: list[str | None] = []
        if channel.is_resumed and CACHE in self._logged:
            lines.append(f"{peer}: Reusing old session")
        lines.append(channel.distrust_of(peer))
        if CERTMATCH in self._logged:
            lines += channel.matches(peer)
        if self._logged & {CERTMATCH, PEERCERT}:
            lines.append(channel.certificate_to(peer))
        if SUMMARY in self._logged:
            lines.append(channel.established_to(peer))
        for line in lines:
            if line is not None:
                say(line)

    async def _quit(self, dialogue: Dialogue) -> None:
        dialogue.command("QUIT")
        try:
            await dialogue.reply(self._options.command_timeout_s)
        except LostError as lost:
            say(f"warning: {lost} while sending QUIT command")

    def _goes_on(self, dialogue: Dialogue) -> bool:
        """Return whether to connect again; tell why not."""
        if not self._options.delay_s:
            return False
        channel = dialogue.channel
        if self._client is None or not self._client.sessions:
            if channel is None or channel.is_matched or not self._must_match():
                say("Server declined session caching. Done reconnecting.")
            else:
                say("The session is not cached, because the server does not match. Done reconnecting.")
            return False
        if self._server in self._servers or (channel is not None and channel.is_resumed):
            say("Found a previously used server.  Done reconnecting.")
            return False
        self._servers.add(self._server)
        self._left -= 1
        if self._left < 0:
            say("Maximum reconnect count reached.")
        return self._left >= 0

    def _must_match(self) -> bool:
        return self._options.level not in ("none", "may", "encrypt")

    def _chat(self, text: str) -> None:
        if self._options.has_chat:
            say(text)


def _upper(reply: Reply) -> list[str]:
    return [line.upper() for line in reply.lines]


def _print_chain(channel: TlsChannel) -> None:
    print("\n---\nCertificate chain")
    for number, (subject, issuer, certificate, key, pem) in enumerate(channel.chain):
        print(f"{number:2} subject: {subject}\n    issuer: {issuer}")
        print(f"   cert digest={certificate}\n   pkey digest={key}")
        sys.stdout.write(pem)


def _warn(text: str) -> None:
    if not text.startswith(NO_HOST):
        say(f"warning: {text}")
