"""Report the site configurations that run whole, and the needs of the others.

    python tests/sites.py DIRECTORY

DIRECTORY has a folder for each site, with its main.cf and, if it has one, its master.cf. Templates are rendered before.
Nothing is changed there: the checker reads a copy, in which the files of tables and lists are stubs, paths outside the
copy lead into it, and directories, owners and interfaces are this machine's.

A site runs whole when the checker refuses nothing, and each parameter that decides about mail has its effect. The
checker stops at the first refusal. So this program removes the refused word or line and asks again, up to
`ROUNDS_MAX` times. A need is what a site lacks here; the report names its files and lines. FILE stands for a file of
the site.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from postillion._core.tables import Index
from postillion.config import ConfigError, main_cf, parameters
from postillion.config.settings import ORIGIN
from postillion.master import checking
from postillion.restrictions.rows import ROWS, Argument
from postillion.tables import TableError
from postillion.tables.maps import INDEXED_TYPES

ROUNDS_MAX = 60
"""Maximum number of refusals of one site in the report."""
NEED_SHOWN_CHARS = 100
"""Maximum length of a message in the name of a need."""
Needs = dict[str, list[str]]
"""The places of each need."""
STUBS = {
    "ldap": "server_host = ldap://127.0.0.1\nsearch_base = dc=x\nquery_filter = (mail=%s)\nresult_attribute = m\n",
    "mysql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT a FROM t WHERE b='%s'\n",
    "pgsql": "hosts = 127.0.0.1\nuser = u\npassword = p\ndbname = d\nquery = SELECT a FROM t WHERE b='%s'\n",
    "sqlite": "dbpath = /dev/null\nquery = SELECT a FROM t WHERE b='%s'\n",
    "memcache": "memcache = inet:127.0.0.1:11211\n",
    **dict.fromkeys(("hash", "btree", "lmdb", "cdb", "dbm", "sdbm", "texthash", "regexp", "pcre", "cidr"), ""),
}
"""Contents of the stub of a table's file, by type."""
TABLE = re.compile(rf"\b({'|'.join(STUBS)}):(/[^\s,{{}}]+)")
HERE = """
queue_directory = {copy}/queue
data_directory = {copy}/data
mail_owner = nobody
setgid_group = nogroup
maillog_file =
maillog_file_prefixes = /var
inet_interfaces = all
alternate_config_directories =
"""
"""Parameters of the copy that concern the machine, not mail."""
REFERENCE = re.compile(r"\$[{(]?(\w+)[)}]?")
PATH = re.compile(r"(?:\w+:)?/[^\s,]+")
DIRECTORIES = dict.fromkeys(("config_directory", "meta_directory"), "/etc/postfix")
"""The values of directories that a site does not set."""
WHOLE, NO_START, LACKS = "whole", "refused as by Postfix", "lacks"
"""Verdicts on a site."""
MASTER_CF = """\
smtp      inet  n       -       n       -       -       smtpd
pickup    unix  n       -       n       60      1       pickup
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       1000?   1       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
smtp      unix  -       -       n       -       -       smtp
relay     unix  -       -       n       -       -       smtp
error     unix  -       -       n       -       -       error
retry     unix  -       -       n       -       -       error
discard   unix  -       -       n       -       -       discard
local     unix  -       n       n       -       -       local
lmtp      unix  -       -       n       -       -       lmtp
anvil     unix  -       -       n       -       1       anvil
"""
"""The master.cf of a site that has none."""
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
ARGUMENT = r"(?:\w+:\{(?:[^{}]|\{[^{}]*\})*\}|[^\s,{}]+)"
"""The word behind a restriction; an inline table has blanks and braces."""
NEUTRAL = {
    "smtpd_relay_restrictions and smtpd_recipient_restrictions would relay": (
        "smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination"
    ),
    **{
        f"{name}: ": f"{name} = error:none"
        for name in ("default_transport", "local_transport", "relay_transport", "virtual_transport")
    },
    "local_recipient_maps: table lmdb:/etc/aliases": "alias_maps =",
    "myhostname": "myhostname = mx.example.org",
}
"""The line of main.cf that replaces a refused value, by the start of the refusal."""
OF_THIS_MACHINE = re.compile(r"Cannot assign requested address|/etc/aliases\.lmdb|table sqlite:\S+: cannot open ")
"""Refusals that concern addresses and files of this machine."""
RESTRICTION = re.compile(
    r'(?:under stress: )?\w+: "([^"]*)" (?:is not supported yet|is a restriction class|must be followed)'
)
"""A refusal of one word in a restriction list."""


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
            warnings = checking.check(str(copy))
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


def copy_site(site: Path, copy: Path) -> None:
    """Copy a site's files; paths of tables and lists lead to stubs in the copy."""
    known = paths((site / "main.cf").read_text(errors="surrogateescape"))
    for name in ("main.cf", "master.cf"):
        text = (site / name).read_text(errors="surrogateescape") if (site / name).exists() else MASTER_CF
        text = REFERENCE.sub(lambda found: value_there(found, known), text)
        text = TABLE.sub(lambda found: f"{found[1]}:{stub(site, copy, found[2], STUBS[found[1]])}", text)
        if name == "main.cf":
            text = with_lists(site, copy, text) + HERE.format(copy=copy)
        (copy / name).write_text(text, errors="surrogateescape")
    write_indexes(copy)
    for name in ("queue", "data"):
        (copy / name).mkdir()
    # The checker's child must read the copy, whatever the mode of temporary directories.
    copy.chmod(0o755)


def write_indexes(copy: Path) -> None:
    """Write the index of each indexed table, as the site's postmap and postalias would. The check shows a refusal."""
    texts = [(copy / name).read_text(errors="surrogateescape") for name in ("main.cf", "master.cf")]
    settings = readable(texts[0])
    aliases = " ".join(settings.get(name, "") for name in ("alias_maps", "alias_database"))
    for kind, path in dict.fromkeys(table for text in texts for table in TABLE.findall(text)):
        if kind in INDEXED_TYPES:
            form: Literal["alias", "map"] = "alias" if path in re.split(r"[\s,:]+", aliases) else "map"
            with contextlib.suppress(TableError):
                Index(kind, path, form=form).create(Path(path).read_bytes(), path)


def paths(text: str) -> dict[str, str]:
    """Return the values of default_database_type and of the parameters of main.cf that are a path or `type:path`."""
    known = {"default_database_type": "hash", **DIRECTORIES}
    for name, value in readable(text).items():
        value = REFERENCE.sub(lambda found: known.get(found[1], found[0]), value)
        if name == "default_database_type" or PATH.fullmatch(value):
            known[name] = value
    return known


def value_there(found: re.Match[str], known: dict[str, str]) -> str:
    """Return the text in place of `$name`: its value where more of a path follows, else `$name` itself."""
    value = known.get(found[1], "")
    following = found.string[found.end() : found.end() + 1]
    return value if value and (following in ("/", ":") or value.endswith("/")) else found[0]


def with_lists(site: Path, copy: Path, text: str) -> str:
    """Return main.cf with paths into the copy in lists of hosts, domains and networks, and in myorigin."""
    for name, value in readable(text).items():
        row = parameters.row(name)
        if row is None or (row[1].partition(" ")[0] != "match" and name != ORIGIN):
            continue
        content = "example.org\n" if name == ORIGIN else ""
        for word in main_cf.split_list(value):
            path = word.removeprefix("!")
            if path.startswith("/") and not path.startswith(str(copy)):
                text = re.sub(rf"(?<=[\s,!=]){re.escape(path)}(?=[\s,]|$)", stub(site, copy, path, content), text)
    return text


def readable(text: str) -> dict[str, str]:
    """Return the values of main.cf by name, without the malformed lines, which the check refuses."""
    values: dict[str, str] = {}
    for line, logical in main_cf.logical_lines(text):
        with contextlib.suppress(ConfigError):
            name, value = main_cf.split_assignment(logical, "main.cf", line)
            values[name] = value
    return values


def stub(site: Path, copy: Path, path: str, text: str) -> str:
    """Return the path in the copy of a file; the site's own file if its folder has one, else a stub."""
    # Flat: a site may have a file below another one, in the copy of another host.
    there = copy / "root" / path.strip("/").replace("/", "+")
    there.parent.mkdir(exist_ok=True)
    own = site / Path(path).name
    if not there.exists():
        if own.is_file():
            shutil.copyfile(own, there)
        else:
            there.write_text(text)
    return str(there)


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


def remove_refused(copy: Path, refusal: ConfigError) -> bool:
    """Remove the refused word, option or line; return whether there was one.

    In master.cf this is the `-o` of the named parameter, else the whole service. A parameter of main.cf that has its
    default gets an empty value.
    """
    path = Path(refusal.path)
    for begin, line in NEUTRAL.items():
        if refusal.problem.startswith(begin) and line not in (copy / "main.cf").read_text(errors="surrogateescape"):
            with (copy / "main.cf").open("a") as file:
                file.write(line + "\n")
            return True
    name = re.match(r'(?:bad value ".*" for )?(\w+)(?: =|:|$)', refusal.problem)
    if path.is_relative_to(copy / "root"):
        return replace_table(copy, path)
    if path.parent != copy or refusal.line is None:
        if (
            name is None
            or name[1] not in parameters.PARAMETERS
            or "\n" + name[1] + " =\n" in (copy / "main.cf").read_text(errors="surrogateescape")
        ):
            return False
        with (copy / "main.cf").open("a") as file:
            file.write(f"{name[1]} =\n")
        return True
    lines = path.read_text(errors="surrogateescape").split("\n")
    first = refusal.line - 1
    last = first + 1
    while last < len(lines) and (lines[last][:1] in (" ", "\t", "#") or not lines[last].strip()):
        last += 1
    logical = "\n".join(lines[first:last])
    kept = "#"
    restriction = RESTRICTION.match(refusal.problem)
    if restriction:
        row = ROWS.get(restriction[1].lower())
        argument = (
            rf"\s+{ARGUMENT}" if row is not None and row.argument not in (Argument.NONE, Argument.RESTRICTION) else ""
        )
        word = re.compile(rf"(?<=[\s,={{]){re.escape(restriction[1])}(?:{argument}(?=[\s,}}]|$)|(?=[\s,}}]|$))")
        kept = word.sub("", logical, count=1)
        if kept != logical:
            write(path, lines, first, last, kept)
            return True
        if remove_word(copy, word):
            return True
        kept = "#"
    if path.name == "master.cf" and name is not None:
        option = re.compile(rf"\s+-o\s*(?:\{{\s*{name[1]}\s*=[^}}]*\}}|{name[1]}\s*=\S*)")
        if option.search(logical):
            kept = option.sub("", logical)
    write(path, lines, first, last, kept)
    return kept != logical


def remove_word(copy: Path, word: re.Pattern[str]) -> bool:
    """Remove a restriction from the parameter that the refused list refers to; return whether there was one."""
    path = copy / "main.cf"
    lines = path.read_text(errors="surrogateescape").split("\n")
    for number, line in enumerate(lines):
        kept = line if line.lstrip().startswith("#") else word.sub("", line, count=1)
        if kept != line:
            write(path, lines, number, number + 1, kept)
            return True
    return False


def write(path: Path, lines: list[str], first: int, last: int, kept: str) -> None:
    """Write a file with `kept` in place of some lines. The lines behind it keep their numbers."""
    there = kept.split("\n")
    there += ["#"] * (last - first - len(there))
    path.write_text("\n".join([*lines[:first], *there, *lines[last:]]), errors="surrogateescape")


def replace_table(copy: Path, path: Path) -> bool:
    """Put an inline table in place of the tables that a file configures; return whether there was one."""
    found = 0
    for name in ("main.cf", "master.cf"):
        text = (copy / name).read_text(errors="surrogateescape")
        text, here = re.subn(rf"(?:proxy:)?\w+:{re.escape(str(path))}(?![^\s,}}])", "inline:{none=:}", text)
        (copy / name).write_text(text, errors="surrogateescape")
        found += here
    return found > 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
