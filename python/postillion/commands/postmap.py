"""postmap: create, query and change lookup tables (postmap(1)).

    postmap [type:]file ...                 write the index of a text
    postmap -q key [type:]file ...          print the value; exit status 1 when no table has the key
    postmap -q - [type:]file ...            keys from standard input; print `key TAB value` for those found
    postmap -s [type:]file                  print every key and value
    postmap -i [-r|-w] [type:]file ...      add entries from standard input to the index
    postmap -d key [type:]file ...          remove an entry from the index; `-d -`: keys from standard input

Options: -b and -h (with `-q -`: standard input is a message; keys are body lines, header fields; -m: MIME parsing),
-c config_dir, -F (values are lists of files, stored in base64), -f (keep case), -j (JSON with -q and -s), -n and -N
(null octets at the end, without and with), -o (keep root's rights), -p (mode 0644), -r (replace), -u (no UTF-8),
-U (UTF-8 with -b and -h), -v, -w (ignore duplicates).
"""

from __future__ import annotations

import os
import sys

from postillion._core import tables as core
from postillion.commands.owners_rights import OwnersRights
from postillion.commands.postmap_query import query, show
from postillion.commands.postmap_request import Options, Tool, encoded
from postillion.config import Config, ConfigError, main_cf
from postillion.tables import TableError, TableTypeError
from postillion.tables.maps import INDEXED_TYPES

TEXT_MAX_OCTETS = 1024 * 1024 * 1024
"""Maximum octets of a table's text, and of standard input."""

POSTMAP = Tool("postmap", "map", "bfFhijmnNoprsuUvw", "\t")


def main(argv: list[str] | None = None) -> int:
    """Run postmap; return the exit status."""
    return run(POSTMAP, sys.argv[1:] if argv is None else argv)


def run(tool: Tool, argv: list[str]) -> int:
    """Run postmap or postalias; return the exit status."""
    options = Options(tool, argv)
    try:
        config = Config.load(options.config_directory)
        default_type = config.text("default_database_type")
        names = [name if ":" in name else f"{default_type}:{name}" for name in options.names]
        if options.query is not None:
            return query(options, names, config)
        if "s" in options.letters:
            return show(options, names[0], config)
        if options.delete is not None:
            return remove(options, names, config)
        if "i" in options.letters:
            text = options.tool.stdin(TEXT_MAX_OCTETS)
            for name in names:
                path = name.partition(":")[2]
                with OwnersRights(path, *(path + end for end in (".db", ".lmdb")), keeps=options.keeps_rights):
                    index(options, name, config).update(text, "stdin")
            return 0
        for name in names:
            create(options, name, config)
    except (ConfigError, TableTypeError) as error:
        tool.fatal(str(error))
    except TableError as error:
        tool.fatal(str(error.args[0]))
    except BrokenPipeError:
        # The reader has seen enough, as with `postmap -s hash:aliases | head`.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    except OSError as error:
        tool.fatal(f"open {error.filename}: {error.strerror}")
    return 0


def create(options: Options, name: str, config: Config) -> None:
    """Write the index of a table's text. Raises `TableError` and `OSError`."""
    kind, _, path = name.partition(":")
    if kind not in {*INDEXED_TYPES, "fail"}:
        known = kind in core.table_types()
        options.tool.fatal(
            f"unsupported dictionary type: {kind}" + (" does not support bulk-mode creation." if known else "")
        )
    with open(path, "rb", opener=main_cf.without_blocking) as file:
        status = os.fstat(file.fileno())
        if status.st_size > TEXT_MAX_OCTETS:
            raise TableError(f"{path} has more than {TEXT_MAX_OCTETS} octets")
        text = file.read(TEXT_MAX_OCTETS)
    mode = 0o644 if "p" in options.letters else 0o600 | (status.st_mode & 0o044)
    with OwnersRights(path, keeps=options.keeps_rights):
        index(options, name, config, mode).create(text, path)


def index(options: Options, name: str, config: Config, mode: int = 0o644) -> core.Index:
    """Return the index of a table."""
    kind, _, path = name.partition(":")
    return core.Index(
        kind,
        path,
        form=options.tool.form,
        warn=lambda text: options.tool.say("warning", text),
        fold=options.fold,
        utf8=options.utf8(config),
        files=options.files,
        duplicates=options.duplicates,
        nulls=options.nulls,
        mode=mode,
        map_octets=config.number("lmdb_map_size"),
    )


def remove(options: Options, names: list[str], config: Config) -> int:
    """Remove keys from the indexes; return the exit status: 1 when no index had any of them."""
    given = options.tool.stdin(TEXT_MAX_OCTETS).split(b"\n") if options.delete == "-" else [encoded(options.delete)]
    keys = [key for key in given if key]
    removed = 0
    for name in names:
        path = name.partition(":")[2]
        with OwnersRights(path, *(path + end for end in (".db", ".lmdb")), keeps=options.keeps_rights):
            removed += index(options, name, config).remove(keys)
    return 0 if removed else 1


if __name__ == "__main__":
    raise SystemExit(main())
