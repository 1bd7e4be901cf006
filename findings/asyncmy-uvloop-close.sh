#!/bin/sh
# asyncmy 0.2.18 with uvloop 0.23.0: when the server closes the connection right after accept(2), connect() raises
# RuntimeError, which is none of the library's own errors. Under asyncio's own event loop, the same server gives
# OperationalError.
#
# PEP 249 gives a library one base class for its errors, and asyncmy has it (errors.MySQLError). So the guess is that
# "except MySQLError" and OSError cover a server that goes away: a proxy without a live backend, or a server that is full.
# asyncmy sets options of the socket before it reads, and a transport of uvloop that has ended has no socket for it.
#
# Exit status 0 while uvloop gives RuntimeError and asyncio an error of the library.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet asyncmy==0.2.18 uvloop==0.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
import threading

import uvloop
from asyncmy.connection import Connection
from asyncmy.errors import MySQLError

ATTEMPTS = 50


def close_each(listening: socket.socket) -> None:
    for _ in range(2 * ATTEMPTS):
        listening.accept()[0].close()


async def errors(port: int) -> set[type[BaseException]]:
    found = set()
    for _ in range(ATTEMPTS):
        try:
            await Connection(host="127.0.0.1", port=port, user="u", password=b"p").connect()
        except Exception as problem:
            found.add(type(problem))
    return found


with socket.create_server(("127.0.0.1", 0)) as listening:
    threading.Thread(target=close_each, args=(listening,), daemon=True).start()
    port = listening.getsockname()[1]
    with asyncio.Runner() as runner:
        own = runner.run(errors(port))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        uv = runner.run(errors(port))
for name, found in (("asyncio", own), ("uvloop", uv)):
    print(name, sorted(error.__name__ for error in found))
assert all(issubclass(error, (MySQLError, OSError)) for error in own)
assert any(error is RuntimeError for error in uv)
PYTHON
