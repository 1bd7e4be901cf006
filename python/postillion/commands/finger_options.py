"""The options of posttls-finger, and the parameters of main.cf that they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from postillion.delivery.smtp.tls.level import BY_AUTHORITY, BY_DANE, Level, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from postillion.commands.getopt import Given

LETTERS: Final = "a:ch:o:St:T:vA:Cd:fF:g:H:k:K:l:L:m:M:p:P:r:s:wX"
FAMILIES: Final = ("ipv4", "ipv6", "any")
LOOKUPS: Final = ("dns", "native")
INSECURE_MX_LEVELS: Final = ("may", "encrypt", "dane")
SUMMARY: Final = "summary"
CERTMATCH: Final = "certmatch"
PEERCERT: Final = "peercert"
UNTRUSTED: Final = "untrusted"
CACHE: Final = "cache"
VERBOSE: Final = frozenset((CERTMATCH, PEERCERT, CACHE))
LOG_WORDS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("0", "none"), frozenset[str]()),
    **dict.fromkeys(("1", "routine", "summary"), frozenset((SUMMARY,))),
    **{word: frozenset((word,)) for word in (CERTMATCH, PEERCERT, UNTRUSTED, CACHE)},
    "verbose": VERBOSE,
}
"""The words of -L, and the kinds of lines that they mean."""
STEP_WORDS: Final[dict[str, frozenset[str]]] = {
    **dict.fromkeys(("2", "debug", "3", "ssl-expert", "4", "ssl-developer"), VERBOSE | {SUMMARY}),
    **dict.fromkeys(("ssl-debug", "ssl-handshake-packet-dump", "ssl-session-packet-dump"), frozenset[str]()),
}
"""The words of -L that in Postfix also mean the steps of the handshake, or its octets."""
SECONDS_MAX: Final = 24 * 3600
"""Longest timeout, and longest delay before a reconnection."""
RECONNECTS_MAX: Final = 1000


def say(text: str) -> None:
    """Print a line."""
    print(f"posttls-finger: {text}", flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line. `main_cf`: the values of `-o`. `fixed`: the parameters that other options stand for."""

    destination: str
    match: tuple[str, ...]
    prefix: str
    level: Level
    logged: frozenset[str]
    has_chat: bool
    prints_chain: bool
    wrapper: bool
    insecure_mx: str
    delay_s: int
    reconnects_max: int
    connect_timeout_s: int
    command_timeout_s: int
    anchors: tuple[str, ...]
    digest: str
    main_cf: tuple[tuple[str, str], ...]
    fixed: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, given: Given, words: Sequence[str]) -> Options:
        """Return the options. `words`: the destination, and the names or digests to match.

        Raises `ValueError` with a text for the user.
        """
        values = dict(given)
        prefix = "lmtp" if "-S" in values else "smtp"
        main_cf = [_assignment(value) for letter, value in given if letter == "-o"]
        if "-X" in values:
            raise ValueError("-X is not supported: there is no tlsproxy, and smtp has TLS in its own process")
        chains = [value for letter, value in given if letter == "-H"]
        if chains and ("-k" in values or "-K" in values):
            raise ValueError("-H has chains and keys: give no -k and no -K")
        level = parse(values.get("-l", "dane"))
        if level is None:
            raise ValueError(f'Invalid TLS level "{values["-l"]}"')
        if level == "none" and "-w" in values:
            raise ValueError("level none has no TLS: leave out -w")
        insecure_mx = _one_of("-M", values.get("-M", "dane").lower(), INSECURE_MX_LEVELS)
        match = tuple(words[1:])
        if match and level not in (*BY_DANE, *BY_AUTHORITY, "fingerprint"):
            say(f"warning: TLS level '{level}' does not implement certificate matching")
        lookup = _words(values.get("-h", "dns"))
        for word in lookup:
            if word not in LOOKUPS:
                raise ValueError(f'unknown -h option value "{word}" in "{values["-h"]}"')
        fixed = {
            "address_preference": _one_of("-a", values.get("-a", "any").lower(), FAMILIES),
            "host_lookup": ", ".join(lookup),
            "tls_force_insecure_host_tlsa_lookup": "yes" if "-f" in values else "no",
            "tls_CAfile": values.get("-F", ""),
            "tls_CApath": values.get("-P", ""),
            "tls_chain_files": ", ".join(chains),
            "tls_cert_file": values.get("-k", values.get("-K", "")),
            "tls_key_file": values.get("-K", values.get("-k", "")),
            "tls_servername": values.get("-s", ""),
            **dict.fromkeys(("tls_ciphers", "tls_mandatory_ciphers"), values.get("-g", "medium")),
            **dict.fromkeys(("tls_protocols", "tls_mandatory_protocols"), values.get("-p", ">=TLSv1")),
        }
        return cls(
            destination=words[0],
            match=match,
            prefix=prefix,
            level=level,
            logged=_logged(values.get("-L", "routine,certmatch")),
            has_chat="-c" not in values,
            prints_chain="-C" in values,
            wrapper="-w" in values,
            insecure_mx=insecure_mx,
            delay_s=_number("-r", values.get("-r", "0"), 0, SECONDS_MAX),
            reconnects_max=_number("-m", values.get("-m", "5"), 0, RECONNECTS_MAX),
            connect_timeout_s=_number("-t", values.get("-t", "30"), 1, SECONDS_MAX),
            command_timeout_s=_number("-T", values.get("-T", "30"), 1, SECONDS_MAX),
            anchors=tuple(value for letter, value in given if letter == "-A"),
            digest=values.get("-d", ""),
            main_cf=tuple(main_cf),
            fixed=tuple(fixed.items()),
        )

    def overrides(self, level: Level) -> list[tuple[str, str]]:
        """Return the parameters for a connection at a level, behind those of `-o`.

        Parameters without an option have their defaults, whatever main.cf says: the result does not depend on the site.
        """
        # Without names, each level has its default. Those for a fallback from dane to secure are for secure.
        names = ", ".join(self.match)
        is_named = level in BY_AUTHORITY and bool(names)
        # Without digests it tells those of the server, and why nobody trusts it.
        is_open = level == "fingerprint" and not names
        own = {
            **dict(self.fixed),
            "tls_security_level": "encrypt" if is_open else level,
            # posttls-finger begins TLS itself.
            "tls_wrappermode": "no",
            "tls_verify_cert_match": names if is_named else "hostname",
            "tls_secure_cert_match": names if is_named else "nexthop, dot-nexthop",
            "tls_fingerprint_cert_match": names if level == "fingerprint" else "",
            # At dane they are no part of the policy, also for a host without TLSA records.
            "tls_trust_anchor_file": ", ".join(self.anchors) if self.level in BY_AUTHORITY else "",
            "tls_loglevel": "2" if is_open or UNTRUSTED in self.logged else "1",
            "tls_session_cache_database": "internal:" if self.delay_s else "",
            "tls_session_cache_timeout": "1d",
            "tls_scert_verifydepth": "9",
            "dns_support_level": "dnssec",
            "randomize_addresses": "yes",
            "mx_address_limit": "0",
            **dict.fromkeys(("tls_policy_maps", "tls_per_site", "dns_resolver_options"), ""),
            **dict.fromkeys(("tls_exclude_ciphers", "tls_mandatory_exclude_ciphers"), "aNULL" if is_open else ""),
            **dict.fromkeys(("tls_eccert_file", "tls_eckey_file", "tls_dcert_file", "tls_dkey_file"), ""),
        }
        shared = {
            "smtp_tls_dane_insecure_mx_policy": self.insecure_mx,
            "smtp_mta_sts": "no",
            "ignore_mx_lookup_error": "no",
            "disable_dns_lookups": "no",
        }
        if self.digest:
            own["tls_fingerprint_digest"] = self.digest
        return [*self.main_cf, *((f"{self.prefix}_{name}", value) for name, value in own.items()), *shared.items()]


def _logged(text: str) -> frozenset[str]:
    """Return the kinds of lines of -L."""
    kinds: frozenset[str] = frozenset()
    for word in _words(text):
        if word in STEP_WORDS:
            say(
                f'warning: -L {word}: no steps of the handshake are shown: use "openssl s_client -starttls smtp -debug"'
            )
        elif word not in LOG_WORDS:
            raise ValueError(f'unknown -L option value "{word}" in "{text}"')
        kinds |= LOG_WORDS.get(word) or STEP_WORDS.get(word, frozenset())
    return kinds


def _words(text: str) -> list[str]:
    return text.lower().replace(",", " ").split()


def _one_of(letter: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise ValueError(f"bad '{letter}' option value: {value}")
    return value


def _number(letter: str, text: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10 and low <= int(text) <= high):
        raise ValueError(f"bad '{letter}' option value: {text}: give a number from {low} to {high}")
    return int(text)


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name.strip() or not equals:
        raise ValueError(f"bad '-o' option value: {text}: give name=value")
    return name.strip(), value.strip()
