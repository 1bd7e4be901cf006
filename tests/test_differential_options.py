"""Drawn options of postmap and postalias have Postfix's effect: what is printed, written and removed, and its status.

Postfix 3.7 has no `-j`: our JSON is compared with Postfix's plain lines.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from support.differential import Difference, drawn, unexplained
from support.drawn_tables import (
    BLANKS,
    INDEXED,
    LINES,
    MAIN_CF,
    WORDS,
    alias_line,
    map_line,
    ours,
    theirs,
    told,
)
from support.peers import peer

AT_ONCE = 64
"""An error of Postfix's commands takes a second, in which they sleep."""
LINES_MAX = 9
KEYS_MAX = 8
STEPS_MAX = 4
LETTERS = {"postmap": "fopruUvw", "postalias": "fopruvw"}
NULLS = ("n", "N", "nN")
OTHERS = ("texthash", "regexp", "pcre", "cidr", "static", "inline", "nosuch")
FILES = {"one": b"one\n", "two": b"two", "empty": b""}
"""The files that values name under -F."""
LISTS = ("one", "one, two", "two one", "empty", "nosuch", ",", "one,,two")
MODES = (0o644, 0o600, 0o640, 0o664)
MESSAGE_LINES = (
    "From: a@example.org", "To: b,", " c", "Subject:", "", "", "a", "abc", "--x", "--x--", "X-Odd : y", "no header",
    "Content-Type: multipart/mixed; boundary=x", "Content-Type: text/plain", "Content-Type: message/rfc822", "\tz",
)  # fmt: skip


class Step(NamedTuple):
    """A call of the command: its words, and its standard input. `json`: ours prints JSON."""

    words: tuple[str, ...]
    given: bytes
    json: bool


class Case(NamedTuple):
    """A text with its mode, and the calls on it."""

    program: str
    text: bytes
    mode: int
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        calls = "\n".join(f"  {' '.join(step.words)} <<< {step.given!r}" for step in self.steps)
        return f"{self.program}, mode {self.mode:o}\n{calls}\n{self.text.decode()}"


Call = tuple[int, tuple[str, ...], tuple[str, ...], int | None]
"""The result of a call: exit status, output, errors, and the mode of the index."""


class Asked(NamedTuple):
    """A call of a case."""

    case: Case
    step: Step

    def __str__(self) -> str:
        return f"{self.case}\n  here: {' '.join(self.step.words)}"


def draw(rng: random.Random) -> Case:
    """Draw a case: mostly an index is written first, then asked and changed."""
    program = rng.choice(("postmap", "postmap", "postalias"))
    files = program == "postmap" and rng.random() < 0.2
    kind = rng.choice(INDEXED) if rng.random() < 0.9 else rng.choice(OTHERS)
    name = table(rng, kind)
    steps = [step(rng, program, name, "", files=files)] if rng.random() < 0.95 else []
    for _ in range(rng.randrange(1, STEPS_MAX)):
        operation = rng.choice(("-q", "-q -", "-s", "-i", "-d", "-d -", ""))
        steps.append(step(rng, program, name, operation, files=files))
    return Case(program, text(rng, program, kind, files=files).encode(), rng.choice(MODES), tuple(steps))


def table(rng: random.Random, kind: str) -> str:
    """Draw the name of a table; a type with a value of its own has one."""
    match kind:
        case "inline":
            return "inline:{a=b, {abc = x y}}"
        case "hash" if rng.random() < 0.2:
            return "m"
        case _:
            return f"{kind}:m"


def step(rng: random.Random, program: str, name: str, operation: str, *, files: bool) -> Step:
    """Draw a call. It mostly has the letters that belong to its operation."""
    letters = rng.sample(LETTERS[program], rng.choice((0, 0, 0, 1, 1, 2)))
    letters += rng.choice(NULLS) if rng.random() < 0.04 else ""
    if files and rng.random() < 0.8:
        letters.append("F")
    given = b""
    words: list[str] = []
    shows = operation in ("-q", "-q -", "-s")
    if operation == "-i":
        words.append("-i")
        letters += rng.choice(("", "", "r", "w"))
        given = text(rng, program, "hash", files=files).encode()
    elif operation.endswith(" -"):
        words += operation.split()
        given = "".join(f"{rng.choice(WORDS)}\n" for _ in range(rng.randrange(KEYS_MAX))).encode()
        if operation == "-q -" and program == "postmap" and rng.random() < 0.2:
            letters += rng.choice((["h"], ["b"], ["h", "b"], ["m", "h"], ["m", "b"], ["m"]))
            given = "".join(f"{rng.choice(MESSAGE_LINES)}\n" for _ in range(rng.randrange(KEYS_MAX * 2))).encode()
    elif operation in ("-q", "-d"):
        words += [operation, rng.choice((*WORDS[:10], *WORDS[:10], ""))]
    elif operation:
        words.append(operation)
    if rng.random() < 0.03:
        words.append(rng.choice(("-Z", "-s", "-d")))
    if letters:
        words.insert(0, "-" + "".join(dict.fromkeys(letters)))
    names = [name, "texthash:m"] if shows and rng.random() < 0.1 else [name]
    return Step((*words, *names), given, shows and rng.random() < 0.25)


def text(rng: random.Random, program: str, kind: str, *, files: bool) -> str:
    """Draw the text of a table. `files`: its values are names of files."""
    line = alias_line if program == "postalias" else LINES.get(kind, map_line)
    lines = [rng.choice(BLANKS) if rng.random() < 0.1 else line(rng) for _ in range(rng.randrange(LINES_MAX))]
    if files:
        lines = [f"{rng.choice(WORDS)} {rng.choice(LISTS)}" for _ in lines]
    return "".join(f"{line}\n" for line in lines)


def results(
    directory: Path, case: Case, ask: Callable[[Path, str, list[str], bytes], tuple[int, str, str]]
) -> list[Call]:
    """Return the result of each call of a case, in a directory of its own."""
    directory.mkdir()
    (directory / "main.cf").write_text(MAIN_CF)
    for name, content in (*FILES.items(), ("m", case.text)):
        (directory / name).write_bytes(content)
        # A text that was just changed makes both warn.
        os.utime(directory / name, (0, 0))
    (directory / "m").chmod(case.mode)
    calls = []
    for words, given, as_json in case.steps:
        before = ["-j"] if as_json and ask is ours else []
        status, out, err = ask(directory, case.program, [*before, *words], given)
        lines = plain(case.program, words, out) if before else out.splitlines()
        if "-s" in words:
            lines = sorted(line for line in lines if not line.startswith(THEIR_ENTRIES))
        modes = [path.stat().st_mode & 0o777 for path in directory.glob("m.*")]
        told_of = problems(err) if "-s" not in words else tuple(sorted(problems(err)))
        calls.append((status, tuple(lines), told_of, modes[0] if modes else None))
    return calls


def problems(errors: str) -> tuple[str, ...]:
    """Return the warnings and errors, without what `-v` adds."""
    lines = [line for line in told(errors) if re.match(r"\w+: (warning|error|fatal|panic|invalid|option)\b", line)]
    return tuple(re.sub(form, same, line) for line in lines for form, same in [first_of(line)])


def first_of(line: str) -> tuple[str, str]:
    """Return the form of a text that is another one in Postfix, and their common text."""
    return next((row for row in SAME_TEXTS if re.search(row[0], line)), ("$", ""))


THEIR_ENTRIES = ("YP_LAST_MODIFIED:", "YP_MASTER_NAME:", "@:\t@")
"""Postfix's postalias adds these, for NIS and for Sendmail."""
SAME_TEXTS = (
    # Ours names the fix.
    (r"dict_cdb_open: inappropriate open flags.*|table cdb:m: a cdb file is not changed .*", "cdb files do not change"),
    (r"(?:table \w+:m: )?(open database \S+ No such file or directory)(?:: run .*)?$", r"\1"),
    (r"fatal: .*(?:unsupported dictionary|unknown table) type.*", "fatal: no such type"),
    (r"fatal: .*(?:requires O_RDONLY access mode|delete operation is not supported)", "fatal: no such type"),
    (r"fatal: open \{.*", "fatal: no such type"),
    (r"(fatal: open \w+: No such file or directory): .*", r"\1"),
    (r"(fatal: open \w+: No such file or directory): .*", r"\1"),
    (r"^(\w+: fatal: usage: ).*", r"\1"),
    (r"specify only one of.*", "only one"),
    # Ours is one line, with the value.
    (r"warning: table (\w+:m)(?:\.\w+)?: (key .*: malformed BASE64 value: .*)", r"warning: \1: \2"),
    (r"fatal: (?:table \S+: query error|malformed BASE64 value: .*)$", "fatal: query error"),
)


def plain(program: str, words: tuple[str, ...], out: str) -> list[str]:
    """Return the lines without `-j` of an answer in JSON."""
    entries = [entry for line in out.splitlines() for entry in json.loads(line).items()]
    if "-q" in words and "-" not in words:
        return [line for _, value in entries for line in value.split("\n")]
    separator = "\t" if program == "postmap" else ":\t"
    return [line for key, value in entries for line in f"{key}{separator}{value}".split("\n")]


def asked(directory: Path, cases: list[Case]) -> Iterator[tuple[Asked, Call, Call]]:
    """Yield each call with our result and Postfix's."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        every = pool.map(lambda at: results(directory / f"theirs{at}", cases[at], theirs), range(len(cases)))
        for at, (case, their) in enumerate(zip(cases, every, strict=True)):
            for step, mine, other in zip(case.steps, results(directory / f"ours{at}", case, ours), their, strict=True):
                yield Asked(case, step), mine, other


def listed_alone(_: Asked, ours: Call, theirs: Call) -> bool:
    return ours[0] == 0 and "sequence operation is not supported" in "".join(theirs[2])


def aliases_in_texthash(asked: Asked, ours: Call, theirs: Call) -> bool:
    return asked.case.program == "postalias" and "texthash:m" in asked.step.words


def spaces_in_a_value(asked: Asked, ours: Call, theirs: Call) -> bool:
    """Return whether only white space in the values of aliases differs."""
    joined = [[" ".join(line.split()) for line in call[1]] for call in (ours, theirs)]
    return asked.case.program == "postalias" and joined[0] == joined[1] and (ours[0], ours[2]) == (theirs[0], theirs[2])


def empty_lmdb_key(_: Asked, ours: Call, theirs: Call) -> bool:
    return "MDB_BAD_VALSIZE" in "".join(theirs[2]) and not any(line.startswith("\t") for line in ours[1])


def malformed_base64(asked: Asked, ours: Call, theirs: Call) -> bool:
    return "-q" in asked.step.words and (*ours[:2], ours[2][-1:]) == (*theirs[:2], theirs[2][-1:])


def empty_first_line(asked: Asked, ours: Call, theirs: Call) -> bool:
    """Return whether Postfix has an empty line before the body of a message without header fields."""
    return (
        asked.step.words[0].endswith("b")
        and bool(theirs[1])
        and theirs[1][1:] == ours[1]
        and theirs[1][0].startswith("\t")
    )


def listed_twice(asked: Asked, _: Call, __: Call) -> bool:
    return asked.step.words.count("-s") > 1


def duplicates_of_a_text(asked: Asked, _: Call, __: Call) -> bool:
    return "texthash:m" in asked.step.words and re.match(r"-\w*[rw]", asked.step.words[0]) is not None


def rule_without_text(asked: Asked, _: Call, theirs: Call) -> bool:
    return bool({"pcre:m", "regexp:m"} & set(asked.step.words)) and "empty pathname list" in "".join(theirs[2])


def keys_with_nulls(asked: Asked, ours: Call, theirs: Call) -> bool:
    return any(re.match(r"-\w*[nN]", word) for step in asked.case.steps for word in step.words[:1])


KNOWN: list[Difference[Asked, Call]] = [
    Difference("cdb files are listed, too", listed_alone),
    Difference("postalias reads a texthash text in the form of aliases", aliases_in_texthash),
    Difference("postalias keeps white space in a value, which Postfix parses and writes anew", spaces_in_a_value),
    Difference("an lmdb file has no key without octets; Postfix ends when it is asked for one", empty_lmdb_key),
    Difference("Postfix warns of a value that is not base64 before its error", malformed_base64),
    Difference("-b has no empty line before the body of a message without header fields", empty_first_line),
    Difference("-s is given once", listed_twice),
    Difference("-r and -w are for indexes: of a texthash text the first value of a key counts", duplicates_of_a_text),
    Difference("a rule of a pattern table without text has an empty value, also under -F", rule_without_text),
    Difference("-n and -N decide how a file is written; lookups find keys of both kinds", keys_with_nulls),
]


def test_drawn_options_have_the_effect_that_they_have_in_postfix(tmp_path: Path) -> None:
    peer("postmap")
    found = unexplained(asked(tmp_path, drawn(draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"
