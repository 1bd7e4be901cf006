#!/bin/sh
# asyncmy 0.2.18: a password given as str is encoded in Latin-1, whatever `charset` is, and one with a character outside
# Latin-1 raises UnicodeEncodeError in the constructor, before any connection.
#
# The connection's charset is utf8mb4, and MySQL and MariaDB hash the octets of the password, which mysql(1) and CREATE USER
# on a UTF-8 terminal take as UTF-8. So the guess that charset="utf8mb4" covers the password is wrong: the login of a user
# with "p\u00e4ss" is refused as a wrong password. Only bytes are passed on unchanged.
#
# Exit status 0 while the str becomes Latin-1, bytes stay, and a character outside Latin-1 raises.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet asyncmy==0.2.18
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio

from asyncmy.auth import scramble_native_password
from asyncmy.connection import Connection

NONCE = bytes(range(1, 21))


async def main() -> None:
    sent = {}

    async def server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeting = b"\x0a8.0.36\0" + bytes(4) + NONCE[:8] + b"\0" + b"\xff\xf7" + b"\x21" + b"\2\0" + b"\xff\x81"
        greeting += bytes([21]) + bytes(10) + NONCE[8:] + b"\0mysql_native_password\0"
        writer.write(len(greeting).to_bytes(3, "little") + b"\0" + greeting)
        size = int.from_bytes((await reader.readexactly(4))[:3], "little")
        login = await reader.readexactly(size)
        user_ends = login.index(b"\0", 32)
        sent["scramble"] = login[user_ends + 2 : user_ends + 2 + login[user_ends + 1]]
        writer.close()

    listening = await asyncio.start_server(server, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    found = {}
    for form, password in (("str", "p\u00e4ss"), ("bytes", "p\u00e4ss".encode())):
        try:
            await Connection(host="127.0.0.1", port=port, user="u", password=password, charset="utf8mb4").connect()
        except Exception as ended:
            print(f"{form}: the scripted server hung up after the login packet ({type(ended).__name__})")
        found[form] = next(
            name
            for name in ("latin-1", "utf-8")
            if scramble_native_password("p\u00e4ss".encode(name), NONCE) == sent["scramble"]
        )
        print(f"{form}: the password was hashed as {found[form]}")
    try:
        Connection(host="127.0.0.1", port=port, user="u", password="\u0142", charset="utf8mb4")
        outside = "accepted"
    except UnicodeEncodeError as problem:
        outside = problem.encoding
    print(f"U+0142: {outside}")
    assert found == {"str": "latin-1", "bytes": "utf-8"} and outside == "latin-1", found


asyncio.run(main())
PYTHON
