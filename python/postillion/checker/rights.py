"""Checks with the rights of mail_owner, so that the site's own Python code never runs as root."""

import json
import os
import pwd
import signal
from collections.abc import Callable
from typing import NoReturn

from postillion.config import Config, ConfigError
from postillion.config.master_cf import Entry

WORK_MAX_S = 30
"""Timeout of the site's code."""


def as_owner(entry: Entry, config: Config, work: Callable[[], list[str]]) -> list[str]:
    """Return the warnings of `work`, done by a child with the rights of the service. Raises its `ConfigError`."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        _work(entry, config, work, theirs)
    os.close(theirs)
    with os.fdopen(ours, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if not answer:
        how = f"exit status {os.waitstatus_to_exitcode(status)}"
        raise entry.error(
            f"{entry.command} could not start: the site's code ended it ({how})", "see smtpd_python_handler"
        )
    said = json.loads(answer)
    if "error" in said:
        path, line, problem, fix = said["error"]
        raise ConfigError(path, line, problem, fix)
    warnings: list[str] = said["warnings"]
    return warnings


def _owner(config: Config) -> pwd.struct_passwd:
    name = config.text("mail_owner")
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise config.error("mail_owner", f'mail_owner: unknown user "{name}"', "give a user of this machine") from None


def _work(entry: Entry, config: Config, work: Callable[[], list[str]], answer: int) -> NoReturn:
    signal.alarm(WORK_MAX_S)
    # Output of the site's code must not mix with the checker's answers.
    os.dup2(2, 1)
    try:
        if entry.unprivileged and os.geteuid() == 0:
            account = _owner(config)
            os.setgroups([])
            os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
            os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
        said: dict[str, object] = {"warnings": work()}
    except ConfigError as error:
        said = {"error": [error.path, error.line, error.problem, error.fix]}
    except (KeyError, OSError) as error:
        said = {"error": [entry.path, entry.line, f"{entry.command} could not start: {error}", "see mail_owner"]}
    except BaseException:
        # An exception such as SystemExit must end the child here: else it would go on as a second checker.
        os._exit(1)
    os.write(answer, json.dumps(said).encode())
    os._exit(0)
