"""Print docs/restrictions.md, the table of restrictions for readers: `python -m postillion.restrictions`."""

from __future__ import annotations

from postillion.restrictions.rows import REMEMBERED, SECTIONS, Reads, Row

HEAD = """\
# Restrictions

The restrictions of smtpd's access lists (postconf(5)), from the table in `restrictions/rows.py`.
`python -m postillion.restrictions` prints this page.

- *here*: **yes**, as in Postfix; **refused**: the restriction is Postfix's and is not supported yet, so a list that
  names it stops the start; **removed**: Postfix has removed it, and a list that names it stops the start too.
- *reads*: what the answer depends on. *standing* is whether the client is in mynetworks, has one of this machine's
  addresses, and has a name.
- *remembered*: an accepted recipient may be accepted again for ten seconds without asking, from clients of the same
  standing, if every restriction at RCPT says *yes* here. A user's recipients are always asked.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for section, rows in SECTIONS.items():
        parts.append(f"\n## {section}\n\n| restriction | here | reads | remembered |\n|---|---|---|---|\n")
        parts.extend(_line(row) for row in rows)
    return "".join(parts)


def _line(row: Row) -> str:
    name = f"`{row.name}`" + (f" *{row.argument.value}*" if row.argument.value else "")
    if row.instead:
        return f"| {name} | removed: use {row.instead} | | |\n"
    here = "refused" if row.function is None else "yes"
    reads = "everything" if row.reads == ~Reads.NOTHING else ", ".join(str(found.name).lower() for found in row.reads)
    remembered = "" if row.function is None else "yes" if row.reads in REMEMBERED else "no"
    return f"| {name} | {here} | {reads} | {remembered} |\n"


if __name__ == "__main__":
    print(page(), end="")
