"""The command line of postconf: its options, and which of them exclude or allow each other (postconf(1))."""

from __future__ import annotations

from postillion.commands import getopt
from postillion.config import ConfigError, secrets
from postillion.config.main_cf import split_assignment

USAGE = """\
usage: postconf [-c config_dir] [-C class,...] [-dfhHjnpqvx] [-o name=value] [name...]
       postconf [-c config_dir] -e name=value... | -# name... | -X name...
       postconf [-c config_dir] -M|-F|-P|-PP [-fhHjqvx] [-o name=value] [service[/type[/name]]...]
       postconf [-c config_dir] -M|-F|-P [-e|-X|-#] [service[/type[/name]][=value]...]
       postconf [-c config_dir] -b [template_file] | -t [template_file]
       postconf -a | -A | -l | -m | --explain name..."""
CLASSES = ("builtin", "service", "user", "all")
EXPLAIN = "explain"
LETTERS = "aAbc:C:defFhHjlmMno:pPqtT:vxX#"
MODES = "aAbFlmMpPtT"
"""Options that say what is shown or changed; at most one is given, and `-p` is the default."""
SHOWN_OR_CHANGED = "MpPF"
EDITS = "e#X"
TEMPLATES = "bt"
ALLOWED_WITH = {
    "M": "e#Xfoxj",
    "p": "e#XfhHCxdnoj",
    "F": "efhHoxj",
    "P": "eXfhHoxj",
    "j": "pMFPoxnd",
}
"""The options that each of these accepts, besides `-c`, `-C`, `-q` and `-v`. The other modes accept only these four."""
EXCLUSIVE = (
    ("PP", "e", "#", "X"),
    ("d", "e", "X", "n", "#"),
    ("f", "e", "X", "#"),
    ("x", "e", "X", "#"),
    ("o", "d", "e", "X", "#"),
    ("h", "H", "e", "X", "#"),
)
"""Options that exclude each other: at most one of each row is given."""


class Request:
    """The parsed command line. `words`: the arguments after the options.

    Raises `ConfigError` for an unknown option, a bad value, and options that exclude each other.
    """

    def __init__(self, argv: list[str]) -> None:
        self.directory: str | None = None
        self.letters: set[str] = set()
        self.overrides: list[tuple[str, str]] = []
        self.tls_mode = ""
        self.classes = frozenset(CLASSES)
        try:
            given, self.words = getopt.getopt(argv, LETTERS, [EXPLAIN])
        except getopt.GetoptError as error:
            option = f"-{error.opt}"
            text = f"option {option} needs a value" if "requires" in error.msg else f"unknown option {option}"
            raise _bad(text, USAGE) from None
        for option, value in given:
            letter = option.lstrip("-")
            if letter in "cCoT":
                self._value(letter, value)
            elif letter == "P" and "P" in self.letters:
                self.letters.add("PP")
            self.letters.add(letter)
        if EXPLAIN in self.letters:
            return
        if not self.letters & set(MODES):
            self.letters.add("p")
        if self.letters & set(SHOWN_OR_CHANGED) and self.words and "=" in self.words[0]:
            self.letters.add("e")
        self._check()

    def has(self, *letters: str) -> bool:
        """Whether one of these options was given."""
        return not self.letters.isdisjoint(letters)

    @property
    def part(self) -> str:
        """The part of master.cf that is shown or changed: M, F, P, or empty for main.cf."""
        return next((letter for letter in "MFP" if letter in self.letters), "")

    def _value(self, letter: str, value: str) -> None:
        if letter == "c":
            self.directory = value
        elif letter == "C":
            words = value.replace(",", " ").lower().split()
            for word in words:
                if word not in CLASSES:
                    raise _bad(f'unknown -C option value "{word}" in "{value}"', f"give {', '.join(CLASSES)}")
            self.classes = frozenset(CLASSES if "all" in words else words)
        elif letter == "T":
            if "T" in self.letters:
                raise _bad("option -T was given more than once", USAGE)
            self.tls_mode = value
        elif letter == "o":
            self.overrides.append(split_assignment(value, f"-o {secrets.shown_line(value)}", None))

    def _check(self) -> None:
        given = self.letters - set("cCqv")
        for options in (MODES, *EXCLUSIVE):
            both = [letter for letter in options if letter in given]
            if len(both) > 1:
                raise _bad(f"specify one of {_listed(both)}", USAGE)
        for letter in sorted(given):
            if letter in MODES or letter in ALLOWED_WITH:
                excess = given - {letter, "PP"} - set(ALLOWED_WITH.get(letter, ""))
                if excess:
                    raise _bad(f"with option -{letter}, do not specify {_listed(sorted(excess))}", USAGE)
        if given & set(TEMPLATES) and len(self.words) > 1:
            raise _bad("options -b and -t require at most one template file", USAGE)
        if "e" in given and not self.words:
            raise _bad("-e requires name=value argument", USAGE)
        if given & set(EDITS) and not self.words:
            raise _bad("missing service argument", USAGE)


def _listed(letters: list[str]) -> str:
    return " ".join(f"-{letter}" for letter in letters)


def _bad(problem: str, fix: str) -> ConfigError:
    return ConfigError("command line", None, problem, fix)
