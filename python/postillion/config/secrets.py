"""Passwords in configuration files, which no log line, listing and error shows.

A password is the value of a parameter of a remote table (`bind_pw` in the table's file, `users_bind_pw` in main.cf), a
part of a URI (`postgresql://user:password@host`, `...?password=...`), or a value that one of these refers to.
"""

from __future__ import annotations

from postillion.config import expansion

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HIDDEN = "[password]"
NAMES = ("password", "bind_pw")
"""Ends of the names of passwords (ldap_table(5), mysql_table(5), pgsql_table(5), the parameters of a URI)."""
SCHEME = "://"
SIGNS = (*((name.encode(),) for name in NAMES), (SCHEME.encode(), b"@"))
"""Texts that a line with a password has; of the last two, both."""


def is_secret(name: str) -> bool:
    """Return whether a parameter is a password by its name."""
    return name.endswith(NAMES)


def names(values: Mapping[str, str]) -> set[str]:
    """Return the names of the passwords among `values`, with those that a password refers to.

    `values`: unexpanded values by name. With `users_bind_pw = $shared`, `shared` is one.
    """
    found: list[str] = []
    for name, value in values.items():
        if is_secret(name):
            found.append(name)
        elif "$" in value and SCHEME in value:
            found += expansion.names(value) - expansion.names(without_passwords(value))
    seen = set(found)
    for name in found:
        new = expansion.names(values.get(name, "")) - seen
        seen |= new
        found += new
    return seen


def shown(name: str, value: str, others: Iterable[str] = ()) -> str:
    """Return a value for a log line or a listing. `others`: further names of passwords."""
    if value and (is_secret(name) or name in others):
        return HIDDEN
    return without_passwords(value)


def hides(name: str, value: str) -> bool:
    """Return whether `shown` hides a part of the value."""
    return shown(name, value) != value


def shown_pair(text: str, others: Iterable[str] = ()) -> str:
    """Return `name=value` for a log line or a listing."""
    name, equals, value = text.partition("=")
    return name + equals + shown(name.strip(), value, others) if equals else shown_line(text)


def shown_line(text: str) -> str:
    """Return a malformed line for an error. All that follows the name of a password is hidden."""
    ends = (at for at, char in enumerate(text) if text.endswith(NAMES, 0, at) and not (char.isalnum() or char == "_"))
    end = next(ends, len(text))
    start = without_passwords(text[:end])
    return start if end == len(text) else f"{start} {HIDDEN}"


def without_passwords(text: str) -> str:
    """Return a text whose URIs have no password."""
    if SCHEME not in text:
        return text
    first, *rest = text.split(SCHEME)
    return SCHEME.join([first, *map(_without_password, rest)])


def may_hold(octets: bytes) -> bool:
    """Return whether a configuration file may hold a password, outside of its comments."""
    if not any(_is_sign(octets, sign) for sign in SIGNS):
        return False
    lines = [line for line in octets.split(b"\n") if not line.lstrip().startswith(b"#")]
    return any(_is_sign(line, sign) for line in lines for sign in SIGNS)


def _is_sign(octets: bytes, sign: Iterable[bytes]) -> bool:
    return all(part in octets for part in sign)


def _without_password(text: str) -> str:
    """Return a text that begins behind `scheme://`, without the password of this URI."""
    end = next((at for at, char in enumerate(text) if char.isspace()), len(text))
    uri, rest = text[:end], text[end:]
    login, sign, place = uri.rpartition("@")
    user, colon, password = login.partition(":")
    if sign and colon and not _is_host(user, password):
        uri = f"{user}:{HIDDEN}@{place}"
    path, mark, query = uri.partition("?")
    return path + mark + "&".join(map(shown_pair, query.split("&"))) + rest


def _is_host(name: str, text: str) -> bool:
    """Return whether `name:text` before an `@` is a host with its port and a path, which has that `@`."""
    return name.startswith("[") or text.lstrip("0123456789")[:1] in ("/", "?", "#")
