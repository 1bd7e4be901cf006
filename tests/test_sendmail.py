"""sendmail: a complete file in maildrop/ and status 0, or no file and an error status."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from postillion._core.pickup import Maildrop, MaildropReader
from postillion.commands.sendmail import Request, notify_bits
from support.mta import wait_for

WAIT_S = 20.0


class Site:
    """A configuration and a queue directory without a running mail system."""

    def __init__(self, directory: Path, main_cf: str = "") -> None:
        self.etc = directory / "etc"
        self.queue = directory / "queue"
        self.maildrop = self.queue / "maildrop"
        self.etc.mkdir()
        self.maildrop.mkdir(parents=True)
        (self.queue / "public").mkdir()
        (self.etc / "main.cf").write_text(f"queue_directory = {self.queue}\nmyhostname = mx.example.org\n{main_cf}")

    def sendmail(self, *words: str, message: bytes = b"Subject: x\n\nbody\n", **environment: str) -> tuple[int, str]:
        """Run sendmail; return the exit status and standard error."""
        command = [sys.executable, "-m", "postillion.commands.sendmail", "-C", str(self.etc), *words]
        names = {key: value for key, value in os.environ.items() if key not in ("NAME", "MAIL_CONFIG")}
        done = subprocess.run(command, input=message, capture_output=True, timeout=WAIT_S, env=names | environment)
        return done.returncode, done.stderr.decode()

    def taken(self) -> tuple[Maildrop, bytes]:
        """Read and remove the only file in maildrop/; return it and its content."""
        (path,) = self.maildrop.iterdir()
        reader = MaildropReader()
        content = reader.feed(path.read_bytes())
        assert stat.S_IMODE(path.stat().st_mode) == 0o744
        path.unlink()
        return reader.finish(), content


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def addresses(maildrop: Maildrop) -> list[str]:
    return [recipient[0] for recipient in maildrop.recipients]


def test_message_waits_in_maildrop_without_running_mail_system(site: Site) -> None:
    assert site.sendmail("-i", "-f", "me@example.net", "-F", "A Name", "root", "a@example.com,b@example.com") == (0, "")
    maildrop, content = site.taken()
    assert (maildrop.sender, maildrop.full_name) == ("me@example.net", "A Name")
    assert addresses(maildrop) == ["root", "a@example.com", "b@example.com"]
    assert content == b"Subject: x\n\nbody\n"
    assert maildrop.arrival is not None
    assert abs(maildrop.arrival - time.time()) < WAIT_S


@pytest.mark.parametrize(
    ("options", "message", "content"),
    [
        ([], b"a\n.\nb\n", b"a\n"),
        (["-i"], b"a\n.\nb\n", b"a\n.\nb\n"),
        (["-oi"], b"a\n.\nb", b"a\n.\nb"),
        ([], b"a\r\n.\r\nb\r\n", b"a\n"),
        (["-i"], b"From me\nSubject: x\n\n\xff\0\n", b"Subject: x\n\n\xff\0\n"),
        ([], b"", b""),
        (["-i"], b"x" * 300_000, b"x" * 300_000),
    ],
)
def test_content_is_read_as_by_sendmail(site: Site, options: list[str], message: bytes, content: bytes) -> None:
    assert site.sendmail(*options, "root", message=message) == (0, "")
    assert site.taken()[1] == content


def test_option_t_reads_recipients_from_headers(site: Site) -> None:
    message = b"To: a@example.com,\n\tB <b@example.com>\nBcc: c@example.com\n\nTo: body@example.com\n"
    assert site.sendmail("-t", "d@example.com", message=message) == (0, "")
    maildrop, content = site.taken()
    assert addresses(maildrop) == ["d@example.com", "a@example.com", "b@example.com", "c@example.com"]
    assert content == message


def test_probe_reads_no_text_and_is_marked_for_every_reader(site: Site) -> None:
    words = ["-bv", "-f", "me@example.net", "a@example.com, b@example.com", "root"]
    assert site.sendmail(*words, message=b"not a word of this\n") == (0, "")
    (path,) = site.maildrop.iterdir()
    # A release without probes finds an ill-formed file, not mail.
    assert b"A\x07probe=\x7f" in path.read_bytes()
    maildrop, content = site.taken()
    assert (maildrop.trace, maildrop.sender) == ("probe", "me@example.net")
    assert addresses(maildrop) == ["a@example.com", "b@example.com", "root"]
    assert content == b"From: me@example.net\nSubject: probe\nTo:\ta@example.com, b@example.com,\n\troot\n"


@pytest.mark.parametrize(
    ("words", "environment", "trace"),
    [
        ([], {}, ""),
        (["-v"], {}, "record"),
        (["-v", "-v"], {}, ""),
        (["-vv"], {}, ""),
        ([], {"MAIL_VERBOSE": "1"}, "record"),
        (["-v"], {"MAIL_VERBOSE": "1"}, ""),
    ],
)
def test_one_v_asks_for_a_report(site: Site, words: list[str], environment: dict[str, str], trace: str) -> None:
    assert site.sendmail(*words, "root", message=b"Subject: x\n\nbody\n", **environment)[0] == 0
    maildrop, content = site.taken()
    assert (maildrop.trace, content) == (trace, b"Subject: x\n\nbody\n")


@pytest.mark.parametrize(("sender", "expected"), [("", ""), ("<>", ""), ("A <a@b.c>", "a@b.c"), ("x", "x")])
def test_sender_is_reduced_to_its_address(site: Site, sender: str, expected: str) -> None:
    assert site.sendmail("-f", sender, "root") == (0, "")
    assert site.taken()[0].sender == expected


@pytest.mark.parametrize("bad", ["bogus", "never,failure", ","])
def test_bad_n_option_is_ignored_with_warning(site: Site, bad: str) -> None:
    status, said = site.sendmail("-N", bad, "root")
    assert (status, said) == (
        0,
        f"sendmail: warning: -N {bad} is ignored: give never, or some of success, failure and delay\n",
    )
    maildrop, _ = site.taken()
    assert maildrop.recipients == [("root", None, None, 0)]


def test_dsn_options_are_written(site: Site) -> None:
    words = ["-N", "failure,delay", "-R", "hdrs", "-V", "a+b c", "-B", "8BITMIME", "-G"]
    assert site.sendmail(*words, "root") == (0, "")
    maildrop, _ = site.taken()
    assert maildrop.recipients == [("root", None, None, 12)]
    assert (maildrop.ret, maildrop.envid, maildrop.body, maildrop.remote) == ("HDRS", "a+2Bb+20c", "8BITMIME", True)


def test_full_name_cannot_add_records_or_headers(site: Site) -> None:
    assert site.sendmail("root", NAME="x\nBcc: v@example.com") == (0, "")
    assert site.taken()[0].full_name == "xBcc: v@example.com"


@pytest.mark.parametrize(
    ("words", "message", "status", "text"),
    [
        ([], b"", os.EX_USAGE, "Recipient addresses must be specified"),
        (["-t"], b"Subject: x\n\nTo: a@b.c\n", os.EX_USAGE, "No recipient addresses found"),
        (["-y", "root"], b"", os.EX_USAGE, "unknown option -y"),
        (["-f"], b"", os.EX_USAGE, "option -f needs a value"),
        (["-B", "BINARY", "root"], b"", os.EX_USAGE, "7BIT or 8BITMIME"),
        (["-bv"], b"", os.EX_USAGE, "Recipient addresses must be specified"),
        (["-bv", "-t"], b"To: a@b.c\n", os.EX_USAGE, "-t option cannot be used with -bv"),
        (["-v", "-bv", "root"], b"", os.EX_USAGE, "-v option cannot be used with -bv"),
        (["-bv", "-N", "never", "root"], b"", os.EX_USAGE, "-N option cannot be used with -bv"),
        (["-bv", "-R", "hdrs", "root"], b"", os.EX_USAGE, "-R option cannot be used with -bv"),
        (["-bz"], b"", os.EX_USAGE, "-bz"),
        (["-O", "requiretls=1", "root"], b"", os.EX_USAGE, "-O requiretls=1: give requiretls=yes or requiretls=no"),
        (["-O", "requiretls", "root"], b"", os.EX_USAGE, "give requiretls=yes"),
        (["-O", "requiretls =yes", "root"], b"", os.EX_USAGE, "give requiretls=yes"),
        (["-O", "requiretls=yes ", "root"], b"", os.EX_USAGE, "give requiretls=yes"),
        (["-O", "smtputf8=yes,requiretls=yes", "root"], b"", os.EX_USAGE, "and other options apart"),
        (["-O", "requiretls=yes", "-bs"], b"", os.EX_USAGE, "-O requiretls=yes cannot be used with -bs"),
        (["root"], b"x\n" * 700, os.EX_UNAVAILABLE, "message file too big"),
    ],
)
def test_refused_submission_leaves_no_file(
    tmp_path: Path, words: list[str], message: bytes, status: int, text: str
) -> None:
    site = Site(tmp_path, "message_size_limit = 2000\n")
    found, error = site.sendmail(*words, message=message)
    assert found == status, error
    assert error.startswith("sendmail: fatal: ")
    assert text in error
    assert error.count("\n") == 1
    assert list(site.maildrop.iterdir()) == []


def test_bad_configuration_and_missing_maildrop_have_own_exit_status(site: Site) -> None:
    status, error = site.sendmail("-C", "/nowhere/main.cf", "root")
    assert (status, "/nowhere/main.cf" in error) == (os.EX_CONFIG, True)
    site.maildrop.rmdir()
    status, error = site.sendmail("root")
    assert (status, "maildrop" in error) == (os.EX_TEMPFAIL, True)


@pytest.mark.parametrize(
    ("words", "status"),
    [("!{user}, static:anyone", os.EX_NOPERM), ("!!{user}", os.EX_OK), ("!!!{user}", os.EX_NOPERM)],
)
def test_authorized_submit_users_excludes_users(tmp_path: Path, words: str, status: int) -> None:
    import pwd

    user = pwd.getpwuid(os.getuid()).pw_name
    site = Site(tmp_path, f"authorized_submit_users = {words.format(user=user)}\n")
    found, error = site.sendmail("root")
    assert (found, "not allowed to submit mail" in error) == (status, status == os.EX_NOPERM)


def test_interrupted_submission_leaves_no_file(site: Site) -> None:
    command = [sys.executable, "-m", "postillion.commands.sendmail", "-C", str(site.etc), "root"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(b"Subject: x\n" * 10_000)
        process.stdin.flush()
        wait_for(
            "a file in maildrop", lambda: any(path.stat().st_size > 100 for path in site.maildrop.iterdir()), WAIT_S
        )
        process.send_signal(signal.SIGTERM)
        assert process.wait(WAIT_S) == os.EX_TEMPFAIL
    assert list(site.maildrop.iterdir()) == []


def test_pickup_is_triggered(site: Site) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(site.queue / "public" / "pickup"))
        listener.listen()
        listener.settimeout(WAIT_S)
        assert site.sendmail("root") == (0, "")
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(10) == b"W"


def test_irrelevant_options_are_ignored() -> None:
    words = [
        "-Am",
        "-L",
        "tag",
        "-m",
        "-n",
        "-U",
        "-oem",
        "-odi",
        "-o",
        "x",
        "value",
        "-O",
        "a=b",
        "-h",
        "3",
        "-X",
        "log",
    ]
    request = Request("sendmail", [*words, "-q15m", "-x", "-e", "q", "-em", "-oi", "-t", "--", "-f"])
    assert (request.mode, request.recipients, request.extract, request.dot_ends) == ("m", ["-f"], True, False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["-O", "requiretls=yes"], True),
        (["-ORequireTLS=Yes"], True),
        (["-O", "requiretls=yes", "-O", "requiretls=no"], False),
        (["-O", "smtputf8=yes"], False),
        (["-O", "a=b", "--", "-Orequiretls=yes"], False),
    ],
)
def test_option_asks_for_requiretls(words: list[str], expected: bool) -> None:
    assert Request("sendmail", words).requiretls == expected


@pytest.mark.parametrize("words", [["a@b.c", "-t", "-f", "x@y.z"], ["a@b.c", "--", "-C/tmp"], ["a@b.c", "-q"]])
def test_words_behind_a_recipient_are_no_options(words: list[str]) -> None:
    request = Request("sendmail", ["-i", *words])
    assert (request.mode, request.recipients, request.sender, request.extract) == ("m", words, None, False)
    assert request.config_directory is None


@pytest.mark.parametrize(
    ("words", "warning"),
    [
        (["-R", "some"], "-R some is ignored: give hdrs or full"),
        (["-V", "\x7f"], "-V is ignored: give at most 100 printable characters"),
        (["-V", "x" * 101], "-V is ignored: give at most 100 printable characters"),
    ],
)
def test_bad_dsn_option_is_ignored_with_warning(site: Site, words: list[str], warning: str) -> None:
    assert site.sendmail(*words, "root") == (0, f"sendmail: warning: {warning}\n")
    maildrop, _ = site.taken()
    assert (maildrop.ret, maildrop.envid) == ("", None)


@pytest.mark.parametrize(
    ("program", "words", "mode", "flush"),
    [
        ("mailq", [], "p", ""),
        ("newaliases", [], "i", ""),
        ("sendmail", ["-bp"], "p", ""),
        ("sendmail", ["-I"], "i", ""),
        ("sendmail", ["-bi"], "i", ""),
        ("sendmail", ["-bs"], "s", ""),
        ("sendmail", ["-bd", "-q15m"], "d", ""),
        ("sendmail", ["-q"], "q", ""),
        ("sendmail", ["-qIABC"], "q", "IABC"),
        ("sendmail", ["-qRexample.org"], "q", "Rexample.org"),
    ],
)
def test_program_name_and_options_select_mode(program: str, words: list[str], mode: str, flush: str) -> None:
    request = Request(program, words)
    assert (request.mode, request.flush) == (mode, flush)


def test_notify_words_are_parsed() -> None:
    assert [notify_bits(text) for text in ("never", "success", "FAILURE, delay", "success,failure,delay")] == [
        1,
        2,
        12,
        14,
    ]
    assert notify_bits("often") == 0
