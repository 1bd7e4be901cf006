"""The types of parameters: their parsers, their bounds, and the texts that name the allowed values.

A kind is a word, with bounds for some: `flag`, `number 1..`, `number 200..599`, `time 0..8640000` (seconds), `text`,
`text 1..` (not empty), `choice a b c`, `words a b c` (a list of these words; `empty`: or of none), `list`, `match` (a
list in which `/file` stands for the lines of a file and `!` negates), `maps` (`type:table` ...), `path`, `feedback`
(a number from 0 to 1, a fraction, `number/concurrency` or `number/sqrt_concurrency`) and `raw` (text whose `$name`
the reading program expands later).

A minimum of 0 means no minimum, as in Postfix: `number 0..` accepts -1. `number ..` is a signed number; the other
numbers are limits, and a negative limit is used as 0 (`limit`).
"""

from postillion.config.main_cf import split_list

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NUMBER_MAX = 2**31 - 1
"""Maximum of an int, Postfix's type for numbers; the rows of a few sizes have a greater maximum."""
TIME_MAX_S = 2**31 - 1


def bounds(kind: str) -> tuple[int, int | None]:
    """Return the minimum and maximum of a kind such as `number 1..` or `time 0..10`; None for no maximum.

    A minimum of 0 does not limit a number.
    """
    _, _, text = kind.partition(" ")
    low, _, high = text.partition("..")
    return int(low or 0), int(high) if high else None


def flag(text: str) -> bool | None:
    """Return True for yes, False for no, None for another word."""
    return {"yes": True, "no": False}.get(text.lower())


def number(text: str, kind: str) -> int | None:
    """Return a whole number; None for other text and for a number outside the bounds of `kind`."""
    digits = text[1:] if text[:1] in "+-" else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        return None
    low, high = bounds(kind)
    value = int(text)
    if (low and value < low) or value > (NUMBER_MAX if high is None else high):
        return None
    return value


def limit(value: int, kind: str) -> int:
    """Return a limit for programs: 0 for a negative number."""
    return value if kind == "number .." else max(value, 0)


def time_unit(default: str) -> str:
    """Return the unit of a bare number: the unit at the end of the parameter's default."""
    last = default[-1:]
    return last if last in UNITS and (default[:-1].isdigit() or default[-2:-1] == "}") else "s"


def seconds(text: str, kind: str, default: str) -> float | None:
    """Return a time such as `3h` in seconds; None for other text and for a time out of bounds.

    `default`: the parameter's default, whose unit applies to a bare number (maximal_queue_lifetime counts days).
    """
    unit = UNITS.get(text[-1:])
    count = text if unit is None else text[:-1]
    if not count.isascii() or not count.isdigit() or len(count) > 10:
        return None
    low, high = bounds(kind)
    value = int(count) * (UNITS[time_unit(default)] if unit is None else unit)
    return float(value) if low <= value <= (TIME_MAX_S if high is None else high) else None


def feedback(text: str) -> bool:
    """Return whether a text is valid feedback: the change of the concurrency by a delivery, 0 to 1 at concurrency 1."""
    above, slash, below = (part.strip() for part in text.partition("/"))
    try:
        divisor = 1.0 if not slash or below in ("concurrency", "sqrt_concurrency") else float(below)
        return 0.0 < divisor < float("inf") and 0.0 <= float(above) / divisor <= 1.0
    except ValueError:
        return False


def is_valid(text: str, kind: str, default: str) -> bool:
    """Return whether an expanded value is valid for its kind."""
    word = kind.partition(" ")[0]
    if word == "flag":
        return flag(text) is not None
    if word == "number":
        return number(text, kind) is not None
    if word == "time":
        return seconds(text, kind, default) is not None
    if word == "feedback":
        return feedback(text)
    if word == "choice":
        return text in kind.split(" ")[1:] or (text == "" and "empty" in kind.split(" "))
    if word == "words":
        known = kind.split(" ")[1:]
        given = split_list(text)
        return all(part in known and part != "empty" for part in given) and bool(given or "empty" in known)
    if " " in kind and word in ("text", "list", "match", "maps", "path"):
        low, high = bounds(kind)
        return low <= len(text) <= (len(text) if high is None else high)
    return True


def allowed(kind: str, default: str) -> str:
    """Return a description of the allowed values, to follow the word "give"."""
    word = kind.partition(" ")[0]
    if word == "flag":
        return "yes or no"
    if word == "feedback":
        return "a number from 0 to 1, a fraction, number/concurrency or number/sqrt_concurrency"
    if word == "choice":
        return "one of " + ", ".join(kind.split(" ")[1:])
    if word == "words":
        return "some of " + ", ".join(part for part in kind.split(" ")[1:] if part != "empty")
    if word in ("number", "time"):
        low, high = bounds(kind)
        what = "a whole number"
        unit = ""
        if word == "time":
            names = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
            what = f"a time such as 30s, 5m, 2h, 1d, 1w (bare numbers are {names[time_unit(default)]})"
            unit = " seconds"
        if word == "number" and not low:
            return f"{what} up to {NUMBER_MAX if high is None else high}"
        return f"{what}, {low} or more" + unit if high is None else f"{what}, {low} to {high}" + unit
    if " " in kind:
        low, high = bounds(kind)
        return f"a text of {low} characters" if low == high else "a value that is not empty"
    return "another value"
