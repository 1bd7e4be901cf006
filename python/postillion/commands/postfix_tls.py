"""postfix-tls(1): turn TLS on, and make the server's keys and certificates.

    postfix tls enable-client [-r randsource]
    postfix tls enable-server [-r randsource] [-a algorithm] [-b bits] [hostname...]
    postfix tls new-server-key [-a algorithm] [-b bits] [hostname...]
    postfix tls new-server-cert [-a algorithm] [-b bits] [hostname...]
    postfix tls deploy-server-cert certfile keyfile
    postfix tls output-server-csr [-k keyfile] [hostname...]
    postfix tls output-server-tlsa [-h hostname] [keyfile...]
    postfix tls all-default-client
    postfix tls all-default-server

Keys and certificates are files of the configuration directory, with the date and time (UTC) in their names. All
parameters of a command change in main.cf at once, and only when the files are complete. algorithm: rsa or ecdsa; bits:
for ecdsa a curve. A keyfile may be rsa or ecdsa for the one that main.cf names.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from postillion._core.tables import table_types
from postillion.commands import getopt
from postillion.commands.failure import Failure
from postillion.commands.server_keys import KINDS, RSA, Kind, OpenSsl, check_hosts
from postillion.config import Config, edit

if TYPE_CHECKING:
    from collections.abc import Callable

    from postillion.commands.console import Console

CHAIN_FILES: Final = "smtpd_tls_chain_files"
"""With this parameter, smtpd reads no key of another one."""
CLIENT_SETTINGS: Final = (
    *("smtp_use_tls", "smtp_enforce_tls", "smtp_tls_enforce_peername", "smtp_tls_security_level"),
    *("smtp_tls_cert_file", "smtp_tls_dcert_file", "smtp_tls_eccert_file"),
)
SERVER_SETTINGS: Final = (
    *("smtpd_use_tls", "smtpd_enforce_tls", "smtpd_tls_security_level"),
    *("smtpd_tls_cert_file", "smtpd_tls_dcert_file", "smtpd_tls_eccert_file", CHAIN_FILES),
)
CLIENT_VALUES: Final = {"smtp_tls_security_level": "may", "smtp_tls_loglevel": "1"}
SERVER_VALUES: Final = {
    "smtpd_tls_security_level": "may",
    "smtpd_tls_received_header": "yes",
    "smtpd_tls_loglevel": "1",
}
RSA_BITS_MAX: Final = 16384
"""A key of this length takes minutes."""
SIZE_MAX_CHARS: Final = 40
CACHE_TYPES: Final = ("lmdb", "btree")
"""Types of the cache of TLS sessions, the best first."""
RELOAD: Final = '"postfix reload" applies the new settings at once'


class TlsCommand:
    """The subcommands on one configuration. `directory`: its path. They raise `Failure` and `ConfigError`."""

    def __init__(self, directory: str, console: Console) -> None:
        """Read main.cf."""
        self._config = Config.load(directory)
        self._console = console

    def run(self, words: list[str]) -> int:
        """Run a subcommand; return the exit status."""
        commands: dict[str, tuple[str, str, Callable[[dict[str, str], list[str]], int | None]]] = {
            "enable-client": ("r:", "[-r devrandom]", self._enable_client),
            "enable-server": ("a:b:r:", "[-a algorithm] [-b bits] [-r devrandom] [hostname ...]", self._enable_server),
            "new-server-key": ("a:b:", "[-a algorithm] [-b bits] [hostname ...]", self._new_key),
            "new-server-cert": ("a:b:", "[-a algorithm] [-b bits] [hostname ...]", self._new_certificate),
            "deploy-server-cert": ("", "certfile keyfile", self._deploy_files),
            "output-server-csr": ("k:", "[-k keyfile] [hostname ...]", self._print_request),
            "output-server-tlsa": ("h:", "[-h hostname] [keyfile ...]", self._print_records),
            "all-default-client": ("", "", lambda *_: self._status(CLIENT_SETTINGS)),
            "all-default-server": ("", "", lambda *_: self._status(SERVER_SETTINGS)),
        }
        name = words[0] if words else ""
        if name not in commands:
            known = ", ".join(list(commands)[1:])
            raise Failure(f"unknown tls command: '{name}'. usage: postfix tls enable-client (or {known})")
        letters, arguments, command = commands[name]
        usage = Failure(f"usage: postfix tls {name} {arguments}".rstrip())
        try:
            given, others = getopt.getopt(words[1:], letters)
        except getopt.GetoptError:
            raise usage from None
        if not arguments.endswith("...]") and len(others) != (2 if command == self._deploy_files else 0):
            raise usage
        return command(dict(given), others) or 0

    def _enable_client(self, options: dict[str, str], _: list[str]) -> None:
        values = dict(CLIENT_VALUES)
        known = next((kind for kind in CACHE_TYPES if kind in table_types()), None)
        if known is not None:
            values["smtp_tls_session_cache_database"] = f"{known}:{self._config.text('data_directory')}/smtp_scache"
        if not self._are_default(CLIENT_SETTINGS):
            self._suggest("client", values)
            return
        self._assign({**values, **self._random_source(options)})
        self._console.result("TLS is on in the SMTP client, where a server offers it")
        self._console.result(RELOAD)

    def _enable_server(self, options: dict[str, str], hosts: list[str]) -> None:
        kind, size = _key_options(options)
        if not self._are_default(SERVER_SETTINGS):
            self._suggest("server", {name: SERVER_VALUES[name] for name in SERVER_VALUES if "header" not in name})
            self._console.result('"postfix tls new-server-cert" makes a certificate, "new-server-key" also a key')
            return
        certificate, key = self._make(kind, size, None, hosts)
        self._deploy(certificate, key, {**SERVER_VALUES, **self._random_source(options)})
        self._console.result("TLS is on in the SMTP server, with a new private key and certificate")
        self._console.result(RELOAD)
        self._tell_request(certificate, key)
        self._console.result("TLSA records in DNS must match it: postfix tls output-server-tlsa [-h hostname]")

    def _new_key(self, options: dict[str, str], hosts: list[str]) -> None:
        self._new(*_key_options(options), None, hosts)

    def _new_certificate(self, options: dict[str, str], hosts: list[str]) -> None:
        kind, size = _key_options(options)
        old = self._key_file(kind.name)
        if old and not os.path.isfile(old):
            self._console.warning(f"there is no key file {old}: a new key is made")
            old = ""
        self._new(kind, size, old or None, hosts)

    def _new(self, kind: Kind, size: str, old: str | None, hosts: list[str]) -> None:
        certificate, key = self._make(kind, size, old, hosts)
        self._console.result("A private key and a self-signed certificate are ready. To use them:")
        self._console.result(f"  postfix tls deploy-server-cert {certificate} {key}")
        self._tell_request(certificate, key)
        self._console.result("To print their TLSA record:")
        self._console.result(f"  postfix tls output-server-tlsa [-h hostname] {key}")
        if old is None:
            self._console.result("Publish it, and wait until old records have expired, before you use the new key")

    def _deploy_files(self, _: dict[str, str], words: list[str]) -> None:
        certificate, key = (self._absolute(word) for word in words)
        self._deploy(certificate, key, {})
        self._console.result("The private key and the certificate are in main.cf")
        self._console.result(RELOAD)

    def _print_request(self, options: dict[str, str], hosts: list[str]) -> None:
        if "-k" not in options:
            self._check_key_parameters("name a key file with -k")
        names = [options["-k"]] if "-k" in options else list(KINDS)
        key = next((path for path in map(self._key_file, names) if path), "")
        if not key or not os.access(key, os.R_OK):
            raise Failure("no key file is given or configured that can be read")
        print(self._openssl().request(key, self._hosts(hosts)), end="")

    def _print_records(self, options: dict[str, str], words: list[str]) -> None:
        [host] = self._hosts([options["-h"]] if options.get("-h") else [])
        if not words:
            self._check_key_parameters("name key files")
        openssl = self._openssl()
        keys = [path for path in map(self._key_file, words or KINDS) if path]
        if not keys:
            raise Failure("no key file is given or configured")
        for key in keys:
            print(f"; {key}\n_25._tcp.{host}. IN TLSA 3 1 1 {openssl.digest_of_key(key)}")

    def _status(self, names: tuple[str, ...]) -> int:
        return 0 if self._are_default(names) else 1

    def _are_default(self, names: tuple[str, ...]) -> bool:
        settings = self._config.settings
        return not any(name in settings and settings[name].value.strip() for name in names)

    def _suggest(self, side: str, values: dict[str, str]) -> None:
        """Print the parameters that are usual, without a change."""
        self._console.result(f"main.cf has settings for TLS of the SMTP {side}, so nothing is changed. Usual ones are:")
        for name, value in values.items():
            self._console.result(f"  {name} = {value}")

    def _make(self, kind: Kind, size: str, old: str | None, hosts: list[str]) -> tuple[str, str]:
        """Return the files of a new certificate and its key; the key is a copy of `old` if that is given."""
        hosts, openssl = self._hosts(hosts), self._openssl()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        key, certificate = (self._absolute(f"{kind.prefix}{what}-{stamp}.pem") for what in ("key", "cert"))
        if old is None:
            openssl.create_key(kind, size, key)
        else:
            openssl.copy_key(kind, old, key)
        try:
            openssl.create_certificate(key, certificate, hosts)
        except Failure:
            os.unlink(key)
            raise
        return certificate, key

    def _deploy(self, certificate: str, key: str, others: dict[str, str]) -> None:
        """Set the parameters for a key and its certificate, and others, in main.cf."""
        self._check_key_parameters("put key and certificate into its files")
        openssl = self._openssl()
        kind = openssl.kind_of(key)
        if openssl.digest_of_certificate(certificate) != openssl.digest_of_key(key):
            raise Failure(f"the certificate in {certificate} does not belong to the key in {key}")
        self._assign({kind.key_parameter: key, kind.certificate_parameter: certificate, **others})

    def _check_key_parameters(self, fix: str) -> None:
        """Raise `Failure` if smtpd does not read the keys that rsa and ecdsa stand for."""
        if self._config.text(CHAIN_FILES).strip():
            raise Failure(f"with {CHAIN_FILES} in main.cf, smtpd reads no other key: {fix}")

    def _assign(self, values: dict[str, str]) -> None:
        for name, value in values.items():
            if not value.isprintable() or "$" in value:
                raise Failure(f"{name} = {value!r}: main.cf cannot have this value")
        for warning in edit.assign(self._config.path, values):
            self._console.warning(warning)

    def _tell_request(self, certificate: str, key: str) -> None:
        self._console.result("To have it signed by an authority:")
        self._console.result(f"  postfix tls output-server-csr -k {key} [hostname ...]")
        self._console.result(f"Put the signed chain in {certificate}")

    def _random_source(self, options: dict[str, str]) -> dict[str, str]:
        source = options.get("-r") or self._config.text("tls_random_source")
        return {"tls_random_source": source} if source else {}

    def _key_file(self, word: str) -> str:
        """Return the path of a key file; empty when main.cf has none. rsa and ecdsa are those of main.cf."""
        if word in KINDS:
            name = KINDS[word].key_parameter
            word = self._config.text(name) if name in self._config.settings else ""
        return "" if word in ("", "none") else self._absolute(word)

    def _absolute(self, path: str) -> str:
        return os.path.join(self._config.directory, path)

    def _hosts(self, hosts: list[str]) -> list[str]:
        found = hosts or [self._config.text("myhostname")]
        check_hosts(found)
        return found

    def _openssl(self) -> OpenSsl:
        return OpenSsl(self._config.text("openssl_path"))


def _key_options(options: dict[str, str]) -> tuple[Kind, str]:
    name = options.get("-a", "rsa")
    if name not in KINDS:
        raise Failure(f"unsupported private key algorithm: {name}")
    kind = KINDS[name]
    size = options.get("-b") or kind.size
    is_too_long = kind is RSA and size.isdigit() and int(size) > RSA_BITS_MAX
    if is_too_long or not (size.isascii() and size.isalnum() and len(size) <= SIZE_MAX_CHARS):
        raise Failure(f"bad number of bits, or bad name of a curve: {size}")
    return kind, size
