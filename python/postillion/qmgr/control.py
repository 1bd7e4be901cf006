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

import os
import pwd
from typing import Any, Final, Protocol

import msgspec

from postillion._core.log import Log
from postillion._core.qmgr import QueueManager
from postillion.program import ipc
from postillion.qmgr.settings import Configuration
from postillion.tables import TableError, open_table

REQUEST_MAX_IDS: Final = 100_000
"""Maximum number of IDs in one request; a command with more sends several requests."""
REQUEST_MAX_OFFSETS: Final = 1000
"""Maximum number of changes of the reader's time zone in one request."""
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


class Queue(Protocol):
    """The part of the queue manager that control requests need."""

    core: QueueManager
    log: Log
    configuration: Configuration

    def now(self) -> tuple[float, float]:
        """Return the event loop's time and the wall clock's."""

    def hand_over(self, client: int, frame: bytes, descriptor: int) -> None:
        """Send a frame and a descriptor to a client."""


class Control:
    """Answers control requests."""

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._users: dict[int, int] = {}
        self._decoder = msgspec.json.Decoder(Request)

    def connected(self, client: int, uid: int) -> None:
        """Note the user of a new connection."""
        self._users[client] = uid

    def lost(self, client: int) -> None:
        """Drop a closed connection."""
        self._users.pop(client, None)

    def trigger(self, client: int, letters: bytes) -> None:
        """Scan the queue directory for unannounced mail. With `F`, also retry deferred mail, if the user may flush."""
        self._queue.core.rescan(*self._queue.now())
        if b"F" in letters:
            try:
                self._permit(client, "authorized_flush_users", "flush the mail queue")
            except Refused as problem:
                self._queue.log.warning(f"a trigger on public/qmgr: {problem}")
            else:
                self._flush(Request("flush"))

    def request(self, client: int, json: bytes) -> None:
        """Answer one request."""
        try:
            answer = self._answer(client, self._decoder.decode(json))
        except msgspec.MsgspecError as problem:
            answer = {"error": f"bad request: {problem}"}
        except (Refused, TableError, OSError) as problem:
            answer = {"error": str(problem)}
        if answer is not None:
            self._queue.core.reply(client, msgspec.json.encode(answer) + b"\n", last=True)

    def _answer(self, client: int, request: Request) -> dict[str, Any] | None:
        core, verb = self._queue.core, request.verb
        if verb == "list":
            self._list(client, request)
            return None
        if verb == "flush":
            self._permit(client, "authorized_flush_users", "flush the mail queue")
            return {"done": self._flush(request)}
        if verb == "place":
            self._permit(client, None, "read mail in the queue")
            place = core.place(request.id or "")
            path, offset, octets = place or (None, 0, 0)
            return {"path": path, "offset": offset, "octets": octets}
        if verb == "status":
            self._permit(client, "authorized_mailq_users", "view the mail queue")
            return core.counts()
        if verb == "rescan":
            self._permit(client, None, "change the mail queue")
            core.rescan(*self._queue.now())
            return {"done": []}
        if verb in CHANGES:
            self._permit(client, None, "change the mail queue")
            if request.ids is not None and len(request.ids) > REQUEST_MAX_IDS:
                raise Refused(f"more than {REQUEST_MAX_IDS} queue IDs in one request")
            return {"done": core.apply(verb, request.ids, request.queues, *self._queue.now())}
        if verb in ("leave", "left"):
            self._permit(client, None, "change the mail queue")
            if verb == "left":
                return {"done": core.left(client, request.ids or [])}
            messages, busy, more = core.leave(client, request.ids, request.queues, request.after)
            return {"messages": messages, "busy": busy, "next": more}
        raise Refused(f"unknown verb {verb!r}")

    def _list(self, client: int, request: Request) -> None:
        """Start a thread that lists the queue into a pipe, and send the read end to the command."""
        privileged = self._permit(client, "authorized_mailq_users", "view the mail queue")
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

    def _permit(self, client: int, parameter: str | None, what: str) -> bool:
        """Raise `Refused` unless the client's user may do this. `parameter`: the list of further users with permission.

        Return whether the user may do everything.
        """
        uid = self._users.get(client, -1)
        if uid in (0, os.geteuid()):
            return True
        try:
            name = pwd.getpwuid(uid).pw_name
        except KeyError:
            name = "unknown"
        if name == self._queue.configuration.config.text("mail_owner"):
            return True
        if parameter is None or not self._listed(name, parameter):
            raise Refused(f"User {name}({uid}) is not allowed to {what}")
        return False

    def _listed(self, name: str, parameter: str) -> bool:
        """Return whether a user is in a list such as authorized_flush_users; the first match decides."""
        config = self._queue.configuration.config
        for word in config.items(parameter):
            bare = word.lstrip("!")
            try:
                fits = bare == name or (
                    ":" in bare and open_table(bare, config, log=config.log).lookup(name) is not None
                )
            except TableError as problem:
                self._queue.log.warning(f"{parameter}: {problem}")
                return False
            if fits:
                return not word.startswith("!")
        return False
