"""Libraries of remote tables. They are extras: a site that has no such table does not need them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from types import ModuleType

from postillion.config import ConfigError
from postillion.tables.remote.parameters import Parameters


def load(module: str, extra: str, parameters: Parameters, parts: Iterable[str] = ()) -> ModuleType:
    """Return a library, with the `parts` that it imports at their first use: mail_owner may not be able to read them.

    Raises `ConfigError` when the library is not installed.
    """
    try:
        for part in parts:
            importlib.import_module(part)
        return importlib.import_module(module)
    except ImportError as problem:
        text = f"{extra} tables need a library that cannot be loaded ({problem})"
        raise ConfigError(parameters.path, None, text, f"run pip install 'postillion[{extra}]'") from None
