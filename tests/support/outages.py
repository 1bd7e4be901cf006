"""A site whose tables are on one server, and the clients that send while the server is killed and restarted."""

from __future__ import annotations

import itertools
import smtplib
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from support.mta import local_user, wait_for
from support.table_servers import MariaDb, Memcached, Postgres, PostSrsd, Slapd, TableServer, person

SENDERS = 4
USERS = 8
USER = "u{}@next.example"
ALIAS = "alias@next.example"
LIST = "list@example.org"
HELD = "held@held.example"
"""A recipient whose transport is in a local table."""
MARK = "X-Mark:yes"
"""A header without a space: memcached has no keys with one."""
SENDER = "s@sender.example"
GENERIC = "generic@public.example"


def rows(port: int) -> dict[str, dict[str, str]]:
    """Return the keys and values of each table, by its prefix on the server. `port`: the next hop's."""
    return {
        "": {USER.format(n): f"smtp:[127.0.0.1]:{port}" for n in range(USERS)},
        "v": {ALIAS: USER.format(0)},
        "g": {SENDER: GENERIC},
        "l": {LIST.partition("@")[0]: f"{local_user()}@example.org"},
        "h": {MARK: "PREPEND X-Seen: yes"},
    }


def flat(port: int) -> dict[str, str]:
    """Return the rows as the server has them."""
    found = rows(port).items()
    return {f"{prefix}:{key}" if prefix else key: value for prefix, row in found for key, value in row.items()}


class Case(NamedTuple):
    """A running server and the parameters that name it.

    `defers`: without the server, qmgr and the delivery agents cannot go on. `refuses`: nor can smtpd and cleanup.
    `sender`: the start of the sender's address at the next hop.
    """

    server: TableServer
    main_cf: dict[str, str]
    sender: str
    defers: bool = True
    refuses: bool = True


def parameters(kind: str, directory: Path, port: int, file: Callable[[str], str]) -> dict[str, str]:
    """Write the files of all tables; return the parameters. `file`: the text of the file of a prefix."""
    names: dict[str, str] = {}
    for prefix in rows(port):
        path = directory / f"table{prefix}.cf"
        path.write_text(file(prefix))
        path.chmod(0o600)
        names[prefix] = f"{kind}:{path}"
    return {
        "relay_domains": "next.example held.example",
        "relay_recipient_maps": f"inline:{{{HELD}=x}} {names['']}",
        "transport_maps": f"inline:{{held.example=smtp:[127.0.0.1]:{port}}} {names['']}",
        "virtual_alias_maps": names["v"],
        # Otherwise its failure is the first that qmgr meets, and no other is met.
        "virtual_alias_domains": "",
        "smtp_generic_maps": names["g"],
        "alias_maps": names["l"],
        "header_checks": f"regexp:{{{{/^X-Hold:/ HOLD}}}} {names['h']}",
    }


def sql_rows(port: int) -> str:
    """Return SQL for the rows."""
    return "".join(f"INSERT INTO aliases VALUES ('{key}', '{value}', '');" for key, value in flat(port).items())


def key_of(prefix: str) -> str:
    """Return the key of a prefix in a query."""
    return f"{prefix}:%s" if prefix else "%s"


def postgres(directory: Path, port: int) -> Case:
    return sql("pgsql", Postgres(), sql_rows(port), directory, port)


def mariadb(directory: Path, port: int) -> Case:
    return sql("mysql", MariaDb(), "USE mail;" + sql_rows(port), directory, port)


def sql(kind: str, server: Postgres | MariaDb, statements: str, directory: Path, port: int) -> Case:
    server.begin()
    server.sql(statements)
    query = "SELECT v FROM aliases WHERE k='{}'"
    main_cf = parameters(kind, directory, port, lambda prefix: server.file(query.format(key_of(prefix))))
    return Case(server, main_cf, GENERIC)


def slapd(directory: Path, port: int) -> Case:
    server = Slapd()
    server.begin()
    server.add("\n".join(person(100 + n, key, value) for n, (key, value) in enumerate(flat(port).items())))
    query = "query_filter = (mail={})\n"
    main_cf = parameters("ldap", directory, port, lambda prefix: server.file(query.format(key_of(prefix))))
    return Case(server, main_cf, GENERIC)


def memcached(directory: Path, port: int) -> Case:
    """A killed memcached has lost all values. Its table has a backup, which answers and fills it again."""
    server = Memcached()
    server.begin()

    def file(prefix: str) -> str:
        backup = ", ".join(f"{{{key} = {value}}}" for key, value in rows(port)[prefix].items())
        return server.file(f"key_format = {key_of(prefix)}\nbackup = inline:{{ {backup} }}\n")

    main_cf = parameters("memcache", directory, port, file)
    # local(8) trusts no alias of memcache: anybody may have written it.
    main_cf["alias_maps"] = f"inline:{{{LIST.partition('@')[0]}={local_user()}@example.org}}"
    return Case(server, main_cf, GENERIC, defers=False, refuses=False)


def postsrsd(directory: Path, port: int) -> Case:
    """Senders and recipients, in cleanup alone; the other tables are local."""
    server = PostSrsd()
    server.begin()

    def local(prefix: str) -> str:
        return ", ".join(f"{{{key} = {value}}}" for key, value in rows(port)[prefix].items())

    main_cf = parameters("pgsql", directory, port, lambda prefix: "")
    for name, value in main_cf.items():
        for prefix in rows(port):
            value = value.replace(f"pgsql:{directory}/table{prefix}.cf", f"inline:{{ {local(prefix)} }}")
        main_cf[name] = value
    main_cf |= {
        "smtp_generic_maps": "",
        "sender_canonical_maps": f"tcp:127.0.0.1:{server.port}",
        "sender_canonical_classes": "envelope_sender",
        "recipient_canonical_maps": f"tcp:127.0.0.1:{server.reverse}",
        "recipient_canonical_classes": "envelope_recipient",
    }
    return Case(server, main_cf, "SRS0=", defers=False)


CASES = {"pgsql": postgres, "mysql": mariadb, "ldap": slapd, "memcache": memcached, "tcp": postsrsd}


class Load:
    """Clients that send until they are told to stop. `taken`: numbers of acknowledged messages."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.taken: list[int] = []
        self.wrong: list[str] = []
        self.replies: Counter[int] = Counter()
        self._numbers = itertools.count()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Wait until the clients have ended."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
                client.ehlo("client.example")
                client.mail(SENDER)
                self._note(*client.rcpt("unknown@next.example"), 550)
                recipient = (USER.format(number % USERS), ALIAS, LIST)[number % 3]
                code = self._note(*client.rcpt(recipient), 250)
                if code == 250:
                    code = self._note(*client.data(message(number)), 250)
                if code == 250:
                    self.taken.append(number)
                else:
                    # Not faster than a real client tries again.
                    self._stop.wait(0.05)

    def _note(self, code: int, text: bytes, right: int) -> int:
        self.replies[code] += 1
        if code != right and not 400 <= code < 500:
            self.wrong.append(f"{code} {text.decode()}")
        return code

    def hold(self, recipient: str) -> str:
        """Send a message that waits in the hold queue; return its queue ID."""
        number = next(self._numbers)
        with smtplib.SMTP("127.0.0.1", self.port, timeout=60) as client:
            client.ehlo("client.example")
            client.mail(SENDER)
            assert client.rcpt(recipient)[0] == 250
            code, text = client.data(b"X-Hold: yes\r\n" + message(number))
            assert code == 250, text
        self.taken.append(number)
        return text.decode().rpartition(" ")[2]

    def acknowledged(self, more: int) -> None:
        """Wait until this many more messages are acknowledged."""
        goal = len(self.taken) + more
        wait_for(f"{goal} acknowledged messages", lambda: len(self.taken) >= goal, 120)

    def refused_for_now(self) -> None:
        """Wait until a client gets 451."""
        before = self.replies[451]
        wait_for("a temporary refusal", lambda: self.replies[451] > before, 60)


def message(number: int) -> bytes:
    """Return a message."""
    return f"Subject: n{number}\r\n{MARK}\r\n\r\nbody\r\n".encode()
