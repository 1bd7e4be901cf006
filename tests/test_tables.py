"""Lookup tables: types, soft failures, changes of files, and Postfix's own tools with the same files."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from postillion._core.tables import Index, Table
from postillion.tables import Maps, TableError, TableTypeError
from postillion.tables import open_table as open_any

REAL = "/usr/sbin/postmap"
real_only = pytest.mark.skipif(shutil.which(REAL) is None, reason="compares with a real postmap")


class Settings:
    """A configuration with list parameters only."""

    def __init__(self, **lists: list[str]) -> None:
        self._lists = lists

    def items(self, name: str) -> list[str]:
        return self._lists.get(name, [])

    def flag(self, name: str) -> bool:
        return name == "smtputf8_enable"


NOTHING = Settings()
PATIENCE_S = 60
READERS = 3
VERSIONS = 40
REAL_VERSIONS = 10
KEYS = {"cidr": ("192.0.2.1", "2001:db8::1")}
"""The keys of a type that has others than a and b."""
LARGE_OCTETS = 33 * 1024 * 1024
"""More than a table keeps in memory."""


def open_table(name: str, settings: Settings = NOTHING, warnings: list[str] | None = None) -> Table:
    table = open_any(name, settings, warn=None if warnings is None else warnings.append)
    assert isinstance(table, Table)
    return table


def write(path: Path, text: str, age_s: int = 1000) -> None:
    """Write a file as if some time ago: a text that has just changed is not read yet."""
    path.write_text(text)
    time = path.stat().st_mtime - age_s
    os.utime(path, (time, time))


def test_first_entry_wins_and_case_is_folded(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("User one\nuser two\n")
    warnings: list[str] = []
    table = open_table(f"texthash:{tmp_path}/m", warnings=warnings)
    assert table.lookup("USER") == "one"
    assert warnings == [f'{tmp_path}/m, line 2: duplicate entry: "user"']
    assert table.owner == os.getuid()
    assert not table.has_addresses
    assert table.takes_parts


@pytest.mark.parametrize("kind", ["hash", "btree", "cdb", "lmdb"])
def test_index_decides_until_postmap_writes_it_anew(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m"
    path.write_text("key new\n")
    table = open_table(f"{kind}:{path}")
    with pytest.raises(TableError, match=f'No such file or directory: run "postmap {kind}:{path}"'):
        table.lookup("key")
    Index(kind, str(path)).create(b"key old\nuser@example value\n", "m")
    table.refresh()
    assert [table.lookup(key) for key in ("key", "KEY", "none")] == ["old", "old", None]
    assert table.items() == [("key", "old"), ("user@example", "value")]
    assert table.values() == ["old", "value"]
    assert table.has_addresses
    Index(kind, str(path)).create(b"key newer\n", "m")
    table.refresh()
    assert table.lookup("key") == "newer"


@pytest.mark.parametrize(
    ("kind", "suffix"), [("hash", ".db"), ("btree", ".db"), ("proxy:hash", ".db"), ("cdb", ".cdb"), ("lmdb", ".lmdb")]
)
def test_index_that_is_older_than_its_text_is_a_warning(tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / "m"
    Index(kind.removeprefix("proxy:"), str(path)).create(b"a b\n", "m")
    path.write_text("a c\n")
    # As in Postfix, whole seconds count.
    for text_s, warned in ((100.9, []), (101.0, [f"database {path}{suffix} is older than source file {path}"])):
        os.utime(f"{path}{suffix}", (100, 100))
        os.utime(path, (text_s, text_s))
        warnings: list[str] = []
        assert open_table(f"{kind}:{path}", warnings=warnings).lookup("a") == "b"
        assert warnings == warned


def test_alias_format_follows_alias_maps_and_alias_database(tmp_path: Path) -> None:
    path = tmp_path / "aliases"
    path.write_text('root: admin\n"a b": c\n')
    Index("hash", str(path), form="alias").create(path.read_bytes(), "aliases")
    name = f"hash:{path}"
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
    table = open_table(f"texthash:{tmp_path}/m")
    with pytest.raises(TableError, match="No such file or directory"):
        table.lookup("a")
    (tmp_path / "m").write_text("a b\n")
    table.refresh()
    assert table.lookup("a") == "b"


@pytest.mark.parametrize("change", ["removed", "emptied", "directory", "unreadable"])
def test_lost_file_keeps_its_content_with_one_warning(tmp_path: Path, change: str) -> None:
    path = tmp_path / "m"
    write(path, "a b\n")
    warnings: list[str] = []
    table = open_table(f"texthash:{path}", warnings=warnings)
    assert table.lookup("a") == "b"
    if change == "emptied":
        write(path, "", 900)
    elif change == "unreadable" and os.getuid() != 0:
        path.chmod(0)
    else:
        path.unlink()
        if change == "directory":
            path.mkdir()
            os.utime(path, (1, 1))
    for _ in range(3):
        table.refresh()
        assert table.lookup("a") == "b"
    assert len(warnings) == 1
    assert warnings[0].endswith("; the old content stays in use")
    assert table.is_outdated


def test_directory_and_fifo_are_refused_without_blocking(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        for kind in ("texthash", "cidr", "hash", "btree"):
            with pytest.raises(TableError):
                open_table(f"{kind}:{path}").lookup("a")


def test_changed_text_is_read_once_it_is_stable(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write(path, "a 1\nb 2\n")
    table = open_table(f"texthash:{path}")
    assert table.lookup("b") == "2"
    path.write_text("a 1\n")  # an editor has not finished writing
    table.refresh()
    assert table.lookup("b") == "2"
    write(path, "a 1\nb 3\n", 900)
    table.refresh()
    assert table.lookup("b") == "3"


def value_of(version: int) -> str:
    """Return a value that shows parts of another one."""
    return f"{version}{'.' * 5000}{version}"


def text_of(kind: str, version: int) -> str:
    """Return a text with both keys of a version."""
    keys = ("/^a$/", "/^b$/") if kind in ("regexp", "pcre") else KEYS.get(kind, ("a", "b"))
    return "".join(f"{key} {value_of(version)}\n" for key in keys)


def change(kind: str, path: Path, version: int) -> None:
    """Write a version of a table: a text in its place, or the index."""
    text = text_of(kind, version)
    if kind in ("hash", "cdb", "lmdb"):
        Index(kind, str(path)).create(text.encode(), "m")
    else:
        write(path, text, 1000 * (version + 1))


class Readers:
    """Threads that search a table for both keys in turn. `failures`: what no lookup may answer."""

    def __init__(self, table: Table, keys: tuple[str, str]) -> None:
        self.failures: list[object] = []
        self._table = table
        self._keys = keys
        self._rounds = [0] * READERS
        self._versions = [0] * READERS
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._search, args=(place,)) for place in range(READERS)]

    def __enter__(self) -> Readers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _search(self, place: int) -> None:
        last = 0
        try:
            while not self._stop.is_set():
                for key in self._keys:
                    value = self._table.lookup(key) or "-1"
                    version = int(value.partition(".")[0])
                    if value != value_of(version) or version < last:
                        self.failures.append(f"{key} after version {last}: {value}")
                    last = version
                if self._table.lookup("none") is not None:
                    self.failures.append("a value of no key")
                with self._changed:
                    self._rounds[place] += 1
                    self._versions[place] = last
                    self._changed.notify_all()
        except Exception as error:  # the test names it
            with self._changed:
                self.failures.append(error)
                self._changed.notify_all()

    def _wait(self, done: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self.failures or done(), PATIENCE_S)
        assert self.failures == []

    def more(self) -> None:
        """Wait until each thread has begun and ended a round."""
        goals = [rounds + 2 for rounds in self._rounds]
        self._wait(lambda: all(rounds >= goal for rounds, goal in zip(self._rounds, goals, strict=True)))

    def see(self, version: int) -> None:
        """Wait until each thread has found this version."""
        self._wait(lambda: all(seen == version for seen in self._versions))


@pytest.mark.parametrize("kind", ["texthash", "hash", "cdb", "lmdb", "cidr", "regexp", "pcre"])
def test_lookups_during_changes_are_never_mixed_or_lost(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "m"
    change(kind, path, 0)
    table = open_table(f"{kind}:{path}")
    keys = KEYS.get(kind, ("a", "b"))
    with Readers(table, keys) as readers:
        for version in range(1, VERSIONS):
            change(kind, path, version)
            table.refresh()
            assert [table.lookup(key) for key in keys] == [value_of(version)] * 2
            readers.more()
        # The threads' own lookups see the last change.
        change(kind, path, VERSIONS)
        readers.see(VERSIONS)
    assert readers.failures == []


@real_only
def test_lookups_while_a_real_postmap_changes_an_lmdb_file_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "m"
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    command = [REAL, "-c", str(tmp_path), f"lmdb:{path}"]
    path.write_text(text_of("lmdb", 0))
    subprocess.run(command, check=True, timeout=PATIENCE_S)
    table = open_table(f"lmdb:{path}")
    inode = path.with_suffix(".lmdb").stat().st_ino
    with Readers(table, ("a", "b")) as readers:
        for version in range(1, REAL_VERSIONS):
            path.write_text(text_of("lmdb", version))
            subprocess.run(command, check=True, timeout=PATIENCE_S)
            table.refresh()
            assert table.lookup("b") == value_of(version)
            readers.more()
        path.write_text(text_of("lmdb", REAL_VERSIONS))
        subprocess.run(command, check=True, timeout=PATIENCE_S)
        readers.see(REAL_VERSIONS)
    assert readers.failures == []
    assert path.with_suffix(".lmdb").stat().st_ino == inode


@pytest.mark.parametrize("size", ["small", "large"])
def test_lmdb_file_that_is_cut_in_its_place_ends_no_reader(tmp_path: Path, size: str) -> None:
    path = tmp_path / "m"
    value = "v" * 20_000
    count = 3 if size == "small" else LARGE_OCTETS // len(value) + 1
    Index("lmdb", str(path)).create("".join(f"key{number} {value}\n" for number in range(count)).encode(), "m")
    index = path.with_suffix(".lmdb")
    whole = index.read_bytes()
    warnings: list[str] = []
    table = open_table(f"lmdb:{path}", warnings=warnings)
    assert table.lookup("key2") == value
    for octets in (len(whole) // 2, 10_000, 0):
        os.truncate(index, octets)
        if size == "large":
            with pytest.raises(TableError, match=r"damaged|not an LMDB file"):
                table.items()
        table.refresh()
        if size == "small":
            assert table.lookup("key2") == value
    assert len(warnings) == 1
    assert warnings[0].endswith("; the old content stays in use")
    with pytest.raises(TableError, match="open database"):
        open_table(f"lmdb:{path}").lookup("key2")
    index.write_bytes(whole)
    table.refresh()
    assert table.lookup("key2") == value
    assert not table.is_outdated


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
        ("environ:x", "no such variable", None),
        ("internal:x", "a", None),
        ("unionmap:{inline:{a=1},inline:{a=2},inline:{b=3}}", "a", "1,2"),
        ("pipemap:{inline:{a=b},inline:{b=c}}", "a", "c"),
        ("pipemap:{inline:{a=b},inline:{b=c}}", "b", None),
        ("randmap:{x}", "a", "x"),
        ("debug:inline:{a=b}", "a", "b"),
        ("cidr:{{10.0.0.0/8 x}, {1.1.1.1 y}}", "1.1.1.1", "y"),
        ("regexp:{{/^(a)/ 1$1}}", "A", "1A"),
        ("pcre:{{/^(a)/ 1$1}}", "A", "1A"),
        ("unix:group.byname", "no-such-group", None),
        ("unix:passwd.byname", "", None),
        ("unix:passwd.byname", "a\0b", None),
        ("unix:passwd.byname", "\udcff", None),
        ("inline:{a=b}", "\ud800", None),
    ],
)
def test_tables_without_files_are_searched(name: str, key: str, value: str | None) -> None:
    assert open_table(name).lookup(key) == value


def test_lookups_in_a_debug_table_are_logged() -> None:
    logged: list[str] = []
    table = open_any("debug:debug:inline:{a=b}", NOTHING, log=logged.append)
    assert [table.lookup(key) for key in ("A", "c")] == ["b", None]
    names = ("inline:{a=b}", "debug:inline:{a=b}")
    assert logged == [
        f'{name} lookup: "{key}" = "{shown}"' for key, shown in (("A", "b"), ("c", "not_found")) for name in names
    ]
    with pytest.raises(TableError):
        open_any("debug:fail:x", NOTHING, log=logged.append).lookup("a")
    assert logged[4:] == ['fail:x lookup: "a" = "error"']


def test_system_accounts_are_a_table() -> None:
    root = pwd.getpwuid(0)
    line = open_table("proxy:unix:passwd.byname").lookup("ROOT")
    assert line is not None
    assert line.split(":")[2:4] == ["0", "0"]
    assert line.split(":")[5] == root.pw_dir


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nisplus:/etc/x", 'unknown table type "nisplus"; known types: btree cdb'),
        ("/etc/aliases", "expected type:name"),
        ("hash:", "a name is missing"),
        ("unix:shadow", "known are unix:passwd.byname"),
        ("inline:a=b", "bad syntax"),
        ("inline:{ }", "bad syntax"),
        ("inline:{ a }", "missing '='"),
        ("unionmap:{}", "need"),
        ("pipemap:{nisplus:x}", 'unknown table type "nisplus"'),
        ("pcre:{/a/ x}", "no '{'"),
    ],
)
def test_invalid_table_names_are_refused_at_once(name: str, message: str) -> None:
    with pytest.raises(TableTypeError, match=message):
        open_table(name)


def test_fail_table_is_a_soft_failure() -> None:
    for name in ("fail:y", "unionmap:{inline:{k=v},fail:x}", "pipemap:{fail:x,static:y}"):
        with pytest.raises(TableError):
            open_table(name).lookup("k")


def test_failing_table_does_not_hide_earlier_result() -> None:
    maps = Maps(open_table(word) for word in ("inline:{a=b}", "fail:x"))
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
    ("/^(a|ab)(c|bcd)?(d*)$/ 1=$1 2=$2 3=$3", "abcd", "1=a 2=bcd 3="),
    ("/g/", "g", ""),
    ("/\\// esc", "a/b", "esc"),
    ("/a/ x\n/b/ $2\n/b/ kept", "b", "kept"),
]


@pytest.mark.parametrize("kind", ["regexp", "pcre"])
@pytest.mark.parametrize(("source", "key", "value"), PATTERNS)
def test_pattern_tables_match_as_in_postfix(
    tmp_path: Path, kind: str, source: str, key: str, value: str | None
) -> None:
    (tmp_path / "m").write_text(source + "\n")
    table = open_table(f"{kind}:{tmp_path}/m")
    assert table.lookup(key) == value
    assert not table.takes_parts
    if shutil.which(REAL):
        (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
        command = [REAL, "-c", str(tmp_path), "-q", key, f"{kind}:{tmp_path}/m"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.stdout == ("" if value is None else f"{value}\n")


def test_pattern_that_does_not_end_is_a_soft_failure(tmp_path: Path) -> None:
    (tmp_path / "m").write_text("/^(a+)+$/ x\n")
    with pytest.raises(TableError, match="line 1: match limit exceeded"):
        open_table(f"pcre:{tmp_path}/m").lookup("a" * 60 + "b")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("192.0.2.1", "REJECT"),
        ("192.0.2.2", "OK"),
        ("2001:db8::5", "SIX"),
        ("198.51.100.1", "NOT-TEN"),
        ("10.1.2.3", None),
        ("::ffff:192.0.2.1", None),
        ("x", None),
    ],
)
def test_cidr_tables_match_as_in_postfix(tmp_path: Path, key: str, value: str | None) -> None:
    rules = (
        "192.0.2.1 REJECT\n192.0.2.0/24\tOK\n2001:db8::/32 SIX\n192.168.0.1/24 bad\n"
        "if !10.0.0.0/8\n!172.16.0.0/12 NOT-TEN\nendif\n"
    )
    (tmp_path / "m").write_text(rules)
    warnings: list[str] = []
    assert open_table(f"cidr:{tmp_path}/m", warnings=warnings).lookup(key) == value
    problem = 'non-null host address bits in "192.168.0.1/24", perhaps you should use "192.168.0.0/24" instead'
    assert warnings == [f"cidr map {tmp_path}/m, line 4: {problem}: skipping this rule"]
    if shutil.which(REAL):
        (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
        command = [REAL, "-c", str(tmp_path), "-q", key, f"cidr:{tmp_path}/m"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
        assert done.stdout == ("" if value is None else f"{value}\n")
        assert f"postmap: warning: {warnings[0]}\n" in done.stderr


def test_keys_and_values_that_are_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "m").write_bytes(b"k\xff v\nok \xfe\n\xc3\x84b umlaut\nstra\xc3\x9fe fold\nnul\0x v\n")
    warnings: list[str] = []
    table = open_table(f"texthash:{tmp_path}/m", warnings=warnings)
    assert table.lookup("ÄB") == "umlaut"
    assert table.lookup("STRASSE") == "fold"
    assert table.lookup("k\udcff") is None
    assert [warning.partition(", ")[2][:24] for warning in warnings] == [
        "line 1: non-UTF-8 input ",
        "line 2: non-UTF-8 input ",
        "line 5: the line has a n",
    ]
    raw = open_any(f"texthash:{tmp_path}/m", NOTHING, utf8=False)
    assert raw.lookup("k\udcff") == "v"
    assert raw.lookup("ok") == "\udcfe"


def test_line_of_100_megabytes_is_one_warning(tmp_path: Path) -> None:
    with (tmp_path / "m").open("wb") as file:
        file.write(b"a b\nlong ")
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b"\nc d\n")
    warnings: list[str] = []
    table = open_table(f"texthash:{tmp_path}/m", warnings=warnings)
    assert [table.lookup(key) for key in ("a", "long", "c")] == ["b", None, "d"]
    assert len(warnings) == 1
    assert "line 2: the line is longer than" in warnings[0]


def test_file_that_changes_its_type_keeps_its_content(tmp_path: Path) -> None:
    path = tmp_path / "m"
    Index("hash", str(path)).create(b"a b\n", "m")
    warnings: list[str] = []
    table = open_table(f"hash:{path}", warnings=warnings)
    table.refresh()
    (tmp_path / "m.db").write_bytes(b"something else")
    table.refresh()
    assert table.lookup("a") == "b"
    assert "not an index: run" in warnings[0]
    with pytest.raises(TableError, match="not an index"):
        open_table(f"hash:{path}").lookup("a")


@real_only
def test_beside_a_file_of_postfix_the_text_decides(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_text("a b\n")
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
    for kind in ("hash", "btree"):
        (tmp_path / "m.db").unlink(missing_ok=True)
        subprocess.run([REAL, "-c", str(tmp_path), f"{kind}:{path}"], check=True, timeout=30)
        warnings: list[str] = []
        table = open_table(f"{kind}:{path}", warnings=warnings)
        assert table.lookup("a") == "b"
        assert warnings == []
        os.utime(path, (2**31, 2**31))
        table = open_table(f"{kind}:{path}", warnings=warnings)
        assert table.lookup("a") == "b"
        assert len(warnings) == 1
        os.utime(path, (1, 1))
    path.unlink()
    with pytest.raises(TableError, match=r"db5\.3_dump"):
        open_table(f"hash:{path}").lookup("a")


@real_only
@pytest.mark.parametrize("nulls", ["", "-N", "-n"])
@pytest.mark.parametrize("kind", ["cdb", "lmdb"])
def test_files_are_exchanged_with_real_postmap(tmp_path: Path, kind: str, nulls: str) -> None:
    path = tmp_path / "m"
    text = "".join(f"Key{number} value {number}\n" for number in range(1000))
    path.write_text(text)
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
    command = [REAL, "-c", str(tmp_path), *([nulls] if nulls else []), f"{kind}:{path}"]
    subprocess.run(command, check=True, timeout=60)
    theirs = open_table(f"{kind}:{path}")
    assert [theirs.lookup(key) for key in ("key0", "KEY999", "key1000")] == ["value 0", "value 999", None]
    assert sorted(theirs.items()) == sorted((f"key{number}", f"value {number}") for number in range(1000))
    del theirs
    octets = (tmp_path / f"m.{kind}").read_bytes()
    (tmp_path / f"m.{kind}").unlink()
    Index(kind, str(path), nulls={"": None, "-N": True, "-n": False}[nulls]).create(text.encode(), "m")
    if kind == "cdb":
        assert len((tmp_path / "m.cdb").read_bytes()) == len(octets)
    query = [REAL, "-c", str(tmp_path), "-q", "-", f"{kind}:{path}"]
    done = subprocess.run(query, input="key0\nKey999\nnone\n", capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "key0\tvalue 0\nKey999\tvalue 999\n"
    assert sorted(os.listdir(tmp_path)) == ["m", f"m.{kind}", "main.cf"]


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


@real_only
@pytest.mark.parametrize(("source", "expected"), [row[1:] for row in MAP_SOURCES], ids=[row[0] for row in MAP_SOURCES])
def test_real_postmap_reads_the_same(tmp_path: Path, source: str, expected: list[tuple[str, str]]) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = x.example\n")
    (tmp_path / "m").write_bytes(source.encode())
    query = [REAL, "-c", str(tmp_path), "-q", "-", f"texthash:{tmp_path}/m"]
    keys = "".join(f"{key}\n" for key, _ in expected)
    done = subprocess.run(query, input=keys, capture_output=True, text=True, check=False, timeout=30)
    assert done.stdout == "".join(f"{key}\t{value}\n" for key, value in expected)
    assert open_table(f"texthash:{tmp_path}/m").items() == expected
