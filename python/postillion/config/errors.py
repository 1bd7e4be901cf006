"""What is wrong with a configuration file, and how to mend it."""


class ConfigError(Exception):
    """A configuration that cannot be used.

    `str()` is one line: file, line, problem, mend. `line` is None when the file as a whole is meant.
    """

    def __init__(self, path: str, line: int | None, problem: str, mend: str) -> None:
        place = path if line is None else f"{path}, line {line}"
        super().__init__(" ".join(f"{place}: {problem}: {mend}".split()))
        self.path = path
        self.line = line
        self.problem = problem
        self.mend = mend
