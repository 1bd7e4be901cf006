"""The record and the policy of MTA-STS, from their octets (RFC 8461 §3.1, §3.2)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from postillion.delivery.smtp.nexthop import is_host_name

POLICY_MAX_OCTETS: Final = 65_536
"""Maximum size of a policy (§3.3)."""
MAX_AGE_MAX_S: Final = 31_557_600
"""Longest time that a policy holds, about a year (§3.2)."""
MX_MAX: Final = 1000
"""Maximum number of patterns of a policy."""
MODES: Final = ("enforce", "testing", "none")
VERSION: Final = "STSv1"
RECORD_FIELD: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([\x21-\x3a\x3c\x3e-\x7e]+)")
RECORD_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
FIELD: Final = re.compile(
    r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31}):[ \t]*([^\x00-\x20\x7f](?:[^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?)[ \t]*"
)
NUMBER: Final = re.compile(r"[0-9]{1,10}")


class BadPolicy(ValueError):
    """A policy that cannot be used; the text says why."""


@dataclass(frozen=True, slots=True)
class StsPolicy:
    """A policy. `mx`: names of hosts, `*.` for one label. `max_age_s`: how long it holds. `lines`: its text."""

    mode: Literal["enforce", "testing", "none"]
    max_age_s: int
    mx: tuple[str, ...]
    lines: tuple[str, ...]


def record_id(records: Sequence[bytes]) -> str | None:
    """Return the id of the domain's policy from its TXT records; None without exactly one valid record."""
    found = [record for record in records if re.match(rb"v=STSv1[ \t]*;", record)]
    if len(found) != 1:
        return None
    identifier = None
    fields = re.split(rb"[ \t]*;[ \t]*", found[0].rstrip(b" \t"))[1:]
    if fields and fields[-1] == b"":
        fields.pop()
    for text in fields:
        field = RECORD_FIELD.fullmatch(text)
        if field is None:
            return None
        if field[1] == b"id" and identifier is None:
            identifier = field[2].decode("ascii")
    if identifier is None or not RECORD_ID.fullmatch(identifier):
        return None
    return identifier


def parse(octets: bytes) -> StsPolicy:
    """Return the policy in the octets of its file. Of a field that occurs twice, the first one counts (§3.2).

    Raises `BadPolicy`.
    """
    if len(octets) > POLICY_MAX_OCTETS:
        raise BadPolicy(f"the policy has more than {POLICY_MAX_OCTETS} octets")
    try:
        text = octets.decode("utf-8")
    except UnicodeDecodeError:
        raise BadPolicy("the policy is not UTF-8") from None
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    lines = [line for line in lines if line.strip(" \t")]
    fields: dict[str, str] = {}
    mx: list[str] = []
    for line in lines:
        field = FIELD.fullmatch(line)
        if field is None:
            raise BadPolicy(f'"{line:.80}" is no field')
        if field[1] == "mx":
            mx.append(_pattern(field[2]))
        else:
            fields.setdefault(field[1], field[2])
    return _policy(fields, mx, lines)


def _policy(fields: dict[str, str], mx: list[str], lines: list[str]) -> StsPolicy:
    if fields.get("version") != VERSION:
        raise BadPolicy(f"the version is not {VERSION}")
    mode = next((mode for mode in MODES if mode == fields.get("mode")), None)
    if mode is None:
        raise BadPolicy("the mode is not enforce, testing or none")
    max_age = fields.get("max_age", "")
    if not NUMBER.fullmatch(max_age):
        raise BadPolicy("max_age is no number of seconds")
    if not mx and mode != "none":
        raise BadPolicy("no mx is given")
    if len(mx) > MX_MAX:
        raise BadPolicy(f"more than {MX_MAX} mx are given")
    return StsPolicy(mode, min(int(max_age), MAX_AGE_MAX_S), tuple(dict.fromkeys(mx)), tuple(lines))


def _pattern(text: str) -> str:
    pattern = text.lower()
    if not is_host_name(pattern.removeprefix("*.")):
        raise BadPolicy(f'mx "{text:.80}" is no host name')
    return pattern
