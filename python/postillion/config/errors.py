"""The error of a configuration file: the place, the problem and the fix."""


class ConfigError(Exception):
    """An error in a configuration file.

    `str()` is one line: file, line, problem, fix. `line` is None when the error concerns the whole file.
    """

    def __init__(self, path: str, line: int | None, problem: str, fix: str) -> None:
        place = path if line is None else f"{path}, line {line}"
        super().__init__(" ".join(f"{place}: {problem}: {fix}".split()))
        self.path = path
        self.line = line
        self.problem = problem
        self.fix = fix
