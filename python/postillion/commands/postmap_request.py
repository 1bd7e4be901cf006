"""A call of postmap or postalias: the command, its options and its messages."""

from __future__ import annotations

import sys

from postillion.commands import getopt
from postillion.text import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, NoReturn

    from postillion.config import Config


class Tool:
    """One of the commands postmap and postalias: its name, form of a text, options, and separator of key and value."""

    def __init__(self, program: str, form: Literal["map", "alias"], letters: str, separator: str) -> None:
        self.program = program
        self.form: Literal["map", "alias"] = form
        self.letters = letters
        self.separator = separator

    def say(self, severity: str, text: str) -> None:
        """Write a line to standard error."""
        print(f"{self.program}: {severity}: {printable(text)}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Write a line that is neither a warning nor an error to standard error."""
        print(f"{self.program}: {printable(text)}", file=sys.stderr)

    def fatal(self, text: str) -> NoReturn:
        """Write the error, and end with exit status 1."""
        self.say("fatal", text)
        sys.exit(1)

    def stdin(self, max_octets: int) -> bytes:
        """Return the octets of standard input. Ends with exit status 1 if they are more than `max_octets`."""
        octets = sys.stdin.buffer.read(max_octets + 1)
        if len(octets) > max_octets:
            self.fatal(f"standard input has more than {max_octets} octets")
        return octets

    def usage(self) -> NoReturn:
        """Write the options, and end with exit status 1."""
        letters = self.letters
        self.fatal(f"usage: {self.program} [-{letters}] [-c config_dir] [-d key] [-q key] [map_type:]file...")


class Options:
    """The options of one call."""

    def __init__(self, tool: Tool, argv: list[str]) -> None:
        """Parse the options. Ends the program with Postfix's errors."""
        self.tool = tool
        try:
            given, self.names = getopt.gnu_getopt(argv, tool.letters + "c:d:q:")
        except getopt.GetoptError as error:
            text = "option requires an argument" if "requires" in error.msg else "invalid option"
            print(f"{tool.program}: {text} -- '{error.opt}'", file=sys.stderr)
            tool.usage()
        self.letters = {name[1] for name, _ in given}
        values = dict(given)
        self.config_directory = values.get("-c")
        self.query = values.get("-q")
        self.delete = values.get("-d")
        if len([name for name, _ in given if name in {"-q", "-d", "-s"}]) > 1:
            tool.fatal("specify only one of -s -q or -d")
        if self.letters & set("bhm") and self.query != "-":
            tool.fatal('specify -b -h or -m only with "-q -"')
        if "m" in self.letters and not self.letters & set("bh"):
            tool.say("warning", "ignoring -m option without -b or -h")
        if not self.names:
            tool.usage()
        self.json = "j" in self.letters
        self.fold = "f" not in self.letters
        self.files = "F" in self.letters
        self.keeps_rights = "o" in self.letters
        # As in Postfix, values stay in base64 under -b and -h.
        self.decodes = self.files and not self.letters & set("bh")

    @property
    def duplicates(self) -> Literal["warn", "ignore", "replace"]:
        """Return what happens to a second value of a key."""
        return "replace" if "r" in self.letters else "ignore" if "w" in self.letters else "warn"

    @property
    def nulls(self) -> bool | None:
        """Return whether keys and values end with a null octet; None: the table type decides."""
        return True if "N" in self.letters else False if "n" in self.letters else None

    def utf8(self, config: Config) -> bool:
        """Return whether keys and values must be UTF-8: -u says no, -b and -h say no without -U."""
        if "u" in self.letters or (self.letters & set("bh") and "U" not in self.letters):
            return False
        return config.flag("smtputf8_enable")


def encoded(text: str | None) -> bytes:
    """Return the octets of an argument or a value, as they came, also those that are not UTF-8."""
    return (text or "").encode("utf-8", "surrogateescape")
