"""The word checker finds each replaced word where it stands, and lets the allowed phrases pass."""

from pathlib import Path

import pytest

import words

RUST = "sample.rs"
PYTHON = "sample.py"
PAGE = "sample.md"

FOUND = [
    (RUST, "/// Grants the\n/// wishes of a session.\nfn f() {}\n", [(1, "grant"), (2, "wish")]),
    (RUST, "// Holds at most so\n// many messages.\n", [(1, "so many")]),
    (RUST, "/// Who sleeps has a timer.\n", [(1, "Who (subject)")]),
    (RUST, "/// First sentence. What comes later is kept.\n", [(1, "What (subject)")]),
    (RUST, "enum TurnAway { Wish }\n", [(1, "turn (name)"), (1, "wish")]),
    (RUST, 'let text = "one\n two errands";\n', [(2, "errand")]),
    (RUST, "const LOOKS_MAX: u32 = 4;\n", [(1, "look (name)")]),
    (RUST, "struct Wire;\n", [(1, "Wire")]),
    (RUST, "/// Uses `Errand`.\n", [(1, "errand")]),
    (PYTHON, '"""Settle the job."""\n', [(1, "settle")]),
    (PYTHON, 'def f():\n    """Return a value.\n\n    Who asks gets one.\n    """\n', [(4, "Who (subject)")]),
    (PYTHON, "x = f'mend {crowd}'\n", [(1, "crowd"), (1, "mend")]),
    (PYTHON, "def test_who_comes_late_waits(): pass\n", [(1, "who (test name)")]),
    (PYTHON, "# one look at\n# the company\n", [(1, "look (noun)"), (2, "company")]),
    (PAGE, "Each client\nhas its turn.\n", [(2, "turn (noun)")]),
    (PAGE, "| what | bound |\n|---|---|\n| silence | 30 s |\n", [(3, "silence")]),
    (PAGE, "- One that overtakes goes first.\n", [(1, "One that (subject)")]),
    (PAGE, "```python\nwishes = 1  # so long\n```\n", [(2, "so long"), (2, "wish")]),
    ("crowd.rs", "", [(1, "crowd")]),
    ("sample.toml", "a = 1 # no company\n", [(1, "company")]),
]

PASSES = [
    (RUST, 'const ARRIVED: &[u8] = b"the company of wishes";\n'),
    (RUST, "fn f<'turns>(wire: &[u8]) -> char { '\"' } // returns the wire form\n"),
    (RUST, 'log("conversation with peer timed out");\n'),
    (RUST, "/// Who asks first?\n"),
    (RUST, "fn turn_off_stress() { looked_up() }\n"),
    (PYTHON, "for path in os.walk(top): look_up(path)\n"),
    (PYTHON, 'x = b"mend"\n'),
    (PAGE, "Both run in turn. The amendment is whatever the site sets.\n"),
    (PAGE, "<!-- words -->\n| wish | request |\n<!-- end -->\n"),
]


@pytest.mark.parametrize(("path", "text", "expected"), FOUND)
def test_word_is_found_at_its_line(path: str, text: str, expected: list[tuple[int, str]]) -> None:
    assert sorted({(finding.line, finding.word) for finding in words.check_text(text, path)}) == expected


@pytest.mark.parametrize(("path", "text"), PASSES)
def test_allowed_phrase_passes(path: str, text: str) -> None:
    assert words.check_text(text, path) == []


def test_second_type_of_one_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "ROOT", tmp_path)
    core = tmp_path / "rust"
    core.mkdir()
    (core / "a.rs").write_text("pub struct Place;\n")
    (core / "b.rs").write_text("\npub(super) enum Place { Here }\n")
    assert [(found.path, found.line) for found in words.second_types(words.sources([core]))] == [("rust/b.rs", 2)]


def test_exit_status_tells_findings(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text("A plain sentence.\n")
    assert words.main([str(page)]) == 0
    page.write_text("A wish.\n")
    assert words.main([str(page)]) == 1
    assert f'{page}:1: wish: "wish" -> ' in capsys.readouterr().out
