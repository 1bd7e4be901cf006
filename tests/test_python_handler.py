"""smtpd_python_handler: aiosmtpd's hooks as a site's policy, with a deadline, isolated from other sessions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import smtplib
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import MISSING, AuthResult, LoginPassword, auth_mechanism

from postillion._core.log import Log
from postillion.checks.reply import Reply, parse
from postillion.config import Config, ConfigError
from postillion.handler import calls, handler
from postillion.handler.policy import Policy
from support.dialogue import Client, Server, site
from support.mta import until
from support.peers import peer
from support.queue_files import read_queue
from test_smtpd import running

EHLO = b"EHLO client.example\r\n"
MAIL = b"MAIL FROM:<a@example.com> SIZE=5 BODY=8BITMIME\r\n"
RCPT = b"RCPT TO:<user@example.org> NOTIFY=NEVER\r\n"
NO_POLICY = "451 4.3.0 No policy\r\n"


class HandlerSession:
    """A client of a server with a handler."""

    def __init__(self, directory: Path, site_handler: object, options: list[str] | None = None) -> None:
        self.directory = directory
        self.server = Server(site(directory, options), handler=site_handler)
        self.client = self.server.connect()
        self.client.written.clear()

    async def send(self, octets: bytes, client: Client | None = None) -> str:
        """Send octets; return all replies, once no hook call is pending."""
        client = client or self.client
        client.send(octets)
        while client.task is not None:
            await asyncio.wait((client.task,))
            await asyncio.sleep(0)
        client.receive()
        self.server.finish_commits(client)
        replies = client.written.decode()
        client.written.clear()
        return replies

    def close(self) -> list[str]:
        """End the session; return the log."""
        self.client.leave()
        assert self.server.service.handler is not None
        self.server.service.handler.tell()
        self.server.journal.close()
        return list(self.server.log.take_lines())

    @property
    def policy(self) -> Policy:
        """The hooks of the client's session."""
        assert self.client.connection is not None
        found = self.client.connection.checks[-1]
        assert isinstance(found, Policy)
        return found

    def queued(self) -> list[dict[str, Any]]:
        """Return the messages in the queue."""
        return [json.loads(line) for line in read_queue(str(self.directory / "queue"))]


class Recorder:
    """Has every hook. Each records its arguments and does what aiosmtpd requires."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        self.seen.append(("EHLO", hostname, session.host_name, session.extended_smtp, session.peer))
        session.host_name = hostname
        return [*responses[:1], "250-X-OURS", *responses[1:]]

    def handle_HELO(self, server: Any, session: Any, envelope: Any, hostname: str) -> str:
        self.seen.append(("HELO", hostname, session.extended_smtp))
        session.host_name = hostname
        return f"250 {server.hostname}"

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        self.seen.append(("MAIL", address, options, session.host_name, envelope.mail_from))
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        self.seen.append(("RCPT", address, options, envelope.mail_from, list(envelope.rcpt_tos)))
        if address.startswith("no-"):
            return "553 5.7.1 not here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 taken"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.seen.append(("DATA", envelope.content, envelope.rcpt_tos, envelope.mail_from, envelope.mail_options))
        return "554 5.6.0 no" if b"spam" in envelope.content else "250 Message accepted for delivery"

    def handle_RSET(self, server: Any, session: Any, envelope: Any) -> str:
        self.seen.append(("RSET", envelope.mail_from))
        return "250 forgotten"

    async def handle_VRFY(self, server: Any, session: Any, envelope: Any, address: str) -> str:
        self.seen.append(("VRFY", address))
        return "252 perhaps"

    async def handle_NOOP(self, server: Any, session: Any, envelope: Any, argument: str | None) -> str:
        self.seen.append(("NOOP", argument))
        return "250 noop"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        self.seen.append(("QUIT",))
        return "221 goodbye"


async def test_every_hook_is_called_as_in_aiosmtpd(tmp_path: Path) -> None:
    recorder = Recorder()
    smtp = HandlerSession(tmp_path, recorder)
    assert await smtp.send(b"HELO old\r\n") == "250 mx.example.org\r\n"
    reply = await smtp.send(EHLO)
    assert reply.startswith("250-mx.example.org\r\n250-X-OURS\r\n250-PIPELINING\r\n")
    assert reply.endswith("\r\n250 CHUNKING\r\n")
    assert await smtp.send(MAIL + RCPT) == "250 OK\r\n250 2.1.5 taken\r\n"
    assert await smtp.send(b"RCPT TO:<user@far.example>\r\n") == "250 2.1.5 taken\r\n"
    reply = await smtp.send(b"DATA\r\n") + await smtp.send(b"..dot\r\nlast\r\n.\r\n")
    assert reply.startswith("354 End data with <CR><LF>.<CR><LF>\r\n250 2.0.0 Ok: queued as ")
    assert await smtp.send(b"VRFY user@example.org\r\n") == "252 perhaps\r\n"
    assert await smtp.send(b"RSET\r\n") == "250 forgotten\r\n"
    assert await smtp.send(b"NOOP\r\n") + await smtp.send(b"NOOP x y\r\n") == "250 noop\r\n" * 2
    assert await smtp.send(b"QUIT\r\n") == "221 goodbye\r\n"
    assert smtp.client.closed
    log = smtp.close()
    options = ["SIZE=5", "BODY=8BITMIME"]
    recipients = ["user@example.org", "user@far.example"]
    assert recorder.seen == [
        ("HELO", "old", False),
        ("EHLO", "client.example", "old", True, ("127.0.0.1", 4025)),
        ("MAIL", "a@example.com", options, "client.example", None),
        ("RCPT", "user@example.org", ["NOTIFY=NEVER"], "a@example.com", []),
        ("RCPT", "user@far.example", [], "a@example.com", ["user@example.org"]),
        ("DATA", b".dot\r\nlast\r\n", recipients, "a@example.com", options),
        ("VRFY", "user@example.org"),
        ("RSET", None),
        ("NOOP", None),
        ("NOOP", "x y"),
        ("QUIT",),
    ]
    (message,) = smtp.queued()
    assert len(message["recipients"]) == 2
    assert any(line.startswith("statistics: handle_RCPT calls=2 failed=0 late=0 mean=") for line in log)


async def test_refusal_of_hook_is_the_reply_and_nothing_is_queued(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Recorder())
    await smtp.send(EHLO)
    assert (await smtp.send(MAIL + b"RCPT TO:<no-one@far.example>\r\n")).endswith("553 5.7.1 not here\r\n")
    assert (await smtp.send(RCPT + b"BDAT 6 LAST\r\nspam\r\n")).endswith("taken\r\n554 5.6.0 no\r\n")
    assert "250 2.0.0 Ok: 5 bytes queued as " in await smtp.send(MAIL + RCPT + b"BDAT 5 LAST\r\nham\r\n")
    log = smtp.close()
    assert len(smtp.queued()) == 1
    assert any("reject: RCPT from unknown[127.0.0.1]: 553 5.7.1 not here; from=<a@example.com>" in line for line in log)
    assert any("reject: END-OF-MESSAGE from unknown[127.0.0.1]: 554 5.6.0 no; " in line for line in log)


async def test_restrictions_of_main_cf_refuse_before_the_hook_is_called(tmp_path: Path) -> None:
    recorder = Recorder()
    smtp = HandlerSession(tmp_path, recorder)
    await smtp.send(EHLO)
    assert (await smtp.send(MAIL + b"RCPT TO:<nobody-here@example.org>\r\n")).endswith("local recipient table\r\n")
    assert [entry[0] for entry in recorder.seen] == ["EHLO", "MAIL"]
    smtp.close()


async def test_envelope_is_complete_without_hooks(tmp_path: Path) -> None:
    class Last:
        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            seen.append((envelope.mail_from, envelope.rcpt_tos, session.host_name, envelope.smtp_utf8))
            envelope.mark = True
            assert server.envelope is envelope
            assert server.session is session
            return "250 OK"

    seen: list[tuple[Any, ...]] = []
    smtp = HandlerSession(tmp_path, Last())
    await smtp.send(EHLO)
    await smtp.send(b"MAIL FROM:<> SMTPUTF8\r\nRCPT TO:<user@example.org>\r\nBDAT 0 LAST\r\n")
    await smtp.send(MAIL + RCPT + b"BDAT 0 LAST\r\n")
    smtp.close()
    assert seen == [
        ("<>", ["user@example.org"], "client.example", True),
        ("a@example.com", ["user@example.org"], "client.example", False),
    ]


async def test_older_form_of_handle_ehlo_works(tmp_path: Path) -> None:
    class Old:
        async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str) -> str:
            session.host_name = hostname
            return "250 HELP"

    smtp = HandlerSession(tmp_path, Old())
    assert (await smtp.send(EHLO)).endswith("\r\n250-CHUNKING\r\n250 HELP\r\n")
    assert (await smtp.send(b"MAIL FROM:<>\r\nRSET\r\n")).endswith("250 2.0.0 Ok\r\n")
    smtp.close()


@pytest.mark.parametrize("reply", [None, 250, "", "OK", "99 x", "354 go on", "250-a\r\n550 b", b"\xff"])
async def test_invalid_result_of_hook_gives_default_reply(tmp_path: Path, reply: object) -> None:
    class Odd:
        async def handle_MAIL(self, *_: object) -> object:
            return reply

    smtp = HandlerSession(tmp_path, Odd())
    assert await smtp.send(MAIL) == NO_POLICY
    assert await smtp.send(b"RCPT TO:<user@example.org>\r\n") == "503 5.5.1 Error: need MAIL command\r\n"
    assert any("which is no reply" in line for line in smtp.close())


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt, RecursionError])
@pytest.mark.parametrize("form", ["coroutine", "function"])
async def test_exception_in_hook_gives_default_reply_and_log_line(
    tmp_path: Path, error: type[BaseException], form: str
) -> None:
    async def coroutine(*_: object) -> str:
        raise error("oops")

    def function(*_: object) -> str:
        raise error("oops")

    class Broken:
        handle_MAIL = staticmethod(coroutine if form == "coroutine" else function)
        handle_NOOP = staticmethod(_fine)

    smtp = HandlerSession(tmp_path, Broken())
    assert await smtp.send(MAIL) + await smtp.send(b"NOOP\r\n") == NO_POLICY + "250 fine\r\n"
    log = smtp.close()
    assert f"warning: handle_MAIL: {error.__name__}: oops" in log
    assert any(line.startswith("statistics: handle_MAIL calls=1 failed=1 late=0") for line in log)


async def _fine(*_: object) -> str:
    return "250 fine"


async def test_handle_exception_converts_an_exception_to_a_reply(tmp_path: Path) -> None:
    class Careful:
        async def handle_MAIL(self, *_: object) -> str:
            raise ValueError("oops")

        async def handle_exception(self, error: Exception) -> str:
            return f"450 4.0.0 {type(error).__name__} {error}"

    class Careless(Careful):
        async def handle_exception(self, error: Exception) -> str:
            raise error

    smtp = HandlerSession(tmp_path / "1", Careful())
    assert await smtp.send(MAIL) == "450 4.0.0 ValueError oops\r\n"
    smtp.close()
    smtp = HandlerSession(tmp_path / "2", Careless())
    assert await smtp.send(MAIL) == NO_POLICY
    smtp.close()


class Hanging:
    """Hooks that never return: one waits, one blocks its thread, one blocks its event loop."""

    def __init__(self) -> None:
        self.end = threading.Event()

    async def handle_RCPT(self, *_: object) -> str:
        await asyncio.Event().wait()
        return "250 never"

    def handle_NOOP(self, *_: object) -> str:
        self.end.wait()
        return "250 never"

    async def handle_RSET(self, *_: object) -> str:
        self.end.wait()
        return "250 never"

    async def handle_MAIL(self, *_: object) -> str:
        return "250 OK"

    def handle_VRFY(self, *_: object) -> str:
        return "252 OK"


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """A handler that hangs until the test ends."""
    found = Hanging()
    yield found
    found.end.set()


SHORT = ["smtpd_python_handler_timeout = 2s"]


@pytest.mark.parametrize("command", [b"NOOP\r\n", b"RSET\r\n"])
async def test_hanging_hook_delays_only_its_session_until_the_deadline(
    tmp_path: Path, hanging: Hanging, command: bytes
) -> None:
    smtp = HandlerSession(tmp_path, hanging, SHORT)
    assert smtp.server.service.handler is not None
    slow = asyncio.create_task(smtp.send(command))
    await asyncio.sleep(0)
    other = smtp.server.connect()
    other.written.clear()
    # A command without a hook does not wait for the handler.
    assert (await smtp.send(EHLO, other)).endswith("250 CHUNKING\r\n")
    assert not slow.done()
    assert await slow == NO_POLICY
    # Hooks of both forms work again afterwards.
    assert await smtp.send(b"VRFY user@example.org\r\n") == "252 OK\r\n"
    assert await smtp.send(MAIL, other) == "250 OK\r\n"
    other.leave()
    log = smtp.close()
    assert f"warning: handle_{command.decode().strip()}: no answer within 2 s" in log
    assert any("late=1" in line for line in log)
    assert any("another one is started" in line for line in log) == (command == b"RSET\r\n")


async def test_waiting_coroutine_is_cancelled_and_its_event_loop_kept(tmp_path: Path, hanging: Hanging) -> None:
    smtp = HandlerSession(tmp_path, hanging, SHORT)
    await smtp.send(EHLO)
    assert (await smtp.send(MAIL + RCPT)).endswith(NO_POLICY)
    await asyncio.sleep(0.1)
    assert (await smtp.send(b"RSET\r\n")) == NO_POLICY
    assert [line for line in smtp.close() if "another one" in line] == []


async def test_blocked_threads_and_loops_are_bounded(hanging: Hanging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "THREADS_MAX", 2)
    monkeypatch.setattr(calls, "LOOPS_MAX", 2)
    warnings: list[str] = []
    runs = calls.Calls(warnings.append)
    before = threading.active_count()
    outcomes = await asyncio.gather(*(runs.run(hanging.handle_NOOP, (), 0.1) for _ in range(5)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError] * 5
    assert threading.active_count() == before + 2
    for _ in range(2):
        with pytest.raises(TimeoutError):
            await runs.run(hanging.handle_RSET, (), 0.1)
    with pytest.raises(calls.Blocked):
        await runs.run(hanging.handle_RSET, (), 0.1)
    assert len(warnings) == 1
    hanging.end.set()
    assert await runs.run(hanging.handle_VRFY, (), 10.0) == "252 OK"


async def test_disconnect_of_client_cancels_its_hook(tmp_path: Path, hanging: Hanging) -> None:
    smtp = HandlerSession(tmp_path, hanging)
    await smtp.send(EHLO)
    smtp.client.send(MAIL + RCPT)
    while not smtp.client.written.endswith(b"250 OK\r\n"):
        await asyncio.sleep(0.01)
        smtp.client.receive()
    task = smtp.client.task
    assert task is not None
    smtp.client.leave()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    smtp.close()


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("250 OK", Reply(250, "", "OK")),
        ("250 2.1.5 Ok", Reply(250, "2.1.5", "Ok")),
        ("550 2.1.5 No", Reply(550, "", "2.1.5 No")),
        ("250", Reply(250, "", " ")),
        ("250-a\r\n250 b\r\n", Reply(250, "", "a\nb")),
        (b"421 4.7.0 Bye", Reply(421, "4.7.0", "Bye")),
        ("250 a\n550 b", None),
        ("Ok", None),
        (None, None),
    ],
)
def test_replies_are_parsed_from_results_of_hooks(status: object, expected: Reply | None) -> None:
    assert parse(status) == expected


MODULE = """\
class Policy:
    handle_PROXY = handle_STARTTLS = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        return "250 OK"


class Broken:
    def handle_EHLO(self, server):
        return "250 OK"


ready = Policy()
"""


@pytest.mark.parametrize("name", ["a_policy:Policy", "a_policy:ready"])
def test_handler_is_loaded_from_directory_of_main_cf(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "a_policy.py").write_text(MODULE)
    log = Log("mx", "postfix", "smtpd", 1, 0, "memory:")
    found = handler.load(site(tmp_path, [f"smtpd_python_handler = {name}"]), log)
    assert found is not None
    assert [hook for hook in handler.HOOKS if found.has(hook)] == ["RCPT"]
    assert len([line for line in log.take_lines() if "is never called" in line]) == 2
    assert handler.load(site(tmp_path), log) is None
    for bad in ("a_policy:Broken", "a_policy:Nothing", "no_such_module:X", "a_policy"):
        config: Config = site(tmp_path, [f"smtpd_python_handler = {bad}"])
        with pytest.raises(ConfigError, match=f"smtpd_python_handler: {bad}: "):
            handler.load(config, log)
    config = site(tmp_path, [f"smtpd_python_handler = {name}", "smtpd_python_handler_default_action = 250 Ok"])
    with pytest.raises(ConfigError, match="no refusal"):
        handler.load(config, log)


# AUTH.


def plain(password: bytes) -> str:
    """Return the AUTH PLAIN command for this password."""
    return "AUTH PLAIN " + b64encode(b"\0user\0" + password).decode()


SASL = [
    "smtpd_sasl_auth_enable = yes",
    "smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination",
]
SASL += ["mynetworks =", "smtpd_sasl_authenticated_header = yes"]
FAR = b"RCPT TO:<x@far.example>\r\n"


def check(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> AuthResult:
    """An authenticator as aiosmtpd defines it."""
    assert server.session is session
    assert mechanism in ("LOGIN", "PLAIN")
    if data.password == b"raise":
        raise ValueError("oops")
    if data.password == b"block":
        threading.Event().wait(3)
    return AuthResult(success=data == LoginPassword(b"user", b"secret"), handled=False, auth_data=data)


class Passwords:
    authenticator = staticmethod(check)


class Own:
    """Only custom mechanisms, in both forms."""

    async def auth_COUNT__ME(self, server: Any, args: list[str]) -> AuthResult:
        replies = [await server.challenge_auth(str(n)) for n in range(3)]
        return AuthResult(success=replies == [b"a", b"b", b"c"], handled=False, auth_data="counted")

    @auth_mechanism("X-SYNC")
    def auth_sync(self, server: Any, args: list[str]) -> Any:
        return AuthResult(success=True, message="235 2.7.0 welcome") if args[1:] == ["x"] else MISSING


async def send_all(smtp: HandlerSession, *lines: str) -> list[str]:
    return [(await smtp.send(f"{line}\r\n".encode())).removesuffix("\r\n") for line in lines]


async def test_login_and_plain_use_the_authenticator(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Passwords(), SASL)
    assert "250-AUTH LOGIN PLAIN\r\n" in await smtp.send(EHLO)
    assert "454 4.7.1 <x@far.example>: Relay access denied\r\n" in (await smtp.send(MAIL + FAR)).replace(
        "554 5", "454 4"
    )
    user, secret = (b64encode(word).decode() for word in (b"user", b"secret"))
    replies = await send_all(
        smtp,
        "RSET",
        plain(b"wrong"),
        "AUTH PLAIN %%%",
        "AUTH CRAM-MD5",
        "AUTH LOGIN",
        "*",
        "AUTH login",
        user,
        secret,
        "AUTH PLAIN",
    )
    assert replies[1:4] == [
        "535 5.7.8 Authentication credentials invalid",
        "501 5.5.2 Can't decode base64",
        "504 5.5.4 Unrecognized authentication type",
    ]
    assert [reply[:9] for reply in replies[4:]] == [
        "334 VXNlc",
        "501 5.7.0",
        "334 VXNlc",
        "334 UGFzc",
        "235 2.7.0",
        "503 5.5.1",
    ]
    assert await smtp.send(MAIL + FAR) == "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    assert "queued" in await smtp.send(b"BDAT 4 LAST\r\nhi\r\n")
    session: Any = smtp.policy.server.session
    assert (session.authenticated, session.auth_data, session.login_data) == (True, (b"user", b"secret"), b"user")
    log = smtp.close()
    failed = "SASL PLAIN authentication failed: Authentication credentials invalid"
    assert f"warning: unknown[127.0.0.1]: {failed}" in log
    assert any(line.endswith("client=unknown[127.0.0.1], sasl_method=LOGIN, sasl_username=user") for line in log)
    assert any(" auth=1/6 " in line for line in log if line.startswith("disconnect"))
    (message,) = smtp.queued()
    text = (tmp_path / "queue" / "incoming").glob("?" * 16)
    content = b"".join(path.read_bytes() for path in text)
    assert b"(Authenticated sender: user)\r\n\tby mx.example.org (Postfix) with ESMTPA id " in content
    assert message["sender"] == "a@example.com"


async def test_custom_mechanisms_of_the_handler_work(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Own(), SASL)
    assert "250-AUTH COUNT-ME X-SYNC\r\n" in await smtp.send(EHLO)
    replies = await send_all(
        smtp, "AUTH PLAIN x", "AUTH X-SYNC", "AUTH COUNT-ME", "YQ==", "Yg==", "eA==", "AUTH X-SYNC x"
    )
    assert replies == [
        "504 5.5.4 Unrecognized authentication type",
        "535 5.7.8 Authentication credentials invalid",
        "334 MA==",
        "334 MQ==",
        "334 Mg==",
        "535 5.7.8 Authentication credentials invalid",
        "235 2.7.0 welcome",
    ]
    assert await smtp.send(MAIL + FAR) == "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n"
    smtp.close()


@pytest.mark.parametrize("form", ["coroutine", "function"])
async def test_handle_auth_replaces_all_mechanisms(tmp_path: Path, form: str) -> None:
    async def coroutine(self: object, server: Any, session: Any, envelope: Any, args: list[str]) -> str:
        session.auth_data = args[1]
        return "235 2.7.0 by the hook"

    def function(self: object, server: Any, session: Any, envelope: Any, args: list[str]) -> str:
        return "535 5.7.8 not by the hook"

    hook = coroutine if form == "coroutine" else function
    smtp = HandlerSession(tmp_path, type("Hooked", (), {"handle_AUTH": hook})(), SASL)
    await smtp.send(EHLO)
    (reply,) = await send_all(smtp, "AUTH PLAIN x")
    assert reply == ("235 2.7.0 by the hook" if form == "coroutine" else "535 5.7.8 not by the hook")
    smtp.close()


async def test_failing_or_hanging_authenticator_gives_454(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Passwords(), [*SASL, *SHORT])
    await smtp.send(EHLO)
    assert await send_all(smtp, plain(b"raise"), plain(b"block"), plain(b"secret")) == [
        "454 4.7.0 Temporary authentication failure",
        "454 4.7.0 Temporary authentication failure",
        "235 2.7.0 Authentication successful",
    ]
    log = smtp.close()
    assert "warning: handle_AUTH: ValueError: oops" in log
    assert "warning: AUTH: no answer within 2 s" in log
    assert any(line.startswith("statistics: handle_AUTH calls=3 failed=1 late=1 ") for line in log)


async def test_handle_exception_handles_errors_of_authenticator(tmp_path: Path) -> None:
    class Careful(Passwords):
        async def handle_exception(self, error: Exception) -> str:
            return f"454 4.7.1 {type(error).__name__}"

    smtp = HandlerSession(tmp_path, Careful(), SASL)
    await smtp.send(EHLO)
    assert await send_all(smtp, plain(b"raise")) == ["454 4.7.1 ValueError"]
    smtp.close()


async def test_disconnect_of_client_cancels_the_auth_exchange(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Passwords(), SASL)
    await smtp.send(EHLO)
    assert await send_all(smtp, "AUTH PLAIN") == ["334 "]
    exchange = smtp.policy.exchange
    assert exchange is not None
    smtp.client.leave()
    await until(lambda: exchange._work is not None and exchange._work.done())
    assert exchange._work is not None
    assert exchange._work.cancelled()
    smtp.close()


@pytest.mark.parametrize(
    ("options", "handler_class", "warning"),
    [
        ([], Passwords, ""),
        (["smtpd_sasl_auth_enable = yes"], Recorder, "smtpd_sasl_auth_enable = yes has no effect"),
    ],
)
async def test_auth_is_not_offered_when_it_cannot_work(
    tmp_path: Path, options: list[str], handler_class: type, warning: str
) -> None:
    smtp = HandlerSession(tmp_path, handler_class(), options)
    assert "AUTH" not in await smtp.send(EHLO)
    assert await send_all(smtp, plain(b"secret")) == ["503 5.5.1 Error: authentication not enabled"]
    assert any(warning in line for line in smtp.close())


async def test_plaintext_passwords_that_the_site_forbids_are_refused(tmp_path: Path) -> None:
    option = "smtpd_sasl_security_options = noplaintext"
    with pytest.raises(ConfigError, match=f"main.cf, line \\d+: {option} is not supported yet"):
        HandlerSession(tmp_path, Passwords(), ["smtpd_sasl_auth_enable = yes", option])


async def test_auth_that_needs_tls_is_not_offered_in_the_clear(tmp_path: Path) -> None:
    smtp = HandlerSession(tmp_path, Passwords(), ["smtpd_sasl_auth_enable = yes", "smtpd_tls_auth_only = yes"])
    assert "AUTH" not in await smtp.send(EHLO)
    assert await send_all(smtp, plain(b"secret")) == ["503 5.5.1 Error: authentication not enabled"]
    smtp.close()


def test_real_clients_authenticate(tmp_path: Path) -> None:
    (tmp_path / "passwords.py").write_text(
        "from aiosmtpd.smtp import AuthResult, LoginPassword\n\n\n"
        "class Passwords:\n"
        "    def authenticator(self, server, session, envelope, mechanism, data):\n"
        "        return AuthResult(success=data == LoginPassword(b'user', b'secret'), handled=False, auth_data=data)\n"
    )
    with running(tmp_path, [*SASL, "smtpd_python_handler = passwords:Passwords"]) as process:
        with smtplib.SMTP("127.0.0.1", process.port, timeout=10) as client:
            client.ehlo()
            client.user, client.password = "user", "secret"
            with pytest.raises(smtplib.SMTPAuthenticationError):
                client.login("user", "wrong")
            client.user, client.password = "user", "secret"
            assert client.auth("PLAIN", client.auth_plain)[0] == 235
            client.sendmail("a@example.com", ["x@far.example"], b"x\r\n")
        with smtplib.SMTP("127.0.0.1", process.port, timeout=10) as client:
            client.ehlo()
            client.user, client.password = "user", "secret"
            assert client.auth("LOGIN", client.auth_login)[0] == 235
        swaks = peer("swaks")
        for method in ("PLAIN", "LOGIN"):
            words = ["-t", "y@far.example", "-f", "a@example.com", "--auth", method, "-au", "user", "-ap", "secret"]
            command = [swaks, "-s", f"127.0.0.1:{process.port}", *words, "--hide-all"]
            subprocess.run(command, check=True, timeout=30)
    assert process.log_text().count("sasl_username=user") == 3
