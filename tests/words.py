"""Check the words of the sources: House English in comments, docstrings, docs, texts and names.

`RULES` holds one row for each word that the project replaced: the word, its replacement, and the kinds of text
that the rule covers. `ALLOWED` holds the phrases in which such a word is right. The tool needs the standard library
only.

    python3 tests/words.py                     every finding, as file:line: word -> replacement
    python3 tests/words.py --count             the number of findings in each file
    python3 tests/words.py rust/core/src/qmgr  these files and directories alone
    python3 tests/words.py --only courier      one word alone
    python3 tests/words.py --table             the table of words, as in CONTRIBUTING.md

The exit status is 0 without findings, 1 with findings, 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import functools
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

READ = ("rust", "python", "tests", "benches", "docs", ".ci", ".github", "findings")
"""Directories that a run without arguments reads."""
READ_FILES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "Makefile", "pyproject.toml", "mkdocs.yml")
SUFFIXES = (".rs", ".py", ".pyi", ".md", ".toml", ".sh", ".yml", ".yaml")
SKIPPED_DIRECTORIES = {"target", "__pycache__", ".venv", "corpus", "artifacts", "site"}
SKIPPED_FILES = {"tests/words.py", "tests/test_words.py"}
"""The rules, and the test of them, name the words."""
UNCHECKED = re.compile(r"<!-- words -->.*?<!-- end -->", re.S)
"""A part of a Markdown page that quotes the words."""

# ---- kinds of text

COMMENT = "comment"
DOC = "doc"
"""A docstring, a Rust doc comment, or a paragraph of a Markdown page."""
TEXT = "text"
"""A string literal: log lines, error texts, help texts."""
NAME = "name"
"""An identifier, split into its words in lower case: `TurnAway` and `TURN_AWAY` are `turn away`."""
TYPE = "type"
"""An identifier as it is written."""

PROSE = frozenset({COMMENT, DOC, TEXT})
BOTH = PROSE | {NAME}


@dataclass(frozen=True)
class Rule:
    """One word and its replacement. `pattern` ignores case, except for a rule on types."""

    word: str
    pattern: str
    replacement: str
    kinds: frozenset[str] = BOTH


DETERMINER = r"(?:a|an|the|this|that|each|every|one|its|their|next|last|first|same|per|no|two|three|four|\d+)"
REST = r"(?: [^\s.]+){0,4}"
COUNTED = r"(?:two|three|four|these|those|all|\d+)"
SENTENCE = r"(?:\A|(?<=[.!?:]\s)|(?<=\n\n))"

RULES = (
    Rule("wish", r"\bwish(?:es|ed|ing)?\b", "Request (what an owner is asked); option (what a sender asks for)"),
    Rule("grant", r"\bgrant(?:s|ed|ing)?\b", "allow, handle"),
    Rule("attend", r"\battend(?:s|ed|ing)?\b", "handle"),
    Rule("conversation", r"\bconversations?\b", "session (merged into Session)"),
    Rule("errand", r"\berrands?\b", "job (Postfix's word)"),
    Rule("bundle", r"\bbundle[sd]?\b", "peer (Postfix's word); group"),
    Rule("company", r"\bcompany\b", "group commit, group_commit"),
    Rule("courier", r"\bcouriers?\b", "SessionOwner, owner"),
    Rule("walk", r"\bwalk(?:s|ed|er|ers|ing)?\b", "listing, search; scan, traverse (verbs)"),
    Rule("look (noun)", rf"\b{DETERMINER} look\b|\b{COUNTED} looks\b|\blooks per\b", "search, check, poll", PROSE),
    Rule("look (name)", r"\blooks?\b(?! (?:up|ups|ahead|behind)\b)", "search, check, poll", frozenset({NAME})),
    Rule("acquaintance", r"\bacquaintances?\b", "KnownClient"),
    Rule("crowd", r"\bcrowd(?:s|ed)?\b", "overflow; congested (adjective)"),
    Rule("leaving (noun)", rf"\b{DETERMINER} leavings?\b", "requeue", PROSE),
    Rule("leaving (name)", r"\bleavings?\b", "requeue (a message); stopping (a program)", frozenset({NAME})),
    Rule("silence", r"\bsilences?\b", "NoDialogue (type); timeout, idle time (input)"),
    Rule("Wire", r"\bWires?\b", "ClientTransport; RawClient (tests)", frozenset({TYPE})),
    Rule(
        "turn (noun)",
        rf"\b{DETERMINER} turns?\b(?! (?:on|off|into|this|it)\b)|\bby turns?\b|\bturns (?:a|of)\b",
        "poll, round; iteration",
        PROSE,
    ),
    Rule("turn (name)", r"\bturns?\b(?! (?:on|off|into)\b)", "poll(), Next; round (order of peers)", frozenset({NAME})),
    Rule("settle", r"\bsettle(?:s|d|ments?)?\b|\bsettling\b", "finish"),
    Rule("mend", r"\bmend(?:s|ed|ing)?\b", "fix"),
    Rule("fault of ours", r"\bfaults? of (?:ours|its own|our own)\b|\bour (?:own )?faults?\b", "error, bug", PROSE),
    Rule("so many", r"\bso (?:many|much)\b", "maximum number of, limit; as many", PROSE),
    Rule("so long", r"\bso (?:long|often)\b", "timeout, longest time; interval", PROSE),
    Rule("as it were", r"\bas it were\b", "(leave out)", PROSE),
    Rule("be it", r"\bbe it\b", "also, including", PROSE),
    Rule("kin", r"\bkin\b", "related parameters; name them", PROSE),
    Rule("fare", r"\bfare[sd]?\b", "result; was delivered, failed"),
    Rule("come of", r"\b(?:comes?|came|becomes?|became) of\b", "result, outcome", PROSE),
    Rule("doorbell", r"\bdoorbells?\b", "trigger (Postfix's word)", PROSE),
    Rule("in hand", r"\bin hand\b", "in progress, in memory", PROSE),
    Rule("keep house", r"\bkeeps? house\b", "maintenance", PROSE),
    Rule("dice", r"\bdice (?:fall|fell|falls)\b", "random numbers", PROSE),
    Rule(
        "Who (subject)",
        rf"{SENTENCE}(?:Who(?:ever|se)?|Those who|\w+body who)\b(?![^.?!]*\?){REST}",
        "name the subject: a client, a session, a message",
        PROSE,
    ),
    Rule(
        "What (subject)",
        rf"{SENTENCE}What(?:ever)?\b(?![^.?!]*\?){REST}",
        "name the subject: a noun, not a clause",
        PROSE,
    ),
    Rule(
        "One that (subject)", rf"{SENTENCE}(?:One (?:that|who|of which)|That which)\b{REST}", "name the subject", PROSE
    ),
    Rule("who (test name)", r"\A(?:test )?(?:who(?:ever)?|what(?:ever)?) \w", "name the subject", frozenset({NAME})),
)

ALLOWED: tuple[tuple[str, str], ...] = (
    (r"conversation with", "the text of a log line of Postfix"),
    (r"\b(?:os|ast)\.walk\b", "a function of Python's library"),
    (r"Courier[ -](?:MTA|IMAP)", "another mail system"),
    (r"\bCA bundle\b", "a file of certificates"),
    (r"\b(?:in|out of) turn\b", "plain English for an order"),
    (r"\bin its turn\b|\btakes? turns\b", "plain English for an order"),
    (r"\bGRANT ALL\b", "SQL"),
    (r"\bGrant(?:ed)? permission\b|\bhereby grants?\b", "the words of a licence"),
)
"""(phrase, why): a word inside such a phrase is right."""

ONE_TYPE = ("Turn", "Place", "Destination", "Counts")
"""Names of types with too many meanings: each may be the name of one type outside the tests."""


@dataclass(frozen=True, order=True)
class Finding:
    """A word to replace, where it stands, and its replacement."""

    path: str
    line: int
    word: str
    found: str
    replacement: str

    def __str__(self) -> str:
        return f'{self.path}:{self.line}: {self.word}: "{self.found}" -> {self.replacement}'


@dataclass(frozen=True)
class Span:
    """A piece of a file: its kind, its text, and the number of the line on which each of its lines stands."""

    kind: str
    text: str
    lines: tuple[int, ...]


def main(arguments: list[str] | None = None) -> int:
    """Print the findings, and return the exit status."""
    parser = argparse.ArgumentParser(prog="words.py", description="Check the words of the sources.")
    parser.add_argument("paths", nargs="*", type=Path, help="files and directories; without them everything")
    parser.add_argument("--count", action="store_true", help="print the number of findings in each file")
    parser.add_argument("--only", metavar="WORD", help="look for the rules whose word begins with WORD")
    parser.add_argument("--table", action="store_true", help="print the table of words and replacements")
    options = parser.parse_args(arguments)
    if options.table:
        print(table(), end="")
        return 0
    rules = [rule for rule in RULES if not options.only or rule.word.startswith(options.only)]
    if not rules:
        parser.error(f"no rule for {options.only}: --table prints them")
    missing = [path for path in options.paths if not path.exists()]
    if missing:
        parser.error(f"no such file: {missing[0]}")
    files = list(sources(options.paths))
    found = [finding for path in files for finding in check(path, rules)]
    if not options.only:
        found += second_types(files)
    if options.count:
        for path, number in Counter(finding.path for finding in found).most_common():
            print(f"{number:6} {path}")
        for word, number in Counter(finding.word for finding in found).most_common():
            print(f"{number:6} {word}")
    else:
        for finding in sorted(found):
            print(finding)
    print(f"{len(found)} findings in {len({finding.path for finding in found})} of {len(files)} files", file=sys.stderr)
    return 1 if found else 0


def table() -> str:
    """Return the rules as a table in Markdown."""
    rows = ["| word | replacement |", "|---|---|"]
    return "\n".join(rows + [f"| {rule.word} | {rule.replacement} |" for rule in RULES]) + "\n"


def sources(paths: Iterable[Path] = ()) -> Iterator[Path]:
    """Yield the files to read: `paths` and the files below them, or everything."""
    given = [path.resolve() for path in paths] or [ROOT / name for name in (*READ, *READ_FILES)]
    for path in given:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in inside:
            if file.is_file() and _is_read(file):
                yield file


def _is_read(file: Path) -> bool:
    relative = _relative(file)
    if relative in SKIPPED_FILES or SKIPPED_DIRECTORIES.intersection(Path(relative).parts):
        return False
    return file.suffix in SUFFIXES or file.name == "Makefile"


def _relative(file: Path) -> str:
    return str(file.relative_to(ROOT)) if file.is_relative_to(ROOT) else str(file)


def check(path: Path, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """Return the findings in one file, in the order of its lines."""
    return check_text(path.read_text(encoding="utf-8"), _relative(path), rules)


def check_text(text: str, path: str, rules: Iterable[Rule] = RULES) -> list[Finding]:
    """Return the findings in `text`, read as the file name `path` says. A name is reported once a line."""
    rules = tuple(rules)
    known = _known_names(rules)
    found: dict[tuple[int, str, str], Finding] = {}
    for span in spans(text, path):
        is_name = span.kind in (NAME, TYPE)
        matches = _name_matches(span, rules, known) if is_name else _prose_matches(span, rules)
        for rule, line, words in matches:
            found.setdefault((line, rule.word, words.lower()), Finding(path, line, rule.word, words, rule.replacement))
    return sorted(found.values())


@functools.cache
def _known_names(_rules: tuple[Rule, ...]) -> dict[tuple[str, str], tuple[Rule, ...]]:
    """Return the cache of `_name_matches`: a name is searched once a run, wherever it stands."""
    return {}


def _name_matches(
    span: Span, rules: tuple[Rule, ...], known: dict[tuple[str, str], tuple[Rule, ...]]
) -> Iterator[tuple[Rule, int, str]]:
    key = (span.kind, span.text)
    if key not in known:
        text = _split(span.text) if span.kind == NAME else span.text
        known[key] = tuple(rule for rule in rules if span.kind in rule.kinds and _compiled(rule).search(text))
    for rule in known[key]:
        yield rule, span.lines[0], span.text


def _prose_matches(span: Span, rules: tuple[Rule, ...]) -> Iterator[tuple[Rule, int, str]]:
    allowed = [phrase.span() for phrase in _ALLOWED.finditer(span.text)]
    for rule in rules:
        if span.kind not in rule.kinds:
            continue
        for match in _compiled(rule).finditer(span.text):
            if not any(start <= match.start() and match.end() <= end for start, end in allowed):
                row = min(span.text.count("\n", 0, match.start()), len(span.lines) - 1)
                yield rule, span.lines[row], " ".join(match.group().split())


@functools.cache
def _compiled(rule: Rule) -> re.Pattern[str]:
    as_written = TYPE in rule.kinds or "(subject)" in rule.word
    return re.compile(rule.pattern.replace(" ", r"\s+"), re.RegexFlag(0) if as_written else re.I)


_ALLOWED = re.compile("|".join(phrase for phrase, _ in ALLOWED), re.I)


def _split(name: str) -> str:
    """Return the words of an identifier in lower case: `HTTPServer_name` is `http server name`."""
    return " ".join(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name))


def spans(text: str, path: str) -> Iterator[Span]:
    """Yield the pieces of a file that rules may cover, its own name first."""
    name = Path(path).name
    yield from _names(name.partition(".")[0], 1)
    if name.endswith(".rs"):
        pieces = _rust(text)
    elif name.endswith((".py", ".pyi")):
        pieces = _python(text)
    elif name.endswith(".md"):
        pieces = _markdown(text)
    else:
        pieces = _hash_comments(text)
    for span in _joined(pieces):
        if span.kind in PROSE:
            code = re.compile(r"``[^`]+``|`[^`]*`")
            for match in code.finditer(span.text):
                line = span.lines[min(span.text.count("\n", 0, match.start()), len(span.lines) - 1)]
                yield from _names(match.group(), line)
            yield Span(span.kind, code.sub(lambda match: re.sub(r"[^\n]", "_", match.group()), span.text), span.lines)
        else:
            yield span


def _names(code: str, line: int) -> Iterator[Span]:
    for phrase in re.finditer(r"[A-Za-z_][A-Za-z_0-9]*(?:\.[A-Za-z_][A-Za-z_0-9]*)*", code):
        if _ALLOWED.search(phrase.group()):
            continue
        for name in phrase.group().split("."):
            yield Span(NAME, name, (line,))
            yield Span(TYPE, name, (line,))


def _joined(pieces: Iterable[Span]) -> Iterator[Span]:
    """Yield `pieces` with comments on consecutive lines as one, so that a phrase may cross a line's end."""
    waiting: Span | None = None
    for piece in pieces:
        if waiting and piece.kind == waiting.kind in (COMMENT, DOC) and piece.lines[0] == waiting.lines[-1] + 1:
            waiting = Span(piece.kind, f"{waiting.text}\n{piece.text}", waiting.lines + piece.lines)
            continue
        if waiting and piece.kind in (NAME, TYPE):
            yield piece
            continue
        if waiting:
            yield waiting
        waiting = piece if piece.kind in (COMMENT, DOC) else None
        if waiting is None:
            yield piece
    if waiting:
        yield waiting


def _prose(kind: str, text: str, line: int) -> Span:
    rows = [row.strip() for row in text.split("\n")]
    while rows and not rows[0]:
        del rows[0]
        line += 1
    return Span(kind, "\n".join(rows), tuple(range(line, line + max(len(rows), 1))))


# ---- languages

_RUST = re.compile(
    r"""(?P<comment>//[^\n]*)
    |(?P<block>/\*.*?\*/)
    |(?P<octets>b"(?:\\.|[^"\\])*"|br(?P<bhashes>\#*)".*?"(?P=bhashes))
    |(?P<raw>r(?P<hashes>\#*)"(?P<rawtext>.*?)"(?P=hashes))
    |(?P<string>"(?:\\.|[^"\\])*")
    |(?P<char>b?'(?:\\[^\n]{1,10}?|[^'\\\n])')
    |(?P<lifetime>'[A-Za-z_]\w*)
    |(?P<name>[A-Za-z_]\w*(?:\.[a-z_]\w*)*)
    """,
    re.X | re.S,
)


def _rust(text: str) -> Iterator[Span]:
    line, at = 1, 0
    for match in _RUST.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        kind, found = match.lastgroup, match.group()
        if match.group("comment"):
            marker = re.match(r"//[/!]?", found)
            assert marker
            yield _prose(DOC if len(marker.group()) == 3 else COMMENT, found[marker.end() :], line)
        elif match.group("block"):
            yield _prose(COMMENT, found[2:-2], line)
        elif match.group("raw"):
            yield _prose(TEXT, match.group("rawtext"), line)
        elif match.group("string"):
            yield _prose(TEXT, re.sub(r"\\\n\s*", "\n", found[1:-1]).replace("\\n", " "), line)
        elif kind == "name":
            yield from _names(found, line)


_STRING = re.compile(r"(?P<prefix>[A-Za-z]*)(?P<quote>'''|\"\"\"|'|\")(?P<text>.*)(?P=quote)\Z", re.S)


def _python(text: str) -> Iterator[Span]:
    starts_statement = True
    named = -1
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        line, column = token.start
        if token.type == tokenize.COMMENT:
            yield _prose(COMMENT, token.string.lstrip("#:"), line)
        elif token.type == tokenize.STRING:
            match = _STRING.match(token.string)
            if match and "b" not in match.group("prefix").lower():
                is_doc = starts_statement and len(match.group("quote")) == 3
                yield _prose(DOC if is_doc else TEXT, match.group("text").replace("\\n", "  "), line)
                if "f" in match.group("prefix").lower():
                    for inside in re.findall(r"\{([^{}]*)\}", match.group("text")):
                        yield from _names(inside, line)
        elif tokenize.tok_name[token.type] == "FSTRING_MIDDLE":
            yield _prose(TEXT, token.string, line)
        elif token.type == tokenize.NAME and (line, column) > (named // 10_000, named % 10_000):
            dotted = re.compile(r"\w+(?:\.\w+)*").match(lines[line - 1], column)
            assert dotted
            yield from _names(dotted.group(), line)
            named = line * 10_000 + dotted.end() - 1
        if token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
            starts_statement = starts_statement or token.type != tokenize.NL
        elif token.type != tokenize.COMMENT:
            starts_statement = False


def _markdown(text: str) -> Iterator[Span]:
    text = UNCHECKED.sub(lambda match: re.sub(r"[^\n]", "", match.group()), text)
    fenced = False
    paragraph: list[str] = []
    for line, row in enumerate([*text.split("\n"), ""], start=1):
        is_fence = row.lstrip().startswith(("```", "~~~"))
        starts = re.match(r"\s*(?:[-*+]|\d+\.|#+|\||>)\s", row) is not None or row.startswith("|")
        if paragraph and (is_fence or fenced or starts or not row.strip()):
            yield _prose(DOC, "\n".join(paragraph), line - len(paragraph))
            yield Span("break", "", (line,))
            paragraph = []
        if is_fence:
            fenced = not fenced
        elif fenced:
            yield from _names(row.partition("#")[0], line)
            if "#" in row:
                yield _prose(COMMENT, row.partition("#")[2], line)
        elif row.strip():
            shown = re.sub(r"\]\([^)]*\)", "]", row)
            paragraph.append(re.sub(r"^\s*(?:[-*+]|\d+\.|#+|\||>)\s+", "", shown))


def _hash_comments(text: str) -> Iterator[Span]:
    for line, row in enumerate(text.split("\n"), start=1):
        comment = re.search(r"(?:^|\s)#+\s(.*)$", row)
        if comment:
            yield _prose(COMMENT, comment.group(1), line)


# ---- one word, one thing

_DEFINITION = re.compile(r"^\s*(?:pub(?:\([a-z]+\))? )?(?:struct|enum|trait|type|class) (\w+)", re.M)


def second_types(files: Iterable[Path]) -> list[Finding]:
    """Return each second definition of a type in `ONE_TYPE`, outside the tests and the stubs."""
    found, first = [], dict[str, str]()
    for path in sorted(files):
        name = _relative(path)
        if not name.startswith(("rust/", "python/")) or not name.endswith((".rs", ".py")) or "test" in name:
            continue
        text = path.read_text(encoding="utf-8")
        for match in _DEFINITION.finditer(text):
            word = match.group(1)
            line = text.count("\n", 0, match.start(1)) + 1
            if word in ONE_TYPE and first.setdefault(word, f"{name}:{line}") != f"{name}:{line}":
                found.append(
                    Finding(name, line, "one word, one thing", word, f"another name: {first[word]} has this one")
                )
    return found


if __name__ == "__main__":
    sys.exit(main())
