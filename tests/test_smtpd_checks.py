"""The loop that asks the checks: their order, verdicts that take time, clients that leave, and bugs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from postillion._core.smtpd import Next
from postillion.checks.check import ACCEPT, Answer, Check, Client, Dialogue, Dismiss, Remember, Rule, Stage, Verdict
from postillion.checks.reply import Reply
from postillion.restrictions.access import Access
from postillion.smtpd.connection import STAGES
from support.dialogue import AtRcpt, ClientFacts, Server, answered, site

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com>\r\n"
RCPT = b"RCPT TO:<user@example.org>\r\n"
OK = "250 2.1.5 Ok\r\n"
INTERNAL_ERROR = "451 4.3.0 Error: internal error\r\n"
NO = Verdict(Reply(550, "5.7.1", "no"), rule=Rule("no", "main.cf", 7))


class Scripted(Check):
    """A check that answers as a test says, and notes what it was asked."""

    def __init__(
        self,
        answer: Answer | Callable[[], Answer] = ACCEPT,
        *,
        stages: tuple[Stage, ...] = ("rcpt",),
        remembers: bool = False,
    ) -> None:
        self._answer = answer
        self._stages = frozenset(stages)
        self._remembers = remembers
        self.asked: list[str | None] = []
        self.left = 0

    @property
    def stages(self) -> frozenset[Stage]:
        return self._stages

    @property
    def remembers(self) -> bool:
        return self._remembers

    def connect(self, client: Client, dialogue: Dialogue) -> Answer:
        return self._noted(client.address)

    def rcpt(self, client: Client, dialogue: Dialogue) -> Answer:
        return self._noted(dialogue.recipient)

    def gone(self) -> None:
        self.left += 1

    def _noted(self, subject: str | None) -> Answer:
        self.asked.append(subject)
        return self._answer() if callable(self._answer) else self._answer


class Talk:
    """A client of a server with these checks and no others."""

    def __init__(self, directory: Path, *checks: Check, address: str = "192.0.2.1") -> None:
        self.server = Server(site(directory))
        self.server.service.checks = lambda client, connection: checks  # type: ignore[method-assign]
        self.client = self.server.connect(address)

    def say(self, words: bytes) -> str:
        """Say something; return the answers that come at once."""
        self.client.send(words)
        return self.heard()

    def begin(self) -> None:
        """Begin a message."""
        self.say(EHLO)
        assert self.say(MAIL) == "250 2.1.0 Ok\r\n"

    def heard(self) -> str:
        """Return the answers since the last call."""
        self.client.receive()
        answers = self.client.written.decode()
        self.client.written.clear()
        return answers

    def close(self) -> list[str]:
        """End the session; return the log."""
        self.client.leave()
        self.server.journal.close()
        return list(self.server.log.take_lines())


def future() -> asyncio.Future[Verdict]:
    """Return a verdict that a test gives later."""
    return asyncio.get_running_loop().create_future()


async def done() -> None:
    """Let callbacks of finished futures run."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_checks_are_asked_in_order_until_one_refuses(tmp_path: Path) -> None:
    first, second, third = Scripted(), Scripted(NO), Scripted()
    talk = Talk(tmp_path, first, second, third)
    talk.begin()
    assert talk.say(RCPT) == "550 5.7.1 no\r\n"
    assert (len(first.asked), len(second.asked), len(third.asked)) == (1, 1, 0)
    talk.close()


async def test_a_check_is_asked_in_its_stages_alone(tmp_path: Path) -> None:
    elsewhere, here = Scripted(NO, stages=("vrfy", "data")), Scripted()
    talk = Talk(tmp_path, elsewhere, here)
    talk.begin()
    assert talk.say(RCPT) == OK
    assert (elsewhere.asked, here.asked) == ([], ["user@example.org"])
    talk.close()


async def test_the_last_accepting_reply_is_said(tmp_path: Path) -> None:
    replies = [Scripted(Verdict(Reply(250, "2.1.5", text))) for text in ("first", "last")]
    talk = Talk(tmp_path, *replies, Scripted())
    talk.begin()
    assert talk.say(RCPT) == "250 2.1.5 last\r\n"
    talk.close()


@pytest.mark.parametrize(("verdict", "answer"), [(ACCEPT, OK), (NO, "550 5.7.1 no\r\n")])
async def test_an_awaitable_verdict_holds_up_its_own_session_alone(
    tmp_path: Path, verdict: Verdict, answer: str
) -> None:
    slow = future()
    later = Scripted()
    talk = Talk(tmp_path, Scripted(lambda: slow), later)
    talk.begin()
    assert talk.say(RCPT + b"NOOP\r\n") == ""
    other = talk.server.connect("192.0.2.2")
    other.send(EHLO)
    assert other.written.endswith(b"250 CHUNKING\r\n")
    slow.set_result(verdict)
    await done()
    assert talk.heard() == answer + "250 2.0.0 Ok\r\n"
    assert len(later.asked) == (not verdict.refuses)
    other.leave()
    talk.close()


async def test_replies_before_a_slow_verdict_do_not_wait_for_it(tmp_path: Path) -> None:
    talk = Talk(tmp_path, Scripted(future))
    talk.begin()
    assert talk.say(b"RSET\r\n" + MAIL + RCPT) == "250 2.0.0 Ok\r\n250 2.1.0 Ok\r\n"
    talk.close()


async def test_pipelined_questions_of_both_kinds_keep_their_order(tmp_path: Path) -> None:
    async def slowly() -> Verdict:
        return ACCEPT

    numbers = iter(range(1000))
    mixed = Scripted(lambda: NO if (n := next(numbers)) % 3 == 0 else slowly() if n % 3 == 1 else ACCEPT)
    talk = Talk(tmp_path, mixed)
    talk.begin()
    talk.client.send(b"".join(b"RCPT TO:<u%d@example.org>\r\n" % n for n in range(45)))
    for _ in range(400):
        await asyncio.sleep(0)
    assert talk.heard() == ("550 5.7.1 no\r\n" + OK + OK) * 15
    assert mixed.asked == [f"u{n}@example.org" for n in range(45)]
    talk.close()


async def test_a_thousand_plain_verdicts_need_no_stack(tmp_path: Path) -> None:
    talk = Talk(tmp_path, Scripted())
    talk.begin()
    assert talk.say(RCPT * 1000) == OK * 1000
    talk.close()


async def test_a_client_that_leaves_cancels_the_verdict(tmp_path: Path) -> None:
    slow = future()
    waiting = Scripted(lambda: slow)
    talk = Talk(tmp_path, waiting, Scripted())
    talk.begin()
    talk.say(RCPT)
    talk.client.leave()
    await done()
    assert slow.cancelled()
    assert waiting.left == 1
    assert [line for line in talk.close() if line.startswith("error")] == []


async def test_a_verdict_that_comes_as_the_client_leaves_is_dropped(tmp_path: Path) -> None:
    slow = future()
    talk = Talk(tmp_path, Scripted(lambda: slow), later := Scripted())
    talk.begin()
    talk.say(RCPT)
    slow.set_result(ACCEPT)
    talk.client.leave()
    await done()
    assert later.asked == []
    assert [line for line in talk.close() if line.startswith("error")] == []


def raises() -> Answer:
    raise ZeroDivisionError


async def raises_later() -> Verdict:
    raise ZeroDivisionError


async def is_cancelled() -> Verdict:
    raise asyncio.CancelledError


@pytest.mark.parametrize(
    ("answer", "logged"),
    [
        (raises, "ZeroDivisionError"),
        (raises_later, "ZeroDivisionError"),
        (is_cancelled, "a check was cancelled"),
        (lambda: None, "TypeError"),
    ],
)
async def test_a_bug_in_a_check_is_a_451_and_in_the_log(tmp_path: Path, answer: Any, logged: str) -> None:
    talk = Talk(tmp_path, Scripted(answer), later := Scripted())
    talk.begin()
    talk.client.send(RCPT + b"NOOP\r\n")
    await done()
    assert talk.heard() == INTERNAL_ERROR + "250 2.0.0 Ok\r\n"
    assert later.asked == []
    assert any(logged in line for line in talk.close())


async def test_an_awaitable_that_gives_no_verdict_ends_the_session(tmp_path: Path) -> None:
    async def nothing() -> Any:
        return None

    talk = Talk(tmp_path, Scripted(nothing))
    talk.begin()
    talk.client.send(RCPT)
    await done()
    assert talk.heard() == ""
    assert talk.client.closed
    talk.close()


@pytest.mark.parametrize("later", [False, True])
async def test_a_refusal_replaces_the_greeting(tmp_path: Path, later: bool) -> None:
    async def slowly() -> Verdict:
        return NO

    talk = Talk(tmp_path, Scripted(slowly if later else NO, stages=("connect",)))
    await done()
    assert talk.heard() == "550 5.7.1 no\r\n"
    assert talk.say(RCPT) == "503 5.7.0 Error: access denied for unknown[192.0.2.1]\r\n"
    assert any("reject: CONNECT from unknown[192.0.2.1]: 550 5.7.1 no" in line for line in talk.close())


async def test_a_client_that_is_dismissed_hears_421_and_the_log_has_no_second_line(tmp_path: Path) -> None:
    verdict = Verdict(Reply(421, "4.7.0", "Error: too many"), (Dismiss(),))
    talk = Talk(tmp_path, Scripted(verdict, stages=("connect",)))
    assert talk.heard() == "421 4.7.0 mx.example.org Error: too many\r\n"
    assert talk.client.closed
    assert not any("reject" in line for line in talk.close())


async def test_a_bug_before_the_greeting_lets_nobody_in(tmp_path: Path) -> None:
    talk = Talk(tmp_path, Scripted(raises, stages=("connect",)))
    assert talk.heard() == INTERNAL_ERROR
    talk.close()


@pytest.mark.parametrize("other_remembers", [True, False])
async def test_an_acceptance_is_remembered_if_each_check_allows_it(tmp_path: Path, other_remembers: bool) -> None:
    accepting = Scripted(Verdict(actions=(Remember("@example.org"),)), remembers=True)
    talk = Talk(tmp_path, accepting, Scripted(stages=(), remembers=other_remembers))
    talk.begin()
    assert talk.say(RCPT + b"RCPT TO:<other@example.org>\r\n") == OK * 2
    assert len(accepting.asked) == (1 if other_remembers else 2)
    talk.close()


async def test_a_refusal_is_never_remembered(tmp_path: Path) -> None:
    accepting = Scripted(Verdict(actions=(Remember("@example.org"),)), remembers=True)
    talk = Talk(tmp_path, accepting, Scripted(NO, remembers=True))
    talk.begin()
    assert talk.say(RCPT * 2) == "550 5.7.1 no\r\n" * 2
    assert len(accepting.asked) == 2
    talk.close()


def test_a_verdict_names_the_rule_with_file_and_line(tmp_path: Path) -> None:
    options = ["smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination"]
    config = site(tmp_path, options)
    access = Access(config, lambda _: None)
    talk = AtRcpt(recipient="x@far.example")
    refused, own = (answered(access.rcpt(client, talk)) for client in (ClientFacts(), ClientFacts(trusted=True)))
    setting = config.setting("smtpd_relay_restrictions")
    assert setting is not None
    assert refused.rule == Rule("reject_unauth_destination", setting.path, setting.line)
    assert own.rule == Rule("permit_mynetworks", setting.path, setting.line)
    unlisted = answered(access.rcpt(ClientFacts(), AtRcpt(recipient="nobody-here@example.org"))).rule
    assert unlisted is not None
    assert unlisted.name == "smtpd_reject_unlisted_recipient"


def test_the_page_about_the_dialogue_has_each_question_and_its_method() -> None:
    text = (Path(__file__).parent.parent / "docs" / "dialogue.md").read_text()
    rows = re.findall(r"^\| `([A-Z_]+)` \|[^|]*\| `([a-z_]+)` \|$", text, re.MULTILINE)
    assert [(getattr(Next, name), method) for name, method in rows] == list(STAGES.items())
    assert all(next_step.is_question and callable(getattr(Check, method)) for next_step, method in STAGES.items())
    others = re.findall(r"^\| `([A-Z_]+)` \| [^|]*\|$", text, re.MULTILINE)
    assert {name for name in vars(Next) if name.isupper()} == {name for name, _ in rows} | set(others)
