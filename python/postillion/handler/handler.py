"""A site's aiosmtpd handler (`smtpd_python_handler = module:Class`): its hooks, and how they are called.

The contract is aiosmtpd's (https://aiosmtpd.aio-libs.org/en/latest/handlers.html): `handle_RCPT(server, session,
envelope, address, options)` and the other hooks return the reply. A hook is a plain function or a coroutine function.
The hooks are found once, when the process starts. A call that takes longer than `smtpd_python_handler_timeout`, that
raises, or that returns no reply counts as `smtpd_python_handler_default_action`. The log has the times of the calls.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import time
import traceback
from collections.abc import Callable
from typing import Final

from postillion._core.log import Log
from postillion.checks.check import Rule, Stage
from postillion.checks.reply import Reply, parse
from postillion.config import Config
from postillion.handler.auth import FAILED, Exchange, Mechanisms
from postillion.handler.calls import Blocked, Calls, Fault
from postillion.handler.facade import ServerFacade

STAGES: Final[dict[str, Stage]] = {
    "HELO": "helo",
    "EHLO": "helo",
    "MAIL": "mail",
    "RCPT": "rcpt",
    "DATA": "end_of_data",
    "RSET": "rset",
    "VRFY": "vrfy",
    "NOOP": "noop",
    "QUIT": "quit",
}
"""The stage in which each hook is asked. handle_DATA is asked when the whole message has come, as in aiosmtpd."""
HOOKS: Final = tuple(STAGES)
STATISTICS_S: Final = 60.0
"""Interval of the log lines with the number of calls of each hook, while there are calls."""
TRACEBACK_MAX_LINES: Final = 30


class CallCounts:
    """A hook's calls: their number, failures, timeouts, and times in seconds."""

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
        self.rules = {name: _rule(name, hook) for name, hook in self._hooks.items()}
        """Each hook, as the rule that decided."""
        self.mechanisms = Mechanisms(handler)
        authenticates: set[Stage] = {"auth"} if self.mechanisms.names else set()
        self.stages: frozenset[Stage] = frozenset({STAGES[name] for name in self._hooks} | authenticates)
        """The stages in which the handler has a say."""
        self._on_exception = getattr(handler, "handle_exception", None)
        self.ehlo_parameters = self._ehlo_parameters()
        self.counts = {name: CallCounts() for name in (*self._hooks, "AUTH")}
        self._told = 0
        self._next_at = time.monotonic() + STATISTICS_S
        for name in dir(handler):
            if name in ("handle_STARTTLS", "handle_PROXY"):
                log.warning(f"{type(handler).__name__}.{name} is never called: smtpd has no such command")

    def has(self, name: str) -> bool:
        """Return whether there is a hook for this command."""
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

    def exchange(self, server: ServerFacade) -> Exchange:
        """Return a new exchange for one AUTH command."""
        self.mechanisms.prepare(server)
        return Exchange(server, self._calls, self._timeout_s)

    async def ask_exchange(self, exchange: Exchange, words: str) -> Reply:
        """Return the exchange's reply to a line of the client, and count it."""
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

    def warn(self, text: str) -> None:
        """Write a warning to the log."""
        self._log.warning(text)

    def reply(self, name: str, status: object) -> Reply:
        """Return a hook's answer as a reply; the default action if it is no reply."""
        reply = status if isinstance(status, Reply) else parse(status)
        if reply is None or reply.code // 100 == 3:
            self.counts[name].failed += 1
            self._log.warning(f"handle_{name} returned {str(status)[:100]!r}, which is no reply")
            return self._default
        return reply

    def _count(self, counts: CallCounts, begun: float, *, late: bool = False, failed: bool = False) -> None:
        seconds = time.monotonic() - begun
        counts.calls += 1
        counts.late += late
        counts.failed += failed and not late
        counts.total_s += seconds
        counts.longest_s = max(counts.longest_s, seconds)
        if begun + seconds >= self._next_at:
            self.tell()

    def tell(self) -> None:
        """Write the counts of all hooks to the log, if there were calls since the last time."""
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
        """Return what handle_exception makes of an exception; the default action without such a hook."""
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


def _rule(name: str, hook: Callable[..., object]) -> Rule:
    """Return a hook as a rule, with the place of its code if it has one."""
    code = getattr(inspect.unwrap(hook), "__code__", None)
    if code is None:
        return Rule(f"handle_{name}")
    return Rule(f"handle_{name}", code.co_filename, code.co_firstlineno)


def load(config: Config, log: Log) -> Handler | None:
    """Return the handler that main.cf names, None without one. Raises `ConfigError` when it cannot be loaded."""
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
        # At the end: a file beside main.cf must not replace an installed module.
        sys.path.append(directory)
    try:
        found = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
        handler = found() if inspect.isclass(found) else found
        made = Handler(handler, timeout_s=config.seconds("smtpd_python_handler_timeout"), default=default, log=log)
    except Exception as problem:
        # A site's module may raise anything when it is imported. Without the policy, no mail is taken.
        reason = f"smtpd_python_handler: {name}: {type(problem).__name__}: {problem}"
        raise config.error("smtpd_python_handler", reason, "give module:Class of an aiosmtpd handler") from problem
    return made
