"""postmap, postalias, newaliases: indexes, queries, changes, exit status; beside Debian's own where it is installed."""

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from postillion.commands.postmap import POSTMAP
from support.mta import let_others_pass

COMMANDS = Path(sys.executable).parent
real_only = pytest.mark.skipif(shutil.which("/usr/sbin/postmap") is None, reason="compares with a real postmap")


class Done(NamedTuple):
    """The result of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "main.cf").write_text(
        f"compatibility_level = 3.6\nmyhostname = mx.example\ndefault_database_type = hash\n"
        f"alias_maps = hash:{tmp_path}/aliases\nalias_database = hash:{tmp_path}/aliases\n"
    )
    (tmp_path / "aliases").write_text('root: admin\n"the list": a, b\n')
    (tmp_path / "map").write_text("a b\nC d\n")
    return tmp_path


def run(command: str, site: Path, *arguments: str, stdin: str = "", real: bool = False) -> Done:
    """Run our command, or Debian's, in the site's directory."""
    program = f"/usr/sbin/{command}" if real else str(COMMANDS / command)
    done = subprocess.run(
        [program, "-c", str(site), *arguments],
        input=stdin.encode(),
        capture_output=True,
        check=False,
        timeout=60,
        cwd=site,
    )
    return Done(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def test_indexes_are_written_and_decide(site: Path) -> None:
    (site / "map").chmod(0o640)
    remark = 'record is in "key: value" format; is this an alias file?'
    warnings = "".join(f"postmap: warning: aliases, line {line}: {remark}\n" for line in (1, 2))
    assert run("postmap", site, "hash:map", "cdb:map", "lmdb:map", "btree:aliases") == (0, "", warnings)
    names = ("map.db", "map.cdb", "map.lmdb")
    assert [oct((site / name).stat().st_mode & 0o777) for name in names] == ["0o640"] * 3
    (site / "map").write_text("a changed\n")
    for kind in ("hash", "cdb", "lmdb"):
        done = run("postmap", site, "-q", "A", f"{kind}:map")
        assert (done.status, done.out) == (0, "b\n")
    assert run("postmap", site, "map").status == 0
    assert run("postmap", site, "-q", "a", "map") == (0, "changed\n", "")


def test_newaliases_writes_the_alias_databases(site: Path) -> None:
    assert run("newaliases", site) == (0, "", "")
    assert run("postalias", site, "-q", "the list", "aliases") == (0, "a, b\n", "")
    assert run("postalias", site, "-q", "-", "aliases", stdin='ROOT\n"the list"\nx\n') == (
        0,
        'ROOT:\tadmin\n"the list":\ta, b\n',
        "",
    )
    assert run("postalias", site, "-s", "aliases").out == "root:\tadmin\nthe list:\ta, b\n"
    lines = run("postalias", site, "-j", "-s", "aliases").out.splitlines()
    assert [json.loads(line) for line in lines] == [{"root": "admin"}, {"the list": "a, b"}]


def test_json_has_the_octets_of_keys_and_values(site: Path) -> None:
    (site / "odd").write_bytes(b'\xc3\xbc "q"\\\ta\x01\x7f/\nbad \xff\xc3\n')
    assert run("postmap", site, "-u", "hash:odd").status == 0
    lines = [b'{"\xc3\xbc": "\\"q\\"\\\\\\ta\\u0001\\u007F/"}\n', b'{"bad": "\xff\xc3"}\n']
    asked: list[tuple[list[str], bytes, list[bytes]]] = [
        (["-s"], b"", lines),
        (["-q", "\u00fc"], b"", lines[:1]),
        (["-q", "bad"], b"", lines[1:]),
        (["-q", "-"], b"\xc3\xbc\nbad\nnone\n", lines),
    ]
    for words, keys, expected in asked:
        command = [str(COMMANDS / "postmap"), "-c", str(site), "-ju", *words, "hash:odd"]
        done = subprocess.run(command, input=keys, capture_output=True, check=True, timeout=60, cwd=site)
        assert done.stdout.splitlines(keepends=True) == expected
    assert json.loads(lines[0]) == {"\u00fc": '"q"\\\ta\x01\x7f/'}


def test_entries_are_added_replaced_and_removed(site: Path) -> None:
    for kind in ("hash", "lmdb"):
        name = f"{kind}:map"
        assert run("postmap", site, name).status == 0
        done = run("postmap", site, "-i", name, stdin="c other\nnew value\n")
        place = "map.db" if kind == "hash" else "lmdb:map"
        assert done == (0, "", f'postmap: warning: {place}: duplicate entry: "c"\n')
        assert run("postmap", site, "-iw", name, stdin="c other\n") == (0, "", "")
        assert run("postmap", site, "-q", "c", name).out == "d\n"
        assert run("postmap", site, "-ir", name, stdin="c other\n") == (0, "", "")
        assert run("postmap", site, "-q", "c", name).out == "other\n"
        assert run("postmap", site, "-d", "A", name).status == 0
        assert run("postmap", site, "-d", "a", name).status == 1
        assert run("postmap", site, "-d", "-", name, stdin="zz\nnew\n").status == 0
        assert run("postmap", site, "-s", name).out == "c\tother\n"
    assert sorted(os.listdir(site)) == ["aliases", "main.cf", "map", "map.db", "map.lmdb"]


def test_values_from_files(site: Path) -> None:
    (site / "one").write_text("one\n")
    (site / "two").write_text("two")
    (site / "map").write_text("f one, two\n")
    assert run("postmap", site, "-F", "hash:map") == (0, "", "")
    assert run("postmap", site, "-q", "f", "hash:map").out == "b25lCgp0d28=\n"
    assert run("postmap", site, "-Fq", "f", "hash:map").out == "one\n\ntwo\n"
    assert run("postmap", site, "-Fq", "f", "texthash:map").out == "one\n\ntwo\n"
    (site / "map").write_text("x notbase64!\n")
    run("postmap", site, "hash:map")
    assert run("postmap", site, "-Fq", "x", "hash:map").err == "postmap: fatal: malformed BASE64 value: notbase64!\n"


def test_case_is_kept_if_wanted(site: Path) -> None:
    run("postmap", site, "-f", "hash:map")
    assert run("postmap", site, "-fq", "C", "hash:map").out == "d\n"
    assert run("postmap", site, "-q", "C", "hash:map").status == 1


def test_missing_index_names_the_command(site: Path) -> None:
    for command in ("postmap", "postalias"):
        done = run(command, site, "-q", "a", "hash:map")
        fix = f'No such file or directory: run "{command} hash:map"'
        assert done == (1, "", f"{command}: fatal: table hash:map: open database map.db: {fix}\n")


MESSAGE = (
    "Subject: x\nTo: a\n\tb\nContent-Type: multipart/mixed; boundary=q\n\nbody1\n--q\nContent-Type: text/plain\n\n"
    "part\n--q\nContent-Type: message/rfc822\n\nSubject: inner\n\ninside\n--q--\nend\n"
)

PATTERNS = """\
/^user\\+(.*)@/ got $1
/^a$/i yes
!/x(y)/ no $1
/(b)|(c)/ 1=$1 2=${2} 3=$(1) $$1
/d(e)/ $2 high
abc no delim
/unclosed
/f/q badflag
/h/ix  spaced  value
|p/q| slash
if /w/
/wa/ one
endif
if !/w/
/v/ vee
endif
endif
/n6/ a$$b
/(n)(7)/ $12
/^M$/m multi
/\\// esc
if /unended/
/./ last
"""

NETWORKS = """\
192.0.2.1 REJECT
192.0.2.0/24\tOK
1.2.3.4/33 x
192.168.0.1/24 hb
!10.0.0.0/8 V4
[10.1.0.0]/16 BR
010.0.0.1 OCT
noval
10.3.0.0/16
endif
if 10.0.0.0/8
10.9.0.0/16 NINE
"""

MAPS = 'a b\nbad\n  cont\nC d\nc e\nkey: value\n"q k" v\n"unb v\n\xc4b umlaut\nuser@example.com one, two\n'
KEYS = 'a\nA\nzz\nbad\nc\nkey:\n"q k"\nkey\n\xe4b\nUser@Example.com\n192.0.2.7\n10.1.1.1\n10.9.1.1\nx\ndexy\nwa\nv xy\n'

SAME = [
    ("create hash", "postmap", ["hash:m"], ""),
    ("create cdb", "postmap", ["cdb:m"], ""),
    ("create lmdb", "postmap", ["lmdb:m"], ""),
    ("create aliases", "postalias", ["hash:al"], ""),
    ("create without text", "postmap", ["hash:none"], ""),
    ("create texthash", "postmap", ["texthash:m"], ""),
    ("create regexp", "postmap", ["regexp:re"], ""),
    ("create unknown", "postmap", ["foo:m"], ""),
    ("query texthash", "postmap", ["-q", "-", "texthash:m"], KEYS),
    ("query one", "postmap", ["-q", "A", "texthash:m"], ""),
    ("query missing", "postmap", ["-q", "zz", "texthash:m"], ""),
    ("query two tables", "postmap", ["-q", "-", "inline:{a=1}", "texthash:m"], "a\nbad\n"),
    ("query regexp", "postmap", ["-q", "-", "regexp:re"], KEYS),
    ("query pcre", "postmap", ["-q", "-", "pcre:re"], KEYS),
    ("query cidr", "postmap", ["-q", "-", "cidr:c"], KEYS),
    ("query inline", "postmap", ["-q", "a", "inline:{a=b a=c}"], ""),
    ("query unionmap", "postmap", ["-q", "a", "unionmap:{inline:{a=1},inline:{a=2}}"], ""),
    ("query static", "postmap", ["-q", "a", "static:{ x y }"], ""),
    ("query accounts", "postmap", ["-q", "ROOT", "unix:passwd.byname"], ""),
    ("query header", "postmap", ["-hq", "-", "regexp:any"], MESSAGE),
    ("query body", "postmap", ["-bq", "-", "regexp:any"], MESSAGE),
    ("query header with MIME", "postmap", ["-hmq", "-", "regexp:any"], MESSAGE),
    ("query body with MIME", "postmap", ["-bmq", "-", "regexp:any"], MESSAGE),
    ("query both", "postmap", ["-hbq", "-", "regexp:any"], MESSAGE),
    ("list inline", "postmap", ["-s", "inline:{a=b}"], ""),
    ("list static", "postmap", ["-s", "static:m"], ""),
    ("no table", "postmap", [], ""),
    ("unknown option", "postmap", ["-x", "m"], ""),
    ("unknown long option", "postmap", ["--none", "m"], ""),
    ("two modes", "postmap", ["-q", "a", "-d", "b", "hash:m"], ""),
    ("header of a key", "postmap", ["-hq", "x", "regexp:any"], ""),
    ("change texthash", "postmap", ["-d", "a", "texthash:m"], ""),
    ("not UTF-8", "postmap", ["-q", "a", "texthash:u"], ""),
    ("without UTF-8", "postmap", ["-uq", "ok", "texthash:u"], ""),
]


@real_only
@pytest.mark.parametrize(("command", "arguments", "stdin"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_output_and_status_are_those_of_postfix(site: Path, command: str, arguments: list[str], stdin: str) -> None:
    files = {
        "m": MAPS,
        "re": PATTERNS,
        "c": NETWORKS,
        "any": "/^/ any\n",
        "al": 'root: a\nbad\na@b: c\nROOT: e\n"x": y\n',
    }
    for name, text in files.items():
        (site / name).write_text(text)
    (site / "u").write_bytes(b"k\xff v\nok \xfe\na b\n")
    for name in (*files, "u"):
        # Postfix reads a texthash file that has just changed again and again, and warns each time.
        os.utime(site / name, (0, 0))
    theirs = run(command, site, *arguments, stdin=stdin, real=True)
    for name in ("m.db", "m.cdb", "m.lmdb", "al.db"):
        (site / name).unlink(missing_ok=True)
    ours = run(command, site, *arguments, stdin=stdin)
    assert (ours.status, ours.out) == (theirs.status, theirs.out)
    assert adjusted(ours.err) == adjusted(theirs.err)


def adjusted(text: str) -> list[str]:
    """Return the lines of standard error without what differs on purpose (docs/known-issues.md)."""
    lines = []
    for line in text.splitlines():
        for ours, theirs in DIFFERENT:
            line = line.replace(ours, theirs)
        if "should return NO RESULT" not in line and "empty string result is not" not in line:
            lines.append(line)
    return lines


DIFFERENT = [
    # Options of 3.11, in the order of the manual page.
    ("[-bfFhijmnNoprsuUvw]", "[-bfFhimnNoprsuUvw]"),
    # Postfix's texts differ between its table types.
    (": ignoring this rule", ": skipping this rule"),
    (" -- ignoring this line", ""),
    (". Is the postfix-foo package installed?", ""),
]


def test_misuse_is_one_line_and_status_1(site: Path) -> None:
    for arguments, message in [
        (["-m", "hash:map"], 'specify -b -h or -m only with "-q -"'),
        (["-i", "cdb:map"], "a cdb file is not changed but created anew from its text"),
        (["-d", "a", "hash:/nonexistent/m"], "open database /nonexistent/m.db: No such file or directory"),
        (["fail:map"], "write error"),
    ]:
        done = run("postmap", site, *arguments)
        assert (done.status, done.err.count("\n")) == (1, 1)
        assert done.err.startswith("postmap: fatal: ")
        assert message in done.err


def test_text_in_place_of_which_there_is_a_fifo_does_not_block(site: Path) -> None:
    os.mkfifo(site / "fifo")
    assert run("postmap", site, "hash:fifo").status == 0
    assert run("postmap", site, "-s", "hash:fifo").out == ""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to give a file away")
def test_root_writes_a_users_index_with_rights_of_user(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\n")
    directory = tmp_path / "theirs"
    directory.mkdir()
    let_others_pass(tmp_path)
    path = directory / "m"
    path.write_text("a b\n")
    os.chown(directory, 65534, 65534)
    os.chown(path, 65534, 65534)
    secret = tmp_path / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    (directory / "m.lmdb").symlink_to(secret)
    for kind in ("hash", "cdb"):
        assert run("postmap", tmp_path, f"{kind}:{path}") == (0, "", "")
    assert run("postmap", tmp_path, "-i", f"hash:{path}", stdin="c d\n") == (0, "", "")
    assert {(directory / name).stat().st_uid for name in ("m.db", "m.cdb")} == {65534}
    assert "Permission denied" in run("postmap", tmp_path, f"lmdb:{path}").err
    assert secret.read_text() == "root's\n"


def test_long_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"0123456789")))
    assert POSTMAP.stdin(10) == b"0123456789"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"0123456789")))
    with pytest.raises(SystemExit, match="1"):
        POSTMAP.stdin(9)
    assert capsys.readouterr().err == "postmap: fatal: standard input has more than 9 octets\n"
