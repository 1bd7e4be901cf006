"""Drawn main.cf and master.cf, from sound to nasty, and commands of postconf that show and change them."""

import random
from typing import NamedTuple

COMMANDS_PER_CASE = 6
OWN = ("mine", "yours", "class_a", "z_9", "A1")
"""Names of the site's own."""
BUILTIN = (
    "myorigin",
    "mydestination",
    "mynetworks",
    "relayhost",
    "relay_domains",
    "inet_protocols",
    "smtpd_banner",
    "smtpd_recipient_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_restriction_classes",
    "smtpd_timeout",
    "smtp_helo_name",
    "smtpd_helo_restrictions",
    "virtual_alias_maps",
    "transport_maps",
    "message_size_limit",
    "append_dot_mydomain",
    "compatibility_level",
    "mynetworks_style",
    "queue_run_delay",
    "recipient_delimiter",
    "multi_instance_name",
    "syslog_name",
    "header_checks",
    "default_rbl_reply",
    "slow_destination_rate_delay",
    "slow_recipient_limit",
    "fast_time_limit",
    "queue_directory",
)
UNKNOWN = ("nosuch", "smtpd_helo_restriction", "relay_nosuch", "_", "9")
NAMES = BUILTIN + OWN
PIECES = (
    *("a", "b.example", "permit", "reject", "10", "2", "3.6", "hash:/etc/x", "inline:{a=b}", "[::1]:25", "", "é", "#x"),
    *("yes", "no", ",", "x=y", "'q'", '"', "\\", "$$", "$$mine", "ldap:people", "!/etc/file", "{ a, b }", "\t", "%"),
)
CHECKED_EARLY = {"inet_protocols": ("ipv4", "all"), "mynetworks_style": ("host", "subnet", "class")}
"""Parameters whose bad value ends each command of Postfix's postconf, for it computes every default at once."""
ENDS = ("\n",) * 10 + ("", "\n\n")
OPERATORS = ("==", "!=", "<", "<=", ">=", ">", "==level", "<level", "<=level", ">=level", ">level", "!=level")
BROKEN = (
    "${",
    "$(",
    "${}",
    "$",
    "$ x",
    "${a.b}",
    "${{a} ~ {b}}",
    "${{a} == {b} x}",
    "${mine?{x} y}",
    "${mine?{x}:{y} z}",
)
BROKEN_LINES = ("nonsense", "= 1", "two words = 3", "\x0b= 4", "a\rb = 1")
TYPES = ("inet", "unix", "unix", "unix", "fifo", "pass", "unix-dgram")
SERVICES = ("smtp", "127.0.0.1:2525", "slow", "fast", "qmgr", "pickup", "cleanup", "local", "8025")
PROGRAMS = ("smtpd", "smtp", "qmgr", "pickup", "pipe", "local", "lmtp", "spawn", "../bin/smtp", "virtual", "error")
PLAIN = ("user=nobody", "argv=/bin/cat", "flags=DRhu", "${recipient}", "{a b}", "--", "x", "{ c  d }", "$mine")
BAD_FIELDS = ("yes", "5m", "", "y?", "-1", "10?", "?", "-?", "0")
CLASSES = ("builtin", "user", "service", "all", "builtin,user", "USER", "nosuch")
SHOWN = ("n", "nf", "nx", "nh", "nH", "hx", "x", "f", "h", "H", "", "xf", "nxf")
MODES = ("M", "Mf", "Mx", "F", "Ff", "Fx", "Fh", "FH", "P", "Pf", "Px", "Ph", "PH", "Pxf")
ODD = (
    *(
        ["-e"],
        ["-#"],
        ["-X"],
        ["-dn"],
        ["-nM"],
        ["-Mh"],
        ["-MF"],
        ["-eX", "mine"],
        ["-hH"],
        ["-MP#"],
        ["-al"],
        ["-F#", "a/b/c"],
    ),
    *(
        ["-Z"],
        ["-o"],
        ["-o", "nonsense", "-x"],
        ["-P#", "smtp/inet/x"],
        ["-FX", "smtp/inet/chroot"],
        ["-pn", "mine"],
        ["-dx", "mine"],
    ),
    *(
        ["-e", "mine=1", "mine=2"],
        ["-e", "=1"],
        ["-e", "mine"],
        ["-X", "mine=1"],
        ["-X", " "],
        ["-e", "#mine=1"],
        ["-xe", "mine=1"],
    ),
    *(
        ["-l"],
        ["-nl"],
        ["-on", "mine"],
        ["-MM"],
        ["-M", "/smtp"],
        ["-M", "smtp/inet/chroot"],
        ["-F", "a*/inet"],
        ["-P", "smtp//inet"],
    ),
    *(["--", "mine"], ["-n", "--", "mine"], ["-Mo", "mine=1"], ["-eo", "mine=1", "mine=2"], ["-Mp"], ["-fe", "mine=1"]),
)


class Configuration(NamedTuple):
    """One configuration, and the commands that it is asked."""

    main_cf: str
    master_cf: str
    commands: list[list[str]]


def draw(rng: random.Random) -> Configuration:
    """Return a configuration; one in six has something broken in it."""
    broken = rng.random() < 1 / 6
    return Configuration(
        main_cf(rng, broken=broken), master_cf(rng, broken=broken), [command(rng) for _ in range(COMMANDS_PER_CASE)]
    )


def main_cf(rng: random.Random, *, broken: bool) -> str:
    """Return a main.cf."""
    lines: list[str] = []
    for _ in range(rng.randrange(1, 10)):
        if rng.random() < 0.2:
            lines.append(rng.choice(["", "# comment = x", "  \t", "   # indented", "\t"]))
        name = rng.choice(UNKNOWN if rng.random() < 0.1 else NAMES)
        text = rng.choice(CHECKED_EARLY[name]) if name in CHECKED_EARLY else value(rng, broken=broken)
        equals = rng.choice([" = ", "=", " =", "= ", "\t=\t"])
        if rng.random() < 0.25:
            head, _, tail = text.partition(" ")
            lines += [name + equals + head, *rng.sample(["", "# between", "  "], rng.randrange(2)), "  " + tail]
        else:
            lines.append(name + equals + text)
    if broken and rng.random() < 0.3:
        lines.insert(rng.randrange(len(lines) + 1), rng.choice(BROKEN_LINES))
    if rng.random() < 0.05:
        lines.insert(0, "  mine = lost")
    return "\n".join(lines) + rng.choice(ENDS)


def value(rng: random.Random, depth: int = 0, *, broken: bool = False) -> str:
    """Return a value with references."""
    return "".join(_piece(rng, depth, broken=broken) for _ in range(rng.randrange(1, 4))).strip(" ")


def _piece(rng: random.Random, depth: int, *, broken: bool) -> str:
    kind = rng.randrange(9 if depth < 2 else 5)
    name = rng.choice(NAMES if rng.random() < 0.9 else UNKNOWN)

    def inner() -> str:
        return value(rng, depth + 1, broken=broken)

    if kind < 5:
        if broken and rng.random() < 0.05:
            return rng.choice(BROKEN)
        return rng.choice(PIECES) + rng.choice(["", " ", ", "])
    if kind == 5:
        return rng.choice([f"${name} ", f"${{{name}}}", f"$({name})", f"${{ {name} }}"])
    if kind == 6:
        return f"${{{name}{rng.choice('?:')}{rng.choice(PIECES)}}}"
    if kind == 7:
        return f"${{{name}?{{{inner()}}}{rng.choice(['', f':{{{inner()}}}', f' : {{ {inner()} }}'])}}}"
    operator = rng.choice(OPERATORS[:6] if rng.random() < 0.7 else OPERATORS)
    sides = rng.choice(["1", "2", "10", "3.6", "3.10"]), rng.choice(["1", "2", "10", "3.6", "3.10"])
    if not operator.endswith("level") and rng.random() < 0.5:
        sides = inner(), inner()
    choice = rng.choice(["", f"?{{{inner()}}}", f":{{{inner()}}}", f" ? {{{inner()}}} : {{{inner()}}}", "?x", ":y"])
    return f"${{{{{sides[0]}}} {operator} {{{sides[1]}}}{choice}}}"


def master_cf(rng: random.Random, *, broken: bool) -> str:
    """Return a master.cf; a service has one line at most."""
    lines: list[str] = []
    names = [(service, rng.choice(TYPES)) for service in rng.sample(SERVICES, rng.randrange(1, 6))]
    for service, kind in names:
        if rng.random() < 0.2:
            lines.append(rng.choice(["", "# comment", "  # indented", "   "]))
        fields = [
            *(service, kind, "n" if kind == "inet" else rng.choice("-yn"), rng.choice("-yn"), rng.choice("-yn")),
            *(rng.choice(["-", "300", "1000?", "0"]), rng.choice(["-", "1", "0", "50"]), rng.choice(PROGRAMS)),
        ]
        if broken and rng.random() < 0.1:
            fields[rng.randrange(1, 7)] = rng.choice(BAD_FIELDS)
        lines.append(rng.choice([" ", "\t", "  "]).join(fields))
        for _ in range(rng.choice([0, 0, 1, 2, 3])):
            name = rng.choice(NAMES)
            text = value(rng, 2, broken=broken)
            word = text.replace(" ", "").replace("\t", "")
            lines.append(
                rng.choice([" ", "  ", "\t"])
                + rng.choice(
                    [f"-o {name}={word}"] * 4
                    + [f"-o {{ {name} = {text} }}"] * 3
                    + ["-v", f"-vo {name}={word}", f"-o{name}={word}"]
                )
            )
            if rng.random() < 0.1:
                lines.append(rng.choice(["# between", "  # between", ""]))
        if rng.random() < 0.4:
            lines.append("  " + " ".join(rng.choices(PLAIN, k=rng.randrange(1, 5))))
    if rng.random() < 0.05:
        lines.insert(0, "  lost unix - - n - - smtp")
    return "\n".join(lines) + rng.choice(ENDS)


def command(rng: random.Random) -> list[str]:
    """Return a command line of postconf."""
    kind = rng.randrange(12)
    if kind == 0:
        return list(rng.choice(ODD))
    if kind <= 3:
        letters = rng.choice(SHOWN)
        words = rng.choices(NAMES + UNKNOWN, k=rng.randrange(1, 5))
        if "n" in letters and rng.random() < 0.7:
            words = []
        override = ["-o", f"{rng.choice(OWN)}={value(rng, 2)}"] if rng.random() < 0.2 else []
        classes = ["-C", rng.choice(CLASSES)] if rng.random() < 0.1 and "n" in letters else []
        return [*([f"-{letters}"] if letters else []), *override, *classes, *words]
    if kind <= 6:
        letters = rng.choice(MODES)
        override = ["-o", f"{rng.choice(OWN)}={value(rng, 2)}"] if rng.random() < 0.1 else []
        return [f"-{letters}", *override, *(_selector(rng, letters[0]) for _ in range(rng.choice([0, 0, 1, 2])))]
    if kind <= 8:
        names = rng.sample(NAMES + UNKNOWN, rng.randrange(1, 4))
        if rng.random() < 0.5:
            return [rng.choice(["-X", "-#"]), *names]
        return [*rng.choice([[], ["-e"]]), *(f"{name} = {value(rng, 2)}".replace("\t", " ") for name in names)]
    return _service_change(rng)


def _selector(rng: random.Random, part: str) -> str:
    words = [rng.choice([*SERVICES, "*", "nosuch"])]
    if rng.random() < 0.7:
        words.append(rng.choice([*TYPES, "*"]))
        if part != "M" and rng.random() < 0.7:
            words.append(rng.choice(["*", "chroot", "command", "wakeup"] if part == "F" else ["*", *NAMES]))
    return "/".join(words)


def _service_change(rng: random.Random) -> list[str]:
    service, kind = rng.choice([*SERVICES, "*"]), rng.choice([*TYPES, "*"])
    what = rng.randrange(5)
    if what == 0:
        field = rng.choice(
            [("chroot", "y"), ("chroot", "n"), ("wakeup", "60"), ("process_limit", "7"), ("command", "smtp -v x")]
        )
        return ["-F", f"{service}/{kind}/{field[0]}={field[1]}"]
    if what == 1:
        return ["-P", f"{service}/{kind}/{rng.choice(NAMES)}={rng.choice(['a', '', 'b=c', '$mine'])}"]
    if what == 2:
        return [rng.choice(["-MX", "-M#"]), f"{service}/{kind}"]
    if what == 3:
        return ["-PX", f"{service}/{kind}/{rng.choice(NAMES)}"]
    name, new = rng.choice(SERVICES), rng.choice(TYPES)
    return ["-M", f"{name}/{new}={name} {new} n - n - 3 smtp -o mine=x"]
