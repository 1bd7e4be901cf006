"""Templates of notifications: their file, their parameters, and postconf -t and -b."""

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.commands import postconf
from postillion.config import ConfigError
from postillion.delivery.bounce import template
from postillion.delivery.bounce.template import BUILT_IN, EXPANDED_MAX_OCTETS, NAMES, Template
from postillion.delivery.bounce.template_file import FILE_MAX_OCTETS, UNKNOWN_MAX, load, of_site, parse
from support import memory_config

PATH = "/etc/bounce.cf"
START = "failure_template = <<EOF\n"
SUBJECTS = "Subject: ours\nPostmaster-Subject: our copy\n"


def read(text: str) -> tuple[Template, list[str]]:
    """Return the failure template of a file with this text, and the warnings."""
    warnings: list[str] = []
    return parse(text, PATH, warnings.append)["failure"], warnings


@pytest.mark.parametrize(
    ("text", "found", "line"),
    [
        (START + SUBJECTS + "\nour text\nEOF\n", "our text\n", 5),
        (START + "\nour text\nEOF\n", "our text\n", 3),
        (START + "our text\nmore\nEOF\n", "our text\nmore\n", 2),
        (START + "Subject: ours\nour text\nEOF\n", "our text\n", 3),
        (START + "Subject: ours\n\n \n\t\n  our text\n\n more\n\nEOF\n", "  our text\n\n more\n\n", 6),
        (START + "\n\nSubject: ours\n\nSubject: not a field\nEOF\n", "Subject: not a field\n", 6),
        (START + " \nSubject: not a field\nEOF\n", "Subject: not a field\n", 3),
        (START + "Subject: ours\n folded: no\nEOF\n", " folded: no\n", 3),
        (START + "two words: no field\nEOF\n", "two words: no field\n", 2),
        (START + "Subject: ours\n\n# kept \\n $$ $x\nEOF\n", "# kept \\n $$ $x\n", 4),
        ("# a comment\n  # another\n\n  failure_template=<<  END x \na\nEOF\nEND x\n", "a\nEOF\n", 5),
        ("failure_template = one line # all of it\n", "one line # all of it\n", 1),
        (START + "first\nEOF\n" + START + "last\nEOF\n", "last\n", 5),
        ("failure_template = <<EOF\na\nEOF", "a\n", 2),
    ],
)
def test_text_begins_below_header_fields_and_empty_lines(text: str, found: str, line: int) -> None:
    failure, warnings = read(text)
    assert (failure.text, failure.line, warnings) == (found, line, [])


def test_header_fields_replace_those_of_the_built_in_template() -> None:
    fields = "CHARSET: utf-8\nfrom :\tUs <us>  \nSubject: a\nSubject: $b\nPostmaster-Subject: c\n\n"
    failure, _ = read(START + fields + "x\nEOF\n")
    assert (failure.charset, failure.sender, failure.subject, failure.postmaster_subject) == (
        "utf-8",
        "Us <us>  ",
        "$b",
        "c",
    )
    failure, _ = read(START + "\nx\nEOF\n")
    assert replace(failure, text="", path="", line=None) == replace(BUILT_IN["failure"], text="", path="")


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "X-Foo: x\n\nx\n",
            'line 2: failure template: unknown header field "X-Foo"; the built-in one is used: Charset',
        ),
        ("Subject: a\nhttp://x\n", 'line 3: failure template: unknown header field "http"'),
        ("Subject:  \n\nx\n", 'line 2: failure template: "Subject" is empty'),
        ("From: M\u00fcller\n\nx\n", 'line 2: failure template: "From" is not in ASCII'),
        ("From: a\0b\n\nx\n", 'line 2: failure template: "From" has a control character'),
        ("Subject: a\r\n\r\nx\r\n", 'line 2: failure template: "Subject" has a control character'),
        ("Subject: a\n", "line 1: failure template: no text"),
        ("Subject: a\n\n \n\t\n", "line 1: failure template: no text"),
        ("", "line 1: failure template: no text"),
        ("x\0y\n", "line 1: failure template: the text has a NUL"),
        ("\ngr\u00fcn\n", "line 1: failure template: the text is not in ASCII; the built-in one is used: add a field"),
        ("Charset: US-ASCII\n\ngr\udcfcn\n", "line 1: failure template: the text is not in ASCII"),
    ],
)
def test_bad_template_gives_a_warning_and_the_built_in_one(text: str, warning: str) -> None:
    failure, warnings = read(START + text + "EOF\n" + "delay_template = good\n")
    assert failure is BUILT_IN["failure"]
    assert len(warnings) == 1
    assert warnings[0].startswith(f"{PATH}, {warning}")
    assert parse(START + text + "EOF\ndelay_template = good\n", PATH, warnings.append)["delay"].text == "good\n"


def test_only_two_templates_have_a_subject_for_the_postmaster() -> None:
    for name in NAMES:
        warnings: list[str] = []
        text = f"{name}_template = <<EOF\nPostmaster-Subject: x\n\ny\nEOF\n"
        found = parse(text, PATH, warnings.append)[name]
        known = name in ("failure", "delay")
        assert (found.postmaster_subject, len(warnings)) == ("x" if known else None, 0 if known else 1)


def test_missing_end_marker_gives_a_warning_and_the_rest_of_the_file() -> None:
    failure, warnings = read("# c\n" + START + "a\nEOF \ndelay_template = b\n")
    assert failure.text == "a\nEOF \ndelay_template = b\n"
    assert len(warnings) == 1
    assert warnings[0].startswith(f'{PATH}, line 2: no line has the end marker "EOF" alone')


def test_unknown_template_gives_a_warning() -> None:
    for name in ("foo_template", "Failure_Template", "failure", "_template"):
        failure, warnings = read(f"{name} = <<EOF\nX: y\nEOF\n")
        assert failure is BUILT_IN["failure"]
        assert len(warnings) == 1
        assert warnings[0].startswith(f'{PATH}, line 1: unknown template "{name}"')


def test_warnings_about_unknown_templates_have_a_limit() -> None:
    assert len(read("x = y\n" * UNKNOWN_MAX)[1]) == UNKNOWN_MAX
    failure, warnings = read("x = y\n" * 1000 + "failure_template = last\n")
    assert (failure.text, len(warnings)) == ("last\n", UNKNOWN_MAX)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("\nhello\n", "line 2: missing '=' after attribute name: \"hello\""),
        (START + "x\nEOF\nhello\n", "line 4: missing '=' after attribute name: \"hello\""),
        ("failure_template == <<EOF\nhello\nEOF\n", "line 2: missing '=' after attribute name"),
        ("= x\n", 'line 1: missing attribute name: "= x"'),
        ("failure_template = <<\nx\n", 'line 1: missing end marker after "<<"'),
        ("failure_template = <<'EOF'\nx\n'EOF'\n", 'line 1: bad end marker after "<<"'),
        ("failure_template = <<\u00e9\nx\n\u00e9\n", 'line 1: bad end marker after "<<"'),
    ],
)
def test_text_outside_of_a_template_is_an_error(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        read(text)
    assert str(raised.value).startswith(f"{PATH}, {error}")


def test_file_has_a_maximum_size(tmp_path: Path) -> None:
    path = tmp_path / "bounce.cf"
    start = "failure_template = "
    path.write_text(start + "x" * (FILE_MAX_OCTETS - len(start)))
    assert len(load(str(path), pytest.fail)["failure"].text) == FILE_MAX_OCTETS - len(start) + 1
    path.write_text(start + "x" * (FILE_MAX_OCTETS - len(start) + 1))
    with pytest.raises(ConfigError, match=f"bounce.cf: larger than {FILE_MAX_OCTETS} octets"):
        load(str(path), pytest.fail)


def test_unreadable_file_is_an_error_at_the_line_of_main_cf(tmp_path: Path) -> None:
    for path, problem in ((tmp_path / "missing", "the file is missing"), (tmp_path, "this is a directory")):
        with pytest.raises(ConfigError, match=f"bounce_template_file: {path}: {problem}"):
            of_site(memory_config.config(bounce_template_file=str(path)), pytest.fail)


def expanded(text: str, charset: str = "us-ascii", **values: str) -> tuple[str, list[str]]:
    """Return a text with the values of main.cf, and the warnings. Raises `ConfigError`."""
    warnings: list[str] = []
    one = Template("failure", text, "s", charset=charset, path=PATH, line=7)
    return one.expanded(memory_config.config(**values), warnings.append).text, warnings


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$myhostname ${mydomain} $(myorigin)", "mx.example.org example.org example.org"),
        ("$mine $$mine $$", "hello, $5 $mine $"),
        ("${mine?yes} ${relayhost?no}[${nosuch?no}] ${nosuch:else}", "yes [] else"),
        ("$mine_too", "<hello, $5 >"),
        ("$maximal_queue_lifetime_days $maximal_queue_lifetime", "5 5"),
        ("$delay_warning_time_hours $delay_warning_time_minutes $delay_warning_time", "1 90 90m"),
        ("${{$maximal_queue_lifetime_weeks} == {0} ? {short} : {long}}", "short"),
        ("$default_rbl_reply", "$rbl_code"),
        ("$my_password $my_uri", "[password] ldap://u:[password]@h"),
    ],
)
def test_names_have_the_values_of_main_cf(text: str, result: str) -> None:
    found, _ = expanded(
        text + "\n",
        mine="hello, $$5",
        mine_too="<$mine $nosuch>",
        maximal_queue_lifetime="5",
        delay_warning_time="90m",
        default_rbl_reply="$rbl_code",
        my_password="secret",
        my_uri="ldap://u:$my_password@h",
    )
    assert found == result + "\n"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a\n$nosuch\n", f'{PATH}, line 8: failure template: undefined $name: "nosuch"'),
        ("${{$nosuch} == {} ? {a} : {b}}\n", f'{PATH}, line 7: failure template: undefined $name: "nosuch"'),
        ("a $\n", f'{PATH}, line 7: failure template: empty macro name: "a $"'),
        ("${mine?{a\nb}}\n", f"{PATH}, line 7: failure template: truncated macro reference"),
        ("$delay_warning_time_years\n", f'{PATH}, line 7: failure template: "delay_warning_time_years": unknown unit'),
        ("$delay_warning_time_\n", f'{PATH}, line 7: failure template: "delay_warning_time_": unknown unit'),
        ("$loop\n", "-o: loop: "),
    ],
)
def test_name_that_cannot_be_expanded_is_an_error_at_its_line(text: str, error: str) -> None:
    with pytest.raises(ConfigError) as raised:
        expanded(text, loop="$loop")
    assert str(raised.value).startswith(error)


@pytest.mark.parametrize(
    ("value", "unit", "count", "advice"),
    [
        ("999m", "minutes", "999", ""),
        ("1000m", "minutes", "1000", "name a larger unit"),
        ("59m", "hours", "0", "name a smaller unit"),
        ("60m", "hours", "1", ""),
        ("0", "weeks", "0", ""),
    ],
)
def test_time_that_reads_badly_in_its_unit_gives_a_warning(value: str, unit: str, count: str, advice: str) -> None:
    name = f"delay_warning_time_{unit}"
    text, warnings = expanded(f"a\n${name}\n", delay_warning_time=value)
    assert text == f"a\n{count}\n"
    said = f"{PATH}, line 8: ${name} in the failure template is {count}: {advice}"
    assert warnings == ([said] if advice else [])


@pytest.mark.parametrize(
    ("charset", "smtputf8", "name"),
    [
        ("utf-8", "yes", "mx.b\u00fccher.example b\u00fccher.example"),
        ("us-ascii", "yes", "mx.b\u00fccher.example b\u00fccher.example"),
        ("iso-8859-1", "yes", "mx.xn--bcher-kva.example xn--bcher-kva.example"),
        ("utf-8", "no", "mx.xn--bcher-kva.example xn--bcher-kva.example"),
    ],
)
def test_own_names_are_in_utf_8_where_the_charset_has_it(charset: str, smtputf8: str, name: str) -> None:
    domain = "xn--bcher-kva.example"
    names = {"myhostname": f"mx.{domain}", "mydomain": domain, "smtputf8_enable": smtputf8}
    assert expanded("$myhostname $mydomain", charset, **names) == (name, [])


def test_expanded_text_has_a_maximum_size() -> None:
    half = "x" * (EXPANDED_MAX_OCTETS // 2 - 1)
    assert len(expanded("$half\n$half", half=half)[0]) == EXPANDED_MAX_OCTETS - 1
    with pytest.raises(ConfigError, match="line 9: the failure template is larger than"):
        expanded("$half\n$half\n\n", half=half)
    with pytest.raises(ConfigError, match="line 7: the failure template is larger than"):
        expanded("${nosuch?" + 2 * half + "more}\n", half=half)


def test_template_that_cannot_be_expanded_gives_a_warning_and_the_built_in_one() -> None:
    bad = Template("failure", "$nosuch\n", "ours", path=PATH, line=3)
    good = Template("delay", "$delay_warning_time_days\n", "ours", path=PATH, line=9)
    warnings: list[str] = []
    config = memory_config.config(delay_warning_time="4h", maximal_queue_lifetime="30m")
    found = template.expanded({**BUILT_IN, "failure": bad, "delay": good}, config, warnings.append)
    assert found["failure"].subject == BUILT_IN["failure"].subject
    assert found["failure"].text.startswith("This is the mail system at host mx.example.org.\n")
    assert found["delay"].text == "0\n"
    assert [text.partition(": ")[0] for text in warnings] == [f"{PATH}, line 3", f"{PATH}, line 9"]
    assert warnings[0].endswith("(the built-in text of the failure template is used)")


def test_printed_templates_are_a_file_that_gives_the_same_templates() -> None:
    odd = Template("verify", "EOF\nEOF1\n$x $$\n\n", "Subject", charset="utf-8", sender="Us <u>", path=PATH, line=1)
    first = {**BUILT_IN, "verify": odd}
    text = "\n".join(first[name].printed() for name in NAMES)
    again = parse(text, PATH, pytest.fail)
    assert [replace(again[name], path="", line=None) for name in NAMES] == [
        replace(first[name], path="", line=None) for name in NAMES
    ]


LINES = st.sampled_from(
    [
        *("failure_template = <<EOF", "delay_template = <<EOF", "x_template = <<EOF", "verify_template = one line"),
        *("EOF", "", " ", "# comment", "Subject: x", "Charset: utf-8", "Charset: us-ascii", "From:", "X: y"),
        *(
            "text $myhostname",
            "$nosuch",
            "$",
            "${",
            "$delay_warning_time_days",
            "\u00fc",
            "\udcff",
            "\0",
            "\r",
            "<<EOF",
        ),
    ]
)


@given(st.lists(LINES | st.text(max_size=20), max_size=20))
def test_any_file_gives_templates_that_print_and_expand_or_an_error(lines: list[str]) -> None:
    warnings: list[str] = []
    try:
        found = parse("\n".join(lines), PATH, warnings.append)
    except ConfigError:
        return
    again = parse("\n".join(found[name].printed() for name in NAMES), PATH, pytest.fail)
    for name in NAMES:
        assert replace(again[name], path="", line=None) == replace(found[name], path="", line=None)
        assert "\n" not in found[name].subject + found[name].sender + found[name].charset
        assert found[name].text.endswith("\n")
    assert set(template.expanded(found, memory_config.config(), warnings.append)) == set(NAMES)


def command(etc: Path, *words: str) -> tuple[int, str, str]:
    """Return status, output and errors of our postconf."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = postconf.main(["-c", str(etc), *words])
    return status, out.getvalue(), err.getvalue()


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(
        f"myhostname = mx.example.org\nmaximal_queue_lifetime = 4d\nbounce_template_file = {tmp_path}/bounce.cf\n"
    )
    (tmp_path / "bounce.cf").write_text("delay_template = <<EOF\nSubject: ours\n\nWait, says $myhostname.\nEOF\n")
    return tmp_path


def test_t_prints_the_templates_in_their_form(etc: Path) -> None:
    status, built_in, errors = command(etc, "-t", "")
    assert (status, errors) == (0, "")
    assert built_in.startswith(
        "failure_template = <<EOF\nCharset: us-ascii\nFrom: Mail Delivery System <MAILER-DAEMON>\n"
        "Subject: Undelivered Mail Returned to Sender\nPostmaster-Subject: Postmaster Copy: Undelivered Mail\n\n"
        "This is the mail system at host $myhostname.\n"
    )
    assert "\nEOF\n\ndelay_template = <<EOF\n" in built_in
    assert built_in.endswith("\nEOF\n")
    (etc / "copy").write_text(built_in)
    assert command(etc, "-t", str(etc / "copy")) == (0, built_in, "")
    assert command(etc, "-b", str(etc / "copy")) == command(etc, "-b", "")


def test_t_and_b_show_the_file_of_main_cf_or_the_given_one(etc: Path) -> None:
    status, shown, errors = command(etc, "-t")
    assert (status, errors) == (0, "")
    assert (
        "Subject: ours\nPostmaster-Subject: Postmaster Warning: Delayed Mail\n\nWait, says $myhostname.\nEOF\n" in shown
    )
    status, shown, errors = command(etc, "-b")
    assert (status, errors) == (0, "")
    assert (
        "\n\nexpanded_delay_text = <<EOF\nWait, says mx.example.org.\nEOF\n\nexpanded_success_text = <<EOF\n" in shown
    )
    (etc / "other").write_text("delay_template = <<EOF\n\nOther.\nEOF\n")
    assert "expanded_delay_text = <<EOF\nOther.\nEOF\n" in command(etc, "-b", str(etc / "other"))[1]
    assert "until the message is 96 hour(s) old" in command(etc, "-b", "")[1]


def test_t_and_b_say_what_is_wrong(etc: Path) -> None:
    (etc / "bounce.cf").write_text("failure_template = <<EOF\nX: y\n\na\nEOF\ndelay_template = $nosuch\n")
    status, shown, errors = command(etc, "-t")
    assert (status, errors.count("\n"), "delay_template = <<EOF" in shown) == (0, 1, True)
    assert errors.startswith(f'postconf: warning: {etc}/bounce.cf, line 2: failure template: unknown header field "X"')
    status, shown, errors = command(etc, "-b")
    assert (status, shown) == (1, "")
    assert f'fatal: {etc}/bounce.cf, line 6: delay template: undefined $name: "nosuch"' in errors
    for words, said in (
        (["-b", "/nosuch"], "postconf: fatal: /nosuch: the file is missing: "),
        (["-t", "a", "b"], "options -b and -t require at most one template file"),
        (["-tb"], "specify one of -b -t"),
        (["-bx"], "with option -b, do not specify -x"),
    ):
        status, shown, errors = command(etc, *words)
        assert (status, shown) == (1, "")
        assert said in errors
