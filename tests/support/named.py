"""Debian's name server, for zones of a test."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from support.mta import listening, wait_for
from support.peers import peer
from support.ports import free_port

CONF = """
options {{
    directory "{directory}"; pid-file none; session-keyfile none; managed-keys-directory "{directory}";
    listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
    recursion no; dnssec-validation no; allow-transfer {{ none; }}; check-names primary ignore;
}};
controls {{ }};
"""
HEAD = "$TTL 300\n@ SOA ns hostmaster 1 3600 900 86400 60\n@ NS ns\nns A 127.0.0.1\n"
"""The records that each zone begins with. The time to live of a negative answer is 60 seconds."""


@contextlib.contextmanager
def named(directory: Path, zones: Mapping[str, str | Path | None], port: int | None = None) -> Iterator[int]:
    """Run a name server for these zones, with their records; yield its port. A zone without records gives SERVFAIL.

    A path is the file of a whole zone. `port`: a free one by default. Raises `RuntimeError` with its log if it does
    not start.
    """
    program = peer("named")
    port = port or free_port()
    conf = CONF.format(directory=directory, port=port)
    for zone, records in zones.items():
        file = records if isinstance(records, Path) else directory / f"zone.{zone}"
        if isinstance(records, str):
            file.write_text(HEAD + records)
        conf += f'zone "{zone}" {{ type primary; file "{file}"; }};\n'
    (directory / "named.conf").write_text(conf)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen([program, "-g", "-n", "1", "-c", str(directory / "named.conf")], stderr=log)
    try:
        with contextlib.suppress(TimeoutError):
            wait_for("named", lambda: process.poll() is not None or listening(port))
        if not listening(port):
            raise RuntimeError("named does not start:\n" + (directory / "log").read_text())
        yield port
    finally:
        process.terminate()
        process.wait()
