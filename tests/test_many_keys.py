"""postmap -q -: keys from standard input, many or one by one; beside Debian's own where it is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from postillion._core import tables as core

COMMANDS = Path(sys.executable).parent
REAL = "/usr/sbin/postmap"
PATIENCE_S = 60
LARGE_OCTETS = 33 * 1024 * 1024
"""More than a table keeps in memory unasked."""
TYPES = ("hash", "btree", "cdb", "lmdb", "texthash", "cidr", "regexp", "pcre", "inline", "unionmap")
ENTRIES = 3000


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "main.cf").write_text("compatibility_level = 3.6\nmyhostname = mx.example\n")
    (tmp_path / "map").write_text("".join(f"User{number}@example.com {number}\n" for number in range(ENTRIES)))
    rules = "".join(f"/^user{number}@(.*)/ {number} $1\n!/^(user|192)/ other\n" for number in range(0, ENTRIES, 100))
    (tmp_path / "rules").write_text(rules)
    networks = "".join(f"192.0.{number >> 8}.{number & 255} {number}\n" for number in range(ENTRIES))
    (tmp_path / "networks").write_text(networks)
    return tmp_path


def table(kind: str) -> str:
    """Return the name of a table of the site."""
    match kind:
        case "cidr":
            return "cidr:networks"
        case "regexp" | "pcre":
            return f"{kind}:rules"
        case "inline":
            return "inline:{{user1@example.com = one}}"
        case "unionmap":
            return "unionmap:{texthash:map,internal:x}"
        case _:
            return f"{kind}:map"


def ask(site: Path, *arguments: str, keys: bytes, program: str = str(COMMANDS / "postmap")) -> tuple[int, bytes]:
    """Return the exit status and the answers of a `postmap -q -`."""
    command = [program, "-c", str(site), "-q", "-", *arguments]
    done = subprocess.run(command, input=keys, stdout=subprocess.PIPE, check=False, timeout=PATIENCE_S)
    return done.returncode, done.stdout


def keys() -> bytes:
    """Return keys of all sites' tables, half of them unknown, in a mixed order."""
    lines = []
    for number in range(2 * ENTRIES):
        other = number * 7919 % (2 * ENTRIES)
        lines += [f"USER{other}@example.com", f"192.0.{other >> 8}.{other & 255}"]
    return "\n".join(["", "k\xe4y", *lines]).encode()


@pytest.mark.parametrize("kind", TYPES)
def test_many_keys_have_the_answers_of_single_lookups(site: Path, kind: str) -> None:
    if kind in ("hash", "btree", "cdb", "lmdb"):
        subprocess.run([COMMANDS / "postmap", "-c", site, f"{kind}:map"], check=True)
    one = core.open_table(table(kind))
    expected = []
    for line in keys().split(b"\n"):
        value = one.lookup(line.decode())
        if value is not None:
            expected.append(line + b"\t" + value.encode() + b"\n")
    assert expected
    assert ask(site, table(kind), keys=keys()) == (0, b"".join(expected))
    assert ask(site, table(kind), keys=b"192.9.9.9\n") == (1, b"")


@pytest.mark.skipif(shutil.which(REAL) is None, reason="compares with a real postmap")
@pytest.mark.parametrize("kind", ["hash", "cdb", "lmdb", "texthash", "cidr", "regexp", "pcre"])
@pytest.mark.parametrize("options", [[], ["-f"], ["-u"]], ids=lambda options: "".join(options) or "plain")
def test_answers_are_those_of_postfix(site: Path, kind: str, options: list[str]) -> None:
    # Postfix's LMDB does not take an empty key: the command ends.
    given = keys().lstrip(b"\n") if kind == "lmdb" else keys()
    answers = []
    for program in (REAL, str(COMMANDS / "postmap")):
        if kind in ("hash", "cdb", "lmdb"):
            subprocess.run([program, "-c", site, *options, f"{kind}:map"], check=True)
        answers.append(ask(site, *options, table(kind), keys=given, program=program))
        for index in site.glob("map.*"):
            index.unlink()
    assert answers[0] == answers[1]


def test_long_key_is_read_in_parts(site: Path) -> None:
    long = b"k" * (3 * 1024 * 1024)
    assert ask(site, "static:x", keys=long + b"\nshort") == (0, long + b"\tx\nshort\tx\n")


def test_program_that_waits_for_an_answer_gets_it(site: Path) -> None:
    command = [str(COMMANDS / "postmap"), "-c", str(site), "-q", "-", "texthash:map"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number in (1, 7):
            running.stdin.write(f"none\nuser{number}@example.com\n".encode())
            running.stdin.flush()
            assert running.stdout.readline() == f"user{number}@example.com\t{number}\n".encode()
        running.stdin.close()
        assert running.wait(PATIENCE_S) == 0


@pytest.mark.parametrize("kind", ["hash", "cdb"])
def test_large_index_is_read_whole_for_many_keys_alone(site: Path, kind: str) -> None:
    value = "v" * 20_000
    count = LARGE_OCTETS // len(value) + 1
    (site / "map").write_text("".join(f"k{number} {value}\n" for number in range(count)))
    subprocess.run([COMMANDS / "postmap", "-c", site, f"{kind}:map"], check=True)
    few = b"k1\nnone\nk7"
    assert ask(site, f"{kind}:map", keys=few) == (0, b"".join(b"k%d\t%s\n" % (n, value.encode()) for n in (1, 7)))
    # Many lookups, few answers.
    many = b"k1\n" + b"none\n" * 20_000 + b"k7\n"
    assert ask(site, f"{kind}:map", keys=many) == ask(site, f"{kind}:map", keys=few)


@pytest.mark.parametrize("arguments", [["-q", "-"], ["-s"]])
def test_reader_may_stop_early(site: Path, arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(COMMANDS / "postmap"), "-c", str(site), *arguments, "texthash:map"]
    done = subprocess.run(command, input=keys(), stdout=writer, stderr=subprocess.PIPE, check=True, timeout=PATIENCE_S)
    os.close(writer)
    assert done.stderr == b""
