"""Lookup tables: source formats, table types, soft failures, and changes of files."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postillion.tables import Maps, TableError, TableTypeError, open_table
from postillion.tables.source import Entry, Problem, alias_entries, map_entries


class Settings:
    """A configuration with list parameters only."""

    def __init__(self, **lists: list[str]) -> None:
        self._lists = lists

    def items(self, name: str) -> list[str]:
        return self._lists.get(name, [])


NOTHING = Settings()

MAP_SOURCES = [
    ("plain", "a b\n", [("a", "b")]),
    ("comments and empty lines", "# x\n\n  # y\na b\n", [("a", "b")]),
    ("continued", "a b\n c\n\td\n", [("a", "b c\td")]),
    ("continued over a comment", "a b\n# no\n c\n", [("a", "b c")]),
    ("no line end at the end", "a b", [("a", "b")]),
    ("CRLF", "a b\r\nc d\r\n", [("a", "b"), ("c", "d")]),
    ("quoted key keeps its quotes", '"a b"@x  v w \n', [('"a b"@x', "v w")]),
    ("value is missing", "a\nb c\n", [("b", "c")]),
]


@pytest.mark.parametrize(("source", "expected"), [row[1:] for row in MAP_SOURCES], ids=[row[0] for row in MAP_SOURCES])
def test_map_sources_are_read_as_by_postmap(source: str, expected: list[tuple[str, str]]) -> None:
    found = [(e.key, e.value) for e in map_entries(source.splitlines(keepends=True)) if isinstance(e, Entry)]
    assert found == expected


ALIAS_SOURCES = [
    ("plain", "root: admin\n", [("root", "admin")]),
    ("space before the colon", "root : admin, b\n", [("root", "admin, b")]),
    ("quoted name", '"the list": a\n', [("the list", "a")]),
    ("escaped quote", '"a\\"b": c\n', [('a"b', "c")]),
    ("colon inside quotes", '"a:b": "|x:y"\n', [("a:b", '"|x:y"')]),
    ("include", "l: :include:/etc/l\n", [("l", ":include:/etc/l")]),
    ("continued", "l: a,\n b\n", [("l", "a, b")]),
]


@pytest.mark.parametrize(
    ("source", "expected"), [row[1:] for row in ALIAS_SOURCES], ids=[row[0] for row in ALIAS_SOURCES]
)
def test_alias_sources_are_read_as_by_postalias(source: str, expected: list[tuple[str, str]]) -> None:
    found = [(e.key, e.value) for e in alias_entries(source.splitlines(keepends=True)) if isinstance(e, Entry)]
    assert found == expected


@pytest.mark.parametrize("source", ["a b\n", ":x\n", "a:\n", '"a: b\n', "a@b: c\n", " a: b\n"])
def test_bad_alias_lines_are_reported_and_skipped(source: str) -> None:
    (problem,) = list(alias_entries(source.splitlines(keepends=True)))
    assert isinstance(problem, Problem)
    assert problem.number == 1
    assert problem.lost


@given(st.text())
def test_parsers_handle_any_source_text(text: str) -> None:
    for parse in (map_entries, alias_entries):
        for item in parse(text.splitlines(keepends=True)):
            assert isinstance(item, Problem) or (item.key and item.value)


def test_first_entry_wins_and_case_is_folded(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("User one\nuser two\n")
    warnings: list[str] = []
    table = open_table(f"texthash:{tmp_path}/m", NOTHING, warn=warnings.append)
    assert table.lookup("USER") == "one"
    assert warnings == [f'{tmp_path}/m, line 2: duplicate entry "user": line 1 is used']


@pytest.mark.parametrize("kind", ["hash", "btree", "lmdb", "cdb", "dbm", "proxy:hash"])
def test_indexed_types_read_the_source(tmp_path: Path, kind: str) -> None:
    (tmp_path / "m").write_text("key value\n")
    assert open_table(f"{kind}:{tmp_path}/m", NOTHING).lookup("key") == "value"


def test_alias_format_follows_alias_maps_and_alias_database(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text('root: admin\n"a b": c\n')
    name = f"hash:{tmp_path}/aliases"
    for settings in (Settings(alias_maps=[name]), Settings(alias_database=[name])):
        maps = Maps(open_table(word, settings) for word in ("unix:passwd.byname", f"proxy:{name}"))
        assert maps.lookup("Root") is not None
        table = open_table(name, settings)
        assert (table.lookup("ROOT"), table.lookup('"a b"'), table.lookup("a b")) == ("admin", "c", "c")
        assert table.owner == os.getuid()


def test_texthash_alias_file_accepts_both_formats(tmp_path: Path) -> None:
    (tmp_path / "aliases").write_text("root: admin\nother : x\nthird y, z:\n")
    name = f"texthash:{tmp_path}/aliases"
    maps = open_table(name, Settings(alias_maps=[name]))
    assert [maps.lookup(key) for key in ("root", "other", "third")] == ["admin", "x", "y, z:"]


def test_missing_file_is_a_soft_failure_until_it_exists(tmp_path: Path) -> None:
    maps = open_table(f"texthash:{tmp_path}/m", NOTHING)
    with pytest.raises(TableError, match="cannot read"):
        maps.lookup("a")
    (tmp_path / "m").write_text("a b\n")
    assert maps.lookup("a") == "b"
    (tmp_path / "m").unlink()
    with pytest.raises(TableError):
        maps.lookup("a")


def test_directory_and_fifo_are_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(TableError):
            open_table(f"hash:{path}", NOTHING).lookup("a")


def test_changed_file_is_read_once_it_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text("a 1\nb 2\n")
    table = open_table(f"texthash:{path}", NOTHING)
    assert table.lookup("b") == "2"
    path.write_text("a 1\n")  # an editor has not finished writing
    assert table.lookup("b") == "2"
    path.write_text("a 1\nb 3\n")
    os.utime(path, (1_000_000_000, 1_000_000_000))
    assert table.lookup("b") == "3"


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("inline:{a=b}", "A", "b"),
        ("inline:{ a=b, { c = d e } }", "c", "d e"),
        ("inline:{ a=b=c }", "a", "b=c"),
        ("inline:{ a=b }", "c", None),
        ("inline:{ { a = } }", "a", ""),
        ("inline:{ a=, b=c }", "a", ""),
        ("inline:{ a=b a=c }", "a", "c"),
        ("static:x", "anything", "x"),
        ("static:{a b}", "anything", "a b"),
        ("unix:group.byname", "no-such-group", None),
        ("unix:passwd.byname", "", None),
        ("unix:passwd.byname", "a\0b", None),
        ("unix:passwd.byname", "\udcff", None),
    ],
)
def test_tables_without_files_are_searched(name: str, key: str, value: str | None) -> None:
    assert open_table(name, NOTHING).lookup(key) == value


def test_system_accounts_are_a_table() -> None:
    root = pwd.getpwuid(0)
    line = open_table("proxy:unix:passwd.byname", NOTHING).lookup("root")
    assert line is not None
    assert line.split(":")[2:4] == ["0", "0"]
    assert line.split(":")[5] == root.pw_dir


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nis:/etc/x", 'unknown table type "nis"; known types: texthash hash'),
        ("/etc/aliases", "expected type:name"),
        ("hash:", "a name is missing"),
        ("unix:shadow", "unknown name; known are unix:passwd.byname"),
        ("inline:a=b", "expected"),
        ("inline:{ }", "at least one"),
        ("inline:{ a }", "key=value"),
    ],
)
def test_invalid_table_names_are_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(TableTypeError, match=message):
        open_table(name, NOTHING)


def test_fail_table_is_a_soft_failure() -> None:
    with pytest.raises(TableError):
        open_table("fail:y", NOTHING).lookup("k")


def test_failing_table_does_not_hide_earlier_result() -> None:
    maps = Maps(open_table(word, NOTHING) for word in ("inline:{a=b}", "fail:x"))
    assert maps.lookup("a") == "b"
    with pytest.raises(TableError):
        maps.lookup("c")


PATTERNS = [
    (r"/^user\+(.*)@/ got $1", "User+Tag@example.org", "got Tag"),
    (r"/^a$/i yes", "A", None),
    (r"!/x/ no-x", "abc", "no-x"),
    (r"!/x/ no-x", "axc", None),
    ("if /@example/\n/^a/ one\nendif\n/./ other", "a@example", "one"),
    ("if /@example/\n/^a/ one\nendif\n/./ other", "a@else", "other"),
    ("if /@example/\n/^a/ one\nendif\n/./ other", "b@example", "other"),
    ("if !/@example/\n/^a/ one\nendif\n/./ other", "a@else", "one"),
    (r"/^[[:digit:]]+$/ number", "123", "number"),
    (r"/(a)|(b)/ ${1}-$(2)-$$1", "b", "-b-$1"),
    ("/(/ broken\n/a/ fine", "a", "fine"),
    ("|a/b| slash", "a/b", "slash"),
]


@pytest.mark.parametrize(("source", "key", "value"), PATTERNS)
def test_pattern_tables_match(tmp_path: Path, source: str, key: str, value: str | None) -> None:
    (tmp_path / "m").write_text(source + "\n")
    assert open_table(f"regexp:{tmp_path}/m", NOTHING).lookup(key) == value


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("192.0.2.1", "REJECT"),
        ("192.0.2.2", "OK"),
        ("2001:db8::5", "SIX"),
        ("198.51.100.1", "NOT-TEN"),
        ("10.1.2.3", None),
        ("x", None),
    ],
)
def test_cidr_tables_match(tmp_path: Path, key: str, value: str | None) -> None:
    rules = (
        "192.0.2.1 REJECT\n192.0.2.0/24\tOK\n2001:db8::/32 SIX\n1.2.3/99 bad\nif !::/0\n!10.0.0.0/8 NOT-TEN\nendif\n"
    )
    (tmp_path / "m").write_text(rules)
    warnings: list[str] = []
    found = open_table(f"cidr:{tmp_path}/m", NOTHING, warn=warnings.append).lookup(key)
    assert found == value
    assert len(warnings) == 1
    assert "line 4" in warnings[0]


@pytest.mark.skipif(shutil.which("/usr/sbin/postmap") is None, reason="compares with a real postmap")
@pytest.mark.parametrize(("source", "expected"), [row[1:] for row in MAP_SOURCES], ids=[row[0] for row in MAP_SOURCES])
def test_real_postmap_reads_the_same(tmp_path: Path, source: str, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
    (tmp_path / "m").write_bytes(source.encode())
    query = ["/usr/sbin/postmap", "-c", str(tmp_path), "-q", "-", f"texthash:{tmp_path}/m"]
    keys = "".join(f"{key}\n" for key, _ in expected)
    done = subprocess.run(query, input=keys, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "".join(f"{key}\t{value}\n" for key, value in expected)
