"""tests/sites.py reports the site configurations that run whole, and the needs of the others."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import sites
from postillion.config import Config, ConfigError
from postillion.tables import open_maps
from support import site_copy, site_repair

NULL_CLIENT = """\
compatibility_level = 3.6
myhostname = a.example.org
myorigin = /etc/mailname
mydestination =
inet_interfaces = 192.0.2.77
relayhost = [smart.example.org]
local_transport = error:no
transport_maps = hash:/etc/postfix/transport, pcre:$config_directory/x
smtpd_relay_restrictions = permit_mynetworks, reject
max_use = 3
"""
SERVER = """\
compatibility_level = 3.6
myhostname = a.example.org
mydestination = localhost, /etc/postfix/local-host-names
no_such_parameter_yet = $mydestination
smtpd_recipient_restrictions = permit_mynetworks, sleep 5, reject_unauth_destination, smtp_no_such_word
  permit
smtpd_relay_restrictions = permit_mynetworks, reject
lmtp_host_lookup = nonsense
"""
SERVER_MASTER = """\
smtp inet n - y - - smtpd
  -o smtpd_proxy_timeout=1 -o inet_protocols=decnet
qmgr unix n - n 300 1 qmgr
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
relay unix - - n - - smtp
local unix - n n - - local
error unix - - n - - error
"""


def test_report_names_whole_sites_and_counts_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, main_cf, master_cf in (("null", NULL_CLIENT, ""), ("server", SERVER, SERVER_MASTER)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.cf").write_text(main_cf)
        if master_cf:
            (tmp_path / name / "master.cf").write_text(master_cf)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.cf")}
    assert sites.main([str(tmp_path)]) == 0
    report = capsys.readouterr().out.splitlines()
    assert report[0] == "null: whole"
    assert report[1].startswith("server: lacks ")
    assert "1 of 2 sites run whole, 0 are refused as by Postfix" in report
    needs = [line.strip() for line in report if line.startswith("    ")]
    # One of each place: a word of a list in main.cf, a line of main.cf, an `-o` of master.cf.
    assert any('"smtp_no_such_word" is no restriction' in need for need in needs)
    assert any("lmtp_host_lookup" in need for need in needs)
    assert any("inet_protocols" in need for need in needs)
    # A need names its place, also behind a line that was taken away.
    assert any("lmtp_host_lookup" in need and need.endswith("(main.cf, line 8)") for need in needs)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.cf")} == before


def test_indexed_tables_are_read_by_their_indexes(tmp_path: Path) -> None:
    site, copy = tmp_path / "site", tmp_path / "copy"
    site.mkdir()
    copy.mkdir()
    (site / "main.cf").write_text("alias_maps = hash:/etc/aliases\ntransport_maps = cdb:/etc/postfix/transport\n")
    (site / "aliases").write_text("root: ann\n")
    (site / "transport").write_text("a.example smtp:b.example\n")
    site_copy.copy_site(site, copy)
    config = Config.load(str(copy))
    for name, key, value in (("alias_maps", "root", "ann"), ("transport_maps", "a.example", "smtp:b.example")):
        [table] = open_maps(name, config, warn=print).tables
        assert table.lookup(key) == value
        assert re.search(r"^(hash|cdb):", table.name)


def test_malformed_lines_are_needs_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "main.cf").write_bytes(b"a b\n= x\n\xff\xfe = \0\nalias_maps = $a(b\n${unterminated\n")
    (tmp_path / "master.cf").write_bytes(b"smtp inet\n\xff x\n")
    needs = sites.lacks(tmp_path)
    assert needs["refused: missing '=' after attribute name: \"a b\""] == ["main.cf, line 1"]
    assert needs["refused: missing '=' after attribute name: \"${unterminated\""] == ["main.cf, line 5"]
    assert needs['refused: missing "private" field'] == ["master.cf, line 1", "master.cf, line 2"]


def test_tables_behind_parameters_of_the_site_are_stubs(tmp_path: Path) -> None:
    site, copy = tmp_path / "site", tmp_path / "copy"
    site.mkdir()
    copy.mkdir()
    lines = (
        "indexed = ${default_database_type}:${config_directory}/",
        "transport_maps = ${indexed}transport",
        "relocated_maps = $indexed/relocated",
    )
    (site / "main.cf").write_text("\n".join(lines) + "\n")
    site_copy.copy_site(site, copy)
    config = Config.load(str(copy))
    for name in ("transport_maps", "relocated_maps"):
        [table] = open_maps(name, config, warn=print).tables
        assert table.name.startswith(f"hash:{copy / 'root'}/")


def test_refused_word_is_taken_from_the_parameter_that_holds_it(tmp_path: Path) -> None:
    lines = (
        "# first_check = sleep 5, reject_some_day",
        "first_check = sleep 5,",
        "    reject_some_day",
        "smtpd_recipient_restrictions = $first_check,",
        "    reject_unauth_destination",
        "myhostname = a.example.org",
    )
    path = tmp_path / "main.cf"
    path.write_text("\n".join(lines))
    problem = 'smtpd_recipient_restrictions: "reject_some_day" is not supported yet'
    assert site_repair.remove_refused(tmp_path, ConfigError(str(path), 4, problem, "fix"))
    assert path.read_text().split("\n") == [*lines[:2], "    ", *lines[3:]]
    # Nothing has the word now: the refused parameter goes. The other lines keep their numbers.
    assert site_repair.remove_refused(tmp_path, ConfigError(str(path), 4, problem, "fix"))
    assert path.read_text().split("\n") == [*lines[:2], "    ", "#", "#", lines[5]]


def test_site_that_postfix_refuses_too_is_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "main.cf").write_text("myhostname = a.example.org\nalias_maps =\n")
    assert sites.main([str(tmp_path)]) == 0
    report = capsys.readouterr().out.splitlines()
    assert report[0] == "old: refused as by Postfix"
    assert "0 of 1 sites run whole, 1 are refused as by Postfix" in report


def test_wrong_usage_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert sites.main([]) == 2
    assert "usage:" in capsys.readouterr().err
