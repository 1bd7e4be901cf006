"""The documentation names only what exists, and keeps to House English."""

from __future__ import annotations

import dataclasses
import re
from functools import cache
from pathlib import Path

import pytest

import words
from postillion.config import effect, parameters

ROOT = words.ROOT
PAGES = sorted(ROOT.glob("docs/**/*.md"))
ROOT_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
FILE = re.compile(r"`((?:[\w.-]+/)*[\w-]+\.(?:rs|py|pyi|json|sh))`")
CONSTANT = re.compile(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`")
LIMIT = re.compile(r"((?:`[A-Z][A-Z0-9_]*`(?:, )?)+) in `((?:\w+/)*\w+\.(?:rs|py))`")
TEST = re.compile(r"`((?:[a-z0-9]+_){3,}[a-z0-9]+)`")
GLOSSARY_MAX = 20
README_LINES_MAX = 40
HOMES = ("rust/core/src/", "python/postillion/")
"""Directories that pages leave out of a path."""
NOT_OURS = {"EXT4_IOC_SHUTDOWN", "MAIL_CONFIG"}
SITE = {"mypolicy.py"}
"""A file of an example."""
REFUSED_BY_VALUE = {"smtpd_tls_auth_only"}
"""Their programs read them, and refuse a class in a list, and AUTH that needs TLS."""
PROSE = [dataclasses.replace(rule, kinds=rule.kinds & words.PROSE) for rule in words.RULES]
"""Names on a page are those of the code, so the code is where they are replaced."""


@cache
def files() -> list[str]:
    """Return the paths of all sources and their neighbours, as a page names them."""
    return [str(path.relative_to(ROOT)) for top in words.READ for path in (ROOT / top).rglob("*") if path.is_file()]


def meant(name: str) -> list[str]:
    """Return the files that a page means by a name.

    The end of a path is enough for a file of the core or of the package. Others, such as those of the border, are named
    by their path, or by the file's name alone.
    """
    ends = [path for path in files() if f"/{path}".endswith(f"/{name}")]
    return [path for path in ends if "/" not in name or path.startswith(HOMES) or path in (name, f"rust/{name}")]


@cache
def code() -> str:
    """Return all Rust and Python of the project."""
    paths = list(words.sources([ROOT / "rust", ROOT / "python", ROOT / "tests", ROOT / "benches"]))
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path.suffix in (".rs", ".py", ".pyi"))


@cache
def code_words() -> set[str]:
    """Return all words of the code."""
    return set(re.findall(r"\w+", code()))


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_existing_files(page: Path) -> None:
    named = set(FILE.findall(page.read_text())) - SITE
    assert [name for name in sorted(named) if not meant(name)] == []


def test_a_file_of_the_border_is_not_taken_for_one_of_the_core() -> None:
    assert meant("smtpd/session.rs") == []
    assert meant("rust/py/src/smtpd/session.rs") == ["rust/py/src/smtpd/session.rs"]
    assert meant("smtpd/session/mod.rs") == ["rust/core/src/smtpd/session/mod.rs"]
    assert meant("maps/src/open.rs") == meant("open.rs") == ["rust/maps/src/open.rs"]


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_page_has_no_mark_of_a_merge(page: Path) -> None:
    assert not re.search(r"^(?:<{7}|={7}|>{7})(?: |$)", page.read_text(), re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_page_names_existing_constants(page: Path) -> None:
    named = set(CONSTANT.findall(page.read_text())) - NOT_OURS
    assert sorted(named - code_words()) == []


def test_limits_names_the_file_of_each_constant() -> None:
    missing = []
    for constants, file in LIMIT.findall((ROOT / "docs" / "limits.md").read_text()):
        texts = [(ROOT / path).read_text() for path in meant(file)]
        missing += [
            f"{constant} in {file}"
            for constant in CONSTANT.findall(constants)
            if not any(re.search(rf"\b{constant}\b.*=", text) for text in texts)
        ]
    assert missing == []


@pytest.mark.parametrize("name", ["queue.md", "simulation.md"])
def test_proof_names_existing_tests(name: str) -> None:
    named = set(TEST.findall((ROOT / "docs" / name).read_text()))
    functions = set(re.findall(r"\b(?:fn|def) (\w+)", code()))
    parameters = set(re.findall(r'"(\w+)"', code()))
    fields = set(re.findall(r"\b(\w+):", code()))
    assert sorted(named - functions - parameters - fields) == []


@pytest.mark.parametrize("page", [*PAGES, *ROOT_PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_page_is_in_house_english(page: Path) -> None:
    assert words.check(page, PROSE) == []


def test_contributing_has_the_table_of_words() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text()
    quoted = page.partition("<!-- words -->\n")[2].partition("<!-- end -->")[0]
    assert quoted == words.table()


def test_glossary_is_short_and_holds_no_replaced_word() -> None:
    rows = re.findall(r"^\| (?!word |---)(.+?) \|", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    assert 0 < len(rows) <= GLOSSARY_MAX
    assert [row for row in rows if words.check_text(row, "row.md")] == []


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= README_LINES_MAX


def test_known_issues_are_one_table_a_program() -> None:
    page = (ROOT / "docs" / "known-issues.md").read_text()
    for section in page.split("\n## ")[1:]:
        rows = [line for line in section.splitlines() if line.startswith("|")]
        assert rows[:2] == ["| parameter or feature | Postfix | here |", "|---|---|---|"], section[:40]
        assert all(len(re.findall(r"(?<!\\)\|", row)) == 4 for row in rows), section[:40]


def test_known_issues_say_what_the_checker_refuses() -> None:
    refused: set[str] = set()
    for row in (ROOT / "docs" / "known-issues.md").read_text().splitlines():
        if row.startswith("|") and "*Refused at start until supported*" in row.split("|")[3]:
            refused |= set(re.findall(r"`(\w+)", row.split("|")[1])) & parameters.PARAMETERS.keys()
    unsafe = {name for name in parameters.PARAMETERS if (effect.column(name) or "").startswith(effect.UNSAFE)}
    assert sorted(unsafe - refused) == [], "the checker refuses these: give them a row"
    assert sorted(refused - unsafe - REFUSED_BY_VALUE) == [], "the checker does not refuse these"


def test_git_ignores_plots() -> None:
    assert "/docs/plots" in (ROOT / ".gitignore").read_text().splitlines()
    assert not [page for page in PAGES if re.search(r"!\[[^\]]*\]\(plots/", page.read_text())]
