"""The output of a control command: details, events, results, warnings and the error that ended it."""

import sys


class Console:
    """Standard output for results, standard error for everything else.

    `program` starts each line on standard error. `system`: what the mail system is called in texts. `verbose`: details
    and events are printed too.
    """

    system = "Postillion"

    def __init__(self, program: str, *, verbose: bool = False) -> None:
        self.program = program
        self.verbose = verbose

    def detail(self, text: str) -> None:
        """Print a step of the work, with `-v` only."""
        if self.verbose:
            self._print(text)

    def event(self, text: str) -> None:
        """Print the action that follows, with `-v` only."""
        self.detail(text)

    def result(self, text: str) -> None:
        """Print the answer to a command: with colour on a terminal, plain for scripts."""
        if sys.stdout.isatty():
            from rich.console import Console as Rich

            Rich(highlight=True).print(f"[bold green]{text}", soft_wrap=True)
        else:
            print(text)

    def warning(self, text: str) -> None:
        """Print a warning: the command goes on."""
        self._print(f"warning: {text}")

    def fatal(self, text: str) -> None:
        """Print the error that ended the command."""
        self._print(f"fatal: {text}")

    def _print(self, text: str) -> None:
        print(f"{self.program}: {text}", file=sys.stderr)
