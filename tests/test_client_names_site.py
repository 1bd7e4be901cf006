"""Host names and empty table values in lists of networks and domains. One site, run by Postillion and by Postfix."""

import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.either import PROGRAMS, program
from support.mta import Site, running

LISTS = {
    "127.0.0.1:{}": "inline:{{ {{ localhost = }} }}",
    "127.0.0.2:{}": "192.0.2.0/24, localhost",
    "127.0.0.3:{}": "192.0.2.0/24, .localhost, hostlocal",
    "127.0.0.4:{}": "!localhost, 127.0.0.0/8",
}
"""mynetworks of services that listen on these addresses. The client, 127.0.0.1, is `localhost`."""
RELAYS = {"127.0.0.1": True, "127.0.0.2": True, "127.0.0.3": False, "127.0.0.4": False}


@pytest.fixture(scope="module", params=PROGRAMS)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not any(line.split()[:2] == ["127.0.0.1", "localhost"] for line in Path("/etc/hosts").read_text().splitlines()):
        pytest.skip("/etc/hosts does not name 127.0.0.1")
    by = program(request)
    site = Site(
        tmp_path_factory.mktemp(by), main_cf={"smtpd_peername_lookup": "yes", "default_transport": "smtp:[127.0.0.1]:1"}
    )
    lines = ""
    for address, networks in LISTS.items():
        override = f"-o {{ mynetworks = {networks.format()} }}"
        lines += f"{address.format(site.port)} inet n - n - - smtpd {override}\n"
    master_cf = site.etc / "master.cf"
    text = master_cf.read_text()
    master_cf.write_text(lines + text.partition("\n127.0.0.1:")[2].partition("\n")[2])
    with running(site, by):
        yield site


@pytest.mark.parametrize("address", RELAYS)
def test_host_name_matches_the_name_of_the_client(site: Site, address: str) -> None:
    with smtplib.SMTP(address, site.port, timeout=30, source_address=("127.0.0.1", 0)) as client:
        client.ehlo("client.example")
        client.mail("a@example.net")
        code, text = client.rcpt("b@far.example")
    assert code == (250 if RELAYS[address] else 554), text
