"""postmap and postalias write and query drawn tables as Postfix's do: output, exit status and warnings."""

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address
from pathlib import Path
from typing import NamedTuple

from support.differential import Difference, drawn, unexplained
from support.drawn_tables import (
    BLANKS,
    INDEXED,
    LINES,
    MAIN_CF,
    PATTERNED,
    WORDS,
    alias_line,
    map_line,
    ours,
    theirs,
    told,
    within_if,
)
from support.peers import peer

AT_ONCE = 64
"""An error of Postfix's commands takes a second, in which they sleep."""
LINES_MAX = 14
KEYS_MAX = 12


class Case(NamedTuple):
    """A text, the table's type, and the keys to ask."""

    program: str
    kind: str
    text: bytes
    keys: bytes

    def __str__(self) -> str:
        return f"{self.program} {self.kind}: {self.keys!r}\n{self.text.decode(errors='replace')}"


class Answer(NamedTuple):
    """Exit status, output and errors: of the index that is written, if the type has one, and of the queries."""

    written: tuple[int, str, tuple[str, ...]] | None
    asked: tuple[int, str, tuple[str, ...]]


def draw(rng: random.Random) -> Case:
    """Draw a case."""
    program = rng.choice(("postmap", "postmap", "postmap", "postalias"))
    kinds = INDEXED if program == "postalias" else (*INDEXED, "texthash", *PATTERNED, *PATTERNED, "cidr")
    kind = rng.choice(kinds)
    line = alias_line if program == "postalias" else LINES.get(kind, map_line)
    lines = [rng.choice(BLANKS) if rng.random() < 0.15 else line(rng) for _ in range(rng.randrange(LINES_MAX))]
    if kind in LINES and rng.random() < 0.4:
        lines = within_if(rng, kind, lines)
    text = "\n".join(lines) + ("" if rng.random() < 0.1 else "\n")
    keys = [rng.choice(WORDS) for _ in range(rng.randrange(1, KEYS_MAX))]
    return Case(program, kind, text.encode(), "".join(f"{key}\n" for key in keys).encode())


def answer(directory: Path, case: Case, ask: Callable[[Path, str, list[str], bytes], tuple[int, str, str]]) -> Answer:
    """Return a program's answer, in a directory of its own."""
    directory.mkdir()
    (directory / "main.cf").write_text(MAIN_CF)
    (directory / "m").write_bytes(case.text)
    # A text that was just changed makes both warn.
    os.utime(directory / "m", (0, 0))
    table = f"{case.kind}:m"

    def answered(words: list[str], keys: bytes) -> tuple[int, str, tuple[str, ...]]:
        status, out, err = ask(directory, case.program, words, keys)
        return status, out, told(err)

    written = answered([table], b"") if case.kind in INDEXED else None
    return Answer(written, answered(["-q", "-", table], case.keys))


def asked(directory: Path, cases: list[Case]) -> Iterator[tuple[Case, Answer, Answer]]:
    """Yield each case with our answer and Postfix's."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = pool.map(lambda at: answer(directory / f"theirs{at}", cases[at], theirs), range(len(cases)))
        for at, (case, their) in enumerate(zip(cases, answers, strict=True)):
            yield case, answer(directory / f"ours{at}", case, ours), their


def spaces_in_a_value(case: Case, ours: Answer, theirs: Answer) -> bool:
    """Return whether only white space in the values of aliases differs."""
    joined = [" ".join(answer.asked[1].split()) for answer in (ours, theirs)]
    return case.program == "postalias" and joined[0] == joined[1] and ours.written == theirs.written


KNOWN: list[Difference[Case, Answer]] = [
    Difference("postalias keeps white space in a value, which Postfix parses and writes anew", spaces_in_a_value),
]


def test_drawn_tables_are_written_and_asked_as_by_postfix(tmp_path: Path) -> None:
    peer("postmap")
    found = unexplained(asked(tmp_path, drawn(draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"


def large(seed: int) -> Case:
    """Draw a cidr table of several hundred KiB, which is read in parts: some lines overlap, one block is long."""
    rng = random.Random(seed)
    lines: list[str] = []
    for number in range(25_000):
        length = rng.choice((32, 32, 32, 24, 20, 12) if seed % 2 else (32,))
        bits = rng.randrange(1 << 32) >> (32 - length) << (32 - length)
        network = f"{IPv4Address(bits)}{'' if length == 32 else f'/{length}'}"
        end = rng.choice(("REJECT", "OK", f"result {number}", "REJECT\r", "two\n words", "OK\n# a remark"))
        lines.append(network + rng.choice(" \t") + end)
    keys = "".join(f"{line.split()[0].partition('/')[0]}\n" for line in lines[::100]) + "10.1.2.3\n172.16.1.1\n"
    for at in range(0, len(lines), 3000):
        lines[at] = rng.choice(("10.1.2.3/8 host bits", "1.2.3.256 no address", "# 10.1.2.3 a remark", "10.1.2.3"))
    first, last = sorted(rng.sample(range(len(lines)), 2))
    if seed % 3:
        lines[first], lines[last] = f"if {rng.choice(('!0.0.0.0/1', '0.0.0.0/1'))}", "endif"
    lines.append("!128.0.0.0/1 LOWER")
    return Case("postmap", "cidr", "\n".join(lines).encode(), keys.encode())


def test_large_cidr_tables_answer_as_in_postfix(tmp_path: Path) -> None:
    peer("postmap")
    for case, our, their in asked(tmp_path, [large(seed) for seed in range(6)]):
        assert our == their, case.text[:200]
