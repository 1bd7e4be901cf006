#!/bin/sh
# uvloop 0.23.0: a reader (loop.add_reader) of a socket that the peer has reset is called once, and never again. Under
# asyncio's own event loop, it is called until it has read all octets and met the error.
#
# add_reader is level-triggered: "monitor the fd for read availability and invoke callback". So the guess is that a
# reader may read a part, and is called for the rest. libuv stops a poll handle after POLLERR, and uvloop does not start
# it again. A client library that reads its server's last words on the first call never learns that the server has ended.
#
# Exit status 0 while uvloop leaves the rest unread and asyncio does not.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet uvloop==0.23.0
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import socket
import struct

import uvloop

WAIT_S = 1.0


async def sees_the_end() -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_connection(listening.getsockname()) as client:
        server, _ = listening.accept()
        server.sendall(b"last words")
        server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        server.close()
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            try:
                client.recv(4)
            except ConnectionResetError:
                ended.set()

        client.setblocking(False)
        loop.add_reader(client, read)
        try:
            async with asyncio.timeout(WAIT_S):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(client)
        return True


found = {}
for name, factory in (("asyncio", asyncio.new_event_loop), ("uvloop", uvloop.new_event_loop)):
    with asyncio.Runner(loop_factory=factory) as runner:
        found[name] = runner.run(sees_the_end())
print(found)
raise SystemExit(found != {"asyncio": True, "uvloop": False})
PYTHON
