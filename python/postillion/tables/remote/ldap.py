"""`ldap:/file`: an LDAP directory, with python-ldap in threads (ldap_table(5))."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

from postillion.tables.remote.entries import Attributes, Limits, Search, collect
from postillion.tables.remote.library import load
from postillion.tables.remote.mapping import Mapping, OpenTable, template
from postillion.tables.remote.parameters import Parameters
from postillion.tables.remote.pool import LINKS_MAX, LinkLost, Pool, PooledSource, Server
from postillion.tables.remote.workers import Workers
from postillion.tables.table import TableError, Warn

THREADS_MAX: Final = LINKS_MAX
"""Maximum number of threads of one table: one for each of its connections."""
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 4
"""A connection to a host that is gone ends after 30 s: the library waits without limit for the handshake of ldaps."""
SCOPES: Final = {"sub": "sub", "base": "base", "one": "one"}
BINDS: Final = {"yes": "simple", "simple": "simple", "no": "none", "none": "none", "sasl": "sasl"}
IGNORED: Final = ("cache", "cache_expiry", "cache_size", "tls_random_file")
"""Parameters without effect: those of OpenLDAP's former cache, and those that its library ignores."""


class Login(NamedTuple):
    """How to bind."""

    kind: str
    dn: str
    mechanisms: list[str]
    realm: str
    authorization: str
    strength: int


class LdapLink:
    """One connection."""

    def __init__(self, connection: Any, workers: Workers) -> None:
        self.connection = connection
        self._workers = workers

    async def close(self) -> None:
        """Close the connection."""
        connection, self.connection = self.connection, None
        if connection is not None:
            await self._workers.run(lambda: _unbind(connection))


class LdapSource(PooledSource):
    """A table in an LDAP directory."""

    def __init__(self, name: str, parameters: Parameters, warn: Warn, open_table: OpenTable) -> None:
        """Read the parameters. Raises `ConfigError`, also without the library."""
        self._library = load("ldap", "ldap", parameters, ("ldap.filter", "ldap.dn", "ldap.sasl", "ldapurl"))
        self._urls = load("ldapurl", "ldap", parameters)
        older = parameters.text("result_filter", "%s")
        self._mapping = Mapping(name, parameters, warn, open_table, result_format=older)
        self._base = template(parameters, "search_base", "")
        self._filter = template(parameters, "query_filter", "(mailacceptinggeneralid=%s)")
        scope = parameters.choice("scope", "sub", SCOPES)
        self._scopes = {
            "base": self._library.SCOPE_BASE,
            "one": self._library.SCOPE_ONELEVEL,
            "sub": self._library.SCOPE_SUBTREE,
        }
        self._scope = self._scopes[scope]
        self._attributes = Attributes(
            normal=parameters.words("result_attribute", "maildrop"),
            special=parameters.words("special_result_attribute"),
            leaf=parameters.words("leaf_result_attribute"),
            terminal=parameters.words("terminal_result_attribute"),
        )
        self._limits = Limits(
            depth=parameters.number("recursion_limit", 1000, low=1), values=self._mapping.expansion_limit
        )
        self._size_limit = parameters.number("size_limit", self._mapping.expansion_limit)
        self._timeout_s = parameters.number("timeout", 10, low=1)
        self._version = parameters.number("version", 3, low=2)
        if self._version > 3:
            raise parameters.error("version", f'bad value "{self._version}" for version', "give 2 or 3")
        self._dereference = parameters.number("dereference", 0)
        if self._dereference > 3:
            raise parameters.error("dereference", f'bad value "{self._dereference}" for dereference', "give 0 to 3")
        self._referrals = parameters.flag("chase_referrals", False)
        urls = _servers(parameters, self._urls)
        self._start_tls = parameters.flag("start_tls", False)
        self._tls = _tls(parameters, self._library)
        self._login = Login(
            parameters.choice("bind", "yes", BINDS),
            parameters.text("bind_dn"),
            parameters.words("sasl_mechs"),
            parameters.text("sasl_realm"),
            parameters.text("sasl_authz_id"),
            parameters.number("sasl_minssf", 0),
        )
        if self._version < 3 and (self._start_tls or any(map(_is_tls, urls))):
            warn(f"{name}: TLS needs version 3: version = {self._version} has no effect")
            self._version = 3
        self._password = parameters.secret("bind_pw")
        for ignored in IGNORED:
            if parameters.given(ignored):
                warn(f"{name}: {ignored} has no effect")
        level = parameters.number("debuglevel", 0)
        if level:
            # One level for the whole process; the library writes to standard error.
            self._library.set_option(self._library.OPT_DEBUG_LEVEL, level)
        self._workers = Workers(name, THREADS_MAX)
        servers = [Server(url, partial(self._connect, url)) for url in urls]
        self._pool: Pool[LdapLink] = Pool(servers, in_order=True, attempt_max_s=self._timeout_s + 1.0)

    async def ask(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none. Raises `TableError`."""
        if not await self._mapping.admits(key):
            return None
        base = self._base.query(key, self._library.dn.escape_dn_chars)
        wanted = self._filter.query(key, self._library.filter.escape_filter_chars)
        if base is None or wanted is None:
            return None
        search = Search(base, self._scope, _parenthesised(wanted), self._attributes.names)

        async def work(link: LdapLink) -> list[str]:
            return await self._workers.run(lambda: self._collect(link.connection, search))

        return self._mapping.result(key, await self._pool.run(work))

    async def close(self) -> None:
        """Close the connections."""
        await super().close()
        self._workers.close()

    async def _connect(self, url: str) -> LdapLink:
        return LdapLink(await self._workers.run(lambda: self._bound(url)), self._workers)

    def _bound(self, url: str) -> Any:
        """Return a connection with its login. Runs in a thread."""
        ldap = self._library
        try:
            connection = ldap.initialize(url)
            connection.set_option(ldap.OPT_PROTOCOL_VERSION, self._version)
            connection.set_option(ldap.OPT_NETWORK_TIMEOUT, float(self._timeout_s))
            connection.set_option(ldap.OPT_TIMEOUT, float(self._timeout_s))
            connection.set_option(ldap.OPT_X_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S)
            connection.set_option(ldap.OPT_X_KEEPALIVE_INTERVAL, KEEPALIVE_INTERVAL_S)
            connection.set_option(ldap.OPT_X_KEEPALIVE_PROBES, KEEPALIVE_PROBES)
            connection.set_option(ldap.OPT_DEREF, self._dereference)
            connection.set_option(ldap.OPT_REFERRALS, int(self._referrals))
            connection.set_option(ldap.OPT_SIZELIMIT, self._size_limit)
            if self._start_tls or _is_tls(url):
                self._prepare_tls(connection)
            if self._start_tls:
                connection.start_tls_s()
            self._bind(connection)
        except ldap.LDAPError as problem:
            raise LinkLost(_reason(problem)) from None
        return connection

    def _prepare_tls(self, connection: Any) -> None:
        """Give a connection its certificates. Raises `LinkLost`."""
        try:
            for option, value in self._tls:
                connection.set_option(option, value)
            connection.set_option(self._library.OPT_X_TLS_NEWCTX, 0)
        except ValueError:
            # The library says no more.
            raise LinkLost("a file or value of the tls_* parameters cannot be used") from None

    def _bind(self, connection: Any) -> None:
        login, password = self._login, self._password
        if login.kind == "simple":
            connection.simple_bind_s(login.dn, password.reveal())
        elif login.kind == "sasl":
            sasl = self._library.sasl
            answers = {
                sasl.CB_AUTHNAME: login.dn,
                sasl.CB_PASS: password.reveal(),
                sasl.CB_USER: login.authorization,
                sasl.CB_GETREALM: login.realm,
            }
            connection.set_option(self._library.OPT_X_SASL_SECPROPS, f"minssf={login.strength}")
            # Without a list of its own, the library takes the best one that the server offers.
            connection.sasl_interactive_bind_s("", sasl.sasl(answers, " ".join(login.mechanisms)))

    def _collect(self, connection: Any, search: Search) -> list[str]:
        """Return the values of a search, with the entries that its special attributes name. Runs in a thread."""
        ldap = self._library

        def ask(search: Search) -> list[dict[str, list[bytes]]]:
            found = connection.search_ext_s(
                search.base,
                search.scope,
                search.filter,
                search.attributes or ["1.1"],
                timeout=self._timeout_s,
                sizelimit=self._size_limit,
            )
            # An entry without a name is a referral that is not followed.
            return [attributes for dn, attributes in found if dn is not None]

        def named(value: str) -> Search | None:
            return self._named(value)

        try:
            return collect(
                search,
                self._attributes,
                self._limits,
                ask,
                named,
                ldap.NO_SUCH_OBJECT,
                # The base of a key's own domain may be missing, the base of all keys may not.
                base_required=self._base.fixed,
            )
        except (ldap.SERVER_DOWN, ldap.CONNECT_ERROR, ldap.TIMEOUT, ldap.UNAVAILABLE, ldap.BUSY) as problem:
            raise LinkLost(_reason(problem)) from None
        except ldap.LDAPError as problem:
            raise TableError(_reason(problem)) from None

    def _named(self, value: str) -> Search | None:
        """Return the search for a value of a special attribute: a DN or an LDAP URL; None for another text."""
        names = self._attributes.names
        if not self._urls.isLDAPUrl(value):
            return (
                Search(value, self._scopes["base"], "(objectclass=*)", names) if self._library.dn.is_dn(value) else None
            )
        try:
            url = self._urls.LDAPUrl(value)
        except ValueError:
            return None
        scope = self._scope_of(url)
        wanted = url.attrs or names
        lower = {name.lower() for name in wanted}
        attributes = [name for name in names if name.lower() in lower]
        return Search(url.dn or "", scope, url.filterstr or "(objectclass=*)", attributes)

    def _scope_of(self, url: Any) -> int:
        return self._scopes["base"] if url.scope is None else int(url.scope)


def _servers(parameters: Parameters, urls: Any) -> list[str]:
    """Return the URLs of server_host. Raises `ConfigError`."""
    port = parameters.number("server_port", 389, low=1)
    found: list[str] = []
    for word in parameters.words("server_host", "localhost"):
        if "://" not in word:
            bare = word.rpartition(":")[0] if word.count(":") == 1 or "]:" in word else ""
            found.append(f"ldap://{word}" if bare else f"ldap://{word}:{port}")
            continue
        if not urls.isLDAPUrl(word):
            fix = "give host, host:port, or a URL that begins with ldap://, ldaps:// or ldapi://"
            raise parameters.error("server_host", f'bad value "{word}" for server_host', fix)
        found.append(word)
    return found


def _is_tls(url: str) -> bool:
    return url.lower().startswith("ldaps:")


def _tls(parameters: Parameters, ldap: Any) -> list[tuple[int, Any]]:
    """Return the TLS options of a connection."""
    names = {
        "tls_ca_cert_dir": ldap.OPT_X_TLS_CACERTDIR,
        "tls_ca_cert_file": ldap.OPT_X_TLS_CACERTFILE,
        "tls_cert": ldap.OPT_X_TLS_CERTFILE,
        "tls_key": ldap.OPT_X_TLS_KEYFILE,
        "tls_cipher_suite": ldap.OPT_X_TLS_CIPHER_SUITE,
    }
    found = [(option, parameters.text(name)) for name, option in names.items() if parameters.text(name)]
    require = parameters.flag("tls_require_cert", False)
    found.append((ldap.OPT_X_TLS_REQUIRE_CERT, ldap.OPT_X_TLS_DEMAND if require else ldap.OPT_X_TLS_NEVER))
    return found


def _parenthesised(text: str) -> str:
    return text if text.startswith("(") else f"({text})"


def _unbind(connection: Any) -> None:
    try:
        connection.unbind_ext_s()
    except Exception:
        # The connection is broken already.
        return


def _reason(problem: Exception) -> str:
    """Return the text of an error of the library, which carries a dictionary."""
    facts = problem.args[0] if problem.args and isinstance(problem.args[0], dict) else {}
    texts = [str(facts[name]) for name in ("desc", "info") if facts.get(name)]
    return ": ".join(texts) or type(problem).__name__
