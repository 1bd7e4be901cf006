"""One session's side of a site's handler: aiosmtpd's objects, and the dialogue's questions put to the hooks.

What the dialogue has accepted is what is queued; the envelope is the hooks' view of it. A hook that sets
`envelope.mail_from` or appends to `rcpt_tos`, as aiosmtpd asks of it, finds its own values there later; where it did
not, they are filled in.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol

import aiosmtpd.smtp

from postillion._core.smtpd import SmtpdSession
from postillion.handler.auth import CHALLENGE, SUCCESS, Exchange, user
from postillion.handler.handler import Handler, parse
from postillion.restrictions.access import Reply

HELO, MAIL, RCPT, VRFY = SmtpdSession.HELO, SmtpdSession.MAIL, SmtpdSession.RCPT, SmtpdSession.VRFY
CONTENT, RSET, NOOP, QUIT = SmtpdSession.CONTENT, SmtpdSession.RSET, SmtpdSession.NOOP, SmtpdSession.QUIT
NAMES: Final = {MAIL: "MAIL", RCPT: "RCPT", VRFY: "VRFY", CONTENT: "DATA", RSET: "RSET", NOOP: "NOOP", QUIT: "QUIT"}


class Server(Protocol):
    """The protocol object that hooks are given, and what carries an AUTH exchange out for it."""

    event_handler: Any
    hostname: str
    session: Any
    envelope: Any
    transport: Any

    def carry(self, exchange: Exchange | None) -> None:
        """Let an AUTH exchange have the next lines; None ends that."""


class Policy:
    """The hooks' view of one session."""

    def __init__(self, server: Server, handler: Handler, core: SmtpdSession, ehlo_text: str) -> None:
        self._server = server
        self._handler = handler
        self._core = core
        self._ehlo = ehlo_text.split("\n")
        self._message = 0
        self._exchange: Exchange | None = None
        self.mechanism = ""
        """What the last AUTH asked for."""
        server.event_handler = handler.handler
        server.hostname = self._ehlo[0]
        server.session = self._session = aiosmtpd.smtp.Session(asyncio.get_running_loop())
        assert server.transport is not None
        self._session.peer = server.transport.get_extra_info("peername")
        self._begin()

    def name(self, turn: int) -> str:
        """The hook that a question is for, without `handle_`; empty when there is none."""
        name = NAMES.get(turn, "EHLO" if self._core.extended else "HELO") if turn in (HELO, *NAMES) else ""
        return name if self._handler.has(name) else ""

    async def authenticate(self) -> Reply:
        """Return the reply to AUTH, or to the client's answer to a challenge."""
        core, session, words = self._core, self._session, self._core.argument
        if self._exchange is None:
            session.host_name, session.extended_smtp = core.helo, core.extended
            self.mechanism = words.split()[0].upper()
            self._exchange = self._handler.exchange(self._server)
            self._server.carry(self._exchange)
        reply = await self._handler.ask_exchange(self._exchange, words)
        if reply.code != CHALLENGE:
            self._server.carry(None)
            self._exchange = None
            session.authenticated = reply.code == SUCCESS
            if session.authenticated:
                core.authenticate(self.mechanism, user(session))
        return reply

    def cancel(self) -> None:
        """The client is gone."""
        if self._exchange is not None:
            self._exchange.cancel()

    async def verdict(self, turn: int, name: str) -> Reply | None:
        """Return the reply to a question; None to answer as without a hook."""
        core, envelope = self._core, self._envelope
        if turn in (MAIL, HELO, RSET) or core.transactions != self._message:
            envelope = self._begin()
        self._message = core.transactions + (turn == MAIL)
        self._session.extended_smtp = core.extended
        if turn != HELO:
            self._session.host_name = core.helo
        if turn == HELO:
            return await self._helo(name, core.helo or "")
        if turn == MAIL:
            envelope.smtp_utf8 = "SMTPUTF8" in core.mail_parameters
            reply = await self._ask(name, core.sender or "<>", core.mail_parameters)
            if reply.code < 300:
                self._fill_mail()
            return reply
        self._fill_mail()
        if turn == RCPT:
            return await self._rcpt(name)
        if turn == CONTENT:
            return await self._data(name)
        if turn == VRFY:
            return await self._ask(name, core.recipient)
        return await self._ask(name, core.argument or None) if turn == NOOP else await self._ask(name)

    async def _ask(self, name: str, *arguments: object) -> Reply:
        status = await self._handler.ask(name, self._server, self._session, self._envelope, *arguments)
        return self._handler.reply(name, status)

    async def _helo(self, name: str, host: str) -> Reply | None:
        ehlo = name == "EHLO"
        responses = [*(f"250-{line}" for line in self._ehlo[:-1]), f"250 {self._ehlo[-1]}"]
        if not (ehlo and self._handler.ehlo_parameters == 5):
            reply = await self._ask(name, host)
            if ehlo and reply.code < 300:
                # The older form: its answer is the last line, behind the keywords.
                reply = Reply(reply.code, "", "\n".join([*self._ehlo, " ".join(filter(None, reply[1:]))]))
        else:
            answer = await self._handler.ask(name, self._server, self._session, self._envelope, host, responses)
            lines = answer if isinstance(answer, list) else None
            text = "\n".join(str(line) for line in lines) if lines else answer
            reply = self._handler.reply(name, parse(text) if lines else text)
        if reply.code < 300 and not self._session.host_name:
            self._session.host_name = host
        return reply

    async def _rcpt(self, name: str) -> Reply:
        core, envelope = self._core, self._envelope
        address = core.recipient or ""
        known = len(envelope.rcpt_tos)
        options = core.rcpt_parameters
        reply = await self._ask(name, address, options)
        if reply.code < 300 and len(envelope.rcpt_tos) == known:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return reply

    async def _data(self, name: str) -> Reply | None:
        envelope = self._envelope
        if not self._handler.has("RCPT"):
            envelope.rcpt_tos = self._core.recipients
        envelope.content = envelope.original_content = self._core.content()
        reply = await self._ask(name)
        self._begin()
        # A message that is taken is answered with its queue ID, once it is on disk.
        return None if reply.code < 300 else reply

    def _fill_mail(self) -> None:
        core, envelope = self._core, self._envelope
        if envelope.mail_from is None and core.sender is not None:
            envelope.mail_from = core.sender or "<>"
            envelope.mail_options = envelope.mail_options or core.mail_parameters
            envelope.smtp_utf8 = "SMTPUTF8" in envelope.mail_options

    def _begin(self) -> aiosmtpd.smtp.Envelope:
        self._server.envelope = self._envelope = aiosmtpd.smtp.Envelope()
        return self._envelope
