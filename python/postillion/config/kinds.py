"""The types of parameters: their parsers, their bounds, and the texts that name the allowed values.

A kind is a word, with bounds for some: `flag`, `number 1..`, `number 200..599`, `time 0..8640000` (seconds), `text`,
`text 1..` (not empty), `choice a b c`, `list`, `match` (a list in which `/file` stands for the lines of a file and
`!` negates), `maps` (`type:table` ...), `path`, and `raw` (text whose `$name` the reading program expands later).
"""

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
NUMBER_MAX = 2**63 - 1
TIME_MAX_S = 2**31 - 1


def bounds(kind: str) -> tuple[int, int | None]:
    """Return the minimum and maximum of a kind such as `number 1..` or `time 0..10`; None for no maximum."""
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
    return value if low <= value <= (NUMBER_MAX if high is None else high) else None


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


def is_valid(text: str, kind: str, default: str) -> bool:
    """Return whether an expanded value is valid for its kind."""
    word = kind.partition(" ")[0]
    if word == "flag":
        return flag(text) is not None
    if word == "number":
        return number(text, kind) is not None
    if word == "time":
        return seconds(text, kind, default) is not None
    if word == "choice":
        return text in kind.split(" ")[1:] or (text == "" and "empty" in kind.split(" "))
    if " " in kind and word in ("text", "list", "match", "maps", "path"):
        low, high = bounds(kind)
        return low <= len(text) <= (len(text) if high is None else high)
    return True


def allowed(kind: str, default: str) -> str:
    """Return a description of the allowed values, to follow the word "give"."""
    word = kind.partition(" ")[0]
    if word == "flag":
        return "yes or no"
    if word == "choice":
        return "one of " + ", ".join(kind.split(" ")[1:])
    if word in ("number", "time"):
        low, high = bounds(kind)
        what = "a whole number"
        unit = ""
        if word == "time":
            names = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
            what = f"a time such as 30s, 5m, 2h, 1d, 1w (bare numbers are {names[time_unit(default)]})"
            unit = " seconds"
        return f"{what}, {low} or more" + unit if high is None else f"{what}, {low} to {high}" + unit
    if " " in kind:
        low, high = bounds(kind)
        return f"a text of {low} characters" if low == high else "a value that is not empty"
    return "another value"
