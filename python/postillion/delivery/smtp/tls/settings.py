"""The parameters of main.cf about TLS in the SMTP client: `smtp_tls_...`, for LMTP `lmtp_tls_...`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postillion.config.main_cf import split_list
from postillion.delivery.smtp.tls import level as levels
from postillion.delivery.smtp.tls.level import Level

if TYPE_CHECKING:
    from postillion.config import Config

FIX: Final = "give one of none, may, encrypt, fingerprint, dane, dane-only, verify, secure"
INSECURE_MX_LEVELS: Final = ("may", "encrypt", "dane")
DIGESTS: Final = {"sha256": 1, "sha512": 2}
"""The digests of TLSA records, and their matching types (RFC 6698 §2.1.3)."""


@dataclass(frozen=True, slots=True)
class DaneSettings:
    """The parameters for DANE.

    `problem`: why the site's DNS lookups cannot support DANE; empty if they can. `digests`: the matching types of TLSA
    records, strongest first. `insecure_mx`: the level for a host with TLSA records whose MX record is not secure.
    `force_lookup`: ask for TLSA records of hosts whose addresses are not secure.
    """

    problem: str
    digests: tuple[int, ...]
    insecure_mx: Level
    force_lookup: bool


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """The parameters that hold where no table says otherwise. `prefix`: smtp or lmtp.

    `level_name`: the parameter that gives the level. The core reads those for versions and ciphers.
    """

    prefix: str
    myhostname: str
    idna2003: bool
    smtputf8: bool
    level: Level
    level_name: str
    wrapper: bool
    verify_match: tuple[str, ...]
    secure_match: tuple[str, ...]
    fingerprints: tuple[str, ...]
    fingerprint_digest: str
    trust_files: tuple[str, ...]
    servername: str
    connection_reuse: bool
    enforce_mx_patterns: bool
    dane: DaneSettings

    @classmethod
    def of(cls, config: Config, prefix: str) -> TlsSettings:
        """Return the settings of a configuration. Raises `ConfigError`."""

        def names(parameter: str) -> tuple[str, ...]:
            return tuple(split_list(config.text(parameter), ", \t\r\n:"))

        level, level_name = _level(config, prefix)
        return cls(
            prefix=prefix,
            myhostname=config.text("myhostname"),
            idna2003=config.flag("enable_idna2003_compatibility"),
            smtputf8=config.flag("smtputf8_enable"),
            level=level,
            level_name=level_name,
            wrapper=config.flag(f"{prefix}_tls_wrappermode"),
            verify_match=names(f"{prefix}_tls_verify_cert_match"),
            secure_match=names(f"{prefix}_tls_secure_cert_match"),
            fingerprints=tuple(config.items(f"{prefix}_tls_fingerprint_cert_match")),
            fingerprint_digest=_digest(config, f"{prefix}_tls_fingerprint_digest"),
            trust_files=tuple(config.items(f"{prefix}_tls_trust_anchor_file")),
            servername=config.text(f"{prefix}_tls_servername"),
            connection_reuse=config.flag(f"{prefix}_tls_connection_reuse"),
            enforce_mx_patterns=config.flag(f"{prefix}_tls_enforce_sts_mx_patterns"),
            dane=_dane(config, prefix),
        )


def _level(config: Config, prefix: str) -> tuple[Level, str]:
    """Return the level of main.cf, and the parameter that gives it. Older ones count while the newer one is empty."""
    name = f"{prefix}_tls_security_level"
    text = config.text(name).strip()
    if text:
        level = levels.parse(text)
        if level is None:
            raise config.error(name, f'{name}: invalid TLS security level "{text}"', FIX)
        return level, name
    if config.flag(f"{prefix}_enforce_tls"):
        peer_name = config.flag(f"{prefix}_tls_enforce_peername")
        return ("verify" if peer_name else "encrypt"), f"{prefix}_enforce_tls"
    if config.flag(f"{prefix}_use_tls"):
        return "may", f"{prefix}_use_tls"
    return "none", name


def _digest(config: Config, name: str) -> str:
    digest = config.text(name).lower()
    if digest not in hashlib.algorithms_available or digest.startswith("shake"):
        raise config.error(name, f'{name}: unknown digest "{digest}"', "give sha256, sha512, sha1 or md5")
    return digest


def _dane(config: Config, prefix: str) -> DaneSettings:
    name = "smtp_tls_dane_insecure_mx_policy"
    insecure_mx = levels.parse(config.text(name))
    if insecure_mx not in INSECURE_MX_LEVELS:
        raise config.error(name, f'{name}: invalid value "{config.text(name)}"', "give may, encrypt or dane")
    return DaneSettings(
        problem=_dane_problem(config, prefix),
        digests=_dane_digests(config),
        insecure_mx=insecure_mx,
        force_lookup=config.flag(f"{prefix}_tls_force_insecure_host_tlsa_lookup"),
    )


def _dane_problem(config: Config, prefix: str) -> str:
    """Return why DANE cannot work, in Postfix's words with `{level}` for the level; empty if it can."""
    lookups = {word.lower() for word in config.items(f"{prefix}_host_lookup")}
    is_dnssec = config.text(f"{prefix}_dns_support_level").lower() == "dnssec"
    if "dns" not in lookups or not is_dnssec or config.flag("disable_dns_lookups"):
        return "{level} configured with dnssec lookups disabled"
    if prefix == "smtp" and config.flag("ignore_mx_lookup_error"):
        return "{level} configured with MX lookup errors ignored"
    if config.items(f"{prefix}_dns_resolver_options"):
        return "dns resolver options incompatible with {level} TLS"
    return ""


def _dane_digests(config: Config) -> tuple[int, ...]:
    """Return the matching types of `tls_dane_digests`; `name=number` gives a digest another number, as in Postfix."""
    name = "tls_dane_digests"
    found: list[int] = []
    for word in config.items(name):
        digest, equals, number = word.partition("=")
        known = DIGESTS.get(digest.lower())
        if known is None or (equals and number != str(known)):
            problem = f'{name}: unsupported digest "{word}"'
            raise config.error(name, problem, "give sha512 and sha256, the strongest first")
        found.append(known)
    return tuple(found)
