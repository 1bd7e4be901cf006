"""How many messages a second are relayed with address maps and header checks, compared with Postfix?

    smtp-source -> MTA -> smtp-sink        as benches/relay.py, each recipient with another number

`maps`: canonical_maps and virtual_alias_maps in hash tables of 100,000 entries, which each program's own postmap wrote,
and ten header_checks in a pcre table. Each recipient and the sender are found, and no check matches. Only mail to the
addresses that the tables give can be delivered.
`pgsql`: the same aliases in PostgreSQL, by `proxy:pgsql:`. PostgreSQL shares the CPUs, and its own time is not counted.
`without`: no maps and no checks, by Postillion alone.

Needs root and Debian's postfix, postfix-pcre, postfix-pgsql and postgresql packages.
"""

import statistics
import subprocess
from collections.abc import Callable

import harness
from harness import PROGRAMS, Result
from relay import Load, Measure, direct, relay
from support import mta
from support.table_servers import Postgres

ENTRIES = 100_000
CHECKS = 10
WITHOUT_AIM = 0.85
"""The least part of the rate without maps and checks."""
PGSQL_AIM = 4.0
PGSQL_CPU_AIM = 0.125
AIMS = {"new": 6.0, "reused": 10.0}
LOADS = {"new": Load(numbered=True), "reused": Load(numbered=True, reuse=True)}
ALIASES = (
    "INSERT INTO aliases SELECT n || 'sink@next.example', n || 'user@mapped.example' FROM generate_series(0, {}) n;"
)
INDEX = "CREATE INDEX ON aliases (k); ANALYZE aliases;"


def with_maps(site: mta.Site, program: str) -> None:
    """Give a site hash tables and header checks."""
    aliases, canonical, checks = (site.etc / name for name in ("virtual", "canonical", "header_checks"))
    aliases.write_text("".join(f"{n}sink@next.example {n}user@mapped.example\n" for n in range(ENTRIES)))
    others = "".join(f"{n}load@example.org other@example.org\n" for n in range(ENTRIES))
    canonical.write_text(f"{others}load@example.org sender@example.org\n")
    checks.write_text("".join(f"/^X-Unwanted-{n}: .*(money|prize){n}/ REJECT\n" for n in range(CHECKS)))
    for table in (aliases, canonical):
        subprocess.run(harness.command(site, program, "postmap", f"hash:{table}"), check=True, timeout=600)
    settings = {
        "virtual_alias_maps": f"hash:{aliases}",
        "canonical_maps": f"hash:{canonical}",
        "header_checks": f"pcre:{checks}",
    }
    add(site, settings)


def with_pgsql(server: Postgres) -> Callable[[mta.Site, str], None]:
    """Return what gives a site its aliases in PostgreSQL."""

    def prepare(site: mta.Site, program: str) -> None:
        file = site.etc / "virtual.pgsql"
        file.write_text(server.file())
        add(site, {"virtual_alias_maps": f"proxy:pgsql:{file}"})

    return prepare


def add(site: mta.Site, settings: dict[str, str]) -> None:
    """Add parameters to a site's main.cf; the next hop takes mail for the aliases' domain alone."""
    settings["transport_maps"] = f"inline:{{{{ mapped.example = smtp:[127.0.0.1]:{site.next_port} }}}}"
    with (site.etc / "main.cf").open("a") as main_cf:
        main_cf.writelines(f"{name} = {value}\n" for name, value in settings.items())


def main() -> None:
    """Run all loads and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--messages", type=int, default=5000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--warm-up", type=int, default=200)
    options = parser.parse_args()
    if options.quick:
        options.messages, options.warm_up, options.runs = 200, 20, 1
    columns = ["load  ", "tables ", "program   ", "accepted/s", "relayed/s", "CPU ms a message", "direct/s", "correct"]
    flags = f"{options.messages} messages, {ENTRIES:,} aliases, {CHECKS} checks; medians of {options.runs}"
    result = Result("Messages relayed a second with address maps and header checks", flags, columns)
    result.begin()
    server = Postgres()
    try:
        server.begin()
        server.sql(ALIASES.format(ENTRIES - 1) + INDEX)
        ways: dict[str, Callable[[mta.Site, str], None]] = {"maps": with_maps, "pgsql": with_pgsql(server)}
        for name, load in LOADS.items():
            rate = statistics.median(direct(load, options) for _ in range(options.runs))
            medians: dict[tuple[str, str], list[float]] = {}
            runs = [(tables, program) for tables in ways for program in harness.programs(options)]
            if options.only != "postfix":
                runs.append(("without", "postillion"))
            measured: dict[tuple[str, str], list[Measure]] = {run: [] for run in runs}
            for _ in range(options.runs):
                for (tables, program), measures in measured.items():
                    measures.append(relay(program, load, options, *filter(None, [ways.get(tables)])))
            for (tables, program), measures in measured.items():
                each = ((m.accepted_per_s, m.relayed_per_s, m.cpu_ms) for m in measures)
                medians[tables, program] = [statistics.median(figures) for figures in zip(*each, strict=True)]
                correct = all(m.correct for m in measures)
                result.correct &= correct
                result.row(name, tables, program, *medians[tables, program], rate, correct)
            judge(name, medians, result)
    finally:
        server.remove()
    result.report(options)


def judge(name: str, medians: dict[tuple[str, str], list[float]], result: Result) -> None:
    """Add the aims of a load."""
    relayed = {run: figures[1] for run, figures in medians.items()}
    cpu_ms = {run: figures[2] for run, figures in medians.items()}
    for tables, aim in (("maps", AIMS[name]), ("pgsql", PGSQL_AIM)):
        rates = {program: relayed.get((tables, program), 0.0) for program in PROGRAMS}
        result.aim_ratio(f"{name}, {tables}: relayed a second to Postfix's", aim, rates)
    ours = "postillion"
    if ("without", ours) in relayed:
        part = relayed["maps", ours] / relayed["without", ours]
        result.aim(f"{name}: with maps to without", f"{WITHOUT_AIM}", f"{part:.2f}", part >= WITHOUT_AIM)
    if ("pgsql", "postfix") in cpu_ms and ("pgsql", ours) in cpu_ms:
        ratio = cpu_ms["pgsql", ours] / cpu_ms["pgsql", "postfix"]
        result.aim(
            f"{name}, pgsql: CPU to Postfix's", f"at most {PGSQL_CPU_AIM}", f"{ratio:.3f}", ratio <= PGSQL_CPU_AIM
        )


if __name__ == "__main__":
    main()
