"""One client with open decisions: the loop that asks the checks and reports their verdict."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Final, Protocol

from postillion._core.smtpd import Next, Request, SmtpdService, SmtpdSession
from postillion.checks.check import (
    ACCEPT,
    Authenticate,
    Check,
    CompleteHeaders,
    Dismiss,
    NoDialogue,
    Remember,
    Stage,
    Verdict,
)
from postillion.checks.reply import INTERNAL_ERROR
from postillion.smtpd.clients import Client
from postillion.smtpd.mode import Mode
from postillion.smtpd.names import Name
from postillion.tables.answers import Answer, Batch, MessageLookups

KNOWN_FOR_S: Final = 10.0
"""Time for which a client's names and its accepted recipients are remembered."""
STAGES: Final[dict[Next, Stage]] = {
    Next.HELO: "helo",
    Next.MAIL: "mail",
    Next.RCPT: "rcpt",
    Next.VRFY: "vrfy",
    Next.DATA: "data",
    Next.END_OF_DATA: "end_of_data",
    Next.RSET: "rset",
    Next.NOOP: "noop",
    Next.QUIT: "quit",
    Next.AUTH: "auth",
}
"""The questions of a session, by the method of a check that answers them."""
AnyRequest = (
    Request.Welcome
    | Request.Decide
    | Request.WakeUp
    | Request.Gone
    | Request.Sweep
    | Request.Empty
    | Request.AcceptFailed
)
Requests = list[AnyRequest] | None


class Owner(Protocol):
    """The service that a connection belongs to."""

    core: SmtpdService
    loop: asyncio.AbstractEventLoop

    def mode(self, *, stressed: bool) -> Mode:
        """Return the settings of sessions that begin under stress, or of the others."""
        ...

    def checks(self, client: Client, connection: Connection) -> tuple[Check, ...]:
        """Return the checks of a client, in their order."""
        ...

    def handle(self, requests: Requests) -> None:
        """Handle the requests of the core."""

    def log_bug(self, text: str) -> None:
        """Log a traceback of our own code."""

    def fail(self, key: int, text: str) -> None:
        """Log a bug about a client, and close its connection."""


class Connection:
    """A client, its checks, and the question that is being decided."""

    def __init__(self, owner: Owner, key: int) -> None:
        """`key`: the connection's number in the core. A session that has begun belongs to a known client."""
        self.loop = owner.loop
        self.task: asyncio.Future[Client] | asyncio.Future[Verdict] | Batch | None = None
        """The client waits for this: its name, or the answer of a check."""
        self.checks: tuple[Check, ...] = ()
        self.stressed = owner.core.is_stressed(key)
        """Whether the session began under stress."""
        self.mode = owner.mode(stressed=self.stressed)
        """The lists and limits of the session."""
        self._owner = owner
        self._key = key
        self._client: Client | None = None
        self._wake_up: asyncio.TimerHandle | None = None
        self._gone = False
        self._session = owner.core.session(key)
        if self._session is not None:
            address, name, reverse_name = self._session.client
            self._know(self.mode.clients.named(address, Name(name, reverse_name)))

    def welcome(self) -> None:
        """Find the client's names, and greet it."""
        peer = self.peer
        assert peer is not None
        address, _ = peer
        client = self.mode.clients.known(address)
        if client is not None:
            self._identified(client)
        else:
            task = self.loop.create_task(self.mode.clients.identify(address), name=f"name of {address}")
            task.add_done_callback(self._named)
            self.task = task

    def decide(self, stage: Stage | None) -> None:
        """Answer the session's questions until none is open or a check needs time."""
        if stage is not None and self._client is None and self._session is not None:
            self._identify_again(self._session, stage)
            return
        while stage is not None:
            verdict = self._ask(stage, iter(self.checks), ACCEPT)
            if verdict is None:
                # The replies to earlier commands need not wait.
                self._owner.handle(self._owner.core.proceed(self._key, Next.IDLE, self.loop.time()))
                return
            stage = self._answer(stage, verdict)

    def look_up(self) -> None:
        """Make the lookups for the client's recipient or message, and go on when all are answered."""
        if self._session is not None:
            self._begin_lookups(self._session, MessageLookups(), self._session.recipient)
            # The replies to earlier commands need not wait.
            self._owner.handle(self._owner.core.proceed(self._key, Next.IDLE, self.loop.time()))

    def sleep(self, until: float) -> None:
        """Wake the session up at a time (seconds, monotonic)."""
        if self._wake_up is not None:
            self._wake_up.cancel()
        self._wake_up = self.loop.call_at(until, self._wake)

    def gone(self) -> None:
        """Stop everything about the client: its connection is closed. A commit goes on without it."""
        self._gone = True
        for handle in (self.task, self._wake_up):
            if handle is not None:
                handle.cancel()
        for check in self.checks:
            check.gone()

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address and port, None when it is gone."""
        return self._owner.core.peer(self._key)

    def write(self, octets: bytes) -> None:
        """Send octets to the client outside the dialogue."""
        self._owner.handle(self._owner.core.write(self._key, octets, self.loop.time()))

    def abort(self) -> None:
        """Close at once."""
        self._owner.handle(self._owner.core.abort(self._key, self.loop.time()))

    def _ask(self, stage: Stage, checks: Iterator[Check], verdict: Verdict) -> Verdict | None:
        """Ask the checks that are left, until one refuses; None while one of them needs time.

        `verdict`: the verdict of the checks before. A check that raises is a bug: the client gets 451.
        """
        dialogue = self._session or NoDialogue()
        for check in checks:
            if stage not in check.stages:
                continue
            try:
                answer = getattr(check, stage)(self._client, dialogue)
                task = None if isinstance(answer, Verdict) else asyncio.ensure_future(answer, loop=self.loop)
            except Exception:
                answer, task = self._bug(traceback.format_exc()), None
            if task is not None:
                self.task = task
                task.add_done_callback(partial(self._answered, stage, checks, verdict))
                return None
            verdict = verdict.then(answer)
            if verdict.refuses:
                break
        return verdict

    def _answered(self, stage: Stage, checks: Iterator[Check], verdict: Verdict, task: asyncio.Future[Verdict]) -> None:
        """Go on where `_ask` stopped: a check has answered."""
        self.task = None
        if self._gone:
            return
        try:
            later = verdict.then(self._result(task))
            decided = later if later.refuses else self._ask(stage, checks, later)
            if decided is not None:
                self.decide(self._answer(stage, decided))
        except Exception:
            self._owner.fail(self._key, traceback.format_exc())

    def _result(self, task: asyncio.Future[Verdict]) -> Verdict:
        if task.cancelled():
            return self._bug("a check was cancelled")
        problem = task.exception()
        if problem is not None:
            return self._bug("".join(traceback.format_exception(problem)))
        return task.result()

    def _bug(self, text: str) -> Verdict:
        """Log a bug in a check, and refuse for now: a bug must not let mail in."""
        self._owner.log_bug(text)
        return Verdict(INTERNAL_ERROR)

    def _answer(self, stage: Stage, verdict: Verdict) -> Stage | None:
        """Give the session the verdict; return its next question."""
        session, now = self._session, self.loop.time()
        if session is None:
            self._begin(verdict)
            return None
        for action in verdict.actions:
            if isinstance(action, Authenticate):
                session.authenticate(action.method, action.user)
            elif isinstance(action, CompleteHeaders):
                session.complete_headers()
            elif isinstance(action, Remember) and session.group is not None and verdict.reply is None:
                until = now + KNOWN_FOR_S
                self._owner.core.remember(
                    session.group, action.scope, until, listing=action.listing, stressed=self.stressed
                )
        next_step = session.accept(now) if verdict.reply is None else session.reply(*verdict.reply, now)
        question = STAGES.get(next_step)
        if question is None:
            self._owner.handle(self._owner.core.proceed(self._key, next_step, now))
        return question

    def _begin_lookups(self, session: SmtpdSession, rounds: MessageLookups, recipient: str | None) -> None:
        """Begin the next lookups for a recipient, or for the message (None)."""
        asked = session.lookups()
        self.task = rounds.begin(asked, partial(self._looked_up, session, rounds, recipient, asked))

    def _looked_up(
        self,
        session: SmtpdSession,
        rounds: MessageLookups,
        recipient: str | None,
        asked: Sequence[tuple[int, bytes]],
        answers: Sequence[Answer] | Exception,
    ) -> None:
        """Give the session the answers; it may need more of them."""
        self.task = None
        try:
            if isinstance(answers, Exception):
                raise answers
            now = self.loop.time()
            step = session.answer_lookups(asked, answers, now)
            if step == Next.LOOKUP and session.recipient == recipient:
                self._begin_lookups(session, rounds, recipient)
            else:
                self._owner.handle(self._owner.core.proceed(self._key, step, now))
        except Exception:
            self._owner.fail(self._key, traceback.format_exc())

    def _identify_again(self, session: SmtpdSession, stage: Stage) -> None:
        """Ask the remote tables about a client whose session has begun already, then answer its question."""
        address, name, reverse_name = session.client
        task = self.loop.create_task(self.mode.clients.find(address, Name(name, reverse_name)))
        task.add_done_callback(partial(self._identified_again, stage))
        self.task = task

    def _identified_again(self, stage: Stage, task: asyncio.Future[Client]) -> None:
        self.task = None
        if self._gone:
            return
        try:
            self._know(task.result())
            self.decide(stage)
        except (Exception, asyncio.CancelledError):
            self._owner.fail(self._key, traceback.format_exc())

    def _know(self, client: Client | None) -> None:
        """Take the client and its checks; None if it is not known yet."""
        self._client = client
        self.checks = self._owner.checks(client, self) if client is not None else ()

    def _named(self, task: asyncio.Future[Client]) -> None:
        self.task = None
        if self._gone:
            return
        try:
            self._identified(task.result())
        except (Exception, asyncio.CancelledError):
            self._owner.fail(self._key, traceback.format_exc())

    def _identified(self, client: Client) -> None:
        self._know(client)
        self.decide("connect")

    def _begin(self, verdict: Verdict) -> None:
        """Greet the client, or refuse it. Rust greets clients from its address from now on if no check is asked."""
        client, core, now = self._client, self._owner.core, self.loop.time()
        assert client is not None
        facts, reply = client.facts, verdict.reply if verdict.refuses else None
        group = client.group if all(check.remembers for check in self.checks) else None
        if not (facts.problem or any("connect" in check.stages for check in self.checks)):
            core.know(
                facts.address,
                client.name,
                client.reverse_name,
                now + KNOWN_FOR_S,
                group=group,
                rewrites_headers=facts.rewrites_headers,
                bare_newline_spared=facts.spared,
                tls_log_level=facts.tls_log_level,
                stressed=self.stressed,
            )
        dismissal = reply.text if reply is not None and Dismiss() in verdict.actions else None
        requests = core.begin(
            self._key,
            facts.address,
            client.name,
            client.reverse_name,
            now,
            group=group,
            rewrites_headers=facts.rewrites_headers,
            bare_newline_spared=facts.spared,
            tls_log_level=facts.tls_log_level,
            refusal=reply,
            dismissal=dismissal,
        )
        self._session = core.session(self._key)
        self._owner.handle(requests)

    def _wake(self) -> None:
        self._wake_up = None
        self._owner.handle(self._owner.core.wake(self._key, self.loop.time()))
