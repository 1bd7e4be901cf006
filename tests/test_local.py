"""local(8): aliases, forwarding, mailboxes, commands, and the rights of each delivery."""

import asyncio
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion._core.address import AddressRules
from postillion.address.local import take_apart
from postillion.config import Config
from postillion.delivery import account, command
from postillion.delivery.account import Account, NoAnswerError, NotPermittedError, account_of, acting_as
from postillion.delivery.accounts import Accounts
from postillion.delivery.local import forward, recipient
from postillion.delivery.local.aliases import Aliases, Expansion
from postillion.delivery.local.forward import UndefinedError, expand
from postillion.delivery.local.recipient import DEPTH_MAX, Delivery, Outcome, Tools
from postillion.delivery.local.settings import LocalSettings
from postillion.delivery.local.targets import Target, parse_lines, parse_targets
from postillion.delivery.mailbox.letter import Letter, normal, quote
from postillion.delivery.mailbox.maildir import Maildirs
from postillion.delivery.verdict import Verdict
from support.memory_config import config
from support.mta import ended, let_others_pass, until, write_aliases

ROOT = os.getuid() == 0
TEXT = b"From: a@b.example\nSubject: x\n\nbody\n"


@dataclass
class Message:
    """The part of a job that delivery needs."""

    queue_id: str = "ABC"
    sender: str = "a@b.example"
    envid: str | None = None
    attributes: dict[str, str] = field(default_factory=dict)

    def attribute(self, name: str) -> str | None:
        return self.attributes.get(name)


class Site:
    """A site with one user, `user`: nobody when the tests run as root, else the current user."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = path
        self.home = path / "home"
        self.home.mkdir()
        self.uid, self.gid = (65534, 65534) if ROOT else (os.getuid(), os.getgid())
        if ROOT:
            os.chown(self.home, self.uid, self.gid)
            path.chmod(0o777)
            let_others_pass(path.parent)
        self.parameters = {
            "compatibility_level": "3.6",
            "myhostname": "mx.example",
            "myorigin": "example",
            "mydestination": "example, localhost",
            "alias_maps": f"hash:{path}/aliases",
            "home_mailbox": "Maildir/",
        }
        self.warnings: list[str] = []
        self.aliases("none: nobody")
        self.user = Account("user", self.uid, self.gid, str(self.home), "/bin/sh")
        self.failing: set[str] = set()
        """Users for whom the name service fails."""
        self.users = {"user": self.user, "other": self.user._replace(name="other", home=str(path / "other"))}

    def aliases(self, text: str) -> None:
        path = self.path / "aliases"
        path.write_text(text + "\n")
        write_aliases(path)

    def tools(self) -> Tools:
        lines = "".join(f"{name} = {value}\n" for name, value in self.parameters.items())
        (self.path / "main.cf").write_text(lines)
        settings = LocalSettings.load(Config.load(str(self.path)), self.warnings.append)
        aliases = Aliases(
            settings.alias_maps,
            owner_request_special=settings.owner_request_special,
            expand_owner_alias=settings.expand_owner_alias,
        )
        accounts = Accounts(find=self.find)
        return Tools(settings, aliases, Maildirs("mx.example"), accounts, self.warnings.append)

    def find(self, name: str) -> Account | None:
        if name in self.failing:
            raise NoAnswerError(name, "Input/output error")
        return self.users.get(name)

    async def deliver(
        self, address: str, text: bytes = TEXT, done: dict[str, Verdict] | None = None, message: Message | None = None
    ) -> Outcome:
        return await Delivery(message or Message(), Letter(text), address, address, self.tools(), done).deliver()

    def maildir(self, home: Path | None = None) -> list[bytes]:
        new = (home or self.home) / "Maildir/new"
        return [(new / name).read_bytes() for name in sorted(os.listdir(new))] if new.exists() else []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path, monkeypatch)


async def one(site: Site, address: str, text: bytes = TEXT) -> Verdict:
    outcome = await site.deliver(address, text)
    (report,) = outcome.reports
    assert not outcome.forwards
    return report.verdict


async def test_mail_is_delivered_to_maildir_with_delivery_headers(site: Site) -> None:
    assert await one(site, "User@example") == ("sent", "2.0.0", "delivered to maildir")
    head = b"Return-Path: <a@b.example>\nX-Original-To: User@example\nDelivered-To: User@example\n"
    assert site.maildir() == [head + TEXT]


async def test_unknown_user_bounces(site: Site) -> None:
    assert await one(site, "nouser@example") == ("bounced", "5.1.1", 'unknown user: "nouser"')


@pytest.mark.parametrize("aliases", ["none: nobody", "list: user"])
async def test_failed_name_service_defers_and_the_next_attempt_delivers(site: Site, aliases: str) -> None:
    site.aliases(aliases)
    site.failing.add("user")
    address = "list@example" if aliases.startswith("list") else "user@example"
    outcome = await site.deliver(address)
    assert outcome.verdict() == ("deferred", "4.0.0", "user lookup error")
    assert site.warnings == ["error looking up passwd info for user: Input/output error"]
    assert site.maildir() == []
    site.failing.clear()
    assert (await site.deliver(address)).verdict().outcome == "sent"
    assert len(site.maildir()) == 1


async def test_mail_to_double_bounce_sender_is_discarded(site: Site) -> None:
    discarded = ("sent", "2.0.0", "undeliverable postmaster notification discarded")
    assert await one(site, "double-bounce@example") == discarded
    assert await one(site, "Double-Bounce@example") == discarded
    assert (await one(site, "double-bounced@example"))[0] == "bounced"


async def test_mail_to_missing_required_alias_is_discarded_with_warning(site: Site) -> None:
    assert await one(site, "postmaster@example") == ("sent", "2.0.0", "discarded")
    assert site.warnings == ["required alias not found: postmaster"]


@pytest.mark.parametrize(
    ("aliases", "address", "maildir", "forwards"),
    [
        ("root: user", "root@example", 1, {}),
        ("root: admin\nadmin: user", "root@example", 1, {}),
        ("user: user", "user@example", 1, {}),
        ("user: user, x@far.example", "user@example", 1, {"a@b.example": ["x@far.example"]}),
        ("user: \\user, other", "user@example", 1, {"a@b.example": ["other@example"]}),
        ("list: user, other", "list@example", 0, {"a@b.example": ["user@example", "other@example"]}),
        ("list: user, user, user@example", "list@example", 0, {"a@b.example": ["user@example"]}),
        ("list: user, USER, User@EXAMPLE", "list@example", 0, {"a@b.example": ["user@example"]}),
        ("user: user, USER, user@EXAMPLE", "user@example", 1, {}),
        ("list: x@far.example, X@FAR.example", "list@example", 0, {"a@b.example": ["x@far.example"]}),
        ("user: x@far.example", "user+@example", 0, {"a@b.example": ["x@far.example"]}),
        ("list: x@far.example", "list@example", 0, {"a@b.example": ["x@far.example"]}),
        ("list: user\nowner-list: other", "list@example", 0, {"owner-list@example": ["user@example"]}),
        ("user+tag: x@far.example", "user+tag@example", 0, {"a@b.example": ["x@far.example"]}),
        ("user: x@far.example", "user+tag@example", 0, {"a@b.example": ["x@far.example"]}),
        ("list: x%far.example@example", "list@example", 0, {"a@b.example": ["x@far.example"]}),
        ("list: far.example!x", "list@example", 0, {"a@b.example": ["x@far.example"]}),
        ('list: "x@far.example"@localhost', "list@example", 0, {"a@b.example": ["x@far.example"]}),
        ("list: user%localhost@example", "list@example", 1, {}),
    ],
)
async def test_aliases_expand(
    site: Site, aliases: str, address: str, maildir: int, forwards: dict[str, list[str]]
) -> None:
    site.aliases(aliases)
    site.parameters["recipient_delimiter"] = "+"
    outcome = await site.deliver(address)
    assert outcome.forwards == forwards
    assert len(site.maildir()) == maildir
    assert [report.verdict.outcome for report in outcome.reports] == ["sent"] * maildir


@pytest.mark.parametrize(
    ("aliases", "dsn", "text"),
    [
        ("x: y\ny: z\nz: y", "5.4.6", "alias database loop"),
        ("x: :include:/etc/nonexistent", "4.2.0", "cannot open include file"),
        ("x: :include:relative", "5.3.5", "not an absolute path"),
        ("x: ~/file", "5.3.5", "bad file name"),
        ("x: ,,", "4.3.0", "has no recipient"),
    ],
)
async def test_broken_aliases_fail_with_reason(site: Site, aliases: str, dsn: str, text: str) -> None:
    site.aliases(aliases)
    verdict = await one(site, "x@example")
    assert verdict.dsn == dsn
    assert text in verdict.text


async def test_missing_alias_table_defers(site: Site) -> None:
    (site.path / "aliases.db").unlink()
    verdict = await one(site, "user@example")
    assert (verdict.outcome, verdict.dsn) == ("deferred", "4.3.0")


async def test_message_with_own_delivered_to_header_is_a_loop(site: Site) -> None:
    text = b"X: y\ndelivered-to:\n USER@example\n\nDelivered-To: other@example\n"
    assert await one(site, "user@example", text) == ("bounced", "5.4.6", "mail forwarding loop for user@example")
    assert (await one(site, "other@example", text)).outcome == "sent"


async def test_include_files_are_always_forwarded(site: Site) -> None:
    (site.path / "list").write_text("# members\nuser\nx@far.example, y@far.example\n\n")
    site.aliases(f"list: :include:{site.path}/list")
    outcome = await site.deliver("list@example")
    assert outcome.forwards == {"a@b.example": ["user@example", "x@far.example", "y@far.example"]}


async def test_include_loop_is_detected(site: Site) -> None:
    (site.path / "list").write_text(f":include:{site.path}/list\n")
    site.aliases(f"list: :include:{site.path}/list")
    verdict = await one(site, "list@example")
    assert verdict.dsn == "5.4.6"


MANY = 10_000


def chain(name: str, length: int, end: str) -> str:
    """Return aliases, each of the next one; the last one is that of `end`."""
    lines = [f"{name}{at}: {name}{at + 1}" for at in range(length - 1)]
    return "\n".join([*lines, f"{name}{length - 1}: {end}"])


@pytest.mark.parametrize(
    ("text", "address", "forwards", "problem", "expansions"),
    [
        (f"a0: {', '.join(f'u{at}@far.example' for at in range(MANY))}", "a0@example", MANY, None, 1),
        (chain("a", MANY, "user"), "a0@example", 0, "alias database loop for a101", DEPTH_MAX + 1),
        (chain("a", MANY, "a0"), "a0@example", 0, "alias database loop for a101", DEPTH_MAX + 1),
        (chain("a", DEPTH_MAX, "x@far.example"), "a0@example", 1, None, DEPTH_MAX),
        # Each alias names all others: each is expanded once at each depth.
        ("\n".join(f"a{at}: a0, a1, a2, a3" for at in range(4)), "a0@example", 0, "alias database loop", 4 * DEPTH_MAX),
        ("a0: a1, a1, A1\na1: a2, a2\na2: x@far.example, x@far.example", "a0@example", 1, None, 4),
    ],
    ids=["a list", "a chain", "a cycle", "the deepest chain", "all of each other", "twice"],
)
async def test_long_lists_chains_and_cycles_end(
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    address: str,
    forwards: int,
    problem: str | None,
    expansions: int,
) -> None:
    asked: list[str] = []

    def expand(self: Aliases, name: str, domain: str) -> Expansion | None:
        found = real(self, name, domain)
        if found is not None:
            asked.append(name)
        return found

    real = Aliases.expand
    monkeypatch.setattr(Aliases, "expand", expand)
    site.aliases(text)
    outcome = await site.deliver(address)
    assert len(outcome.forwards.get("a@b.example", [])) == forwards
    # An alias in its own value is the user of its name.
    found = {report.verdict.text for report in outcome.reports if report.verdict.dsn != "5.1.1"}
    assert bool(found) == (problem is not None)
    assert all((problem or "") in text for text in found)
    assert len(asked) <= expansions


async def test_include_file_of_thousands_and_chain_of_files_end(site: Site) -> None:
    (site.path / "many").write_text("".join(f"u{at}@far.example\n" for at in range(MANY)))
    for at in range(DEPTH_MAX + 50):
        (site.path / f"list{at}").write_text(f":include:{site.path}/list{at + 1}\n")
    site.aliases(f"many: :include:{site.path}/many\nchain: :include:{site.path}/list0")
    assert len((await site.deliver("many@example")).forwards["a@b.example"]) == MANY
    verdict = await one(site, "chain@example")
    assert (verdict.dsn, verdict.text) == ("5.4.6", f"include file loop for {site.path}/list{DEPTH_MAX}")


async def test_aliases_that_name_each_other_without_end_are_deferred(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recipient, "TARGETS_MAX", MANY)
    names = ", ".join(f"a{at}" for at in range(100))
    site.aliases("\n".join(f"a{at}: {names}, x@far.example" for at in range(100)))
    outcome = await site.deliver("a0@example")
    assert outcome.reports[-1].verdict == ("deferred", "4.3.0", f"the expansion has more than {MANY} targets")
    assert outcome.verdict().outcome == "deferred"
    assert not outcome.forwards
    assert site.warnings[-1] == f"{Message.queue_id}: a0@example has more than {MANY} targets"


async def test_world_writable_lists_are_refused(site: Site) -> None:
    (site.path / "list").write_text("user\n")
    (site.path / "list").chmod(0o666)
    site.aliases(f"list: :include:{site.path}/list, x@far.example")
    outcome = await site.deliver("list@example")
    assert [report.verdict.dsn for report in outcome.reports] == ["5.7.1"]
    assert outcome.forwards == {"a@b.example": ["x@far.example"]}


@pytest.mark.parametrize(
    ("text", "maildir", "forwards"),
    [
        ("x@far.example\n", 0, ["x@far.example"]),
        ("\\user, x@far.example\n", 1, ["x@far.example"]),
        ("user\nx@far.example\n", 1, ["x@far.example"]),
        ("user@localhost\n", 1, []),
        ("other\n", 0, ["other@example"]),
        ("# nothing\n\n", 1, []),
        ("", 1, []),
    ],
)
async def test_forward_file_is_used(site: Site, text: str, maildir: int, forwards: list[str]) -> None:
    (site.home / ".forward").write_text(text)
    outcome = await site.deliver("user@example")
    assert outcome.forwards == ({"a@b.example": forwards} if forwards else {})
    assert len(site.maildir()) == maildir


@pytest.mark.parametrize("hostile", ["world-writable", "symlink", "fifo", "directory", "foreign"])
async def test_insecure_forward_files_are_ignored(site: Site, hostile: str) -> None:
    path = site.home / ".forward"
    if hostile == "symlink":
        (site.path / "f").write_text("x@far.example\n")
        path.symlink_to(site.path / "f")
    elif hostile == "fifo":
        os.mkfifo(path)
    elif hostile == "directory":
        path.mkdir()
    else:
        path.write_text("x@far.example\n")
        path.chmod(0o666 if hostile == "world-writable" else 0o644)
        if hostile == "foreign":
            if not ROOT:
                pytest.skip("needs root")
            os.chown(path, 12345, 12345)
        elif ROOT:
            os.chown(path, 65534, 65534)
    assert (await asyncio.wait_for(one(site, "user@example"), 5)).outcome == "sent"
    assert len(site.maildir()) == 1
    assert len(site.warnings) == 1


async def test_extension_has_its_own_forward_file(site: Site) -> None:
    site.parameters["recipient_delimiter"] = "+"
    (site.home / ".forward+tag").write_text("x@far.example\n")
    assert (await site.deliver("user+tag@example")).forwards == {"a@b.example": ["x@far.example"]}
    assert (await site.deliver("user+other@example")).reports[0].verdict.outcome == "sent"


async def test_command_gets_message_and_environment(site: Site) -> None:
    site.parameters["recipient_delimiter"] = "+"
    script = site.home / "script"
    out = site.home / "out"
    script.write_text(f'#!/bin/sh\n(env; cat; echo "fds: $(ls /proc/self/fd | tr "\\n" " ")") > {out}\n')
    script.chmod(0o755)
    (site.home / ".forward").write_text(f'"|{script} a b"\n')
    message = Message(sender="$(id)@b.example", attributes={"client_address": "192.0.2.1"})
    outcome = await site.deliver("user+x;y@example", message=message)
    (report,) = outcome.reports
    assert report.verdict == ("sent", "2.0.0", f"delivered to command: {script} a b")
    lines = out.read_text().splitlines()
    for line in (
        "USER=user",
        "LOCAL=user+x_y",
        "EXTENSION=x_y",
        "DOMAIN=example",
        "SENDER=__id_@b.example",
        "RECIPIENT=user+x_y@example",
        "CLIENT_ADDRESS=192.0.2.1",
        f"HOME={site.home}",
        "PATH=/usr/bin:/bin",
        'Delivered-To: "user+x;y"@example',
        "body",
    ):
        assert line in lines
    assert not any(line.startswith("VIRTUAL_ENV") for line in lines)
    assert [line for line in lines if line.startswith("fds:")] == ["fds: 0 1 2 3 "]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("exit 0", ("sent", "2.0.0", "delivered to command: exit 0")),
        ("exit 67", ("bounced", "5.1.1", "user unknown")),
        ("exit 75", ("deferred", "4.3.0", "temporary failure")),
        ("echo no way; exit 77", ("bounced", "5.7.0", "permission denied. Command output: no way")),
        ("echo 4.2.2 full up; exit 1", ("deferred", "4.2.2", "full up")),
        ("echo 5.7.1 go away; exit 75", ("bounced", "5.7.1", "go away")),
        ("exit 9", ("bounced", "5.3.0", 'Command died with status 9: "exit 9"')),
        ("kill -9 $$", ("deferred", "4.3.0", 'Command died with signal 9: "kill -9 $$"')),
        (
            "/nonexistent/x",
            (
                "deferred",
                "4.3.0",
                'temporary failure. Cannot run "/nonexistent/x": /nonexistent/x: No such file or directory',
            ),
        ),
        ("printf 'a\\tb\\001\\nc'; exit 65", ("bounced", "5.6.0", "data format error. Command output: a b_ c")),
    ],
)
async def test_exit_status_decides_verdict(site: Site, text: str, verdict: tuple[str, str, str]) -> None:
    run = command.Command(text, site.user, {"PATH": "/usr/bin:/bin"}, str(site.path), "", 10)
    assert await command.deliver(run, TEXT) == verdict


async def test_hanging_command_is_killed_with_its_children(site: Site) -> None:
    child = site.home / "child"
    text = f"sleep 1000 & echo $! > {child}; echo started; wait"
    run = command.Command(text, site.user, {"PATH": "/usr/bin:/bin"}, None, "", 2)
    verdict = await command.deliver(run, TEXT)
    assert verdict.dsn == "5.3.0"
    assert verdict.text == f'Command time limit exceeded: "{text}". Command output: started'
    await until(lambda: ended(int(child.read_text())))


async def test_command_without_reads_and_with_long_output_does_not_block(site: Site) -> None:
    run = command.Command("head -c 3000000 /dev/zero; exit 1", site.user, {"PATH": "/usr/bin:/bin"}, None, "", 20)
    verdict = await command.deliver(run, b"x" * 3_000_000)
    assert verdict.outcome == "bounced"
    assert len(verdict.text) < command.OUTPUT_MAX_OCTETS + 200


@pytest.mark.parametrize(
    ("text", "words", "shell"),
    [
        ("/usr/bin/procmail -t -a x", ["/usr/bin/procmail", "-t", "-a", "x"], False),
        ('/usr/bin/procmail -a "$EXTENSION"', ["/bin/sh", "-c", '/usr/bin/procmail -a "$EXTENSION"'], True),
        ("a;b", ["/bin/sh", "-c", "a;b"], True),
        ("  ", ["/bin/sh", "-c", "  "], True),
    ],
)
def test_shell_runs_only_for_commands_with_shell_syntax(text: str, words: list[str], shell: bool) -> None:
    assert command.arguments(text) == (words, shell)


async def test_mailbox_command_replaces_the_mailbox(site: Site) -> None:
    site.parameters["mailbox_command"] = f'cat > "$HOME/{"got"}"'
    verdict = await one(site, "user@example")
    assert verdict.text.startswith("delivered to command: cat > ")
    got = (site.home / "got").read_bytes()
    assert got.startswith(b"From a@b.example  ")
    assert got.endswith(TEXT)
    assert site.maildir() == []


async def test_mailbox_command_maps_override_mailbox_command(site: Site) -> None:
    site.parameters["mailbox_command"] = "exit 75"
    site.parameters["mailbox_command_maps"] = "inline:{ user=true }"
    assert (await one(site, "user@example")).text == "delivered to command: true"


async def test_spool_directory_holds_mailboxes_by_name(site: Site) -> None:
    site.parameters["home_mailbox"] = ""
    spool = site.path / "spool"
    spool.mkdir()
    site.parameters["mail_spool_directory"] = str(spool)
    assert (await one(site, "user@example")).text == "delivered to mailbox"
    assert (spool / "user").read_bytes().endswith(TEXT + b"\n")
    site.parameters["mail_spool_directory"] = f"{spool}/dirs/"
    (spool / "dirs").mkdir()
    if ROOT:
        assert (spool / "user").stat().st_uid == 65534
    assert (await one(site, "user@example")).text == "delivered to maildir"
    assert os.listdir(spool / "dirs/user/new")


@pytest.mark.skipif(not ROOT, reason="needs root")
@pytest.mark.parametrize("mode", [0o755, 0o2775, 0o1777])
@pytest.mark.parametrize("form", ["", "/"])
async def test_spool_of_any_mode_and_form_accepts_mail(site: Site, mode: int, form: str) -> None:
    site.parameters["home_mailbox"] = ""
    spool = site.path / "spool"
    spool.mkdir()
    os.chown(spool, 0, 8)
    spool.chmod(mode)
    site.parameters["mail_spool_directory"] = f"{spool}{form}"
    for _ in range(2):
        assert (await one(site, "user@example")).outcome == "sent"
    box = spool / "user"
    assert box.stat().st_uid == 65534
    assert box.stat().st_mode & 0o077 == 0
    assert os.listdir(spool) == ["user"]


@pytest.mark.parametrize("name", ["../home/x", "..", ".", "a/b"])
async def test_user_name_cannot_leave_the_spool(site: Site, name: str) -> None:
    site.parameters["home_mailbox"] = ""
    site.parameters["mail_spool_directory"] = str(site.path / "spool")
    site.users[name] = site.user
    assert (await one(site, f"{name}@example")).outcome == "bounced"


async def test_luser_relay_gets_mail_of_unknown_users(site: Site) -> None:
    site.parameters["luser_relay"] = "catch+$local@far.example"
    assert (await site.deliver("who@example")).forwards == {"a@b.example": ["catch+who@far.example"]}
    site.parameters["luser_relay"] = "catch-$user-$extension@far.example"
    assert (await site.deliver("who@example")).forwards == {"a@b.example": ["catch-who-@far.example"]}
    site.parameters["luser_relay"] = "user"
    assert (await one(site, "who@example")).outcome == "sent"
    site.parameters["luser_relay"] = "$user@example"
    assert (await one(site, "who@example")).dsn == "5.1.1"


async def test_alias_delivers_to_file_if_allowed(site: Site) -> None:
    path = site.path / "archive"
    site.aliases(f"archive: {path}\nnull: /dev/null\ndir: {site.path}/md/")
    assert (await one(site, "archive@example")).text == f"delivered to file: {path}"
    assert (await one(site, "null@example")).text == "delivered to file: /dev/null"
    assert (await one(site, "dir@example")).text == "delivered to maildir"
    if ROOT:
        assert path.stat().st_uid == 65534
    site.parameters["allow_mail_to_files"] = "forward"
    site.parameters["allow_mail_to_commands"] = "include"
    assert await one(site, "archive@example") == ("bounced", "5.7.1", "mail to file is restricted")
    site.aliases('c: "|true"')
    assert await one(site, "c@example") == ("bounced", "5.7.1", "mail to command is restricted")


async def test_finished_targets_are_not_delivered_again(site: Site) -> None:
    count = site.path / "count"
    site.aliases(f'both: "|echo x >> {count}", "|exit 75"')
    done: dict[str, Verdict] = {}
    for _ in range(2):
        outcome = await site.deliver("both@example", done=done)
        assert outcome.verdict().outcome == "deferred"
    assert count.read_text() == "x\n"
    site.aliases(f'both: "|echo x >> {count}", "|true"')
    outcome = await site.deliver("both@example", done=done)
    assert outcome.verdict().outcome == "sent"
    assert count.read_text() == "x\n"


@pytest.mark.skipif(not ROOT, reason="needs root")
async def test_commands_in_root_aliases_run_as_nobody(site: Site) -> None:
    out = site.path / "id"
    site.aliases(f'who: "|id > {out}; cat /etc/shadow >> {out} 2>&1"')
    assert (await one(site, "who@example")).outcome == "bounced"
    text = out.read_text()
    assert "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)" in text
    assert "Permission denied" in text
    assert (os.geteuid(), os.getegid()) == (0, 0)


@pytest.mark.skipif(not ROOT, reason="needs root")
async def test_mail_is_written_with_rights_of_recipient(site: Site) -> None:
    os.chown(site.home, 0, 0)
    verdict = await one(site, "user@example")
    assert verdict.outcome == "deferred"
    assert "Permission denied" in verdict.text
    os.chown(site.home, 65534, 65534)
    assert (await one(site, "user@example")).outcome == "sent"
    (file,) = (site.home / "Maildir/new").iterdir()
    assert (file.stat().st_uid, stat.S_IMODE(file.stat().st_mode)) == (65534, 0o600)
    assert os.geteuid() == 0


@pytest.mark.skipif(not ROOT, reason="needs root")
async def test_acting_as_nests_and_restores_rights(site: Site) -> None:
    nobody = Account("nobody", 65534, 65534, "/", "/bin/sh")
    with acting_as(nobody):
        assert (os.geteuid(), os.getegid(), os.getgroups()) == (65534, 65534, [65534])
        with account.privileged():
            assert os.geteuid() == 0
        assert os.geteuid() == 65534
    assert (os.geteuid(), os.getegid()) == (0, 0)


async def test_without_root_only_own_mail_is_delivered(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.users["user"] = site.user._replace(uid=os.getuid() + 1)
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    verdict = await one(site, "user@example")
    assert verdict.dsn == "4.3.5"
    assert "cannot deliver as user user" in verdict.text
    with pytest.raises(NotPermittedError), acting_as(site.users["user"]):
        pass


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("a, b@c", [("address", "a"), ("address", "b@c")]),
        ('"|cmd a, b" , |"x y"', [("command", "cmd a, b"), ("command", "x y")]),
        ("|/bin/x", [("command", "/bin/x")]),
        ("/a/b", [("file", "/a/b")]),
        ('"/a b/c"', [("file", "/a b/c")]),
        ("~/x", [("file", "~/x")]),
        (":include:/x/y, :Include:/z", [("include", "/x/y"), ("include", "/z")]),
        ("Some Body <u@d> (comment, with comma)", [("address", "u@d")]),
        ('"odd one"@d', [("address", '"odd one"@d')]),
        ('"a@b"@d', [("address", '"a@b"@d')]),
        ("a b", [("address", "a"), ("address", "b")]),
        ("a@d b@d\tc", [("address", "a@d"), ("address", "b@d"), ("address", "c")]),
        ("a @ d . e f", [("address", "a@d.e"), ("address", "f")]),
        ('"a b" "c"d "e".f@g', [("address", '"a b"'), ("address", "c"), ("address", "d"), ("address", "e.f@g")]),
        ("Some Body <u@d> v@d <w@d>x", [("address", "u@d"), ("address", "v@d"), ("address", "w@d"), ("address", "x")]),
        ("group: a@d, b; c", [("address", "a@d"), ("address", "b"), ("address", "c")]),
        (
            '|/bin/x y, |"x y"z, "|x y" z',
            [
                ("command", "/bin/x"),
                ("address", "y"),
                ("command", "x y"),
                ("address", "z"),
                ("command", "x y"),
                ("address", "z"),
            ],
        ),
        (
            '/a:b c ":include:/x y" :include:"/z z" :include:/a:b d',
            [
                ("file", "/a:b"),
                ("address", "c"),
                ("include", "/x y"),
                ("include", "/z z"),
                ("include", "/a:b"),
                ("address", "d"),
            ],
        ),
        ("a@[IPv6:::1] b@[192.0.2.1]", [("address", "a@[IPv6:::1]"), ("address", "b@[192.0.2.1]")]),
        ('"say \\"hi\\""', [("address", '"say \\"hi\\""')]),
        ("\\user", [("address", "\\user")]),
        (" , ,", []),
        ("()", []),
    ],
)
def test_target_lists_are_parsed(text: str, targets: list[tuple[str, str]]) -> None:
    assert parse_targets(text) == [Target(*target) for target in targets]


@given(st.text())
def test_target_parser_handles_any_text(text: str) -> None:
    for kind, value in parse_lines(text):
        assert kind in ("address", "file", "command", "include")
        assert kind != "address" or value


@pytest.mark.parametrize(
    ("address", "user", "extension", "local"),
    [
        ("User+Tag@D", "user", "tag", "user+tag"),
        ("user-tag+x@d", "user", "tag+x", "user-tag+x"),
        ("user@d", "user", None, "user"),
        ("+x@d", "+x", None, "+x"),
        ("user+@d", "user", "", "user+"),
        ("owner-list@d", "owner-list", None, "owner-list"),
        ("list-request@d", "list-request", None, "list-request"),
        ("user+a/b@d", "user", None, "user"),
        ("MAILER-DAEMON@d", "mailer-daemon", None, "mailer-daemon"),
        ("double-bounce@d", "double-bounce", None, "double-bounce"),
        ('"a+b c"@d', "a", "b c", "a+b c"),
    ],
)
def test_address_is_split_into_user_and_extension(address: str, user: str, extension: str | None, local: str) -> None:
    parts = take_apart(address, AddressRules(config(recipient_delimiter="+-")))
    assert (parts.user, parts.extension, parts.local) == (user, extension, local)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$home/.forward", "/h/.forward"),
        ("${home}/$(user)", "/h/u"),
        ("${extension?+$x}none", "none"),
        ("${extension:default}", "default"),
        ("${user?set}", "set"),
        ("$$home", "$home"),
    ],
)
def test_forward_path_parameters_are_expanded(text: str, expanded: str) -> None:
    assert expand(text, {"home": "/h", "user": "u"}) == expanded


def test_expansion_refuses_undefined_names_and_filters_characters() -> None:
    with pytest.raises(UndefinedError):
        expand("$extension", {})
    assert expand("$user", {"user": "a;b/../c"}, forward.__name__ + "/abc") == "a_b/../c"


@pytest.mark.parametrize(
    ("address", "quoted"),
    [
        ("a@b", "a@b"),
        ("", ""),
        ("a b@c", '"a b"@c'),
        ('"a b"@c', '"a b"@c'),
        ('a"b@c', '"a\\"b"@c'),
        ("a..b@c", '"a..b"@c'),
        ("a\r\nX: y@c", '"a??X: y"@c'),
    ],
)
def test_addresses_in_headers_are_quoted(address: str, quoted: str) -> None:
    assert quote(address) == quoted


def test_addresses_compare_without_quotes_and_case() -> None:
    assert normal(' "A b"@C ') == "a b@c"
    assert account_of(2**40) is None
