"""Tables with their contents in main.cf: `inline:{ key=value, { key = value } }`, `static:value`, `fail:reason`."""

from postillion.tables.table import TableError, TableTypeError


class InlineTable:
    """Keys and values written in main.cf. Lookups ignore case; the last entry of a key wins.

    A value may be empty, because lists of hosts or domains use only the key.
    """

    owner: int | None = None

    def __init__(self, name: str, text: str) -> None:
        """Parse the text; raises `TableTypeError` unless it is `{ key=value ... }`."""
        self.name = name
        self._entries: dict[str, str] = {}
        if not (text.startswith("{") and text.endswith("}")):
            raise TableTypeError(f'"{name}": expected "inline:{{ key=value, {{ key = text }} }}"')
        for item in split_braced(text[1:-1]):
            entry = item[1:-1] if item.startswith("{") and item.endswith("}") else item
            key, sign, value = entry.partition("=")
            if not sign or not key.strip():
                raise TableTypeError(f'"{name}": expected "key=value" instead of "{entry.strip()}"')
            self._entries[key.strip().lower()] = value.strip()
        if not self._entries:
            raise TableTypeError(f'"{name}": expected at least one "key=value"')
        self.has_addresses = any("@" in key for key in self._entries)

    def refresh(self) -> None:
        """Do nothing: the table has no file."""

    def values(self) -> list[str]:
        """Return the values, in the order of the keys."""
        return list(self._entries.values())

    def lookup(self, key: str) -> str | None:
        """Return the value for `key`; None when there is none."""
        return self._entries.get(key.lower())


class StaticTable:
    """One value for every key."""

    owner: int | None = None

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self._value = text[1:-1].strip() if text.startswith("{") and text.endswith("}") else text

    def refresh(self) -> None:
        """Do nothing: the table has no file."""

    def values(self) -> list[str]:
        """Return the one value."""
        return [self._value]

    def lookup(self, key: str) -> str | None:
        """Return the value for any key."""
        return self._value


class FailTable:
    """A table whose lookups always fail temporarily, to test a configuration."""

    owner: int | None = None

    def __init__(self, name: str) -> None:
        self.name = name

    def refresh(self) -> None:
        """Do nothing: the table has no file."""

    def values(self) -> list[str]:
        """Return an empty list: no lookup gives a value."""
        return []

    def lookup(self, key: str) -> str | None:
        """Raise `TableError`."""
        raise TableError(f"table {self.name}: fails for every key, as configured")


def split_braced(text: str) -> list[str]:
    """Return the parts of a list, split at commas and white space; a part in braces is not split."""
    parts, part, depth = list[str](), "", 0
    for char in text:
        if depth == 0 and (char == "," or char.isspace()):
            if part:
                parts.append(part)
            part = ""
            continue
        depth += (char == "{") - (char == "}")
        part += char
    return [*parts, part] if part else parts
