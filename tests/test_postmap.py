"""postmap, postalias, newaliases: checks, queries, changes, exit status."""

import io
import json
import os
from pathlib import Path

import pytest

from postillion.commands import newaliases, postalias, postmap


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(
        f"compatibility_level = 3.6\nmyhostname = mx.example\ndefault_database_type = hash\n"
        f"alias_maps = hash:{tmp_path}/aliases\nalias_database = hash:{tmp_path}/aliases\n"
    )
    (tmp_path / "aliases").write_text('root: admin\n"the list": a, b\n')
    (tmp_path / "map").write_text("a b\nC d\n")
    return tmp_path


def run(command: object, site: Path, *arguments: str) -> int:
    try:
        return int(command.main(["-c", str(site), *arguments]))  # type: ignore[attr-defined]
    except SystemExit as exit:
        return int(exit.code or 0)


def test_good_source_gives_no_output_and_no_files(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(os.listdir(site))
    assert run(postmap, site, f"hash:{site}/map") == 0
    assert run(postmap, site, f"{site}/map") == 0
    assert run(postalias, site, f"hash:{site}/aliases") == 0
    assert run(newaliases, site) == 0
    assert capsys.readouterr() == ("", "")
    assert sorted(os.listdir(site)) == before


@pytest.mark.parametrize(
    ("command", "name", "source", "message"),
    [
        (postmap, "map", "a b\nbad\nc d\n", "map, line 2: expected a key, whitespace and a value"),
        (postmap, "map", " a b\n", "map, line 1: continuation line without"),
        (postalias, "aliases", "root: admin\nbad line\n", "aliases, line 2: expected a name, a colon"),
        (newaliases, "aliases", "x:\n", "aliases, line 1: expected a name, a colon"),
    ],
)
def test_bad_source_line_is_named(
    site: Path, capsys: pytest.CaptureFixture[str], command: object, name: str, source: str, message: str
) -> None:
    (site / name).write_text(source)
    arguments = [] if command is newaliases else [f"hash:{site}/{name}"]
    assert run(command, site, *arguments) == 1
    assert f"error: {site}/{message}" in capsys.readouterr().err


def test_duplicate_entries_give_warning(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (site / "map").write_text("a b\nA c\n")
    assert run(postmap, site, f"hash:{site}/map") == 0
    assert "line 2: duplicate entry" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "output"),
    [
        (["-q", "a", "hash:{}/map"], 0, "b\n"),
        (["-q", "A", "hash:{}/map"], 0, "b\n"),
        (["-q", "zz", "hash:{}/map"], 1, ""),
        (["-q", "c", "inline:{a=1}", "hash:{}/map"], 0, "d\n"),
        (["-s", "hash:{}/map"], 0, "a\tb\nc\td\n"),
        (["-jq", "a", "hash:{}/map"], 0, '{"a": "b"}\n'),
        (["-q", "root", "proxy:unix:passwd.byname"], 0, None),
    ],
)
def test_queries_print_values(
    site: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, output: str | None
) -> None:
    arguments = [argument.replace("{}", str(site)) for argument in arguments]
    assert run(postmap, site, *arguments) == status
    if output is not None:
        assert capsys.readouterr().out == output


def test_postalias_queries_aliases(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(postalias, site, "-q", "the list", f"hash:{site}/aliases") == 0
    assert run(postalias, site, "-q", "ROOT", f"hash:{site}/aliases") == 0
    assert capsys.readouterr().out == "a, b\nadmin\n"


def test_keys_are_read_from_standard_input(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a\nzz\nc\n"))
    assert run(postmap, site, "-q", "-", f"hash:{site}/map") == 0
    assert capsys.readouterr().out == "a\tb\nc\td\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("zz\n"))
    assert run(postmap, site, "-q", "-", f"hash:{site}/map") == 1


def test_entries_are_added_replaced_and_removed(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = site / "map"
    path.write_text("# head\na b\n  more\n# in between\n  most\nc d")
    os.chmod(path, 0o640)
    monkeypatch.setattr("sys.stdin", io.StringIO("c other\nnew value\n"))
    assert run(postmap, site, "-i", f"hash:{path}") == 0
    assert 'duplicate entry: "c"' in capsys.readouterr().err
    assert path.read_text() == "# head\na b\n  more\n# in between\n  most\nc d\nnew\tvalue\n"
    monkeypatch.setattr("sys.stdin", io.StringIO("c other\n"))
    assert run(postmap, site, "-i", "-r", f"hash:{path}") == 0
    assert run(postmap, site, "-d", "A", f"hash:{path}") == 0
    assert run(postmap, site, "-d", "a", f"hash:{path}") == 1
    assert path.read_text() == "# head\n# in between\nnew\tvalue\nc\tother\n"
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(os.listdir(site)) == ["aliases", "main.cf", "map"]


def test_bad_input_changes_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("x y\nbad\n"))
    assert run(postmap, site, "-i", f"hash:{site}/map") == 1
    assert (site / "map").read_text() == "a b\nC d\n"


def test_alias_names_are_quoted_if_needed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('"odd name": "|cmd x"\n'))
    assert run(postalias, site, "-i", f"hash:{site}/aliases") == 0
    assert (site / "aliases").read_text().endswith('"odd name": "|cmd x"\n')
    assert run(postalias, site, "-d", "odd name", f"hash:{site}/aliases") == 0
    assert "odd name" not in (site / "aliases").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: postmap"),
        (["-x", "m"], "option -x not recognized"),
        (["hash:/nonexistent/m"], "No such file"),
        (["-q", "a", "hash:/nonexistent/m"], "No such file"),
        (["-q", "a", "foo:m"], 'unknown table type "foo"'),
        (["regexp:/etc/m"], "neither built nor changed"),
        (["-b", "-q", "a", "regexp:/etc/m"], "not supported"),
        (["-s", "static:x"], "can't be listed"),
    ],
)
def test_misuse_is_one_line_and_status_1(
    site: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert run(postmap, site, *arguments) == 1
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("postmap: fatal: ")
    assert err.count("\n") == 1


def test_json_output_is_valid(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(postalias, site, "-j", "-s", f"hash:{site}/aliases") == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"root": "admin"}, {"the list": "a, b"}]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a file away")
def test_root_edits_a_users_file_with_rights_of_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    directory = tmp_path / "theirs"
    directory.mkdir()
    os.chmod(tmp_path, 0o755)
    for parent in tmp_path.parents:
        if parent.stat().st_uid == 0 and str(parent).startswith("/tmp/"):
            os.chmod(parent, 0o755)
    path = directory / "m"
    path.write_text("a b\n")
    os.chown(directory, 65534, 65534)
    os.chown(path, 65534, 65534)
    monkeypatch.setattr("sys.stdin", io.StringIO("c d\n"))
    assert run(postmap, tmp_path, "-i", f"hash:{path}") == 0
    assert path.stat().st_uid == 65534
    assert os.geteuid() == 0
