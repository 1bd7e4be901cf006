"""Real servers of remote tables, from Debian's packages, as processes of the test.

Each server has its data in a directory of its own and listens on a port of 127.0.0.1 that it keeps. `kill` ends it at
once, `start` starts it again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from support.certificates import Certificate
from support.mta import ended, listening, wait_for
from support.peers import absent, peer
from support.ports import free_port

START_MAX_S = 60.0
"""Longest time for the start of a server on a busy machine."""
PASSWORD = "canary-5up3r/s3cret+w0rd"
"""The password of every server: it must appear nowhere."""

ROWS = {
    "alice@example.org": "alice",
    "two@example.org": "alice, bob@example.net",
    "o'brien@example.org": "quoted",
    "back\\slash@example.org": "backslash",
    "100%@example.org": "percent",
    "ü@example.org": "umlaut-ü",
    "@catch.example.org": "all",
    "example.com": "domain",
    "empty@example.org": "",
    "plain": "plain-value",
}
"""Keys and values that every server has."""


class TableServer(ABC):
    """A server process."""

    def __init__(self, user: str | None = None) -> None:
        """`user`: whom the server runs as if the test is root."""
        self.port = free_port()
        self.directory = Path(tempfile.mkdtemp(prefix="postillion-table-"))
        self.directory.chmod(0o755)
        self._user = user if os.geteuid() == 0 else None
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._process: subprocess.Popen[bytes] | None = None
        self.tls: dict[str, Path] = {}
        """The server's files for TLS: `cert`, `key`, and `ca` of the clients; none without TLS."""

    def secure(self, certificate: Certificate, authority: Path) -> None:
        """Give the server a certificate, before its start. `authority`: that of the clients' certificates."""
        for name, source in (("cert", certificate.cert), ("key", certificate.key), ("ca", authority)):
            self.tls[name] = Path(shutil.copyfile(source, self.directory / f"{name}.pem"))
            if self._user is not None:
                shutil.chown(self.tls[name], self._user)
            self.tls[name].chmod(0o600)

    @abstractmethod
    def command(self) -> list[str]:
        """Return the server's command."""

    def prepare(self) -> None:  # noqa: B027 - not every server has data
        """Make the server's data, before its first start."""

    def fill(self) -> None:  # noqa: B027 - not every server has rows
        """Give the running server its rows, after its first start."""

    def begin(self) -> None:
        """Prepare, start and fill."""
        self.prepare()
        self.start()
        self.fill()

    def start(self) -> None:
        """Start the server, and wait until it listens."""
        with open(self.directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.directory, **self._as_user(), start_new_session=True
            )
        self._wait(self.answers)

    def answers(self) -> bool:
        """Return whether the server answers."""
        return listening(self.port)

    def kill(self) -> None:
        """End the server and its children at once."""
        if self._process is None:
            return
        process, self._process = self._process, None
        # A process that is stopped starts no child that would be left over.
        os.kill(process.pid, signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        children = self._children(process.pid)
        for pid in (process.pid, *children):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
        # A child that still ends holds the lock of the data.
        wait_for("the end of the server's children", lambda: all(ended(pid) for pid in children))

    def pause(self) -> None:
        """Stop the server: the kernel accepts connections, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        assert self._process is not None
        for pid in (self._process.pid, *self._children(self._process.pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _children(self, pid: int) -> list[int]:
        """Return the children of the server: PostgreSQL's have sessions of their own."""
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except FileNotFoundError:
            return []

    def remove(self) -> None:
        """End the server and remove its data."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def run(self, *command: str, text: str | None = None) -> str:
        """Run a command as the server's user; return its output."""
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, cwd=self.directory, timeout=120, **self._as_user()
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return str(done.stdout)

    def _as_user(self) -> dict[str, Any]:
        return {} if self._user is None else {"user": self._user, "group": self._user, "extra_groups": []}

    def _wait(self, condition: Callable[[], bool]) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_MAX_S
        while not condition():
            log = (self.directory / "log").read_text(errors="replace")
            assert self._process.poll() is None, log
            assert time.monotonic() < deadline, log
            time.sleep(0.05)


class Postgres(TableServer):
    """PostgreSQL, database `mail`, table `aliases`."""

    def __init__(self) -> None:
        super().__init__("postgres")
        homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not homes:
            absent("postgres is not installed (Debian package postgresql)")
        self._bin = homes[-1]

    def command(self) -> list[str]:
        options = {"port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory}
        options |= {"ssl": "on" if self.tls else "off", **{f"ssl_{name}_file": path for name, path in self.tls.items()}}
        words = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return [str(self._bin / "postgres"), "-D", str(self.directory / "data"), "-c", "fsync=off", *words]

    def prepare(self) -> None:
        (self.directory / "pw").write_text(PASSWORD)
        words = ("--auth=scram-sha-256", "--username=mail", "--pwfile=pw", "--encoding=UTF8", "--no-sync")
        self.run(str(self._bin / "initdb"), "-D", "data", *words)

    def answers(self) -> bool:
        found = subprocess.run([self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)])
        return found.returncode == 0

    @property
    def uri(self) -> str:
        """The address of the database, without the password."""
        return f"postgresql://mail@127.0.0.1:{self.port}/postgres"

    def sql(self, text: str) -> None:
        """Run SQL statements."""
        self.run("env", f"PGPASSWORD={PASSWORD}", "psql", "-q", "-v", "ON_ERROR_STOP=1", self.uri, text=text)

    def fill(self) -> None:
        self.sql("CREATE TABLE aliases (k TEXT, v TEXT, c2 TEXT);" + inserts("''"))

    def file(self, query: str = "SELECT v FROM aliases WHERE k='%s'", extra: str = "") -> str:
        """Return a file of parameters."""
        return (
            f"hosts = 127.0.0.1:{self.port}\nuser = mail\npassword = {PASSWORD}\ndbname = postgres\n"
            f"query = {query}\n{extra}"
        )


class MariaDb(TableServer):
    """MariaDB, database `mail`, table `aliases`."""

    def __init__(self) -> None:
        super().__init__("mysql")
        peer("mariadbd")

    def command(self) -> list[str]:
        return [peer("mariadbd"), "--no-defaults", *self._options(), f"--port={self.port}", "--bind-address=127.0.0.1"]

    def _options(self) -> list[str]:
        # 2: each commit is in the kernel, and survives a kill of the server.
        sizes = ["--innodb-buffer-pool-size=16M", "--innodb-flush-log-at-trx-commit=2", "--innodb-log-file-size=8M"]
        sizes += [f"--ssl-{name}={path}" for name, path in self.tls.items()]
        return [*self._places(), f"--socket={self.socket}", "--skip-log-bin", *sizes]

    def _places(self) -> list[str]:
        # A server that starts removes the temporary tables in its tmpdir: those of another one too.
        return [f"--datadir={self.directory}/data", f"--tmpdir={self.directory}"]

    @property
    def socket(self) -> Path:
        """The UNIX-domain socket."""
        return self.directory / "sock"

    def prepare(self) -> None:
        words = ("--auth-root-authentication-method=normal", "--skip-test-db", *self._places())
        self.run(peer("mariadb-install-db"), "--no-defaults", *words)

    def answers(self) -> bool:
        words = [peer("mariadb-admin"), "--no-defaults", f"--socket={self.socket}", "--user=root", "ping"]
        return subprocess.run(words, capture_output=True).returncode == 0

    def sql(self, text: str) -> None:
        """Run SQL statements as root."""
        words = ("--no-defaults", "--default-character-set=utf8mb4", f"--socket={self.socket}", "--user=root")
        self.run(peer("mariadb"), *words, text=text)

    def fill(self) -> None:
        self.sql(
            "CREATE DATABASE mail CHARACTER SET utf8mb4; USE mail;\n"
            "CREATE TABLE aliases (k VARCHAR(255), v VARCHAR(255), c2 VARCHAR(255));\n"
            f"CREATE USER mail@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON mail.* TO mail@'%';\n"
            f"CREATE USER mail@localhost IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON mail.* TO mail@localhost;\n"
            + inserts("''", backslashes=True)
        )

    def file(self, query: str = "SELECT v FROM aliases WHERE k='%s'", extra: str = "") -> str:
        """Return a file of parameters."""
        return (
            f"hosts = 127.0.0.1:{self.port}\nuser = mail\npassword = {PASSWORD}\ndbname = mail\n"
            f"query = {query}\n{extra}"
        )


class Slapd(TableServer):
    """OpenLDAP's server with the suffix dc=example,dc=org."""

    def __init__(self) -> None:
        super().__init__()
        peer("slapd")
        self.tls_port = free_port()
        self.lines = ""
        """More lines of slapd.conf, in front of those of the database."""

    @property
    def url(self) -> str:
        """The server's URL."""
        return f"ldap://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        urls = f"{self.url} ldaps://127.0.0.1:{self.tls_port}" if self.tls else self.url
        return [peer("slapd"), "-d", "0", "-h", urls, "-f", str(self.directory / "slapd.conf")]

    def prepare(self) -> None:
        (self.directory / "data").mkdir()
        schemas = "".join(f"include /etc/ldap/schema/{name}.schema\n" for name in ("core", "cosine", "inetorgperson"))
        names = {"ca": "TLSCACertificateFile", "cert": "TLSCertificateFile", "key": "TLSCertificateKeyFile"}
        tls = "".join(f"{names[name]} {path}\n" for name, path in self.tls.items())
        tls += "TLSVerifyClient try\n" if self.tls else ""
        (self.directory / "slapd.conf").write_text(
            f"{schemas}{tls}{self.lines}pidfile {self.directory}/pid\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\n"
            "database mdb\nmaxsize 16777216\nsuffix dc=example,dc=org\nrootdn cn=admin,dc=example,dc=org\n"
            f"rootpw {PASSWORD}\ndirectory {self.directory}/data\ndbnosync\naccess to * by users read by * auth\n"
        )

    def fill(self) -> None:
        entries = ["dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: example\ndc: example\n"]
        addresses = {key: value for key, value in ROWS.items() if value and "@" in key[1:] and key.isascii()}
        entries += [person(n, key, value) for n, (key, value) in enumerate(addresses.items())]
        entries.append(
            "dn: cn=team,dc=example,dc=org\nobjectClass: groupOfNames\nobjectClass: extensibleObject\ncn: team\n"
            "mail: team@example.org\nmember: uid=u0,dc=example,dc=org\nmember: uid=u1,dc=example,dc=org\n"
            "member: uid=gone,dc=example,dc=org\n"
        )
        entries.append(
            "dn: cn=loop,dc=example,dc=org\nobjectClass: groupOfNames\nobjectClass: extensibleObject\ncn: loop\n"
            "mail: loop@example.org\nmember: cn=loop,dc=example,dc=org\n"
        )
        entries.append(
            "dn: cn=urls,dc=example,dc=org\nobjectClass: groupOfNames\nobjectClass: extensibleObject\ncn: urls\n"
            "member: cn=urls,dc=example,dc=org\nmail: urls@example.org\n"
            "labeledURI: ldap:///dc=example,dc=org?givenName?sub?(mail=*@example.org)\n"
        )
        self.add("\n".join(entries))

    def add(self, ldif: str) -> None:
        """Add entries."""
        self._change("ldapadd", ldif)

    def modify(self, ldif: str) -> None:
        """Change entries."""
        self._change("ldapmodify", ldif)

    def _change(self, command: str, ldif: str) -> None:
        words = ("-x", "-H", self.url, "-D", "cn=admin,dc=example,dc=org", "-w", PASSWORD)
        self.run(peer(command), *words, text=ldif)

    def file(self, extra: str = "") -> str:
        """Return a file of parameters."""
        return (
            f"server_host = {self.url}\nsearch_base = dc=example,dc=org\nbind_dn = cn=admin,dc=example,dc=org\n"
            f"bind_pw = {PASSWORD}\nquery_filter = (mail=%s)\nresult_attribute = givenName\n{extra}"
        )


class Memcached(TableServer):
    """memcached."""

    def __init__(self) -> None:
        super().__init__()
        peer("memcached")

    def command(self) -> list[str]:
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        return [peer("memcached"), "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", "-m", "16", *user]

    def fill(self) -> None:
        for key, value in ROWS.items():
            self.put(f"t:{key}", value)

    def put(self, key: str, value: str) -> None:
        """Store a value."""
        octets = value.encode()
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"set {key} 0 0 {len(octets)}\r\n".encode() + octets + b"\r\n")
            assert client.recv(100) == b"STORED\r\n"

    def fetch(self, key: str) -> bytes:
        """Return the server's reply about a key."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.sendall(f"get {key}\r\n".encode())
            found = b""
            while not found.endswith(b"END\r\n"):
                found += client.recv(4096)
            return found

    def file(self, extra: str = "") -> str:
        """Return a file of parameters."""
        return f"memcache = inet:127.0.0.1:{self.port}\nkey_format = t:%s\n{extra}"


class PostSrsd(TableServer):
    """postsrsd: the tables tcp:127.0.0.1:port (senders) and :reverse (recipients)."""

    def __init__(self) -> None:
        super().__init__()
        peer("postsrsd")
        self.reverse = free_port()

    def prepare(self) -> None:
        (self.directory / "secret").write_text(f"{PASSWORD}\n")

    def command(self) -> list[str]:
        words = [f"-s{self.directory}/secret", "-dsrs.example.org", f"-f{self.port}", f"-r{self.reverse}", "-4"]
        return [peer("postsrsd"), *words]


def inserts(quote: str, *, backslashes: bool = False) -> str:
    """Return SQL statements for `ROWS`. `backslashes`: the server takes them as escapes."""

    def literal(text: str) -> str:
        text = text.replace("'", quote)
        return "'" + (text.replace("\\", "\\\\") if backslashes else text) + "'"

    rows = [f"INSERT INTO aliases VALUES ({literal(key)}, {literal(value)}, 'second');" for key, value in ROWS.items()]
    more = [
        f"INSERT INTO aliases VALUES ('many@example.org', '{value}', NULL);" for value in ("one", "two@x.example", "3")
    ]
    null = "INSERT INTO aliases VALUES ('null@example.org', NULL, 'second');"
    return "\n".join((*rows, *more, null))


def person(number: int, key: str, value: str) -> str:
    """Return an LDAP entry."""
    return "\n".join(
        (
            f"dn: uid=u{number},dc=example,dc=org",
            "objectClass: inetOrgPerson",
            f"uid: u{number}",
            "cn: x",
            "sn: x",
            f"mail: {key}",
            *(f"givenName: {part.strip()}" for part in value.split(",")),
            "",
        )
    )


def end(servers: Iterable[TableServer]) -> None:
    """Remove servers."""
    for server in servers:
        server.remove()
