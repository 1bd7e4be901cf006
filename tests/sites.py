"""Report the site configurations that run whole, and the needs of the others.

    python tests/sites.py DIRECTORY

DIRECTORY has a folder for each site, with its main.cf and, if it has one, its master.cf. Templates are rendered before.
Nothing is changed there: the checker reads a copy (`support/site_copy.py`).

A site runs whole when the checker refuses nothing, and each parameter that decides about mail has its effect. The
checker stops at the first refusal. So this program removes the refused word or line (`support/site_repair.py`) and asks
again, up to `ROUNDS_MAX` times. A need is what a site lacks here; the report names its files and lines. FILE stands for
a file of the site.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from postillion.config import ConfigError
from postillion.master import checking
from support.site_copy import copy_site
from support.site_repair import RESTRICTION, remove_refused

ROUNDS_MAX = 60
"""Maximum number of refusals of one site in the report."""
NEED_SHOWN_CHARS = 100
"""Maximum length of a message in the name of a need."""
Needs = dict[str, list[str]]
"""The places of each need."""
WHOLE, NO_START, LACKS = "whole", "refused as by Postfix", "lacks"
"""Verdicts on a site."""
NOT_DECIDING = re.compile(
    r"(proxy_read_maps|max_use|max_idle|.*_time_limit|smtpd_reject_footer|smtp_pix_workarounds|enable_original_recipient|.*_directory"
    r"|smtputf8_autodetect_classes|readme_directory|syslog_.*|.*_path|mail_version|.*_loglevel|unix_mail_owner)$"
)
"""Parameters that decide nothing about mail."""
WITHOUT_EFFECT = re.compile(r"(?:^|: )([\w-]+) ?=.* has no effect")
NOT_MISSED = re.compile(
    r"chroot|duplicate|overriding earlier entry|cannot read|no program that is started reads this"
    r"|services without an implemented program|unused parameter|undefined parameter"
    r"|mailbox_size_limit is smaller"
    r"|Can't connect|Can't contact|connection failed|Connection refused|No such file or directory$"
)
"""Warnings that concern the copy, or nothing that decides about mail. A transport without its program is refused."""
AS_POSTFIX = re.compile(r"smtpd_relay_restrictions and smtpd_recipient_restrictions would relay")
"""Refusals of configurations that Postfix refuses too."""
OF_THIS_MACHINE = re.compile(r"Cannot assign requested address|/etc/aliases\.lmdb|table sqlite:\S+: cannot open ")
"""Refusals that concern addresses and files of this machine."""


def main(words: list[str]) -> int:
    """Print the report; return the exit status."""
    if len(words) != 1 or not Path(words[0]).is_dir():
        print("usage: python tests/sites.py DIRECTORY", file=sys.stderr)
        return 2
    sites = sorted(path.parent for path in Path(words[0]).glob("*/main.cf") if path.is_file())
    counts = Counter[str]()
    verdicts = Counter[str]()
    for site in sites:
        needs = lacks(site)
        counts.update(needs.keys())
        verdict = verdict_on(needs)
        verdicts[verdict] += 1
        print(f"{site.name}: {verdict}{f' {len(needs)}' if verdict == LACKS else ''}", flush=True)
        for need, places in sorted(needs.items()):
            print(f"    {need} ({'; '.join(places)})" if places else f"    {need}")
    print(f"\n{verdicts[WHOLE]} of {len(sites)} sites run whole, {verdicts[NO_START]} are refused as by Postfix")
    for need, number in counts.most_common():
        print(f"{number:4} {need}")
    return 0


def verdict_on(needs: Needs) -> str:
    """Return the verdict on a site: whole, refused for what Postfix refuses too, or lacking something."""
    if not needs:
        return WHOLE
    return NO_START if all(AS_POSTFIX.search(need) for need in needs) else LACKS


def lacks(site: Path) -> Needs:
    """Return the needs of a site that are not met, with their places."""
    needs: Needs = {}
    with tempfile.TemporaryDirectory(prefix="site") as directory:
        copy = Path(directory)
        copy_site(site, copy)
        for need, where in needs_of(copy):
            places = needs.setdefault(need, [])
            shown = place(site, copy, where)
            if shown and shown not in places:
                places.append(shown)
    return needs


def needs_of(copy: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield each need of a copy with its path and line in the copy; 0: no line."""
    for _ in range(ROUNDS_MAX):
        try:
            warnings, _ = checking.check(str(copy))
        except ConfigError as refusal:
            if not OF_THIS_MACHINE.search(str(refusal)):
                yield refused(refusal, copy), (refusal.path, refusal.line or 0)
            if not remove_refused(copy, refusal):
                yield "the rest of the files, which the checker did not reach", ("", 0)
                return
        else:
            yield from needs_in(warnings, copy)
            return
    yield f"more than these {ROUNDS_MAX} lines", ("", 0)


def place(site: Path, copy: Path, where: tuple[str, int]) -> str:
    """Return the file and line of the site for those of its copy; empty for a line that the site does not have."""
    path, line = Path(where[0]), where[1]
    if path.is_relative_to(copy / "root"):
        name = "/" + path.name.replace("+", "/")
        return f"{name}, line {line}" if line else name
    own = site / path.name
    if path.parent != copy or not own.is_file() or not 0 < line <= own.read_bytes().count(b"\n") + 1:
        return ""
    return f"{path.name}, line {line}"


def refused(refusal: ConfigError, copy: Path) -> str:
    """Return the need that a refusal shows, without the site's own values."""
    problem = refusal.problem
    unsafe = re.match(r"(\w+) = .* is not supported yet", problem, re.DOTALL)
    restriction = RESTRICTION.match(problem)
    table = re.search(r'unknown table type "(\w+)"', problem)
    library = re.match(r"(\w+) tables need a library", problem)
    if unsafe:
        return f"parameter {unsafe[1]}"
    if library:
        return f"the library of {library[1]} tables, which is not installed here"
    if table:
        return f"table {table[1]}"
    if restriction:
        return f"restriction {'type:table' if ':' in restriction[1] else restriction[1]}"
    return f"refused: {without_paths(problem, copy)}"


def needs_in(warnings: Iterable[str], copy: Path) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the needs that warnings show, with path and line."""
    for warning in warnings:
        where = re.match(r"(\S+), line (\d+): ", warning)
        there = (where[1], int(where[2])) if where else ("", 0)
        found = WITHOUT_EFFECT.search(warning)
        if found:
            if not NOT_DECIDING.match(found[1]):
                yield f"parameter {found[1]}", there
        elif not NOT_MISSED.search(warning):
            text = re.sub(r"^\S+(, line \d+)?: ", "", warning)
            yield f"warning: {without_paths(text, copy)}", there


def without_paths(text: str, copy: Path) -> str:
    """Return the start of a message, with FILE in place of paths of the copy."""
    return re.sub(rf"{re.escape(str(copy))}[^ ,:\"]*", "FILE", text)[:NEED_SHOWN_CHARS]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
