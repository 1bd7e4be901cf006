"""main.cf: logical lines, `$name` in values, typed values, and error messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.config import Config, ConfigError, expansion, kinds, main_cf, parameters, unknown

VALUES = {
    "a": "alpha",
    "empty": "",
    "inner": "<$a>",
    "number": "10",
    "level": "3.6",
    "loop": "$loop",
    "one": "$two",
    "two": "${a?{$three}}",
    "three": "$one",
    **{f"deep{at}": f"$deep{at + 1}" for at in range(101)},
    **{f"wide{at}": f"$wide{at + 1}$wide{at + 1}" for at in range(50)},
    "hidden": "$empty",
}


def config_of(tmp_path: Path, text: str, overrides: tuple[tuple[str, str], ...] = ()) -> Config:
    (tmp_path / "main.cf").write_text(text)
    return Config.load(str(tmp_path), overrides)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = 1\nb = 2\n", [(1, "a = 1"), (2, "b = 2")]),
        ("a = 1", [(1, "a = 1")]),
        ("# c\n\n  # d\na = 1\n", [(4, "a = 1")]),
        ("a = 1\n  2\n\t3\n", [(1, "a = 1  2\t3")]),
        ("a = 1\n# c\n  2\n\n  3\n", [(1, "a = 1  2  3")]),
        ("a = 1 # no comment\n", [(1, "a = 1 # no comment")]),
        (" lost\na = 1\n", [(1, " lost"), (2, "a = 1")]),
        ("\n \n", []),
    ],
)
def test_logical_lines(text: str, lines: list[tuple[int, str]]) -> None:
    assert list(main_cf.logical_lines(text)) == lines


def test_last_value_wins_with_warning(tmp_path: Path) -> None:
    config = config_of(tmp_path, "myorigin = a\nmyorigin = b\n")
    assert config.text("myorigin") == "b"
    assert "line 2: overriding earlier entry: myorigin=a" in config.notices[0]


def test_myorigin_may_name_a_file_as_in_debian(tmp_path: Path) -> None:
    name = tmp_path / "mailname"
    name.write_text(" example.org \nexample.net\n")
    config = config_of(tmp_path, f"myorigin = {name}\nmydestination = $myorigin, localhost\n")
    assert config.text("myorigin") == "example.org"
    # The list reads the file, too.
    assert config.text("mydestination") == f"{name}, localhost"
    assert config.items("mydestination")[0] == "example.org"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "the file is missing"),
        ("\nexample.org\n", "is empty"),
        ("# our name\nexample.org\n", '"# our name" is not one domain'),
        (b"\xff.example\n", "UTF-8"),
    ],
)
def test_file_of_myorigin_without_a_domain_is_an_error(text: str | bytes | None, problem: str, tmp_path: Path) -> None:
    name = tmp_path / "mailname"
    if text is not None:
        name.write_bytes(text.encode() if isinstance(text, str) else text)
    config = config_of(tmp_path, f"myhostname = mx.example.org\nmyorigin = {name}\n")
    with pytest.raises(ConfigError, match=f"line 2: myorigin: .*{problem}"):
        config.text("myorigin")


def test_myorigin_is_one_domain(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'"a\.example, b\.example" is not one domain'):
        config_of(tmp_path, "myorigin = a.example, b.example\n").text("myorigin")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$a ${a} $(a)", "alpha alpha alpha"),
        ("$$a", "$a"),
        ("$unset.", "."),
        ("$inner", "<alpha>"),
        ("${a?yes}${a:no}", "yes"),
        ("${empty?yes}${empty:no}", "no"),
        ("${unset:no}", "no"),
        ("${hidden?raw text counts}", "raw text counts"),
        ("${a?{then}:{else}} ${empty?{then}:{else}}", "then else"),
        ("${ a ? {then} : {else} }", "then"),
        ("${a?$number:x}", "10:x"),
        ("${a??x}", "?x"),
        ("${{$number} < {9} ? {less}:{not less}}", "not less"),
        ("${{9223372036854775807} > {9} ? {more}:{not more}}", "more"),
        ("${{00000000000000000000000} == {0}}", "true"),
        ("${{$a} < {beta} ? {less}:{not less}}", "less"),
        ("${{x} == {x}}", "true"),
        ("${{x} != {x}}", ""),
        ("${{$level} <level {3.11} ? {old}:{new}}", "old"),
        ("${{3.11} <level {3.6} ? {old}:{new}}", "new"),
        ("${{2} >=level {2.0.0}:{no}}", ""),
        ("${domain_to_ascii{münchen.example}}", "xn--mnchen-3ya.example"),
        ("${domain_to_ascii{ straße.example }}", "xn--strae-oqa.example"),
        ("${a?{${empty?{x}:{$a}}}}", "alpha"),
    ],
)
def test_expansion(text: str, expanded: str) -> None:
    assert expansion.expand(text, VALUES.get) == expanded


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("${a", "truncated macro reference"),
        ("$ a", "empty macro name"),
        ("${}", "empty macro name"),
        ("${a.b}", "attribute name syntax error"),
        ("${{a} ~ {b}}", "expected at"),
        ("${{a} == b}", "expected at"),
        ("${{a} == {b} x}", "expected at"),
        ("${{a} =={b} ? {x} y}", "expected at"),
        ("${a?{x}:{y} z}", "unexpected input"),
        ("${{x} <level {3}}", "malformed compatibility level"),
        ("${{x} <size {3}}", "bad operator suffix"),
        ("${{9223372036854775808} == {1}}", "number out of range"),
        ("${{1} < {99999999999999999999}}", "number out of range"),
        ("${upper{x}}", "unknown function"),
        ("$loop", r"\"loop\" refers to itself \(loop -> loop\)"),
        ("$one", r"\"one\" refers to itself \(one -> two -> three -> one\)"),
        ("$deep0", "unreasonable macro call nesting"),
        ("$wide0", "more than 10000 references"),
        ("${{3} <level {3.1024}}", "invalid compatibility level"),
    ],
)
def test_expansion_errors_are_reported(text: str, problem: str) -> None:
    with pytest.raises(expansion.ExpansionError, match=problem):
        expansion.expand(text, VALUES.get)


PIECES = ("$", "{", "}", "(", ")", "?", ":", "==", "<", " ", "a", "$a", "${", "${{", "}:{", "level", "domain_to_ascii{")


@given(st.lists(st.sampled_from(PIECES), max_size=30))
def test_any_text_expands_or_is_refused(pieces: list[str]) -> None:
    try:
        expansion.expand("".join(pieces), VALUES.get)
    except expansion.ExpansionError:
        pass


@given(st.text(max_size=60))
def test_doubled_dollar_is_a_literal_dollar(text: str) -> None:
    assert expansion.expand(text.replace("$", "$$"), VALUES.get) == text


NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,12}", fullmatch=True)
WORDS = st.lists(st.text(alphabet="abc,;#={}$", min_size=1, max_size=6), max_size=5)
NOISE = st.lists(st.sampled_from(["", "# comment = x", "   ", "\t# indented"]), max_size=2)


@given(st.lists(st.tuples(NAMES, WORDS, NOISE, st.booleans()), max_size=8))
def test_written_settings_are_read_back(settings: list[tuple[str, list[str], list[str], bool]]) -> None:
    lines, expected = [], {}
    for name, words, noise, folded in settings:
        lines += [*noise, f"{name} =" if folded else f"{name} = {' '.join(words)}"]
        if folded:
            # A continuation line that starts with # would be a comment.
            words = [word.replace("#", "_") for word in words]
            for word in words:
                lines += [f"  {word}", *noise]
        expected[name] = "  ".join(words) if folded else " ".join(words)
    found, _ = main_cf.parse("\n".join(lines), "main.cf")
    assert {name: setting.value for name, setting in found.items()} == expected


@given(st.binary(max_size=200))
def test_any_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, octets: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.cf"
    path.write_bytes(octets)
    message = "main.cf, line 1: refused"
    try:
        main_cf.parse(main_cf.read(str(path)), str(path))
    except ConfigError as error:
        message = str(error)
    assert ", line " in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("a, b c,,d\te", ["a", "b", "c", "d", "e"]),
        ("", []),
        ("{ a, b } c", ["{ a, b }", "c"]),
        ("x:{{a b}, c} d", ["x:{{a b}, c}", "d"]),
        ("{open a", ["{open a"]),
    ],
)
def test_lists_are_split(value: str, words: list[str]) -> None:
    assert main_cf.split_list(value) == words


def test_values_are_converted_by_type(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "message_size_limit = 1000\nbiff = NO\nmaximal_queue_lifetime = 3\nqueue_run_delay = 2m\n"
        "relay_destination_concurrency_limit = 7\nmynetworks = 127.0.0.0/8, [::1]\n"
        f"mydestination = example.org !{tmp_path}/domains\n",
    )
    (tmp_path / "domains").write_text("# ours\na.example b.example\n!c.example\n")
    assert config.number("message_size_limit") == 1000
    assert config.flag("biff") is False
    assert config.seconds("maximal_queue_lifetime") == 3 * 86400
    assert config.seconds("queue_run_delay") == 120
    assert config.seconds("maximal_backoff_time") == 4000
    assert config.number(config.transport_name("relay", "destination_concurrency_limit")) == 7
    assert config.number(config.transport_name("mine", "destination_concurrency_limit")) == 20
    assert config.seconds(config.transport_name("mine", "destination_rate_delay")) == 0
    assert config.text(config.transport_name("mine", "initial_destination_concurrency")) == "5"
    assert config.items("mynetworks") == ["127.0.0.0/8", "[::1]"]
    assert config.items("mydestination") == ["example.org", "!a.example", "!b.example", "c.example"]
    with pytest.raises(KeyError):
        config.text("no_such_parameter")


def test_overrides_win_and_expand(tmp_path: Path) -> None:
    config = config_of(
        tmp_path, "syslog_name = a\n", (("syslog_name", "postfix/$service_name"), ("service_name", "submission"))
    )
    assert config.text("syslog_name") == "postfix/submission"


def test_stress_is_the_services_own(tmp_path: Path) -> None:
    text = "stress = yes\nlimits = ${stress?{short}:{long}}\n"
    calm, stressed = config_of(tmp_path, text).by_stress()
    assert (calm.text("limits"), stressed.text("limits")) == ("long", "short")
    assert calm.text("myorigin") == stressed.text("myorigin")
    assert not calm.reads_like(stressed)
    calm, stressed = config_of(tmp_path, text, (("stress", "no matter what"),)).by_stress()
    assert calm.text("limits") == "short"
    assert calm.reads_like(stressed)


def test_defaults_follow_set_values(tmp_path: Path) -> None:
    config = config_of(tmp_path, "myhostname = mx.example.org\ncompatibility_level = 3.6\n")
    assert config.text("mydomain") == "example.org"
    assert config.text("myorigin") == "mx.example.org"
    assert config.text("smtpd_banner") == "mx.example.org ESMTP Postfix"
    assert config.text("mynetworks_style") == "host"
    assert config.text("relay_domains") == ""
    assert config.text("append_dot_mydomain") == "no"
    assert config_of(tmp_path, "").text("append_dot_mydomain") == "yes"
    assert config_of(tmp_path, "mynetworks_style=host\ninet_interfaces=localhost\ninet_protocols=ipv4").items(
        "mynetworks"
    ) == ["127.0.0.1/32"]
    assert config_of(tmp_path, "mynetworks_style=host\ninet_interfaces=127.0.0.1").items("mynetworks") == [
        "127.0.0.1/32"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a = 1\nnonsense\n",
            "main.cf, line 2: missing '=' after attribute name: \"nonsense\": write it as name = value",
        ),
        ("= 1\n", "line 1: missing attribute name"),
        ("\nmessage_size_limit = 10x\n", 'line 2: bad value "10x" for message_size_limit: give a whole number'),
        ("biff = maybe\n", 'line 1: bad value "maybe" for biff: give yes or no'),
        ("queue_run_delay = 3y\n", 'bad value "3y" for queue_run_delay: give a time such as 30s'),
        ("queue_run_delay = 0\n", "1 or more seconds"),
        ("unverified_recipient_reject_code = 600\n", "give a whole number, 200 to 599"),
        ("smtpd_tls_security_level = maybe\n", "give one of empty, none, may, encrypt"),
        ("myorigin =\n", "give a value that is not empty"),
        ("mydestination = $myhostname, ${\n", "line 1: mydestination: truncated macro reference"),
        ("biff = $a\na = x$b\nb = $c\nc = $b\n", 'line 3: b: "b" refers to itself (b -> c -> b): remove one of these'),
        ("biff = yes\nmyorigin = $mine\nmine = ${\n", "line 3: mine: truncated macro reference"),
        (
            "\nmyhostname = mx.$mydomain\n",
            "line 2: myhostname refers to $mydomain, whose default depends on it: give my",
        ),
        ("mydomain = $myhostname\n", "line 1: mydomain refers to $myhostname, whose default depends on it: give"),
        ("smtpd_hard_error_limit = -1\n", "1 or more"),
        ("smtpd_recipient_limit = 2147483648\n", "1 or more"),
        ("default_destination_concurrency_limit = 2147483648\n", "a whole number up to 2147483647"),
        ("default_destination_concurrency_positive_feedback = 2\n", "give a number from 0 to 1, a fraction"),
        ("mine_destination_concurrency_limit = x\n", "line 1: bad value"),
    ],
)
def test_errors_name_file_line_and_fix(tmp_path: Path, text: str, message: str) -> None:
    try:
        error, *_ = config_of(tmp_path, text).bad_values()
    except ConfigError as refused:
        error = refused
    assert message in str(error)
    assert str(error).startswith(f"{tmp_path}/main.cf")
    assert "\n" not in str(error)


def test_minimum_of_0_means_no_minimum(tmp_path: Path) -> None:
    names = ("postscreen_dnsbl_allowlist_threshold", "default_destination_recipient_limit", "message_size_limit")
    config = config_of(tmp_path, "".join(f"{name} = -1\n" for name in names))
    assert config.bad_values() == []
    assert config.number("postscreen_dnsbl_allowlist_threshold") == -1
    assert config.number("default_destination_recipient_limit") == 0
    assert config.number("message_size_limit") == 0


def test_missing_and_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the file is missing"):
        Config.load(str(tmp_path))
    (tmp_path / "main.cf").mkdir()
    with pytest.raises(ConfigError, match="this is a directory"):
        Config.load(str(tmp_path))


def test_file_of_a_list_must_be_regular_and_utf8(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text(f"mydestination = {tmp_path}/pipe\nrelay_domains = {tmp_path}/latin\n")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "latin").write_bytes(b"# caf\xe9\na.example\ncaf\xe9.example\n")
    config = Config.load(str(tmp_path))
    for name, problem in (
        ("mydestination", "pipe: this is a named pipe"),
        ("relay_domains", "line 3: this is not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=problem):
            config.items(name)
    (tmp_path / "latin").write_bytes(b"# caf\xe9\na.example\n")
    assert config.items("relay_domains") == ["a.example"]


def test_match_lists_have_comments_files_and_negations(tmp_path: Path) -> None:
    (tmp_path / "inner").write_text("!a.example # b.example\n  c.example\n")
    (tmp_path / "outer").write_text(f"d.example hash:/e !{tmp_path}/inner\n#f.example\n")
    text = f"mydestination = !!x.example !{tmp_path}/outer\nrelay_domains = g.example #h.example\n"
    config = config_of(tmp_path, text)
    warned: list[str] = []
    config.warn = warned.append
    for _ in range(2):
        assert config.items("mydestination") == ["x.example", "!d.example", "!hash:/e", "!a.example", "c.example"]
        assert config.items("relay_domains") == ["g.example"]
    told = "comment at end of line is not supported"
    assert warned == [
        f"{tmp_path}/main.cf, line 1: mydestination: {tmp_path}/inner, line 1: {told}: # b.example",
        f"{tmp_path}/main.cf, line 2: relay_domains: {told}: #h.example",
    ]
    with pytest.raises(ConfigError, match="line 1: mynetworks: no pattern after '!'"):
        config_of(tmp_path, "mynetworks = ! 192.0.2.0/24\n").items("mynetworks")


def test_value_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_bytes(b"myorigin = a.example\nsmtpd_banner = caf\xe9\n")
    config = Config.load(str(tmp_path))
    assert config.text("myorigin") == "a.example"
    with pytest.raises(ConfigError, match=r"main\.cf, line 2: smtpd_banner: this is not UTF-8"):
        config.text("smtpd_banner")


def test_unknown_parameter_warning_suggests_nearest_name(tmp_path: Path) -> None:
    config = config_of(
        tmp_path,
        "smtpd_recipient_restriction = reject\nmine = 1\nmyorigin = $mine\n"
        "smtpd_restriction_classes = strict\nstrict = reject\n"
        "virtual_alias_maps = ldap:people\npeople_server_host = ldap.example\n"
        "slow_destination_rate_delay = 1s\nonly_in_master = 2\n",
    )
    (tmp_path / "master.cf").write_text(
        "smtp inet n - n - - smtpd\n -o myorigin=$only_in_master\nslow unix - - n - - smtp\n"
    )
    (warning,) = unknown.warnings(config)
    assert "line 1: unused parameter: smtpd_recipient_restriction=reject" in warning
    assert "(did you mean smtpd_recipient_restrictions?)" in warning


def test_removed_and_documented_names_are_unused(tmp_path: Path) -> None:
    names = {
        "smtp_tls_cipherlist": " (Postfix has removed it; use smtp_tls_mandatory_ciphers)",
        "tls_dane_digest_agility": " (Postfix has removed it)",
        "domain_to_ascii": "",
        "transport_destination_rate_delay": "",
    }
    config = config_of(tmp_path, "".join(f"{name} = x\n" for name in names) + "myorigin = $smtp_tls_cipherlist\n")
    del config.settings["smtp_tls_cipherlist"]
    undefined, *unused = sorted(warning.partition(": ")[2] for warning in unknown.warnings(config))
    assert undefined == "undefined parameter: smtp_tls_cipherlist" + names.pop("smtp_tls_cipherlist")
    for warning, (name, advice) in zip(unused, sorted(names.items()), strict=True):
        assert warning.startswith(f"unused parameter: {name}=x{advice}")


def test_every_parameter_is_declared_once_with_valid_default(tmp_path: Path) -> None:
    names = [row[0] for family in parameters.FAMILIES for row in parameters.rows(family)]
    assert len(names) == len(set(names))
    ours = [name for name in names if name.startswith("smtpd_python_handler") or name == "smtp_mta_sts"]
    assert len(names) == 930 + len(ours), "Postfix has 930 parameters"
    assert parameters.PARAMETERS.keys() & unknown.REMOVED.keys() == set()
    assert {name for name in unknown.REMOVED.values() if name} <= parameters.PARAMETERS.keys()
    assert len(ours) == 4
    config = config_of(tmp_path, "")
    for name, kind, default, doc, *_ in parameters.PARAMETERS.values():
        assert kinds.is_valid(config.text(name), kind, default) or config.text(name) == "", name
        assert 10 < len(doc) <= 110, name
        assert "\n" not in doc


def test_loading_imports_no_slow_modules() -> None:
    code = (
        "import sys; from postillion.config import Config; Config.load(sys.argv[1]).text('myhostname')\n"
        "slow = {'re', 'typing', 'asyncio', 'socket', 'ipaddress', 'importlib.metadata', 'postillion._core'}\n"
        "print(sorted(slow & set(sys.modules)))"
    )
    directory = str(Path(main_cf.__file__).parent / "defaults")
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _with_path(code), directory], capture_output=True, text=True
    )
    assert result.stdout == "[]\n", result.stderr


def _with_path(code: str) -> str:
    package = Path(main_cf.__file__).parents[2]
    return f"import sys; sys.path.insert(0, {str(package)!r})\n{code}"
