"""A complete configuration for a first run: `create("var/etc")` writes it; mail, queue and log stay under `var`."""

import grp
import os
import pwd

from postillion.config import ConfigError

DEFAULTS = os.path.join(os.path.dirname(__file__), "defaults")
FILES = ("main.cf", "master.cf")
OWNERS = ("postfix", "nobody")
"""Candidates for mail_owner when root starts the server; the first existing account is used."""


def create(directory: str, *, port: int | None = None) -> None:
    """Write main.cf, master.cf and aliases into `directory`, and create the directories next to it.

    `port`: the SMTP port on 127.0.0.1, 2525 by default. Raises `ConfigError` when `directory` has a configuration;
    existing files are never changed.
    """
    etc = os.path.abspath(directory)
    base = os.path.dirname(etc)
    for name in FILES:
        if os.path.exists(os.path.join(etc, name)):
            raise ConfigError(os.path.join(etc, name), None, "the file exists already", "remove it to start again")
    owner, group = _owner()
    words = {"@BASE@": base, "@ETC@": etc, "@OWNER@": owner, "@GROUP@": group}
    if any(c in base for c in "$\n{} \t,"):
        raise ConfigError(base, None, "a path with special characters", "choose a directory with a plain name")
    try:
        for path in (etc, os.path.join(base, "log"), os.path.join(base, "mail")):
            os.makedirs(path, 0o755, exist_ok=True)
        if os.geteuid() == 0:
            # Each recipient's own user creates a Maildir here.
            os.chmod(os.path.join(base, "mail"), 0o1777)  # noqa: S103
        for name in FILES:
            with open(os.path.join(DEFAULTS, name), encoding="utf-8") as file:
                text = file.read()
            for word, value in words.items():
                text = text.replace(word, value)
            if port is not None:
                text = text.replace("127.0.0.1:2525 ", f"127.0.0.1:{port} ")
            _write(os.path.join(etc, name), text)
        if not os.path.exists(os.path.join(etc, "aliases")):
            _write(os.path.join(etc, "aliases"), f"postmaster: {pwd.getpwuid(os.getuid()).pw_name}\n")
    except OSError as error:
        fix = "choose a directory that you may write"
        raise ConfigError(str(error.filename or etc), None, f"{error.strerror}", fix) from None


def _owner() -> tuple[str, str]:
    """Return mail_owner and setgid_group: the invoking user, or for root an account that owns nothing else."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name, str(os.getegid())
    for name in OWNERS:
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        groups = {group.gr_name for group in grp.getgrall()}
        return name, "postdrop" if name == "postfix" and "postdrop" in groups else str(account.pw_gid)
    raise ConfigError("/etc/passwd", None, f"no account is named {' or '.join(OWNERS)}", "create one for mail")


def _write(path: str, text: str) -> None:
    draft = f"{path}.tmp"
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(draft, path)
