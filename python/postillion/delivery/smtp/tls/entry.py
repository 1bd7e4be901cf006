"""An entry of smtp_tls_policy_maps: a level, and attributes that override parameters of main.cf (postconf(5)).

    secure match=mx.example.org:.example.net ciphers=high { policy_string = mx: mx.example.org }

An attribute that cannot be understood makes the entry invalid: ignoring it could weaken the policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from postillion.config.main_cf import split_list
from postillion.delivery.smtp.nexthop import is_host_name
from postillion.delivery.smtp.tls import level as levels
from postillion.delivery.smtp.tls.level import BY_AUTHORITY, Level
from postillion.delivery.smtp.tls.policy import Domain

MATCH_MAX: Final = 1000
"""Maximum number of names or fingerprints of an entry, and of its lines of the domain's policy."""
POLICY_KINDS: Final = ("sts", "tlsa", "no-policy-found")
POLICY_FAILURES: Final = (
    *("tlsa-invalid", "dnssec-invalid", "dane-required"),
    *("sts-policy-fetch-error", "sts-policy-invalid", "sts-webpki-invalid"),
)
"""Why a domain's policy cannot be used (RFC 8460 §4.3.2)."""
TTL_MAX_S: Final = 2**31 - 1
REPEATED: Final = frozenset(("match", "tafile", "connection_reuse", "enable_rpk", "policy_string", "mx_host_pattern"))
"""The attributes that an entry may have several times."""


class BadEntry(ValueError):
    """An entry that is invalid; the text is that of Postfix's warning."""


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry. None and empty: the parameter of main.cf applies. `ignored`: attributes of an entry without TLS."""

    level: Level
    ciphers: str | None = None
    protocols: str | None = None
    exclude: str | None = None
    servername: str | None = None
    match: tuple[str, ...] = ()
    tafiles: tuple[str, ...] = ()
    connection_reuse: bool | None = None
    domain: Domain | None = None
    ignored: tuple[str, ...] = ()


@dataclass(slots=True)
class _Reading:
    entry: Entry
    domain: Domain = field(default_factory=lambda: Domain(""))
    seen: set[str] = field(default_factory=set)


def parse(text: str) -> Entry:
    """Return the entry in the value of a table. Raises `BadEntry`."""
    words = split_list(text)
    if not words:
        raise BadEntry("invalid empty policy")
    level = levels.parse(words[0])
    if level is None:
        raise BadEntry(f'invalid security level "{words[0]}"')
    if level == "none":
        return Entry(level, ignored=tuple(words[1:]))
    reading = _Reading(Entry(level))
    for word in words[1:]:
        name, value = _attribute(word)
        if name in reading.seen and name not in REPEATED:
            raise BadEntry(f'attribute "{name}" is specified multiple times')
        reading.seen.add(name)
        _read(reading, name, value)
    if reading.domain.kind:
        return replace(reading.entry, domain=reading.domain)
    if reading.domain != Domain(""):
        told = "policy_ttl, policy_domain, policy_string, mx_host_pattern or policy_failure"
        raise BadEntry(f"built-in policy has unexpected attribute {told}")
    return reading.entry


def _attribute(word: str) -> tuple[str, str]:
    """Return name and value of `name=value` or `{ name = value }`."""
    inner = word
    if word.startswith("{"):
        if not word.endswith("}"):
            told = "missing '}'" if "}" not in word else "syntax error after '}'"
            raise BadEntry(f'malformed attribute/value pair "{word}": {told} in "{word}"')
        inner = " ".join(word[1:-1].split())
    name, equals, value = inner.partition("=")
    name, value = name.strip(), value.strip()
    if not name:
        raise BadEntry(f'malformed attribute/value pair "{inner}": missing attribute name')
    if not equals:
        raise BadEntry(f"malformed attribute/value pair \"{inner}\": missing '=' after attribute name")
    return name.lower(), value


def _read(reading: _Reading, name: str, value: str) -> None:
    entry = reading.entry
    if name == "ciphers":
        reading.entry = replace(entry, ciphers=_filled(name, value))
    elif name == "protocols":
        reading.entry = replace(entry, protocols=value)
    elif name == "exclude":
        reading.entry = replace(entry, exclude=value)
    elif name == "servername":
        if not is_host_name(value):
            raise BadEntry(f'"servername={value}" specifies an invalid hostname')
        reading.entry = replace(entry, servername=value)
    elif name == "match":
        separator = "|" if entry.level == "fingerprint" else ":"
        added = [word for word in _filled(name, value).split(separator) if word]
        _needs(entry.level in (*BY_AUTHORITY, "fingerprint"), name, entry.level)
        reading.entry = replace(entry, match=_limited(name, (*entry.match, *added)))
    elif name == "tafile":
        _needs(entry.level in BY_AUTHORITY, name, entry.level)
        reading.entry = replace(entry, tafiles=_limited(name, (*entry.tafiles, _filled(name, value))))
    elif name in ("connection_reuse", "enable_rpk"):
        if value.lower() not in ("yes", "no"):
            raise BadEntry(f'attribute "{name}" has bad value: "{value}"')
        # A server without raw public keys has a certificate, so enable_rpk has no effect here and does no harm.
        if name == "connection_reuse":
            reading.entry = replace(entry, connection_reuse=value.lower() == "yes")
    else:
        reading.domain = _of_domain(reading.domain, name, value)


def _of_domain(domain: Domain, name: str, value: str) -> Domain:
    """Return the domain's policy with one more of the attributes that an MTA-STS resolver gives for reports."""
    if name == "policy_type":
        return replace(domain, kind=_one_of(POLICY_KINDS, name, value))
    if name == "policy_failure":
        return replace(domain, failure=_one_of(POLICY_FAILURES, name, value))
    if name == "policy_ttl":
        if not (value.isascii() and value.isdigit()) or len(value) > 10 or int(value) > TTL_MAX_S:
            raise BadEntry(f'attribute "{name}" has a malformed value: "{value}"')
        return replace(domain, ttl=int(value))
    if name == "policy_domain":
        if not is_host_name(value):
            raise BadEntry(f'attribute "{name}" has a malformed value: "{value}"')
        return replace(domain, name=value)
    if name == "policy_string":
        return replace(domain, strings=_limited(name, (*domain.strings, value)))
    if name == "mx_host_pattern":
        return replace(domain, mx_patterns=_limited(name, (*domain.mx_patterns, value)))
    raise BadEntry(f'invalid attribute name: "{name}"')


def _filled(name: str, value: str) -> str:
    if not value:
        raise BadEntry(f'attribute "{name}" has empty value')
    return value


def _needs(allowed: bool, name: str, level: Level) -> None:
    if not allowed:
        raise BadEntry(f'attribute "{name}" invalid at security level "{level}"')


def _one_of(allowed: tuple[str, ...], name: str, value: str) -> str:
    if value not in allowed:
        raise BadEntry(f'attribute "{name}" has an unexpected value: "{value}"')
    return value


def _limited(name: str, values: tuple[str, ...]) -> tuple[str, ...]:
    if len(values) > MATCH_MAX:
        raise BadEntry(f'attribute "{name}" has more than {MATCH_MAX} values')
    return values
