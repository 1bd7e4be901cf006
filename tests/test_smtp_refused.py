"""Logins that servers have refused: they are not tried again, as in Postfix, and no password gets into the file."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from postillion.config import ConfigError
from postillion.delivery.smtp.refused import LOGINS_MAX, SAID_MAX_CHARS, Account, Refusal, RefusedLogins
from support.memory_config import config
from support.mta import Site, commands_of, running, wait_for
from support.peers import postfix_home, root
from support.sasl import AuthServer

CANARY = "c4n4ry-Rot"
MESSAGES = 3
PROXIES = "proxywrite unix - - n - 1 proxymap\n"
WRONG = Refusal("5.7.8", "535 5.7.8 no such login")


class Case(NamedTuple):
    """A server's reply to a login, and parameters of the client."""

    reply: str
    parameters: dict[str, str]


CASES = {
    "refused": Case(WRONG.said, {}),
    "refused for good": Case(WRONG.said, {"smtp_sasl_auth_soft_bounce": "no"}),
    "refused without a code": Case("535 no", {}),
    "later": Case("454 4.7.0 later", {}),
    "too weak": Case("534 5.7.9 use another mechanism", {}),
    "nothing is remembered": Case(WRONG.said, {"smtp_sasl_auth_cache_name": ""}),
}


def outcome(directory: Path, program: str, case: Case) -> tuple[list[str], list[list[str]]]:
    """Return the statuses of some messages, one after the other, and the client's lines on each connection."""
    server = AuthServer(["AUTH PLAIN"], [case.reply])
    main_cf = {
        "transport_maps": f"inline:{{ {{ x.example = smtp:[127.0.0.1]:{server.port} }} }}",
        "smtp_host_lookup": "native",
        "minimal_backoff_time": "1h",
        "smtp_sasl_auth_enable": "yes",
        "smtp_sasl_security_options": "noanonymous",
        "smtp_sasl_password_maps": f"inline:{{ {{ 127.0.0.1 = user:{CANARY} }} }}",
        "smtp_sasl_auth_cache_name": "proxy:btree:$data_directory/refused",
        **case.parameters,
    }
    site = Site(directory, main_cf=main_cf, master_cf=f"smtp unix - - n - 1 smtp\n{PROXIES}")
    status = re.compile(r" to=<r@x\.example>.* dsn=(\S+, status=.*)")
    command = [str(commands_of(program) / "sendmail"), "-C", str(site.etc), "-f", "s@example.org", "r@x.example"]
    with running(site, program):
        for number in range(MESSAGES):
            subprocess.run(command, input=b"Subject: x\n\nhi\n", check=True, timeout=60)
            wait_for("a status", lambda most=number: len(status.findall(site.log_text())) > most)  # type: ignore[misc]
    server.close()
    told = site.log_text()
    assert CANARY not in told
    assert not [
        path for path in (directory / "data").rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    return status.findall(told), server.heard


@pytest.mark.parametrize("name", CASES)
def test_a_refused_login_is_remembered_as_by_postfix(tmp_path: Path, name: str) -> None:
    root()
    postfix_home()
    expected = outcome(tmp_path / "postfix", "postfix", CASES[name])
    assert outcome(tmp_path / "postillion", "postillion", CASES[name]) == expected
    tried = sum(any(line.startswith("AUTH") for line in lines) for lines in expected[1])
    assert tried == (1 if name.startswith("refused") else MESSAGES)


def logins(directory: Path, warnings: list[str] | None = None, lasting_s: float = 100.0) -> RefusedLogins:
    """Return the logins in a file."""
    said = [] if warnings is None else warnings
    return RefusedLogins(directory / "refused.json", lasting_s, said.append)


def account(user: str = "user", password: str = CANARY, host: str = "mx.example") -> Account:
    """Return an account."""
    return Account(host, user, password.encode())


def test_only_the_same_login_is_refused_and_only_for_its_time(tmp_path: Path) -> None:
    logins(tmp_path).note(account(), WRONG, 1000.0)
    other = logins(tmp_path)
    for wanted, now, refusal in [
        (account(), 1000.0, WRONG),
        (account(host="MX.example"), 1099.9, WRONG),
        (account(), 1100.0, None),
        (account(), 999.0, None),
        (account(password="another"), 1000.0, None),
        (account(user="User"), 1000.0, None),
        (account(host="mx2.example"), 1000.0, None),
    ]:
        assert other.find(wanted, now) == refusal


def test_processes_see_what_others_have_noted(tmp_path: Path) -> None:
    first, second = logins(tmp_path), logins(tmp_path)
    assert first.find(account(), 1.0) is None
    second.note(account(), WRONG, 1.0)
    first.note(account("other"), WRONG, 2.0)
    assert [of.find(account(name), 3.0) for of in (first, second) for name in ("user", "other")] == [WRONG] * 4


def test_removed_file_forgets_all_logins(tmp_path: Path) -> None:
    first, second = logins(tmp_path), logins(tmp_path)
    first.note(account(), WRONG, 1.0)
    assert second.find(account(), 2.0) == WRONG
    (tmp_path / "refused.json").unlink()
    assert (first.find(account(), 3.0), second.find(account(), 3.0)) == (None, None)


def test_no_password_is_in_the_file_and_in_texts(tmp_path: Path) -> None:
    logins(tmp_path).note(account(), WRONG, 1.0)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    text = file.read_text()
    assert "user" in text
    assert CANARY not in text
    assert CANARY not in repr(account())


def test_number_of_logins_and_length_of_replies_are_bounded(tmp_path: Path) -> None:
    of = logins(tmp_path, lasting_s=1e9)
    rows = [[f"mx.example;{number}", float(number), "00", "00", "5.7.8", "no"] for number in range(LOGINS_MAX)]
    (tmp_path / "refused.json").write_text(json.dumps({"format": 1, "refused": rows}))
    of.note(account(), Refusal("5.7.8", "x" * 10_000), 1e6)
    found = json.loads((tmp_path / "refused.json").read_text())["refused"]
    assert (len(found), found[0][0], len(found[-1][5])) == (LOGINS_MAX, "mx.example;1", SAID_MAX_CHARS)


DAMAGED = [
    *("", "{", "[]", '{"format": 2, "refused": []}', '{"format": 1, "refused": [[1]]}', "[" * 100_000),
    '{"format": 1, "refused": [["k", 1, "zz", "", "5.7.8", "x"]]}',
    '{"format": 1, "refused": [["k", NaN, "", "", "", ""]]}',
    '{"format": 1, "refused": [["k", 1, "00", "\u00e4", "5.7.8", "x"]]}',
]


@pytest.mark.parametrize("text", DAMAGED, ids=range(len(DAMAGED)))
def test_damaged_file_is_a_warning_and_is_replaced(tmp_path: Path, text: str) -> None:
    warnings: list[str] = []
    (tmp_path / "refused.json").write_text(text)
    of = logins(tmp_path, warnings)
    assert of.find(account(), 1.0) is None
    assert len(warnings) == 1
    assert warnings[0].startswith(f"refused logins in {tmp_path}/refused.json: ")
    of.note(account(), WRONG, 1.0)
    assert logins(tmp_path).find(account(), 1.0) == WRONG


def test_pipe_in_place_of_the_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "refused.json")
    assert logins(tmp_path).find(account(), 1.0) is None


def test_link_in_place_of_the_draft_is_not_followed(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text("content")
    (tmp_path / f".refused.json.{os.getpid()}").symlink_to(other)
    warnings: list[str] = []
    of = logins(tmp_path, warnings)
    of.note(account(), WRONG, 1.0)
    assert len(warnings) == 1
    of.note(account(), WRONG, 2.0)
    assert (other.read_text(), logins(tmp_path).find(account(), 3.0)) == ("content", WRONG)


def test_file_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    of = RefusedLogins(tmp_path / "none" / "refused.json", 100.0, warnings.append)
    of.note(account(), WRONG, 1.0)
    assert warnings == [f"refused logins cannot be written to {tmp_path}/none/refused.json: No such file or directory"]
    assert of.find(account(), 1.0) == WRONG


@pytest.mark.parametrize("name", ["btree:/x", "proxy:btree", "proxy::x", "proxy:btree:"])
def test_bad_table_name_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match="bad table name"):
        RefusedLogins.of(config(smtp_sasl_auth_cache_name=name), "smtp", print)
