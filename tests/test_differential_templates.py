"""postconf -t and -b take drawn files of templates as Postfix's postconf does (bounce(5))."""

import contextlib
import io
import os
import random
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from postillion.commands import postconf
from support.differential import Difference, drawn, unexplained
from support.peers import peer

REAL = Path("/usr/sbin/postconf")
WAIT_MAX_S = 60
AT_ONCE = 64
"""An error of Postfix's bounce takes a second, in which it sleeps."""
MAIN_CF = """\
compatibility_level = 3.6
myhostname = mx.example.org
delay_warning_time = 90m
maximal_queue_lifetime = 5
mine = our own $$5
mine_too = <$mine $nosuch>
"""
OPTIONS = ("-t", "-b")


class Asked(NamedTuple):
    """A file of templates, and an option."""

    text: bytes
    option: str

    def __str__(self) -> str:
        return f"postconf {self.option}\n{self.text.decode('latin-1')}"


class Answer(NamedTuple):
    """Status and output of postconf. `failure` and so on stand for the built-in templates. `warned`: it warned."""

    status: int
    output: bytes
    warned: bool


def ours(directory: Path, *words: str) -> tuple[int, bytes, bytes]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = postconf.main(["-c", str(directory), *words])
    return status, out.getvalue().encode("utf-8", "surrogateescape"), err.getvalue().encode("utf-8", "replace")


def theirs(directory: Path, *words: str) -> tuple[int, bytes, bytes]:
    done = subprocess.run([REAL, "-c", directory, *words], capture_output=True, timeout=WAIT_MAX_S)
    return done.returncode, done.stdout, done.stderr


Program = Callable[..., tuple[int, bytes, bytes]]


def built_in(directory: Path, program: Program) -> dict[str, dict[bytes, bytes]]:
    """Return the names of a program's built-in templates by their texts, for each option."""
    found = {}
    for option in OPTIONS:
        status, output, _ = program(directory, option, "")
        assert status == 0
        blocks = re.findall(rb"(?:\A|(?<=\nEOF\n\n))(?:expanded_)?(\w+?)_(?:text|template) = <<EOF\n", output)
        assert blocks == [b"failure", b"delay", b"success", b"verify"], output
        found[option] = dict(zip(output.removesuffix(b"EOF\n").split(b"\nEOF\n\n"), blocks, strict=True))
    return found


def asked(directory: Path, files: list[bytes]) -> Iterator[tuple[Asked, Answer, Answer]]:
    """Yield each file with each option, and both answers."""
    etc = directory / "etc"
    etc.mkdir()
    for name, text in (("main.cf", MAIN_CF), ("master.cf", "")):
        (etc / name).write_text(text)
        # Postfix waits two seconds before it reads a file that was just changed.
        os.utime(etc / name, (0, 0))
    names = {program: built_in(etc, program) for program in (ours, theirs)}

    def answer(program: Program, case: Asked, path: Path) -> Answer:
        path.write_bytes(case.text)
        status, output, errors = program(etc, case.option, str(path))
        for text, name in names[program][case.option].items():
            output = output.replace(text, name)
        # With an error Postfix has printed a part.
        return Answer(status, b"" if status else output, b"warning: " in errors)

    each = [Asked(text, option) for text in files for option in OPTIONS]
    paths = [directory / str(at) for at in range(len(each))]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        real = pool.map(answer, [theirs] * len(each), each, paths)
        for case, their in zip(each, real, strict=True):
            yield case, answer(ours, case, directory / "ours"), their


NAMES = ("failure", "delay", "success", "verify")
OUTSIDE = (b"", b"", b"  ", b"# a comment", b"  # another", b"verify_template = one line", b"x = y", b"stray", b"=")
FIELDS = (
    *(b"Subject: ours", b"SUBJECT :  ours, \t$mine ", b"From: Us <us@example.org>", b"Charset: utf-8", b"Charset: x y"),
    *(b"Postmaster-Subject: a copy", b"Charset: us-ascii", b"Subject: again", b"", b" ", b"Subject:", b"X-Field: x"),
    *(b"Subject: gr\xc3\xbcn", b"\xc3\xbc: x", b"Subject: a\x01b"),
)
LINES = (
    *(b"", b"", b"  ", b"plain words", b"  indented \\n", b"# no comment", b"EO", b" EOF", b"EOF ", b"a: b"),
    *(b"$$ $$$$", b"Gr\xc3\xbc\xc3\x9fe", b"\xff\xfe", b"$myhostname ${mydomain} $(mine) $mine_too."),
    *(b"x ${mine?yes} ${nosuch:no}", b"$delay_warning_time_hours h $delay_warning_time"),
    *(b"$maximal_queue_lifetime_weeks", b"[$relayhost]", b"$delay_warning_time_years", b"$nosuch", b"cost: 5$"),
    *(b"${mine", b"a $mine_tooo b", b"\ttabs\t", b"$smtpd_banner", b"tail\r"),
    b"x${{$mine} == {a} ? {b} : {c}}",
)
MARKERS = (b"EOF", b"EOF", b"EOF", b"END of it", b"9", b"'EOF'", b"")


def draw(rng: random.Random) -> bytes:
    """Return the text of a file."""
    lines: list[bytes] = []
    for _ in range(rng.randint(0, 3)):
        lines += rng.choices(OUTSIDE[: 6 if rng.random() < 0.9 else None], k=rng.randint(0, 2))
        marker = rng.choice(MARKERS) if rng.random() < 0.2 else b"EOF"
        name = rng.choice(NAMES).encode()
        lines.append(name + rng.choice((b"_template = <<", b"_template=<<  ")) + marker)
        lines += rng.choices(FIELDS[: 6 if rng.random() < 0.7 else None], k=rng.randint(0, 4))
        lines += [b""] * rng.randint(0, 2)
        lines += rng.choices(LINES[: 18 if rng.random() < 0.8 else None], k=rng.randint(0, 5))
        if rng.random() < 0.95:
            lines.append(marker)
    return b"".join(line + b"\n" for line in lines)


def control_character(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return re.search(rb"(?m)^Subject.*[\x01\r]", case.text) is not None and (ours.warned, ours.status) == (True, 0)


def another_marker(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return ours.output.replace(b"EOF1", b"EOF") == theirs.output


def name_of_another_program(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return b"$smtpd_banner" in case.text and (ours.status, theirs.status) == (0, 1) and case.option == "-b"


def empty_template(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return re.search(rb"(?ms)^EOF\n.*^\w+_template *= *<< *([^\n]*)\n\1\n", case.text) is not None and ours.warned


KNOWN: list[Difference[Asked, Answer]] = [
    Difference("a header field with a control character is not printed", control_character),
    Difference("the end marker is no line of the text, so that the output can be read again", another_marker),
    Difference("Postfix takes the lines of the template before it for an empty one", empty_template),
    Difference("Postfix knows only the parameters that its bounce reads", name_of_another_program),
]


def test_drawn_files_of_templates_are_printed_and_expanded_as_by_postfix(tmp_path: Path) -> None:
    peer("postfix")
    found = unexplained(asked(tmp_path, drawn(draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"


NASTY = [
    b"",
    b"failure_template = one line\n# c\n  more = x\n",
    b"failure_template = Subject: x\n",
    b"failure_template =\n",
    b"failure_template == <<EOF\nx\n",
    b"failure_template = <<\xc3\xa9\nx\n\xc3\xa9\n",
    b"failure_template = <<_EOF\nx\n_EOF\n",
    b"failure_template = <<EOF # no comment\nx\nEOF # no comment\n",
    b"failure_template = <<EOF\n\n\nSubject: s\n\n\n \n x\n\nEOF\n",
    b"failure_template = <<EOF\n \nSubject: no field\nEOF\n",
    b"failure_template = <<EOF\nSubject: s\n folded\nEOF\n",
    b"failure_template = <<EOF\nhttp://x\nEOF\n",
    b"failure_template = <<EOF\nX: y\nEOF\nfailure_template = <<EOF\n\nok\nEOF\n",
    b"failure_template = <<EOF\n\nok\nEOF\nfailure_template = <<EOF\nX: y\n\nz\nEOF\n",
    b"failure_template = <<EOF\nSubject: y\n\nok\nEOF\nfailure_template = <<EOF\n\nz\nEOF\n",
    b"failure_template = <<EOF\nSubject: s\n\nx\nEOX\ndelay_template = <<EOF\nSubject: D\n\nd\nEOF\n",
    b"fail\xc3\xa9 = <<EOF\n\nx\nEOF\n",
    b"failure template = <<EOF\n\nx\nEOF\n",
    b"failure_template\x0b=\x0c <<EOF\n\nx\nEOF\n",
    b"failure_template = <<EOF\n\nx ${mine?{a\nb}}\nEOF\n",
    b"failure_template = <<EOF\n\n$delay_warning_time_ $delay_warning_times\nEOF\n",
    b"failure_template = <<EOF\n\n$delay_warning_times\nEOF\n",
    b"failure_template = <<EOF\n\n"
    + b" ".join(b"$delay_warning_time_" + unit for unit in (b"seconds", b"minutes", b"hours", b"days", b"weeks"))
    + b"\nEOF\n",
]


def test_nasty_files_of_templates_are_printed_and_expanded_as_by_postfix(tmp_path: Path) -> None:
    peer("postfix")
    found = unexplained(asked(tmp_path, NASTY), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"
