"""A site's aiosmtpd handler (`smtpd_python_handler = module:Class`): its hooks, and how they are called.

The contract is aiosmtpd's (https://aiosmtpd.aio-libs.org/en/latest/handlers.html): `handle_RCPT(server, session,
envelope, address, options)` and its kin return the reply. Plain functions will do as well as coroutines. Hooks are
found once a process. A call has `smtpd_python_handler_timeout`; a late one, one that raises, and one whose answer is
no reply count as `smtpd_python_handler_default_action`. How long they take is in the log, every `STATISTICS_S`.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, Final

from postillion._core.log import Log
from postillion.config import Config
from postillion.handler.auth import FAILED, Exchange, Mechanisms
from postillion.handler.calls import Blocked, Calls, Fault
from postillion.restrictions.access import Reply

HOOKS: Final = ("HELO", "EHLO", "MAIL", "RCPT", "DATA", "RSET", "VRFY", "NOOP", "QUIT")
STATISTICS_S: Final = 60.0
"""How often the log tells the calls of each hook, while there are any."""
TRACEBACK_MAX_LINES: Final = 30
REPLY_LINE: Final = re.compile(r"([2-5][0-9][0-9])(?:[ -](.*))?", re.DOTALL)
ENHANCED: Final = re.compile(r"([245]\.[0-9]{1,3}\.[0-9]{1,3})(?: +(.*))?", re.DOTALL)


class Counts:
    """What became of a hook's calls: how many, failed, late, and their seconds."""

    __slots__ = ("calls", "failed", "late", "longest_s", "total_s")

    def __init__(self) -> None:
        self.calls = self.failed = self.late = 0
        self.total_s = self.longest_s = 0.0


class Handler:
    """The hooks of one handler."""

    def __init__(self, handler: object, *, timeout_s: float, default: Reply, log: Log) -> None:
        """Find the hooks. Raises `TypeError` for a handle_EHLO with neither four nor five parameters."""
        self.handler = handler
        self._timeout_s = timeout_s
        self._default = default
        self._log = log
        self._calls = Calls(log.warning)
        self._hooks: dict[str, Callable[..., object]] = {}
        for name in HOOKS:
            hook = getattr(handler, f"handle_{name}", None)
            if callable(hook):
                self._hooks[name] = hook
        self.mechanisms = Mechanisms(handler)
        self._on_exception = getattr(handler, "handle_exception", None)
        self.ehlo_parameters = self._ehlo_parameters()
        self.counts = {name: Counts() for name in (*self._hooks, "AUTH")}
        self._told = 0
        self._next_at = time.monotonic() + STATISTICS_S
        for name in dir(handler):
            if name in ("handle_STARTTLS", "handle_PROXY"):
                log.warning(f"{type(handler).__name__}.{name} is never called: smtpd has no such command")

    def has(self, name: str) -> bool:
        """Is there a hook for this command?"""
        return name in self._hooks

    async def ask(self, name: str, *arguments: object) -> object:
        """Return what the hook returns; a `Reply` when it failed."""
        counts = self.counts[name]
        begun = time.monotonic()
        try:
            return await self._calls.run(self._hooks[name], arguments, self._timeout_s)
        except TimeoutError:
            counts.late += 1
            self._log.warning(f"handle_{name}: no answer within {self._timeout_s:g} s")
            return self._default
        except Blocked as problem:
            counts.failed += 1
            self._log.warning(f"handle_{name}: {problem}")
            return self._default
        except Fault as fault:
            counts.failed += 1
            return await self._handled(name, fault)
        finally:
            self._count(counts, begun)

    def exchange(self, server: Any) -> Exchange:
        """Return what carries one AUTH command out for a server."""
        self.mechanisms.prepare(server)
        return Exchange(server, self._calls, self._timeout_s)

    async def ask_exchange(self, exchange: Exchange, words: str) -> Reply:
        """Return the exchange's reply to a line of the client's, and count it."""
        counts = self.counts["AUTH"]
        begun = time.monotonic()
        reply = await exchange.reply(words)
        if exchange.fault is not None:
            answer = await self._handled("AUTH", exchange.fault)
            reply = FAILED if answer is self._default else self.reply("AUTH", answer)
        elif exchange.problem:
            self._log.warning(f"AUTH: {exchange.problem}")
        self._count(counts, begun, late=exchange.problem.startswith("no answer"), failed=reply is FAILED)
        return reply

    def reply(self, name: str, status: object) -> Reply:
        """Return the reply that a hook's answer is; the default when it is none."""
        reply = status if isinstance(status, Reply) else parse(status)
        if reply is None or reply.code // 100 == 3:
            self.counts[name].failed += 1
            self._log.warning(f"handle_{name} returned {str(status)[:100]!r}, which is no reply")
            return self._default
        return reply

    def _count(self, counts: Counts, begun: float, *, late: bool = False, failed: bool = False) -> None:
        seconds = time.monotonic() - begun
        counts.calls += 1
        counts.late += late
        counts.failed += failed and not late
        counts.total_s += seconds
        counts.longest_s = max(counts.longest_s, seconds)
        if begun + seconds >= self._next_at:
            self.tell()

    def tell(self) -> None:
        """Write what there is to tell of the hooks since the process began."""
        self._next_at = time.monotonic() + STATISTICS_S
        total = sum(counts.calls for counts in self.counts.values())
        if total == self._told:
            return
        self._told = total
        for name, counts in self.counts.items():
            if counts.calls:
                mean_ms = 1000 * counts.total_s / counts.calls
                self._log.info(
                    f"statistics: handle_{name} calls={counts.calls} failed={counts.failed} late={counts.late} "
                    f"mean={mean_ms:.1f} ms max={1000 * counts.longest_s:.1f} ms"
                )

    async def _handled(self, name: str, fault: Fault) -> object:
        """What handle_exception makes of an exception; the default without it."""
        problem = fault.__cause__
        assert problem is not None
        if self._on_exception is not None:
            try:
                return await self._calls.run(self._on_exception, (problem,), self._timeout_s)
            except (TimeoutError, Blocked, Fault) as again:
                self._log.warning(f"handle_exception: {again or 'no answer in time'}")
        self._log.warning(f"handle_{name}: {fault}")
        text = "".join(traceback.format_exception(problem)).splitlines()
        for line in text[-TRACEBACK_MAX_LINES:]:
            self._log.line("warning", line)
        return self._default

    def _ehlo_parameters(self) -> int:
        """Return 4 or 5: the older form has no list of responses; 0 without the hook."""
        hook = self._hooks.get("EHLO")
        if hook is None:
            return 0
        count = len(inspect.signature(hook).parameters)
        if count not in (4, 5):
            raise TypeError(f"handle_EHLO has {count} parameters: it must have 4 or 5")
        return count


def parse(status: object) -> Reply | None:
    """Return the reply that a text such as `250 2.1.5 Ok` says; `LF` or `CRLF` between lines. None for none."""
    if isinstance(status, bytes):
        status = status.decode("utf-8", "replace")
    if not isinstance(status, str):
        return None
    texts = []
    code = ""
    for line in status.removesuffix("\n").removesuffix("\r").replace("\r\n", "\n").split("\n"):
        found = REPLY_LINE.fullmatch(line)
        if found is None or (code and found[1] != code):
            return None
        code = found[1]
        texts.append(found[2] or "")
    text = "\n".join(texts)
    found = ENHANCED.fullmatch(text)
    if found is not None and len(texts) == 1 and found[1][0] == code[0]:
        return Reply(int(code), found[1], found[2] or "")
    return Reply(int(code), "", text or " ")


def load(config: Config, log: Log) -> Handler | None:
    """Return the handler that main.cf names, None without one. Raises `ConfigError` when it cannot be had."""
    name = config.text("smtpd_python_handler").strip()
    if not name:
        return None
    default = parse(config.text("smtpd_python_handler_default_action"))
    if default is None or default.code < 400:
        problem = "smtpd_python_handler_default_action is no refusal"
        raise config.error(
            "smtpd_python_handler_default_action", problem, "give a reply such as 451 4.3.0 Try again later"
        )
    module, _, attribute = name.partition(":")
    directory = config.text("config_directory")
    if directory not in sys.path:
        # Last: nothing beside main.cf takes the place of what is installed.
        sys.path.append(directory)
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        handler = found() if inspect.isclass(found) else found
        made = Handler(handler, timeout_s=config.seconds("smtpd_python_handler_timeout"), default=default, log=log)
    except Exception as problem:
        # Whatever a site's module does when it is imported: without its policy no mail is taken.
        reason = f"smtpd_python_handler: {name}: {type(problem).__name__}: {problem}"
        raise config.error("smtpd_python_handler", reason, "give module:Class of an aiosmtpd handler") from problem
    return made
