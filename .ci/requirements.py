"""Print what uv.lock pins as requirements for pip: the packages that Postillion needs, and those of the named groups.

usage: .ci/requirements.py [GROUP ...]

uv reads the lock itself (`uv sync --locked`). The Makefile needs nothing but pip, and pip cannot read the lock. Each
line lists the digests of the package's files, so pip refuses any other file. Markers are left out: the lock covers
CPython on Linux, where a package that its marker excludes does no harm.

Errors: exit status 1 when uv.lock lacks what pyproject.toml names.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PROJECT = "postillion"
NAME = re.compile(r"[A-Za-z0-9._-]+")


def requirements(lock: dict[str, Any], groups: list[str]) -> list[str]:
    """Return one line per package that Postillion and these groups need, in alphabetical order."""
    packages = {package["name"]: package for package in lock["package"]}
    project = packages.pop(PROJECT)
    wanted = [*project["dependencies"]]
    for group in groups:
        wanted += project["dev-dependencies"][group]
    found: set[str] = set()
    while wanted:
        name = wanted.pop()["name"]
        if name not in found:
            found.add(name)
            wanted += packages[name].get("dependencies", ())
    return [line(packages[name]) for name in sorted(found)]


def line(package: dict[str, Any]) -> str:
    """Return one requirement: name, version, and the digest of every file of that version."""
    files = [*package.get("wheels", ()), *([package["sdist"]] if "sdist" in package else ())]
    return " ".join([f"{package['name']}=={package['version']}", *(f"--hash={file['hash']}" for file in files)])


def unlocked(pyproject: dict[str, Any], lock: dict[str, Any]) -> set[str]:
    """Return the packages that pyproject.toml names and the lock does not have for Postillion."""
    groups = pyproject["dependency-groups"].values()
    asked = [*pyproject["project"]["dependencies"], *(entry for group in groups for entry in group)]
    locked = {package["name"] for package in lock["package"]}
    return names(entry for entry in asked if isinstance(entry, str)) - locked


def names(specifiers: Iterable[str]) -> set[str]:
    """Return the normalised project names in these requirement specifiers (PEP 503)."""
    found = (NAME.match(specifier) for specifier in specifiers)
    return {re.sub(r"[-_.]+", "-", match[0]).lower() for match in found if match}


def main() -> None:
    """Print the requirements of the groups that the command line names."""
    lock = tomllib.loads((ROOT / "uv.lock").read_text())
    missing = unlocked(tomllib.loads((ROOT / "pyproject.toml").read_text()), lock)
    if missing:
        sys.exit(f"uv.lock lacks {', '.join(sorted(missing))}: run `make lock`")
    print("\n".join(requirements(lock, sys.argv[1:])))


if __name__ == "__main__":
    main()
