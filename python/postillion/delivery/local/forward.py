"""A user's .forward file: the targets of mail instead of the mailbox (local(8), forward_path)."""

import os
import re
import stat
from collections.abc import Mapping

from postillion.delivery.account import Account, acting_as
from postillion.delivery.local.aliases import read_list
from postillion.delivery.local.targets import Target, parse_lines

FORWARD_MAX_OCTETS = 1024 * 1024
REFERENCE = re.compile(r"\$\$|\$(\w+)|\$\((\w+)(?:([?:])([^()]*))?\)|\$\{(\w+)(?:([?:])([^{}]*))?\}")


class UndefinedError(KeyError):
    """A name without a value; a path with such a name is skipped."""


def expand(text: str, values: Mapping[str, str], allowed: str | None = None, *, lenient: bool = False) -> str:
    """Return a parameter's text with `$name`, `${name}`, `${name?if set}` and `${name:if not}` replaced.

    `allowed`: other characters of values become `_`. A plain reference without a value is empty if `lenient`, else it
    raises `UndefinedError`.
    """

    def value(name: str) -> str:
        found = values.get(name, "")
        return found if allowed is None else "".join(char if char in allowed else "_" for char in found)

    def replace(found: re.Match[str]) -> str:
        if found.group() == "$$":
            return "$"
        plain, round_name, round_sign, round_text, brace_name, brace_sign, brace_text = found.groups()
        name = plain or round_name or brace_name
        sign, rest = round_sign or brace_sign, round_text or brace_text or ""
        if not sign:
            if not lenient and not values.get(name):
                raise UndefinedError(name)
            return value(name)
        return rest if bool(values.get(name)) == (sign == "?") else ""

    return REFERENCE.sub(replace, text)


def find_forward(
    paths: list[str], values: Mapping[str, str], allowed: str, account: Account
) -> tuple[str | None, list[Target], str | None]:
    """Return the first existing file of forward_path, its targets, and its problem.

    Without targets, mail goes to the mailbox. A file that is not regular, belongs to another user or is
    world-writable has a problem and no targets: another user could write commands into it.
    """
    for pattern in paths:
        try:
            path = expand(pattern, values, allowed)
        except UndefinedError:
            continue
        with acting_as(account):
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if not stat.S_ISREG(status.st_mode):
                return path, [], f"file {path} is not a regular file"
            try:
                text, status = read_list(path, FORWARD_MAX_OCTETS)
            except OSError as error:
                return path, [], f"cannot open file {path}: {error.strerror}"
        if status.st_uid not in (0, account.uid):
            return path, [], f"file {path} has bad owner uid {status.st_uid}"
        if status.st_mode & stat.S_IWOTH:
            return path, [], f"file {path} is world writable"
        return path, parse_lines(text), None
    return None, [], None
