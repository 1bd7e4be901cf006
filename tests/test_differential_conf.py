"""postconf shows and changes drawn and nasty configurations as Postfix's postconf does."""

import contextlib
import io
import os
import re
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from postillion.commands import postconf
from support import drawn_configurations
from support.differential import Difference, drawn, unexplained
from support.drawn_configurations import Configuration
from support.peers import peer

REAL = Path("/usr/sbin/postconf")
WAIT_MAX_S = 30
AT_ONCE = 64
"""An error of Postfix's postconf takes a second, in which it sleeps."""
FILES = ("main.cf", "master.cf")


class Asked(NamedTuple):
    """A command on a configuration."""

    configuration: Configuration
    words: list[str]

    def __str__(self) -> str:
        main_cf, master_cf, _ = self.configuration
        return f"postconf {self.words}\n--- main.cf\n{main_cf}\n--- master.cf\n{master_cf}"


class Answer(NamedTuple):
    """The answer of postconf, with both files after it. `unused`: the warnings about names, without their places."""

    status: int
    output: str
    errors: str
    files: tuple[str, ...]
    unused: frozenset[str]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[object, ...]:
        return self.status, self.output, self.files, self.unused if not self.status else None

    def __str__(self) -> str:
        return f"{self.status} {self.output!r} {self.errors!r}"


def ours(directory: Path, words: list[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = postconf.main(["-c", str(directory), *words])
    return status, out.getvalue(), err.getvalue()


def theirs(directory: Path, words: list[str]) -> tuple[int, str, str]:
    done = subprocess.run([REAL, "-c", directory, *words], capture_output=True, timeout=WAIT_MAX_S)
    out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
    return done.returncode, out, err


def answer(
    directory: Path,
    configuration: Configuration,
    words: list[str],
    ask: Callable[[Path, list[str]], tuple[int, str, str]],
) -> Answer:
    """Return the answer of a program that finds the configuration as it was drawn."""
    for name, text in (("main.cf", configuration.main_cf), ("master.cf", configuration.master_cf)):
        (directory / name).write_text(text, newline="")
        # Postfix waits two seconds before it reads a file that was just changed.
        os.utime(directory / name, (0, 0))
    status, out, err = ask(directory, words)
    out = out.replace(str(directory), "@")
    assert ask is theirs or len(list(directory.iterdir())) == len(FILES), "nothing else is left behind"
    unused = frozenset(re.findall(r"(?:unused|undefined) parameter: [A-Za-z0-9_]*", err))
    return Answer(status, out, err, tuple((directory / name).read_bytes().decode() for name in FILES), unused)


def asked(directory: Path, cases: list[Configuration]) -> Iterator[tuple[Asked, Answer, Answer]]:
    """Yield each command of each configuration with both answers."""
    each = [Asked(configuration, words) for configuration in cases for words in configuration.commands]
    (directory / "ours").mkdir()

    def their_answer(at: int) -> Answer:
        place = directory / str(at % AT_ONCE)
        place.mkdir(exist_ok=True)
        return answer(place, *each[at], theirs)

    # Postfix's postconf waits a second before it ends with an error.
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(each), AT_ONCE):
            batch = range(start, min(start + AT_ONCE, len(each)))
            for at, their in zip(batch, pool.map(their_answer, batch), strict=True):
                yield each[at], answer(directory / "ours", *each[at], ours), their


def without_final_newline(case: Asked, ours: Answer, theirs: Answer) -> bool:
    main_cf, master_cf, _ = case.configuration
    ended = main_cf.endswith("\n") and master_cf.endswith("\n")
    both = zip(ours.files, theirs.files, strict=True)
    return (
        not ended
        and (ours.status, ours.output) == (theirs.status, theirs.output)
        and ours.files != theirs.files
        and all(sorted(_bare(mine)) == sorted(_bare(other)) for mine, other in both)
    )


def _lines(answer: Answer) -> list[list[str]]:
    return [sorted(_bare(line) for line in text.split("\n") if line) for text in answer.files]


def _bare(text: str) -> str:
    return re.sub(r"[\s{}]", "", text)


def added_in_another_order(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return ours.status == theirs.status == 0 and ours.files[0] != theirs.files[0] and _lines(ours) == _lines(theirs)


def comments_moved(case: Asked, ours: Answer, theirs: Answer) -> bool:
    def without_comments(text: str) -> list[str]:
        return [_bare(line) for line in text.split("\n") if line.strip() and not line.lstrip().startswith("#")]

    return (
        ours.files[1] != theirs.files[1]
        and _lines(ours) == _lines(theirs)
        and without_comments(ours.files[1]) == without_comments(theirs.files[1])
    )


def first_argument_loses_braces(case: Asked, ours: Answer, theirs: Answer) -> bool:
    def bare(answer: Answer) -> list[str]:
        return [_bare(text) for text in (answer.output, *answer.files)]

    spaced = re.search(r"\{[^{}]*\s[^{}]*\}", case.configuration.master_cf)
    return spaced is not None and ours.status == theirs.status and bare(ours) == bare(theirs)


def option_is_split_in_its_value(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return re.search(r"\s-o[^\s{]+o", case.configuration.master_cf) is not None


def broken_value_elsewhere(case: Asked, ours: Answer, theirs: Answer) -> bool:
    """Whether Postfix ended for a value that nobody asked for."""
    ends = ("macro processing error", "compatibility level", "unknown mynetworks mask style")
    fatal = theirs.errors.strip().rpartition("\n")[2]
    return ours.status == 0 and theirs.status == 1 and any(end in fatal for end in ends)


def raw_is_expanded(case: Asked, ours: Answer, theirs: Answer) -> bool:
    def without_raw(answer: Answer) -> list[str]:
        return [line for line in answer.output.split("\n") if "default_rbl_reply" not in line]

    return case.words[0].startswith("-P") and "x" in case.words[0] and without_raw(ours) == without_raw(theirs)


def postfix_crashes(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return theirs.status == -signal.SIGSEGV


def classes_of_main_cf_alone(case: Asked, ours: Answer, theirs: Answer) -> bool:
    text = "".join(case.configuration.main_cf.split("\n "))
    computed = re.search(r"(?m)^smtpd_restriction_classes[^\n]*\$", text) is not None
    return computed and (ours.status, ours.output, ours.files) == (theirs.status, theirs.output, theirs.files)


def word_is_glued(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return "h" in case.words[0] and ours.output.replace(" ", "") == theirs.output.replace(" ", "")


KNOWN: list[Difference[Asked, Answer]] = [
    Difference("the last line gets its newline, as in Postfix 3.12", without_final_newline),
    Difference("new parameters are added in order, as in Postfix 3.12", added_in_another_order),
    Difference("Postfix moves the comments behind a changed service in front of it", comments_moved),
    Difference("Postfix leaves out the braces of the first argument with spaces", first_argument_loses_braces),
    Difference("Postfix splits -oname=value at each letter o", option_is_split_in_its_value),
    Difference("Postfix ends for a broken value, whatever it is asked", broken_value_elsewhere),
    Difference("Postfix expands a parameter that its program expands, with -Px", raw_is_expanded),
    Difference(
        "Postfix crashes in a loop through a comparison, and at a name that -X or -# has twice", postfix_crashes
    ),
    Difference("Postfix finds restriction classes with the values of main.cf alone", classes_of_main_cf_alone),
    Difference("Postfix prints no space behind a command of four letters, with -Fh", word_is_glued),
]


def default_depends_on_itself(case: Asked, ours: Answer, theirs: Answer) -> bool:
    return (ours.status, theirs.status) == (1, 0) and "whose default depends on it" in ours.errors


def known_by_its_prefix(case: Asked, ours: Answer, theirs: Answer) -> bool:
    missing = set(theirs.unused) - ours.unused
    names = {name.removeprefix("unused parameter: ") for name in missing}
    lines = set(ours.output.split("\n")) - set(theirs.output.split("\n"))
    return bool(names) and ours.files == theirs.files and {line.partition(" ")[0] for line in lines} <= names


def lines_of_one_service(case: Asked, ours: Answer, theirs: Answer) -> bool:
    names = ["/".join(line.split()[:2]) for line in case.configuration.master_cf.split("\n") if line]
    return len(names) > len(set(names)) and set(theirs.output.split("\n")) == set(ours.output.split("\n"))


KNOWN_NASTY: list[Difference[Asked, Answer]] = [
    Difference("Postfix takes a default that depends on itself for empty", default_depends_on_itself),
    Difference("a setting of an LDAP or SQL source is known by the name of the source", known_by_its_prefix),
    Difference("Postfix shows the -o of all lines of a service for each of them", lines_of_one_service),
]

NASTY = [
    # main.cf, master.cf, commands
    ("mydomain = $myhostname\n", "", [["-n"], ["-x", "mydomain"], ["mydomain"]]),
    ("myhostname = mx.$mydomain\n", "", [["-nx"], ["-x", "mydomain"]]),
    ("a = $b\nb = $a\n", "", [["-n"], ["-nx"], ["-x", "a"], ["-X", "a"]]),
    ("a = $a\nmyorigin = $a\n", "", [["-n"], ["-x", "myorigin"], ["-e", "a=1"]]),
    ("a = ${{$a} == {1} ? {x} : {y}}\nb = $a\n", "", [["-n"], ["b"]]),
    ("a = ${a?x}\nb = $a\n", "", [["-nx"], ["-x", "b"]]),
    ("mydestination = $myhostname, ${\n", "", [["-x", "mydestination"], ["-e", "mydestination = x"]]),
    ("myorigin = ${a?{x}:{y}\na = 1\n", "", [["-x", "myorigin"], ["-#", "myorigin"]]),
    ("a = 1\nb = $$a $a$$ $${a} $$$a\nmyorigin = $b\n", "", [["-n"], ["-x", "myorigin", "b"]]),
    ('mailbox_command = /x "$EXTENSION" $mail_name\nsmtpd_banner = $mailbox_command\n', "", [["-nx"], ["-n"]]),
    ("compatibility_level = 3.6\n", "", [["-x", "append_dot_mydomain", "mynetworks_style", "relay_domains"]]),
    ("compatibility_level = 1\n", "", [["-x", "append_dot_mydomain", "mynetworks_style", "smtputf8_enable"]]),
    ("compatibility_level = 3.10\n", "", [["-x", "smtpd_relay_before_recipient_restrictions", "respectful_logging"]]),
    ("compatibility_level = 9999.1.1023\na = ${{$compatibility_level} >level {9999.1.1022}?y}\nb=$a\n", "", [["-nx"]]),
    (
        "smtpd_restriction_classes = strict, $more\nmore = lax\nstrict = reject\nlax = permit\n",
        "",
        [["-n"], ["strict"]],
    ),
    (
        "t_x = 1\nvirtual_alias_maps = proxy:ldap:t, ldap:/etc/t.cf\nt_server_host = h\n",
        "",
        [["-n"], ["t_server_host"]],
    ),
    ("a = 1\n\tb\n# c\n  d\n\n e\nmyorigin=$a\n", "", [["-n"], ["a"], ["-X", "a"], ["-#", "a"], ["a=2"]]),
    ("a = 1\r\nmyorigin = $a\r\n", "", [["-n"], ["-x", "myorigin"], ["-e", "a=2"]]),
    ("myorigin=a\nmyorigin=b\n", "", [["-n"], ["-e", "myorigin=c"], ["-X", "myorigin"], ["-#", "myorigin"]]),
    ("=x\n", "", [["-n"]]),
    ("x\n", "", [["-n"], ["-e", "x=1"]]),
    ("", "", [["-n"], ["-e", "b=2", "a=1"], ["-x", "syslog_name"]]),
    ("multi_instance_name = postfix-2\n", "", [["-x", "syslog_name", "multi_instance_group"]]),
    ("relay_destination_rate_delay = 1s\n", "relay unix - - n - - smtp\n", [["-n"], ["relay_destination_rate_delay"]]),
    ("relay_time_limit = 1s\n", "relay unix - - n - - smtp\n", [["-n"], ["-nC", "service"]]),
    ("", "a unix - - n - - smtp -o x=$y -o { y = 1 2 } -v\n", [["-M"], ["-P"], ["-Px"], ["-Mx"], ["-Mf"], ["-Pf"]]),
    ("", "a unix - - n - - smtp -- -o x=1\n", [["-M"], ["-P"], ["-PX", "a/unix/x"], ["-P", "a/unix/x=2"]]),
    ("", "a unix - - n - - smtp -o\n", [["-M"], ["-P"], ["-F"]]),
    ("", "a unix - - n - - smtp -o x -o =1 -o y=\n", [["-M"], ["-P"], ["-F", "a/unix/command"]]),
    ("", "a unix - - n - - pipe\n  flags=x {}\n", [["-F", "a/unix/chroot=y"]]),
    ("", "a unix - - n - 0 smtp\n\n  -v\n# z\n  -D\n", [["-M"], ["-MX", "a/unix"], ["-M#", "a/*"]]),
    (
        "",
        "a unix - - n - - smtp\nb unix - - n - - smtp\n",
        [["-M", "b/unix", "a/unix"], ["-F", "b", "a"], ["-M", "*/*"]],
    ),
    (
        "",
        "a unix - - n - - smtp\n",
        [["-M", "*"], ["-M", "a/"], ["-M", ""], ["-M", "a*"], ["-M", "/a"], ["-F", "a/unix/x"]],
    ),
    (
        "",
        "a unix - - n - - smtp -o x=1\na unix - - n - - lmtp -o y=1\n",
        [["-M"], ["-P"], ["-F"], ["-P", "a/unix/z=1"]],
    ),
    ("", "a unix - - n\n", [["-M"], ["-n"], ["-e", "a=1"], ["-F", "a/unix/chroot=y"], ["-MX", "a/unix"]]),
    ("", "a tcp - - n - - smtp\n", [["-M"], ["-n"], ["-MX", "a/tcp"]]),
    ("", "  a unix - - n - - smtp\nb unix - - n - - smtp\n", [["-M"], ["-F"], ["-MX", "b/unix"]]),
    ("", "a\tunix\t-\t-\tn\t-\t-\tsmtp\n", [["-M"], ["-F"], ["-P", "a/unix/x=1"], ["-F", "*/*/chroot=y"]]),
]


def test_nasty_configurations_are_shown_and_changed_as_by_postfix(tmp_path: Path) -> None:
    peer("postfix")
    cases = [Configuration(main_cf, master_cf, commands) for main_cf, master_cf, commands in NASTY]
    found = unexplained(asked(tmp_path, cases), [*KNOWN, *KNOWN_NASTY])
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"


def test_drawn_configurations_are_shown_and_changed_as_by_postfix(tmp_path: Path) -> None:
    peer("postfix")
    found = unexplained(asked(tmp_path, drawn(drawn_configurations.draw)), KNOWN)
    assert not found, f"{len(found)} differences, the first:\n{found[0]}"
