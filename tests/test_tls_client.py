"""TLS of the SMTP client at the border: parameters, files, and the policies of destinations."""

from __future__ import annotations

import hashlib
import ssl
from pathlib import Path
from typing import TypedDict, Unpack

import pytest

from postillion._core.tls import TlsClient
from postillion.config import ConfigError
from support.certificates import Authority
from support.memory_config import config

RECORD = (3, 1, 1, b"7" * 32)
NAMES = ["mx.example"]


class Attributes(TypedDict, total=False):
    """The attributes of a policy."""

    names: list[str]
    fingerprints: list[str]
    tlsa: list[tuple[int, int, int, bytes]]
    trust_anchor_files: list[str]
    protocols: str
    ciphers: str
    exclude: str
    servername: str
    session_key: str
    insecure_mx: bool


def client(**main_cf: str) -> TlsClient:
    """Return a client without problems."""
    made = TlsClient(config(**main_cf), "smtp")
    assert made.problem is None
    return made


LEVELS: list[tuple[str, Attributes, str, bool, bool]] = [
    ("none", {}, "none", False, False),
    ("may", {}, "may", False, False),
    ("Encrypt", {}, "encrypt", True, False),
    ("fingerprint", {"fingerprints": ["00" * 16]}, "fingerprint", True, True),
    ("verify", {"names": NAMES}, "verify", True, True),
    ("secure", {"names": [".example"]}, "secure", True, True),
    ("dane", {"names": NAMES, "tlsa": [RECORD]}, "dane", True, True),
    ("dane", {"names": NAMES, "tlsa": [RECORD], "insecure_mx": True}, "half-dane", True, True),
    ("dane", {"names": NAMES, "tlsa": [(0, 1, 1, b"7" * 32)]}, "encrypt", True, False),
    ("dane-only", {"names": NAMES, "tlsa": [RECORD], "insecure_mx": True}, "dane-only", True, True),
]
"""A level, its attributes, the effective level, whether it requires TLS, whether the server must match."""


@pytest.mark.parametrize(("level", "attributes", "effective", "requires_tls", "must_match"), LEVELS)
def test_policy_has_its_level(
    level: str, attributes: Attributes, effective: str, requires_tls: bool, must_match: bool
) -> None:
    policy = client().policy(level, **attributes)
    assert (policy.level, policy.requires_tls, policy.must_match) == (effective, requires_tls, must_match)


BAD: list[tuple[str, Attributes, str]] = [
    ("tls", {}, 'bad TLS security level "tls"'),
    ("half-dane", {"names": NAMES, "tlsa": [RECORD]}, 'bad TLS security level "half-dane"'),
    ("secure", {}, "no name to match at level secure"),
    ("secure", {"names": [""]}, 'bad name to match ""'),
    ("fingerprint", {}, "no fingerprint to match"),
    ("fingerprint", {"fingerprints": ["xy"]}, 'bad fingerprint "xy"'),
    ("fingerprint", {"fingerprints": ["00:11"]}, "a fingerprint has not the length of md5"),
    ("dane-only", {"names": NAMES}, "no usable TLSA record"),
    ("verify", {"names": NAMES, "trust_anchor_files": ["/missing"]}, "/missing: No such file"),
    ("may", {"protocols": "TLSv1.9"}, 'bad TLS version "TLSv1.9"'),
    ("may", {"ciphers": "best"}, 'bad cipher grade "best"'),
    ("may", {"exclude": "ALL"}, "no cipher of OpenSSL is in the list"),
    ("may", {"servername": "-"}, 'bad server name "-"'),
]


@pytest.mark.parametrize(("level", "attributes", "problem"), BAD)
def test_attribute_that_cannot_be_used_has_a_clear_text(level: str, attributes: Attributes, problem: str) -> None:
    with pytest.raises(ValueError) as raised:
        client().policy(level, **attributes)
    assert str(raised.value).startswith(problem)


def test_equal_policies_may_share_a_connection() -> None:
    def policy(level: str = "may", **attributes: Unpack[Attributes]) -> object:
        return made.policy(level, **attributes)

    made = client()
    assert policy() == policy()
    assert len({policy(), policy(), policy(session_key="a"), policy(servername="a"), policy("encrypt")}) == 4


def test_lmtp_has_parameters_of_its_own() -> None:
    settings = {"smtp_tls_CAfile": "/missing", "lmtp_tls_loglevel": "2"}
    smtp, lmtp = (TlsClient(config(**settings), prefix) for prefix in ("smtp", "lmtp"))
    assert smtp.problem is not None
    assert smtp.problem[0] == "smtp_tls_CAfile"
    assert (lmtp.problem, smtp.log_level, lmtp.log_level) == (None, 0, 2)
    with pytest.raises(ConfigError, match="lmtp_tls_ciphers"):
        TlsClient(config(lmtp_tls_ciphers="best"), "lmtp")
    with pytest.raises(ValueError, match="neither smtp nor lmtp"):
        TlsClient(config(), "smtpd")


NEVER_VALID = {
    "smtp_tls_protocols": ">=TLSv1.4",
    "smtp_tls_mandatory_protocols": "!TLSv9",
    "smtp_tls_ciphers": "best",
    "smtp_tls_mandatory_ciphers": "best",
    "smtp_tls_exclude_ciphers": "!RC4",
    "smtp_tls_mandatory_exclude_ciphers": "+RC4",
    "smtp_tls_loglevel": "much",
    "tls_dane_digests": "sha256=2",
}


@pytest.mark.parametrize("parameter", NEVER_VALID)
def test_value_that_is_never_valid_is_refused(parameter: str) -> None:
    with pytest.raises(ConfigError, match=parameter):
        TlsClient(config(**{parameter: NEVER_VALID[parameter]}), "smtp")


def test_files_that_cannot_be_used_are_a_problem(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "authority")
    first, second = authority.sign("/CN=client.example"), authority.sign("/CN=second.example")
    chain = tmp_path / "chain.pem"
    chain.write_text(first.key.read_text() + first.cert.read_text())
    cases: list[tuple[dict[str, str], str | None]] = [
        ({"smtp_tls_cert_file": str(first.cert)}, "smtp_tls_key_file"),
        ({"smtp_tls_cert_file": str(first.cert), "smtp_tls_key_file": str(second.key)}, "smtp_tls_key_file"),
        ({"smtp_tls_chain_files": f"{chain}, /missing"}, "smtp_tls_chain_files"),
        ({"smtp_tls_trust_anchor_file": str(first.key)}, "smtp_tls_trust_anchor_file"),
        ({"smtp_tls_fingerprint_digest": "sha257"}, "smtp_tls_fingerprint_digest"),
        ({"smtp_tls_cert_file": str(first.cert), "smtp_tls_key_file": str(first.key)}, None),
        ({"smtp_tls_chain_files": str(chain), "smtp_tls_CAfile": str(authority.cert)}, None),
        ({"smtp_tls_CApath": str(authority.path), "tls_append_default_CA": "yes"}, None),
        ({"smtp_tls_trust_anchor_file": f"{authority.cert} {first.cert}"}, None),
    ]
    for settings, parameter in cases:
        made = TlsClient(config(**settings), "smtp")
        assert (made.problem and made.problem[0]) == parameter, settings
        # Levels are known anyway: mail that needs TLS waits.
        assert made.policy("encrypt").requires_tls


def test_fingerprint_is_what_openssl_prints(tmp_path: Path) -> None:
    certificate = Authority(tmp_path, "authority").cert
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()
    printed = ":".join(digest[at : at + 2].upper() for at in range(0, len(digest), 2))
    made = client(smtp_tls_fingerprint_digest="sha256")
    assert made.policy("fingerprint", fingerprints=[printed]) == made.policy("fingerprint", fingerprints=[digest])
