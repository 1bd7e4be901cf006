"""Drawn texts of tables, and both programs' postmap and postalias that read them."""

import contextlib
import io
import random
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

from postillion.commands import postalias, postmap

WAIT_MAX_S = 60
INDEXED = ("hash", "btree", "cdb", "lmdb")
PATTERNED = ("regexp", "pcre")
MAIN_CF = "compatibility_level = 3.6\nmyhostname = mx.example\ndefault_database_type = hash\n"
WORDS = (
    "a", "A", "b", "abc", "user@example.org", "User@Example.ORG", "@example.org", "user+x@example.org", "user",
    "example.org", ".example.org", "ü@example.org", "Ü", "192.0.2.1", "192.0.2.7", "2001:db8::1", "::1", '"a', "x:y",
    "-", "!", "#", "$1", "a=b",
)  # fmt: skip
VALUES = ("v", "V1, v2", "two  words", "REJECT no # way", '"quoted"', "ü", "a:b", "|command", ":include:/x", "0", "{}")
PATTERNS = (
    "^a", "^user@(.*)$", "(a)|(b)", "A", "example[.]org", "^(user)([+].*)?@(.*)$", "", ".", "x{2}", "[", "(", "^$",
    "\\\\.", "ü", "^::1$",
)  # fmt: skip
FLAGS = ("", "", "", "i", "m", "x", "ix", "q", "ii")
RESULTS = ("one", "$1", "${1}x", "$(1)", "$$1", "$2 and $1", "", "a $", "$3", "  kept  inside  ")
NETWORKS = (
    "192.0.2.0/24", "192.0.2.1", "192.0.2.1/24", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1/32", "::/0", "::1", "[::1]",
    "192.0.2", "192.0.2.0/33", "192.0.2.0/", "192.0.2.0/x", "::/129", "host", "010.0.2.1", "192.0.2.0/08",
)  # fmt: skip
GAPS = (" ", "\t", "  ", " \t ")
BLANKS = ("", "   ", "# a remark", "  # an indented remark", "\t")


def map_line(rng: random.Random) -> str:
    """Draw a line `key value`, sometimes without value, or continued."""
    if rng.random() < 0.1:
        return rng.choice(("  continued", rng.choice(WORDS), f"{rng.choice(WORDS)}  "))
    return f"{rng.choice(WORDS)}{rng.choice(GAPS)}{rng.choice(VALUES)}{rng.choice(('', '', ' ', chr(9)))}"


def alias_line(rng: random.Random) -> str:
    """Draw a line `name: value`, sometimes quoted, continued or broken."""
    if rng.random() < 0.1:
        return rng.choice(("  b, c", "without colon", ":", "name:", ": value"))
    name = rng.choice(WORDS[:10])
    name = rng.choice((name, name, f'"{name}"', f"{name} "))
    return f"{name}:{rng.choice(('', *GAPS))}{rng.choice(VALUES)}"


def pattern_line(rng: random.Random) -> str:
    """Draw a rule of a pattern table."""
    delimiter = rng.choice(("/", "/", "/", "|", "!", ":"))
    end = "" if rng.random() < 0.05 else delimiter
    negated = rng.choice(("", "", "", "!"))
    rule = f"{negated}{delimiter}{rng.choice(PATTERNS)}{end}{rng.choice(FLAGS)}"
    return f"{rule}{rng.choice(GAPS)}{rng.choice(RESULTS)}"


def network_line(rng: random.Random) -> str:
    """Draw a rule of a cidr table."""
    negated = rng.choice(("", "", "", "", "!"))
    return f"{negated}{rng.choice(NETWORKS)}{rng.choice(GAPS)}{rng.choice(('OK', 'REJECT', 'two words', ''))}"


LINES: dict[str, Callable[[random.Random], str]] = {
    **dict.fromkeys(PATTERNED, pattern_line),
    "cidr": network_line,
}


def within_if(rng: random.Random, kind: str, lines: list[str]) -> list[str]:
    """Put some lines between `if` and `endif`, either of which may be missing."""
    first, last = sorted(rng.randrange(len(lines) + 1) for _ in range(2))
    what = rng.choice(NETWORKS) if kind == "cidr" else f"/{rng.choice(PATTERNS)}/{rng.choice(FLAGS)}"
    begin = [f"{rng.choice(('if', 'IF'))} {rng.choice(('', '', '!'))}{what}{rng.choice(('', '', ' more'))}"]
    end = [rng.choice(("endif", "endif", "ENDIF", "endif more"))]
    missing = rng.random()
    if missing < 0.1:
        begin = []
    elif missing < 0.2:
        end = []
    return [*lines[:first], *begin, *lines[first:last], *end, *lines[last:]]


def ours(directory: Path, program: str, words: list[str], keys: bytes) -> tuple[int, str, str]:
    """Run our command in this process."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogateescape"), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(keys))
    command = postmap if program == "postmap" else postalias
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(sys, "stdin", given))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        stack.enter_context(contextlib.chdir(directory))
        try:
            status = command.main(["-c", str(directory), *words])
        except SystemExit as end:
            status = int(end.code or 0)
        out.flush()
    return status, out.buffer.getvalue().decode(errors="replace"), err.getvalue()


def theirs(directory: Path, program: str, words: list[str], keys: bytes) -> tuple[int, str, str]:
    """Run Debian's command."""
    command = [f"/usr/sbin/{program}", "-c", str(directory), *words]
    done = subprocess.run(command, input=keys, capture_output=True, timeout=WAIT_MAX_S, cwd=directory, check=False)
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")


def told(errors: str) -> tuple[str, ...]:
    """Return the warnings without what differs on purpose."""
    lines = []
    for line in errors.splitlines():
        for form, same in SAME:
            line = re.sub(form, same, line)
        if not any(text in line for text in THEIRS_ALONE):
            lines.append(line)
    return tuple(lines)


SAME = (
    # The types of tables have different texts for it in Postfix.
    (": ignoring this rule", ": skipping this rule"),
    (" -- ignoring this line", ""),
    # Ours names the line.
    (r", line \d+: logical line must not start", ": logical line must not start"),
    # Ours shows the text without white space at its end, and in ASCII.
    (r"(unbalanced '\"') in '.*'$", r"\1"),
    # In Postfix a line of its own.
    ("empty macro name: bad replacement", "bad replacement"),
)
THEIRS_ALONE = ("empty macro name: ", "should return NO RESULT", "empty string result is not allowed")
