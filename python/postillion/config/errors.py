"""The error of a configuration file: the place, the problem and the fix."""


def place(path: str, line: int | None) -> str:
    """Return a place in a file for people: `/etc/postfix/main.cf, line 7`. `line` None: the whole file."""
    return path if line is None else f"{path}, line {line}"


class ConfigError(Exception):
    """An error in a configuration file.

    `str()` is one line: file, line, problem, fix. `line` is None when the error concerns the whole file.
    """

    def __init__(self, path: str, line: int | None, problem: str, fix: str) -> None:
        super().__init__(" ".join(f"{place(path, line)}: {problem}: {fix}".split()))
        self.path = path
        self.line = line
        self.problem = problem
        self.fix = fix
