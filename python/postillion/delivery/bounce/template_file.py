"""A file of templates (bounce(5)): `failure_template = <<EOF`, header fields, an empty line, text, `EOF`.

| in the file | result |
|---|---|
| it cannot be read, is too large, has a line outside of the templates, or a bad end marker | an error |
| a bad header field, no text, text that is not us-ascii without a `Charset` | a warning, and the built-in template |
| an unknown template | a warning |
| no end marker | a warning; the rest of the file is the template |

A comment or an empty line may stand between templates. Of two templates or fields with one name, the last one holds.
A template on one line, `failure_template = text`, has no header fields. Empty lines above the text are dropped.
"""

from __future__ import annotations

import re
from dataclasses import replace

from postillion.config import ConfigError, main_cf
from postillion.delivery.bounce.template import BUILT_IN, NAMES, US_ASCII, WITH_POSTMASTER_SUBJECT, Template, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postillion.config import Config

FILE_MAX_OCTETS = 1024 * 1024
"""Maximum size of a template file."""
UNKNOWN_MAX = 20
"""Maximum number of warnings about unknown templates in one file."""
PARAMETER = "bounce_template_file"
SUFFIX = "_template"
HERE = "<<"
FIELD = re.compile(r"([!-9;-~]+)[ \t]*:(.*)", re.DOTALL)
CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
FIELDS = {"charset": "charset", "from": "sender", "subject": "subject", "postmaster-subject": "postmaster_subject"}
"""The header fields of a template, as attributes of a `Template`."""


def of_site(config: Config, warn: Callable[[str], None]) -> dict[str, Template]:
    """Return the templates of a site, by name: those of `bounce_template_file`, and the built-in ones for the others.

    `warn` gets a text for each template that is ignored. Raises `ConfigError`.
    """
    path = config.text(PARAMETER)
    if not path:
        return dict(BUILT_IN)
    try:
        return load(path, warn)
    except ConfigError as error:
        if error.line is not None:
            raise
        raise config.error(PARAMETER, f"{PARAMETER}: {path}: {error.problem}", error.fix) from None


def load(path: str, warn: Callable[[str], None]) -> dict[str, Template]:
    """Return the templates of a file, by name, and the built-in ones for those that it lacks.

    `warn` gets a text for each template that is ignored. Raises `ConfigError`.
    """
    try:
        text = main_cf.read(path, FILE_MAX_OCTETS)
    except ConfigError as error:
        raise ConfigError(path, None, error.problem, "name a file with templates, see bounce(5)") from None
    return parse(text, path, warn)


def parse(text: str, path: str, warn: Callable[[str], None]) -> dict[str, Template]:
    """Return the templates in the text of a file, as `load` does."""
    last = {}
    unknown = 0
    for block in _blocks(text, path, warn):
        if block.name.removesuffix(SUFFIX) in NAMES and block.name.endswith(SUFFIX):
            last[block.name.removesuffix(SUFFIX)] = block
        elif (unknown := unknown + 1) <= UNKNOWN_MAX:
            known = ", ".join(name + SUFFIX for name in NAMES)
            problem = f'unknown template "{quoted(block.name)}", which is ignored'
            warn(str(ConfigError(path, block.line, problem, f"name one of {known}")))
    found = dict(BUILT_IN)
    for name, block in last.items():
        try:
            found[name] = _template(name, block, path)
        except ConfigError as error:
            warn(str(error))
    return found


class _Block:
    """A name of the file, with its lines. `line`: that of the name. `first`: that of the first of `lines`."""

    def __init__(self, name: str, line: int, lines: list[str], first: int) -> None:
        self.name = name
        self.line = line
        self.lines = lines
        self.first = first


def _blocks(text: str, path: str, warn: Callable[[str], None]) -> Iterator[_Block]:
    numbered = enumerate(text.removesuffix("\n").split("\n"), 1)
    for line, outside in numbered:
        stripped = outside.strip(main_cf.WHITESPACE)
        if not stripped or stripped.startswith("#"):
            continue
        name, value = main_cf.split_assignment(outside, path, line)
        if not value.startswith(HERE):
            yield _Block(name, line, [value], line)
            continue
        marker = value.removeprefix(HERE).strip(main_cf.WHITESPACE)
        if not (marker[:1].isascii() and marker[:1].isalnum()):
            fix = "write it as in name_template = <<EOF, without quotes"
            raise ConfigError(path, line, f'{"bad" if marker else "missing"} end marker after "{HERE}"', fix)
        lines = []
        for _, inside in numbered:
            if inside == marker:
                break
            lines.append(inside)
        else:
            problem = f'no line has the end marker "{quoted(marker)}" alone, and the rest of the file is the template'
            warn(str(ConfigError(path, line, problem, "add this line, without white space")))
        yield _Block(name, line, lines, line + 1)


def _template(name: str, block: _Block, path: str) -> Template:
    """Return the template of a block. Raises `ConfigError`."""

    def bad(problem: str, fix: str, line: int) -> ConfigError:
        return ConfigError(path, line, f"{name} template: {problem}; the built-in one is used", fix)

    at, lines = 0, block.lines
    while at < len(lines) and not lines[at]:
        at += 1
    values: dict[str, str] = {}
    while at < len(lines) and (field := FIELD.fullmatch(lines[at])) is not None:
        label, value = field[1], field[2].lstrip(main_cf.WHITESPACE)
        attribute, line = FIELDS.get(label.lower()), block.first + at
        if attribute is None:
            fix = f"{_labels(name)} are known; write an empty line above the text"
            raise bad(f'unknown header field "{quoted(label)}"', fix, line)
        if attribute == "postmaster_subject" and name not in WITH_POSTMASTER_SUBJECT:
            raise bad(f'"{label}" has no meaning here', "remove it", line)
        if not value:
            raise bad(f'"{label}" is empty', "give a value, or remove it", line)
        if not value.isascii():
            raise bad(f'"{label}" is not in ASCII', "write it in ASCII, or as an encoded word (RFC 2047)", line)
        if CONTROL.search(value):
            raise bad(f'"{label}" has a control character', "remove it; lines end with LF alone", line)
        values[attribute] = value
        at += 1
    while at < len(lines) and not lines[at].strip(main_cf.WHITESPACE):
        at += 1
    text = "".join(line + "\n" for line in lines[at:])
    if not text:
        raise bad("no text", "write it below the header fields", block.line)
    if "\0" in text:
        raise bad("the text has a NUL", "remove it", block.line)
    if not text.isascii() and values.get("charset", US_ASCII).casefold() == US_ASCII:
        raise bad("the text is not in ASCII", "add a field such as Charset: utf-8", block.line)
    return replace(BUILT_IN[name], **values, text=text, path=path, line=block.first + at)


def _labels(name: str) -> str:
    """Return the header fields of a template, for an error."""
    labels = ["Charset", "From", "Subject"]
    return ", ".join([*labels, "Postmaster-Subject"] if name in WITH_POSTMASTER_SUBJECT else labels)
