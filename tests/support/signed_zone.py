"""Signed zones behind Debian's unbound, which validates them; BIND serves them. The key of each is a trust anchor."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.mta import listening, wait_for
from support.named import HEAD, named
from support.peers import peer
from support.ports import free_port

CONF = """
server:
    interface: {address}@{port}
    do-daemonize: no
    chroot: ""
    username: ""
    directory: "{directory}"
    pidfile: ""
    use-syslog: no
    logfile: ""
    log-time-ascii: yes
    do-ip6: no
    do-not-query-localhost: no
    module-config: "validator iterator"
    access-control: 127.0.0.0/8 allow
    num-threads: 1
    local-zone: "test." nodefault
    trust-anchor-file: "{directory}/anchors"
remote-control:
    control-enable: no
"""
STUB = 'stub-zone:\n    name: "{zone}"\n    stub-addr: 127.0.0.1@{port}\n'


def sign(directory: Path, zone: str, records: str, *, expired: bool = False) -> tuple[Path, str]:
    """Return the file of a signed zone, and its DNSKEY record for a trust anchor. `expired`: no signature is valid."""
    words = [peer("dnssec-keygen"), "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", "-K", str(directory), zone]
    name = subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()
    unsigned, signed = directory / f"zone.{zone}.unsigned", directory / f"zone.{zone}"
    unsigned.write_text(HEAD + records)
    dates = ["-s", "20200101000000", "-e", "20200201000000"] if expired else []
    words = [peer("dnssec-signzone"), "-S", "-z", "-P", "-K", str(directory), "-d", str(directory), *dates]
    subprocess.run([*words, "-o", zone, "-f", str(signed), str(unsigned)], check=True, capture_output=True)
    lines = (directory / f"{name}.key").read_text().splitlines()
    return signed, next(line for line in lines if line and not line.startswith(";"))


@contextlib.contextmanager
def validating(
    directory: Path,
    signed: Mapping[str, str],
    unsigned: Mapping[str, str] | None = None,
    *,
    bogus: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[int]:
    """Run a validating resolver for zones with these records; yield its port.

    `signed`: its answers have the AD bit. `unsigned`: they do not. `bogus`: no signature is valid, so each question is
    SERVFAIL. `port`: 0 for any. Raises `RuntimeError` with the log if a server does not start.
    """
    files: dict[str, str | Path] = dict(unsigned or {})
    anchors: list[str] = []
    for zones, expired in ((signed, False), (bogus or {}, True)):
        for zone, records in zones.items():
            files[zone], anchor = sign(directory, zone, records, expired=expired)
            anchors.append(anchor)
    with named(directory, files) as upstream:
        port = port or free_port()
        conf = CONF.format(address=address, port=port, directory=directory)
        conf += "".join(STUB.format(zone=zone, port=upstream) for zone in files)
        (directory / "unbound.conf").write_text(conf)
        (directory / "anchors").write_text("".join(anchor + "\n" for anchor in anchors))
        with (directory / "unbound.log").open("wb") as log:
            command = [peer("unbound"), "-d", "-c", str(directory / "unbound.conf")]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            with contextlib.suppress(TimeoutError):
                wait_for("unbound", lambda: process.poll() is not None or listening(port))
            if not listening(port):
                raise RuntimeError("unbound does not start:\n" + (directory / "unbound.log").read_text())
            yield port
        finally:
            process.terminate()
            process.wait()
