"""Match lists, such as `mydestination`: words, of which `!` excludes what fits, and `/file` stands for those of a file.

A word that begins with `#` ends its text, or its line of a file, with a warning: what follows may be a comment.
"""

from __future__ import annotations

from postillion.config import main_cf
from postillion.config.errors import ConfigError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeError = Callable[[str, str], ConfigError]
    """Returns the error of the list for a problem and its fix."""
    Warn = Callable[[str], None]

INCLUDE_DEPTH_MAX = 10
"""Maximum depth of files in files."""


def match_word(word: str) -> tuple[bool, str]:
    """Return whether a word of a match list includes what fits it, and the word without its `!`.

    An odd number of them excludes.
    """
    bare = word.lstrip("!")
    return (len(word) - len(bare)) % 2 == 0, bare


def included(text: str, error: MakeError, warn: Warn) -> Iterator[str]:
    """Yield the words of a list, with those of its files in their place. A word that excludes begins with one `!`.

    Raises the `error` for a `!` without a word, and for a file that cannot be read or includes itself.
    """
    for wanted, bare in _included(text, error, warn, "", 0):
        yield bare if wanted else "!" + bare


def _included(text: str, error: MakeError, warn: Warn, place: str, depth: int) -> Iterator[tuple[bool, str]]:
    """Yield the words of a text, each with whether it includes what fits it. `place`: begins errors and warnings."""
    words = main_cf.split_list(text)
    for at, word in enumerate(words):
        if word.startswith("#"):
            warn(f"{place}comment at end of line is not supported: {' '.join(words[at:])}")
            return
        wanted, bare = match_word(word)
        if not bare:
            raise error(f"{place}no pattern after '!'", "remove the space behind it")
        if not bare.startswith("/"):
            yield wanted, bare
            continue
        if depth >= INCLUDE_DEPTH_MAX:
            raise error(f"{place}{bare}: files include each other", "list the words themselves")
        for inner, found in _of_file(bare, error, warn, depth + 1):
            yield inner is wanted, found


def _of_file(path: str, error: MakeError, warn: Warn, depth: int) -> Iterator[tuple[bool, str]]:
    """Yield the words of a file. Each line is a text of its own, also one that starts with white space."""
    try:
        text = main_cf.read(path)
    except ConfigError as problem:
        raise error(f"{path}: {problem.problem}", "correct this file or its name") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.lstrip(main_cf.WHITESPACE).startswith("#"):
            continue
        place = f"{path}, line {number}: "
        if not main_cf.is_utf8(line):
            raise error(f"{place}this is not UTF-8", "correct this line")
        yield from _included(line, error, warn, place, depth)
