"""A site's handler as a check: the questions of one session, put to the hooks with aiosmtpd's objects.

The queue gets what the dialogue has accepted; the envelope is the hooks' view of it. A hook that sets
`envelope.mail_from` or appends to `rcpt_tos`, as aiosmtpd asks, finds its own values there later. Where no hook has set
them, they are filled in.
"""

from __future__ import annotations

from collections.abc import Awaitable

import aiosmtpd.smtp

from postillion.checks.check import ACCEPT, Answer, Authenticate, Check, Client, Dialogue, Stage, Verdict
from postillion.checks.reply import Reply, parse
from postillion.handler.auth import CHALLENGE, SUCCESS, Exchange, user
from postillion.handler.facade import ServerFacade, Socket
from postillion.handler.handler import Handler


class Policy(Check):
    """The hooks of one session."""

    def __init__(self, handler: Handler, socket: Socket, hostname: str) -> None:
        """`hostname`: the server's name."""
        self._handler = handler
        self.server = ServerFacade(socket, handler.handler, hostname)
        self._message = 0
        self.exchange: Exchange | None = None
        """The AUTH command that is being carried out."""
        self._mechanism = ""

    @property
    def stages(self) -> frozenset[Stage]:
        """The stages that have a hook."""
        return self._handler.stages

    @property
    def remembers(self) -> bool:
        """A hook for RCPT is asked about each recipient."""
        return "rcpt" not in self.stages

    def helo(self, client: Client, dialogue: Dialogue) -> Answer:
        """Call handle_HELO or handle_EHLO."""
        name = "EHLO" if dialogue.extended else "HELO"
        return self._helo(name, dialogue) if self._handler.has(name) else ACCEPT

    async def mail(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_MAIL."""
        parameters = dialogue.mail_parameters
        self._new_envelope().smtp_utf8 = "SMTPUTF8" in parameters
        self._message = dialogue.transactions + 1
        self._tell_session(dialogue)
        reply = await self._ask("MAIL", dialogue.sender or "<>", parameters)
        if reply.code < 300:
            self._fill_mail(dialogue)
        return self._verdict("MAIL", reply)

    async def rcpt(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_RCPT."""
        envelope = self._envelope_of(dialogue)
        address, options = dialogue.recipient or "", dialogue.rcpt_parameters
        known = len(envelope.rcpt_tos)
        reply = await self._ask("RCPT", address, options)
        if reply.code < 300 and len(envelope.rcpt_tos) == known:
            envelope.rcpt_tos.append(address)
            envelope.rcpt_options.extend(options)
        return self._verdict("RCPT", reply)

    async def end_of_data(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_DATA. A message that it accepts is answered with the queue ID, once it is on disk."""
        envelope = self._envelope_of(dialogue)
        if not self._handler.has("RCPT"):
            envelope.rcpt_tos = dialogue.recipients
        envelope.content = envelope.original_content = dialogue.content()
        reply = await self._ask("DATA")
        self._new_envelope()
        return self._verdict("DATA", None if reply.code < 300 else reply)

    async def vrfy(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_VRFY."""
        self._envelope_of(dialogue)
        return self._verdict("VRFY", await self._ask("VRFY", dialogue.recipient))

    async def rset(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_RSET, with a new envelope."""
        self._message = dialogue.transactions
        self._new_envelope()
        self._tell_session(dialogue)
        self._fill_mail(dialogue)
        return self._verdict("RSET", await self._ask("RSET"))

    async def noop(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_NOOP."""
        self._envelope_of(dialogue)
        return self._verdict("NOOP", await self._ask("NOOP", dialogue.argument or None))

    async def quit(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Call handle_QUIT."""
        self._envelope_of(dialogue)
        return self._verdict("QUIT", await self._ask("QUIT"))

    async def auth(self, client: Client, dialogue: Dialogue) -> Verdict:
        """Carry out AUTH: this is its first line, or the client's answer to a challenge."""
        session, words = self.server.session, dialogue.argument
        if self.exchange is None:
            session.host_name, session.extended_smtp = dialogue.helo, dialogue.extended
            self._mechanism = words.split()[0].upper()
            self.exchange = self._handler.exchange(self.server)
            self.server.carry(self.exchange)
        reply = await self._handler.ask_exchange(self.exchange, words)
        if reply.code == CHALLENGE:
            return Verdict(reply)
        self.server.carry(None)
        self.exchange = None
        session.authenticated = reply.code == SUCCESS
        if session.authenticated:
            return Verdict(reply, (Authenticate(self._mechanism, user(session)),))
        host = f"{client.name}[{client.address}]"
        self._handler.warn(f"{host}: SASL {self._mechanism} authentication failed: {reply.text}")
        return Verdict(reply)

    def gone(self) -> None:
        """Stop an exchange, and let go of the connection."""
        if self.exchange is not None:
            self.exchange.cancel()
        self.server.gone()

    def _helo(self, name: str, dialogue: Dialogue) -> Awaitable[Verdict]:
        self._message = dialogue.transactions
        self._new_envelope()
        self.server.session.extended_smtp = dialogue.extended
        return self._greeted(name, dialogue.helo or "", dialogue.ehlo_text.split("\n"))

    async def _greeted(self, name: str, host: str, ehlo: list[str]) -> Verdict:
        """Call the hook. handle_EHLO has two forms: the newer returns all lines, the older only the last one."""
        handler, session = self._handler, self.server.session
        if name == "EHLO" and handler.ehlo_parameters == 5:
            responses = [*(f"250-{line}" for line in ehlo[:-1]), f"250 {ehlo[-1]}"]
            answer = await handler.ask(name, self.server, session, self.server.envelope, host, responses)
            if isinstance(answer, list) and answer:
                answer = parse("\n".join(str(line) for line in answer))
            reply = handler.reply(name, answer)
        else:
            reply = await self._ask(name, host)
            if name == "EHLO" and reply.code < 300:
                reply = Reply(reply.code, "", "\n".join([*ehlo, " ".join(filter(None, reply[1:]))]))
        if reply.code < 300 and not session.host_name:
            session.host_name = host
        return self._verdict(name, reply)

    async def _ask(self, name: str, *arguments: object) -> Reply:
        server = self.server
        status = await self._handler.ask(name, server, server.session, server.envelope, *arguments)
        return self._handler.reply(name, status)

    def _verdict(self, name: str, reply: Reply | None) -> Verdict:
        return Verdict(reply, rule=self._handler.rules[name])

    def _envelope_of(self, dialogue: Dialogue) -> aiosmtpd.smtp.Envelope:
        """Return the envelope of the message in the dialogue, up to date; so is the session."""
        if dialogue.transactions != self._message:
            self._new_envelope()
        self._message = dialogue.transactions
        self._tell_session(dialogue)
        self._fill_mail(dialogue)
        return self.server.envelope

    def _tell_session(self, dialogue: Dialogue) -> None:
        self.server.session.extended_smtp = dialogue.extended
        self.server.session.host_name = dialogue.helo

    def _fill_mail(self, dialogue: Dialogue) -> None:
        envelope = self.server.envelope
        if envelope.mail_from is None and dialogue.sender is not None:
            envelope.mail_from = dialogue.sender or "<>"
            envelope.mail_options = envelope.mail_options or dialogue.mail_parameters
            envelope.smtp_utf8 = "SMTPUTF8" in envelope.mail_options

    def _new_envelope(self) -> aiosmtpd.smtp.Envelope:
        self.server.envelope = aiosmtpd.smtp.Envelope()
        return self.server.envelope
