"""Parameters that Postfix gives up, each with what to set in its place (Postfix's DEPRECATION_README)."""

from __future__ import annotations

from postillion.config import parameters
from postillion.config.errors import place
from postillion.config.main_cf import Setting
from postillion.config.master_cf import Line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

INSTEAD: dict[str, str] = dict(parameters.rows("deprecated"))  # type: ignore[arg-type]
"""The parameter that takes the place of another; empty where the default is right."""


def warnings(settings: Mapping[str, Setting], lines: Iterable[Line]) -> Iterator[str]:
    """Yield a warning for each setting of main.cf, and each `-o` of master.cf, that Postfix gives up."""
    for name, setting in settings.items():
        if name in INSTEAD:
            yield _warning(setting.path, setting.line, name)
    for line in lines:
        for name in dict(line.overrides()):
            if name in INSTEAD:
                yield _warning(line.path, line.line, name)


def _warning(path: str, line: int | None, name: str) -> str:
    instead = INSTEAD[name]
    advice = f'specify "{instead}"' if instead else "do not specify"
    if parameters.row(name) is None:
        return f"{place(path, line)}: support for parameter {name} has been removed; instead, {advice}"
    return f'{place(path, line)}: support for parameter "{name}" will be removed; instead, {advice}'
