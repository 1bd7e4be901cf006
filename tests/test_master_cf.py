"""master.cf: its eight fields, arguments, and error messages."""

import contextlib
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.config import Config, ConfigError, master_cf
from postillion.master import listeners, plan, programs
from support.ports import free_port

DEBIAN = Path("/usr/share/postfix/master.cf.dist")


def one(text: str) -> master_cf.Entry:
    (entry,), _ = master_cf.parse(text, "master.cf")
    return entry


def test_fields_have_postfix_defaults() -> None:
    entry = one("relay unix - - - - - smtp\n")
    assert (entry.service, entry.type, entry.command) == ("relay", "unix", "smtp")
    assert (entry.private, entry.unprivileged, entry.chroot) == (True, True, False)
    assert (entry.wakeup_s, entry.wakeup_when_used, entry.maxproc) == (0, False, None)
    entry = one("tlsmgr fifo n n y 1000? 1 tlsmgr")
    assert (entry.private, entry.unprivileged, entry.chroot) == (False, False, True)
    assert (entry.wakeup_s, entry.wakeup_when_used, entry.maxproc) == (1000, True, 1)


def test_every_form_of_arguments_is_parsed() -> None:
    entry = one(
        "submission inet n - n - - smtpd\n"
        "  -o syslog_name=postfix/submission -v\n"
        "# a comment in between\n"
        "  -o { smtpd_recipient_restrictions = permit_sasl_authenticated, reject }\n"
        "  -osmtpd_tls_security_level=encrypt\n"
        "  { argument with space } last\n"
    )
    assert entry.arguments == [
        "-o",
        "syslog_name=postfix/submission",
        "-v",
        "-o",
        "smtpd_recipient_restrictions=permit_sasl_authenticated, reject",
        "-o",
        "smtpd_tls_security_level=encrypt",
        "argument with space",
        "last",
    ]
    assert entry.overrides() == [
        ("syslog_name", "postfix/submission"),
        ("smtpd_recipient_restrictions", "permit_sasl_authenticated, reject"),
        ("smtpd_tls_security_level", "encrypt"),
    ]


def test_last_duplicate_wins_with_warning() -> None:
    entries, warnings = master_cf.parse("a unix - - n - - smtp\nb unix - - n - - smtp\na unix - - n - 5 lmtp\n", "m")
    assert [(entry.name, entry.command) for entry in entries] == [("b/unix", "smtp"), ("a/unix", "lmtp")]
    assert warnings == ['m, line 3: duplicate master.cf entry for service "a" (unix) -- using the last entry']


def test_options_are_split_as_getopt_does() -> None:
    entry = one("smtp inet n - n - - smtpd -vo a=b -Do{ c = d e } -v {x} -o e=f")
    assert entry.arguments == ["-v", "-o", "a=b", "-D", "-o", "c=d e", "-v", "x", "-o", "e=f"]
    assert entry.overrides() == [("a", "b"), ("c", "d e")]


def test_indented_first_line_gets_warning_and_is_ignored() -> None:
    entries, warnings = master_cf.parse("  smtp inet n - n - - smtpd\na unix - - n - - smtp\n", "m")
    assert [entry.name for entry in entries] == ["a/unix"]
    assert warnings == ["m, line 1: continuation line without a line to continue: 'smtp inet n - n - - smtpd'"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("smtp inet n - n - -", 'missing "command" field: give eight fields: service type private'),
        ("smtp tcp n - n - - smtpd", 'field "type": bad value: "tcp": give one of inet, unix, unix-dgram, fifo, pass'),
        ("smtp inet yes - n - - smtpd", 'field "private": bad value: "yes": give "y", "n" or "-"'),
        ("smtp inet - - n - - smtpd", "inet service cannot be private"),
        ("a unix - - n 5m - smtp", 'field "wakeup": bad value: "5m"'),
        ("a unix - - n - many smtp", 'field "maxproc": bad value: "many"'),
        ("a unix - - n - - -", 'field "command" has no default value'),
        ("a unix - - n - - smtp -o nonsense", "missing '=' after attribute name: \"nonsense\""),
        ("a unix - - n - - smtp { open", "unbalanced braces"),
        ("a unix - - n - - smtp {a}b", "unbalanced braces"),
        ("a unix - - n ? - smtp", 'field "wakeup": bad value: ""'),
        ("a unix - - n 99999999999 - smtp", 'field "wakeup": bad value: "99999999999"'),
        ("a unix - - n - - smtp -v -o", "missing attribute name"),
    ],
)
def test_errors_name_file_line_and_fix(line: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        master_cf.parse(f"# services\n{line}\n", "/etc/postfix/master.cf")
    assert str(caught.value).startswith("/etc/postfix/master.cf, line 2: ")
    assert message in str(caught.value)


@given(st.text(alphabet=" -ny{}#\n\tainetuxo=0?", max_size=80))
def test_any_text_is_read_or_refused_with_its_line(text: str) -> None:
    message = "m, line 1: refused"
    try:
        master_cf.parse(text, "m")
    except ConfigError as error:
        message = str(error)
    assert ", line " in message


def test_disabled_services_are_left_out() -> None:
    entries, _ = master_cf.parse("smtp inet n - n - - smtpd\nsmtp unix - - n - - smtp\nlocal unix - n n - - local", "m")
    for disabled, expected in [
        ([], ["smtp/inet", "smtp/unix", "local/unix"]),
        (["inet"], ["smtp/unix", "local/unix"]),
        (["smtp/unix"], ["smtp/inet", "local/unix"]),
        (["smtp.inet", "Local/UNIX"], ["smtp/unix"]),
        (["local", "*/unix", "smtp"], ["smtp/inet", "smtp/unix", "local/unix"]),
        (["!smtp/unix", "unix"], ["smtp/inet", "smtp/unix"]),
    ]:
        assert [entry.name for entry in master_cf.enabled(entries, disabled)] == expected
    assert master_cf.unmatched(entries, ["inet", "local", "!smtp/unix", "smtp/fifo"]) == ["local", "smtp/fifo"]


@pytest.mark.parametrize(
    ("program", "maxproc", "processors", "count"),
    [
        ("smtpd", 100, 4, 2),
        ("smtpd", 100, 3, 2),
        ("smtpd", 100, 1, 1),
        ("smtpd", 2, 8, 2),
        ("smtp", 0, 8, 4),
        ("qmgr", 1, 8, 1),
        ("bounce", 0, 8, 1),
        ("local", 100, 1, 2),
        ("local", 1, 8, 1),
        ("local", 0, 4, 4),
    ],
)
def test_number_of_processes_follows_maxproc_and_processors(
    program: str, maxproc: int, processors: int, count: int
) -> None:
    assert programs.processes(program, maxproc, processors) == count


def test_maxproc_limits_sessions_of_all_processes() -> None:
    assert programs.session_limit(100, 4) == 25
    assert programs.session_limit(5, 2) == 3
    assert programs.session_limit(0, 2) == 0


def site(tmp_path: Path, main: str, master: str) -> str:
    (tmp_path / "main.cf").write_text(main)
    (tmp_path / "master.cf").write_text(master)
    return str(tmp_path)


def test_service_addresses_follow_type_and_interfaces(tmp_path: Path) -> None:
    config = Config.load(site(tmp_path, "inet_interfaces = 127.0.0.1, [::1]\ninet_protocols = ipv4\n", ""))
    for line, expected in [
        ("127.0.0.1:2525 inet n - n - - smtpd", [("inet", "127.0.0.1", 2525)]),
        ("smtp inet n - n - - smtpd", [("inet", "127.0.0.1", 25)]),
        ("submissions inet n - n - - smtpd", [("inet", "127.0.0.1", 465)]),
        ("10025 inet n - n - - smtpd", [("inet", "127.0.0.1", 10025)]),
        ("qmgr unix n - n - - qmgr", [("unix", "public/qmgr", 0)]),
        ("smtp unix - - n - - smtp", [("unix", "private/smtp", 0)]),
        ("pickup fifo n - n - - pickup", [("fifo", "public/pickup", 0)]),
        ("smtpd pass - - n - - smtpd", [("pass", "private/smtpd", 0)]),
    ]:
        assert listeners.addresses(one(line), config) == expected, line
    everywhere = Config.load(site(tmp_path, "inet_protocols = ipv4\n", ""))
    assert listeners.addresses(one("25 inet n - n - - smtpd"), everywhere) == [("inet", "0.0.0.0", 25)]
    with pytest.raises(ConfigError, match="no address"):
        listeners.addresses(one("[::1]:2525 inet n - n - - smtpd"), config)
    for line in ("nosuchport inet n - n - - smtpd", "0 inet n - n - - smtpd", "a/b unix - - n - - smtp"):
        with pytest.raises(ConfigError, match="bad service name"):
            listeners.addresses(one(line), config)


def test_unknown_program_error_suggests_nearest_name(tmp_path: Path) -> None:
    directory = site(tmp_path, "", "smtp inet n - n - - smtpdd\n")
    with pytest.raises(ConfigError) as caught:
        plan.Plan(directory)
    assert str(caught.value) == (
        f'{directory}/master.cf, line 1: unknown program "smtpdd" for service smtp/inet: did you mean smtpd?'
    )


def test_two_services_on_one_address_are_refused(tmp_path: Path) -> None:
    directory = site(tmp_path, "inet_protocols = ipv4\n", "smtp inet n - n - - smtpd\n25 inet n - n - - smtpd\n")
    with pytest.raises(ConfigError, match=r"line 2: listens on 0.0.0.0 port 25 as line 1 does"):
        plan.Plan(directory)


@pytest.mark.parametrize("places", [("0.0.0.0", "127.0.0.1"), ("127.0.0.1", "0.0.0.0")])
def test_port_may_be_on_all_addresses_and_on_one(places: tuple[str, str]) -> None:
    port = free_port()
    own: dict[listeners.Address, int] = {}
    for place in places:
        own[("inet", place, port)] = listeners.bind(("inet", place, port), own)
    client = socket.create_connection(("127.0.0.1", port))
    accepted = {}
    for address, fd in own.items():
        with socket.socket(fileno=fd) as listener, contextlib.suppress(BlockingIOError):
            accepted[address[1]] = listener.accept()[0].getsockname()
    assert list(accepted) == ["127.0.0.1"]
    client.close()


def test_port_of_another_program_is_not_shared() -> None:
    port = free_port()
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        stranger.bind(("0.0.0.0", port))
        stranger.listen()
        with pytest.raises(OSError, match="Address already in use"):
            listeners.bind(("inet", "127.0.0.1", port), {})


@pytest.mark.skipif(not DEBIAN.exists(), reason="Debian's postfix is not installed")
def test_debian_configuration_is_accepted(tmp_path: Path) -> None:
    directory = site(tmp_path, Path("/usr/share/postfix/main.cf.debian").read_text(), DEBIAN.read_text())
    made = plan.Plan(directory)
    assert {entry.name for entry, _ in made.services} >= {"smtp/inet", "pickup/unix", "qmgr/unix", "local/unix"}
    assert not any(entry.command in programs.BUILT_IN for entry, _ in made.services)
    (absent,) = [warning for warning in made.warnings if "without an implemented program" in warning]
    assert "virtual (virtual)" in absent
