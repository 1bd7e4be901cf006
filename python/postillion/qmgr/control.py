"""Control requests over public/qmgr, from postqueue, postsuper and master.

A request is one JSON object with a `verb`, a reply is one or several JSON lines. Permissions depend on the user at the
other end of the socket: root, mail_owner and the queue manager's own user may do everything; other users may list
(authorized_mailq_users) and flush (authorized_flush_users).

| verb | further members | reply |
|---|---|---|
| `list` | `text`, `waits`, `offsets` | `{}` and a pipe with the listing (`list_queue`), then `{"listed": n}` |
| `flush` | `id`, `site` or neither | `{"done": n}` |
| `hold` `release` `delete` `expire` | `ids` (none: all), `queues` | `{"done": [ids]}` |
| `leave` | the same, `after` | `{"messages": [[id, path, offset, octets]], "busy": [ids], "next": id}` |
| `left` | `ids` | `{"done": [ids]}`: these are removed |
| `rescan` | | `{"done": []}`, after a search for messages without an announcement |
| `place` | `id` | `{"path": , "offset": , "octets": }`; path null: no such message |
| `status` | | counts by name |

The client moves the messages of `leave` and confirms them with `left`; the end of its connection returns the others to
the queue. The reply to a failed request is `{"error": text}`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from postillion._core.log import Log
from postillion._core.qmgr import QueueManager
from postillion.config.match_list import match_word
from postillion.delivery.account import NoAnswerError
from postillion.delivery.accounts import Accounts
from postillion.program import ipc
from postillion.qmgr.settings import Configuration
from postillion.tables import TableError, open_table

REQUEST_MAX_IDS: Final = 100_000
"""Maximum number of IDs in one request; a command with more sends several requests."""
REQUEST_MAX_OFFSETS: Final = 1000
"""Maximum number of changes of the reader's time zone in one request."""
NAMES_MAX: Final = 1000
"""Maximum number of requests of ordinary users that wait for the name service; further ones are refused."""
CHANGES: Final = frozenset({"hold", "release", "delete", "expire"})


class Refused(Exception):
    """A request that is not allowed; the text gives the reason."""


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The request of a command."""

    verb: str
    id: str | None = None
    site: str | None = None
    ids: list[str] | None = None
    queues: list[str] = []
    after: str = ""
    text: bool = False
    waits: bool = False
    offsets: list[tuple[int, int]] = []


class User(NamedTuple):
    """The user of a client. `name`: None for one who may do everything."""

    uid: int
    name: str | None


class Queue(Protocol):
    """The part of the queue manager that control requests need."""

    core: QueueManager
    log: Log
    configuration: Configuration

    def now(self) -> tuple[float, float]:
        """Return the event loop's time and the wall clock's."""

    def hand_over(self, client: int, frame: bytes, descriptor: int) -> None:
        """Send a frame and a descriptor to a client."""

    def poll_soon(self) -> None:
        """Send the replies."""


class Control:
    """Answers control requests."""

    def __init__(self, queue: Queue, accounts: Accounts | None = None) -> None:
        """`accounts`: the users; None: those of the system."""
        self._queue = queue
        self._users: dict[int, int] = {}
        self._accounts = accounts or Accounts()
        self._naming: set[asyncio.Task[None]] = set()
        """Requests that wait for the name of their user."""
        self._decoder = msgspec.json.Decoder(Request)

    def connected(self, client: int, uid: int) -> None:
        """Note the user of a new connection."""
        self._users[client] = uid

    def lost(self, client: int) -> None:
        """Drop a closed connection."""
        self._users.pop(client, None)

    def close(self) -> None:
        """Drop the requests that wait for the name of their user."""
        for task in self._naming:
            task.cancel()
        self._accounts.close()

    def trigger(self, client: int, letters: bytes) -> None:
        """Scan the queue directory for unannounced mail. With `F`, also retry deferred mail, if the user may flush."""
        self._queue.core.rescan(*self._queue.now())
        if b"F" in letters:
            self._with_user(client, self._flush_for, self._not_flushed)

    def request(self, client: int, json: bytes) -> None:
        """Answer one request; that of an ordinary user once the name service has told the name."""
        self._with_user(client, partial(self._respond, client, json), partial(self._refuse, client))

    def _with_user(self, client: int, work: Callable[[User], None], refuse: Callable[[str], None]) -> None:
        """Call `work` with the client's user, at once for root and the queue manager's own user."""
        uid = self._users.get(client, -1)
        if uid in (0, os.geteuid()):
            work(User(uid, None))
        elif len(self._naming) >= NAMES_MAX:
            refuse(f"more than {NAMES_MAX} requests wait for the names of their users")
        else:
            task = asyncio.get_running_loop().create_task(self._named(uid, work, refuse))
            self._naming.add(task)
            task.add_done_callback(self._naming.discard)

    async def _named(self, uid: int, work: Callable[[User], None], refuse: Callable[[str], None]) -> None:
        try:
            account = await self._accounts.numbered(uid)
        except NoAnswerError as problem:
            refuse(str(problem))
        else:
            name = "unknown" if account is None else account.name
            is_owner = name == self._queue.configuration.config.text("mail_owner")
            work(User(uid, None if is_owner else name))
        self._queue.poll_soon()

    def _flush_for(self, user: User) -> None:
        """Try every deferred message if the user may do so."""
        try:
            self._permit(user, "authorized_flush_users", "flush the mail queue")
        except Refused as problem:
            self._not_flushed(str(problem))
        else:
            self._flush(Request("flush"))

    def _not_flushed(self, problem: str) -> None:
        self._queue.log.warning(f"a trigger on public/qmgr: {problem}")

    def _refuse(self, client: int, problem: str) -> None:
        self._reply(client, {"error": problem})

    def _respond(self, client: int, json: bytes, user: User) -> None:
        """Answer a request of this user, unless the client has gone."""
        if client not in self._users:
            return
        try:
            answer = self._answer(client, user, self._decoder.decode(json))
        except msgspec.MsgspecError as problem:
            answer = {"error": f"bad request: {problem}"}
        except (Refused, TableError, OSError) as problem:
            answer = {"error": str(problem)}
        if answer is not None:
            self._reply(client, answer)

    def _reply(self, client: int, answer: dict[str, Any]) -> None:
        self._queue.core.reply(client, msgspec.json.encode(answer) + b"\n", last=True)

    def _answer(self, client: int, user: User, request: Request) -> dict[str, Any] | None:
        core, verb = self._queue.core, request.verb
        if verb == "list":
            self._list(client, user, request)
            return None
        if verb == "flush":
            self._permit(user, "authorized_flush_users", "flush the mail queue")
            return {"done": self._flush(request)}
        if verb == "place":
            self._permit(user, None, "read mail in the queue")
            place = core.place(request.id or "")
            path, offset, octets = place or (None, 0, 0)
            return {"path": path, "offset": offset, "octets": octets}
        if verb == "status":
            self._permit(user, "authorized_mailq_users", "view the mail queue")
            return core.counts()
        if verb == "rescan":
            self._permit(user, None, "change the mail queue")
            core.rescan(*self._queue.now())
            return {"done": []}
        if verb in CHANGES:
            self._permit(user, None, "change the mail queue")
            if request.ids is not None and len(request.ids) > REQUEST_MAX_IDS:
                raise Refused(f"more than {REQUEST_MAX_IDS} queue IDs in one request")
            return {"done": core.apply(verb, request.ids, request.queues, *self._queue.now())}
        if verb in ("leave", "left"):
            self._permit(user, None, "change the mail queue")
            if verb == "left":
                return {"done": core.left(client, request.ids or [])}
            messages, busy, more = core.leave(client, request.ids, request.queues, request.after)
            return {"messages": messages, "busy": busy, "next": more}
        raise Refused(f"unknown verb {verb!r}")

    def _list(self, client: int, user: User, request: Request) -> None:
        """Start a thread that lists the queue into a pipe, and send the read end to the command."""
        privileged = self._permit(user, "authorized_mailq_users", "view the mail queue")
        if len(request.offsets) > REQUEST_MAX_OFFSETS:
            raise Refused(f"more than {REQUEST_MAX_OFFSETS} changes of the time zone")
        pipe = self._queue.core.list(
            client,
            *self._queue.now(),
            text=request.text,
            waits=request.waits,
            offsets=request.offsets,
            privileged=privileged,
        )
        try:
            self._queue.hand_over(client, ipc.reply(b"{}\n", last=False), pipe)
        finally:
            os.close(pipe)

    def _flush(self, request: Request) -> int:
        core = self._queue.core
        if request.site is not None:
            if request.site.lower().strip("[]") not in self._queue.configuration.flush_domains:
                raise Refused(f'Flush service is not configured for destination "{request.site}"')
            core.flush_site(request.site, *self._queue.now())
            return 0
        ids = None if request.id is None else [request.id]
        return len(core.apply("flush", ids, [], *self._queue.now()))

    def _permit(self, user: User, parameter: str | None, what: str) -> bool:
        """Raise `Refused` unless the user may do this. `parameter`: the list of further users with permission.

        Return whether the user may do everything.
        """
        if user.name is None:
            return True
        if parameter is None or not self._listed(user.name, parameter):
            raise Refused(f"User {user.name}({user.uid}) is not allowed to {what}")
        return False

    def _listed(self, name: str, parameter: str) -> bool:
        """Return whether a user is in a list such as authorized_flush_users; the first match decides."""
        config = self._queue.configuration.config
        for word in config.items(parameter):
            allowed, bare = match_word(word)
            try:
                fits = bare == name or (
                    ":" in bare and open_table(bare, config, log=config.log).lookup(name) is not None
                )
            except TableError as problem:
                self._queue.log.warning(f"{parameter}: {problem}")
                return False
            if fits:
                return allowed
        return False
