"""postconf: prints and edits as Postfix's own postconf does."""

import contextlib
import errno
import io
import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from postillion.commands import postconf
from postillion.config import Config, ConfigError, edit, parameters
from postillion.tables import TableTypeError, open_table

REAL = Path("/usr/sbin/postconf")
real_only = pytest.mark.skipif(not REAL.exists(), reason="Postfix is not installed")

MAIN_CF = """\
# Our site.
compatibility_level = 3.6
myhostname = mx.example.org
mydestination = $myhostname,
    localhost.$mydomain,
# in between
\tlocalhost
mynetworks = 127.0.0.0/8
smtpd_banner = $myhostname   ESMTP
relayhost =
mine = 5
message_size_limit = ${mine}0000000
mynetworks = 127.0.0.0/8 [::1]/128
smtpd_restriction_classes = strict
strict = reject_unauth_destination
smtpd_recipient_restrictions = check_policy_service { inet:127.0.0.1:1, timeout=5s }, reject_unauth_destination, permit
"""

MASTER_CF = """\
smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission -v
  -o { smtpd_recipient_restrictions = permit_sasl_authenticated, reject }
  -o { smtpd_banner = $myhostname  two  spaces }
qmgr      unix  n       -       n       300     1       qmgr
slow      unix  -       -       y       -       5       smtp
twice     unix  -       -       y       -       5       smtp -v
  -o myorigin=a -D -o myorigin=b flags=x
maildrop  unix  -       n       n       -       -       pipe
  flags=DRXhu user=vmail argv=/usr/bin/maildrop -d ${recipient} ${extension} ${nexthop} ${sender}
postlog   unix-dgram n  -       n       -       1       postlogd
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    write(tmp_path)
    return tmp_path


def write(directory: Path) -> None:
    for name, text in (("main.cf", MAIN_CF), ("master.cf", MASTER_CF)):
        (directory / name).write_text(text)
        # Postfix waits two seconds before it reads a file that was just changed.
        os.utime(directory / name, (0, 0))


def ours(etc: Path, *words: str) -> subprocess.CompletedProcess[str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = postconf.main(["-c", str(etc), *words])
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())


def real(etc: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([REAL, "-c", str(etc), *words], capture_output=True, text=True, timeout=30)


@real_only
@pytest.mark.parametrize(
    "words",
    [
        ["-n"],
        ["-nf"],
        ["-hn"],
        ["-Hn"],
        ["-nx"],
        ["-h", "mydestination"],
        ["-x", "mydestination", "message_size_limit", "mydomain"],
        ["smtpd_banner", "slow_destination_rate_delay", "relay_domains", "slow_recipient_limit"],
        ["-d", "smtpd_banner", "queue_run_delay", "relay_domains", "maildrop_time_limit"],
        ["-dx", "append_dot_mydomain", "mynetworks_style", "smtpd_timeout"],
        ["-o", "myhostname=other.example", "-x", "myorigin", "mydomain"],
        ["-dh", "maximal_queue_lifetime"],
        ["nosuchparameter"],
        ["-M"],
        ["-Mf"],
        ["-M", "submission/inet"],
        ["-M", "*/unix"],
        ["-F"],
        ["-F", "*/inet/chroot"],
        ["-P"],
        ["-P", "submission/inet/syslog_name"],
        ["-Px", "submission/inet"],
        ["-FH", "smtp/inet/chroot"],
        ["-M", "nosuch/inet"],
        ["-P", "smtp/inet/nosuch"],
        ["-F", "smtp/inet/nosuch"],
        ["-nC", "builtin"],
        ["-nC", "user"],
        ["-nC", "builtin,user"],
        ["-nC", "all"],
        ["-C", "service"],
        ["-C", "nosuch"],
        ["process_name"],
        ["-x", "process_name"],
        ["-l"],
    ],
    ids=" ".join,
)
def test_output_equals_that_of_postfix(etc: Path, words: list[str]) -> None:
    mine, theirs = ours(etc, *words), real(etc, *words)
    assert mine.stdout == theirs.stdout
    assert mine.returncode == theirs.returncode


@real_only
@pytest.mark.parametrize(
    "words",
    [
        ["-e", "relayhost=[smtp.example.net]:587"],
        ["-e", "mydestination = a, b"],
        ["mynetworks=10.0.0.0/8"],
        ["-e", "always_bcc = x@example.org"],
        ["-e", "smtpd_banner="],
        ["-X", "mydestination"],
        ["-X", "mynetworks", "mine"],
        ["-#", "mydestination", "relayhost"],
    ],
    ids=" ".join,
)
def test_main_cf_is_edited_as_by_postfix(etc: Path, tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    other = tmp_path_factory.mktemp("real")
    write(other)
    mine, theirs = ours(etc, *words), real(other, *words)
    assert (mine.returncode, theirs.returncode) == (0, 0)
    assert (etc / "main.cf").read_text() == (other / "main.cf").read_text()
    assert sorted(path.name for path in etc.iterdir()) == ["main.cf", "master.cf"]


@real_only
@pytest.mark.parametrize(
    "words",
    [
        ["-F", "*/*/chroot=n"],
        ["-F", "smtp/*/chroot=n", "*/inet/wakeup=5", "smtp/inet/process_limit=7"],
        ["-F", "smtp/inet/command=smtpd -v -o myorigin=x"],
        ["-F", "smtp/inet/service=smtps"],
        ["-F", "nosuch/*/chroot=n"],
        ["-F", "smtp/inet/*=n"],
        ["-F", "smtp/inet/nosuch=n"],
        ["-F", "smtp/inet/chroot=x"],
        ["-F", "smtp/inet/chroot=n y"],
        ["-F", "smtp/inet=n"],
        ["-F", "-e", "smtp/inet/chroot"],
        ["-P", "*/*/myorigin=x"],
        ["-P", "*/inet/syslog_name=x", "submission/*/myorigin="],
        ["-P", "nosuch/unix/myorigin=x"],
        ["-P", "smtp/inet/*=x"],
        ["-P", "smtp/inet=x"],
        ["-PX", "*/*/syslog_name"],
        ["-PX", "smtp/inet/nosuch"],
        ["-PX", "submission/inet"],
        ["-PX", "submission/inet/syslog_name=x"],
        ["-P#", "submission/inet/syslog_name"],
        ["-FX", "smtp/inet/chroot"],
        ["-M", "smtp/*=smtp inet n - n - - smtpd"],
        ["-M", "smtp/inet=smtps inet n - n - - smtpd"],
        ["-M", "new/unix=new unix - - n - - smtp -o myorigin=x"],
        ["-M", "new=new unix - - n - - smtp"],
        ["-MX", "smtp/inet"],
        ["-MX", "*/unix"],
        ["-MX", "nosuch/inet"],
        ["-MX", "smtp"],
        ["-MX"],
        ["-M#", "submission/*"],
        ["-M#", "*/inet", "qmgr/unix"],
    ],
    ids=" ".join,
)
def test_master_cf_is_edited_as_postfix_does(
    etc: Path, tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    other = tmp_path_factory.mktemp("real")
    write(other)
    mine, theirs = ours(etc, *words), real(other, *words)
    assert mine.returncode == theirs.returncode
    assert (etc / "master.cf").read_text() == (other / "master.cf").read_text()
    assert ("unmatched" in mine.stderr) == ("unmatched" in theirs.stderr)


def test_one_bad_change_of_several_changes_nothing(etc: Path) -> None:
    result = ours(etc, "-F", "smtp/inet/chroot=n", "*/unix/chroot=maybe")
    assert result.returncode == 1
    assert 'bad value: "maybe"' in result.stderr
    assert (etc / "master.cf").read_text() == MASTER_CF


@real_only
@pytest.mark.parametrize("mode", ["run-version", "public-key-algorithms", "bogus", ""])
def test_facts_of_the_tls_library_are_those_of_postfix(etc: Path, mode: str) -> None:
    mine, theirs = ours(etc, "-T", mode), real(etc, "-T", mode)
    assert (mine.returncode, mine.stdout) == (theirs.returncode, theirs.stdout)
    assert ("unknown" in mine.stderr) == ("unknown" in theirs.stderr)


def test_version_of_the_tls_headers_is_shown_without_its_date(etc: Path) -> None:
    assert re.fullmatch(r"OpenSSL \d+\.\d+\.\d+\n", ours(etc, "-T", "compile-version").stdout)


@real_only
@pytest.mark.parametrize("words", [("-T", "run-version", "-T", "run-version"), ("-T", "run-version", "-d")])
def test_option_for_the_tls_library_stands_alone(etc: Path, words: tuple[str, ...]) -> None:
    assert [ours(etc, *words).returncode, real(etc, *words).returncode] == [1, 1]


def test_types_of_sasl_are_those_that_a_program_can_use(etc: Path) -> None:
    for letter, types in (("a", ""), ("A", "cyrus\n")):
        result = ours(etc, f"-{letter}")
        assert (result.returncode, result.stdout, result.stderr) == (0, types, "")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-e"], "-e requires name=value argument"),
        (["-#"], "missing service argument"),
        (["-X"], "missing service argument"),
        (["-MX"], "missing service argument"),
        (["-dn"], "specify one of -d -n"),
        (["-nM"], "with option -M, do not specify -n"),
        (["-Mh"], "with option -M, do not specify -h"),
        (["-hH"], "specify one of -h -H"),
        (["-al"], "specify one of -a -l"),
        (["-jh"], "do not specify -h"),
        (["-PPe", "smtp/inet/x=1"], "specify one of -PP -e"),
        (["-Z"], "unknown option -Z"),
        (["-o"], "option -o needs a value"),
        (["-ox", "mine"], "missing '=' after attribute name"),
    ],
    ids=" ".join,
)
def test_options_without_a_sense_end_with_status_1(etc: Path, words: list[str], said: str) -> None:
    result = ours(etc, *words)
    assert (result.returncode, result.stdout) == (1, "")
    assert said in result.stderr
    assert sorted(path.name for path in etc.iterdir()) == ["main.cf", "master.cf"]


def test_j_prints_one_json_object_a_line(etc: Path) -> None:
    with (etc / "main.cf").open("ab") as file:
        file.write(b'smtpd_helo_required = a\t"b"\\c \x01\x7f \xc3\xa9\n')
    assert ours(etc, "-jn", "smtpd_banner").stdout == '{"smtpd_banner": "$myhostname   ESMTP"}\n'
    (line,) = ours(etc, "-j", "smtpd_helo_required").stdout.splitlines()
    assert line == '{"smtpd_helo_required": "a\\t\\"b\\"\\\\c \\u0001\\u007F é"}'
    assert json.loads(line) == {"smtpd_helo_required": 'a\t"b"\\c \x01\x7f é'}
    assert ours(etc, "-jM", "twice").stdout == (
        '{"twice/unix": "twice unix - - y - 5 smtp -v -o myorigin=a -D -o myorigin=b flags=x"}\n'
    )
    assert json.loads(ours(etc, "-jF", "slow/unix/process_limit").stdout) == {"slow/unix/process_limit": "5"}
    assert json.loads(ours(etc, "-jxP", "submission/inet/smtpd_banner").stdout) == {
        "submission/inet/smtpd_banner": "mx.example.org  two  spaces"
    }
    everything = [json.loads(line) for line in ours(etc, "-jd").stdout.splitlines()]
    assert len(everything) > 900


def test_pp_shows_what_a_service_sees(etc: Path) -> None:
    seen = dict(line.split(" =", 1) for line in ours(etc, "-PPx", "submission/inet").stdout.splitlines())
    assert seen["submission/inet/syslog_name"] == " postfix/submission"
    assert seen["submission/inet/mydestination"] == " mx.example.org, localhost.example.org, localhost"
    assert seen["submission/inet/service_name"] == " submission"
    assert seen["submission/inet/process_name"] == " smtpd"
    assert len(seen) > 900
    assert ours(etc, "-PP", "qmgr/unix/mine").stdout == "qmgr/unix/mine = 5\n"


def test_names_that_postfix_gives_up_give_warning(etc: Path) -> None:
    with (etc / "main.cf").open("a") as file:
        file.write("smtpd_use_tls = yes\nfallback_relay = x\nmyorigin = $myhostnam\n")
    said = ours(etc, "-n").stderr
    assert 'support for parameter "smtpd_use_tls" will be removed; instead, specify "smtpd_tls_security_level"' in said
    assert "undefined parameter: myhostnam (did you mean myhostname?)" in said
    assert ours(etc, "-nq").stderr == ""


def test_an_error_prints_no_part_of_the_answer(etc: Path) -> None:
    with (etc / "main.cf").open("a") as file:
        file.write("myorigin = ${\n")
    result = ours(etc, "-nx")
    assert (result.returncode, result.stdout) == (1, "")
    assert f"{etc}/main.cf, line {MAIN_CF.count(chr(10)) + 1}: myorigin: truncated macro reference" in result.stderr
    assert "close each {" in result.stderr


def test_lines_of_one_service_are_changed_each(etc: Path) -> None:
    (etc / "master.cf").write_text("a unix - - n - - smtp -v\na unix - - n - - lmtp {x y} z\n# b\n\nb unix - n n - -\n")
    assert ours(etc, "-F", "a/unix/chroot=y").returncode == 0
    assert (etc / "master.cf").read_text() == (
        "a          unix  -       -       y       -       -       smtp -v\n"
        "a          unix  -       -       y       -       -       lmtp {x y} z\n# b\n\nb unix - n n - -\n"
    )
    assert ours(etc, "-M", "new/unix=a unix - - n - 1 smtp").returncode == 0
    assert (etc / "master.cf").read_text() == (
        "a          unix  -       -       n       -       1       smtp\n# b\n\nb unix - n n - -\n"
    )


@pytest.mark.parametrize("call", ["replaced", "fchmod", "fsync", "rename"])
def test_failed_edit_leaves_file_and_directory_as_they_were(
    etc: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(edit if call == "replaced" else os, call, fail)
    result = ours(etc, "-e", "biff = no")
    monkeypatch.undo()
    assert result.returncode == 1
    assert "cannot be changed (No space left on device)" in result.stderr
    assert (etc / "main.cf").read_text() == MAIN_CF
    assert sorted(path.name for path in etc.iterdir()) == ["main.cf", "master.cf"]


CHANGED_SINCE_3_7 = {
    "address_verify_map",
    "alias_database",
    "alias_maps",
    "import_environment",
    "mail_release_date",
    "mail_version",
    "milter_default_action",
    "postscreen_cache_map",
    "proxy_read_maps",
    "smtp_tls_dane_insecure_mx_policy",
    "smtp_tls_security_level",
    "smtpd_forbid_bare_newline",
    "smtpd_forbid_unauth_pipelining",
    "tls_eecdh_auto_curves",
    "tls_export_cipherlist",
    "tls_high_cipherlist",
    "tls_low_cipherlist",
    "tls_medium_cipherlist",
    "tls_null_cipherlist",
    "tlsproxy_client_policy_maps",
    "tlsproxy_client_security_level",
}
"""Parameters whose default differs: ours are the defaults of Postfix 3.12."""
REMOVED_SINCE_3_7 = {"tls_legacy_public_key_fingerprints", "tlsproxy_client_loglevel_parameter"}
PACKAGED = {"daemon_directory", "html_directory", "manpage_directory", "readme_directory"}
OF_THE_PROCESS = {"process_id", "service_name"}


@real_only
def test_defaults_equal_postfix_except_known_changes(etc: Path) -> None:
    mine = dict(line.split(" =", 1) for line in ours(etc, "-d").stdout.splitlines())
    theirs = dict(line.split(" =", 1) for line in real(etc, "-d").stdout.splitlines())
    if not theirs["mail_version"].startswith(" 3.7."):
        pytest.skip("compared with Postfix 3.7")
    assert theirs.keys() - mine.keys() == REMOVED_SINCE_3_7
    different = {name for name in theirs.keys() & mine.keys() if mine[name] != theirs[name]}
    assert different - PACKAGED - OF_THE_PROCESS <= CHANGED_SINCE_3_7


def test_new_parameters_are_appended_in_order(etc: Path) -> None:
    assert ours(etc, "-e", "biff=no", "always_bcc = x@example.org").returncode == 0
    assert (etc / "main.cf").read_text() == MAIN_CF + "always_bcc = x@example.org\nbiff = no\n"


def test_editing_keeps_mode_and_refuses_bad_input(etc: Path) -> None:
    path = etc / "main.cf"
    path.chmod(0o640)
    assert ours(etc, "-e", "biff=no").returncode == 0
    assert path.stat().st_mode & 0o777 == 0o640
    before = path.read_text()
    for words in (["-e", "nonsense"], ["-e", "a=1\nb=2"], ["-X", "a=1"], ["-e", "#a=1"]):
        result = ours(etc, *words)
        assert result.returncode == 1
        assert result.stderr.startswith("postconf: fatal: ")
    assert path.read_text() == before


def test_master_cf_is_edited_and_checked(etc: Path) -> None:
    assert ours(etc, "-P", "-e", "submission/inet/syslog_name=postfix/sub", "slow/unix/myorigin=a b").returncode == 0
    assert ours(etc, "-F", "-e", "smtp/inet/chroot=n", "qmgr/unix/wakeup=60").returncode == 0
    assert ours(etc, "-M", "-e", "new/unix=new unix - - n - 2 smtp -o myorigin=c").returncode == 0
    assert ours(etc, "-h", "-P", "submission/inet/syslog_name").stdout == "postfix/sub\n"
    assert ours(etc, "-h", "-P", "slow/unix/myorigin").stdout == "a b\n"
    assert ours(etc, "-h", "-F", "smtp/inet/chroot", "qmgr/unix/wakeup").stdout == "n\n60\n"
    assert "new        unix  -       -       n       -       2       smtp" in (etc / "master.cf").read_text()
    before = (etc / "master.cf").read_text()
    refused = ours(etc, "-F", "-e", "smtp/inet/type=tcp")
    assert refused.returncode == 1
    assert 'bad value: "tcp"' in refused.stderr
    assert (etc / "master.cf").read_text() == before
    if REAL.exists():
        assert real(etc, "-M").stdout == ours(etc, "-M").stdout


def test_unused_parameters_give_warning(etc: Path) -> None:
    with (etc / "main.cf").open("a") as file:
        file.write("smtpd_helo_restriction = reject\n")
    result = ours(etc, "-n")
    assert "unused parameter: smtpd_helo_restriction=reject (did you mean smtpd_helo_restrictions?)" in result.stderr
    assert ours(etc, "-nq").stderr == ""


@real_only
def test_warnings_show_control_characters_as_question_marks(etc: Path) -> None:
    with (etc / "main.cf").open("a") as file:
        file.write("debugger_command = a\n\tb\x1b[1m\ndebugger_command = c\n")
    os.utime(etc / "main.cf", (0, 0))
    texts = [ask(etc, "-n").stderr.partition("overriding earlier entry: debugger_")[2] for ask in (ours, real)]
    assert [text.splitlines()[0] for text in texts] == ["command=a?b?[1m"] * 2


def test_explain_prints_description_of_parameter(etc: Path) -> None:
    result = ours(etc, "--explain", "queue_run_delay", "slow_time_limit")
    assert result.stdout.startswith(
        f"queue_run_delay: {parameters.PARAMETERS['queue_run_delay'][3]} (a time such as 30s"
    )
    assert result.returncode == 0
    assert ours(etc, "--explain", "nosuch").returncode == 1


@real_only
def test_m_lists_the_types_that_work(etc: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert postconf.main(["-m"]) == 0
    listed = capsys.readouterr().out.split()
    known = subprocess.run([REAL, "-m"], capture_output=True, text=True, check=True).stdout.split()
    config = Config.load(str(etc))
    names = {
        "inline": "{a=b}",
        "debug": "inline:{a=b}",
        "unionmap": "{static:a}",
        "pipemap": "{static:a}",
        "randmap": "{a}",
        "socketmap": "inet:localhost:1:x",
        "tcp": "localhost:1",
    }

    def works(kind: str) -> bool:
        try:
            open_table(f"{kind}:{names.get(kind, 'passwd.byname')}", config)
        except TableTypeError as problem:
            return "unknown table type" not in str(problem) and kind == "proxy"
        except ConfigError:
            # A remote table whose parameters are missing.
            return True
        return True

    assert listed == sorted(listed)
    assert set(listed) == {kind for kind in {*known, "cdb", "debug", "dbm", "lmdb", "pcre", "sdbm"} if works(kind)}
