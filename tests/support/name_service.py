"""A name service whose servers fail and wait when a test says so, for the programs of a site.

The programs load a library before the C library (`name_service.cpp`); the machine's own accounts stay as they are.
"""

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

from support.mta import Site, let_others_pass, wait_for
from support.peers import absent

SOURCE = Path(__file__).with_suffix(".cpp")
SERVERS = "passwd: files sss\ngroup: files sss\n"
"""An nsswitch.conf with sources that ask servers."""


class NameService:
    """The name service of the programs that `variables` start."""

    def __init__(self, directory: Path, nsswitch: str = SERVERS) -> None:
        """Compile the library. Skip or fail the test when there is no compiler."""
        compiler = shutil.which("g++")
        if compiler is None:
            absent("g++ is not installed (Debian package g++)")
        assert compiler is not None
        self._names = directory / "names"
        self._names.mkdir(parents=True)
        (directory / "nsswitch.conf").write_text(nsswitch)
        self.library = directory / "name_service.so"
        # With 64-bit offsets, <fcntl.h> would give open the name of open64.
        options = ["-shared", "-fPIC", "-U_FILE_OFFSET_BITS", "-D_LARGEFILE64_SOURCE", f'-DDIRECTORY="{directory}"']
        subprocess.run([compiler, *options, "-o", str(self.library), str(SOURCE), "-ldl"], check=True, timeout=120)
        let_others_pass(directory)
        for path in (directory, self._names):
            path.chmod(0o755)

    @property
    def variables(self) -> dict[str, str]:
        """The environment of a command that asks this name service."""
        return {**os.environ, "LD_PRELOAD": str(self.library)}

    def serve(self, site: Site) -> None:
        """Let the programs of a site ask this name service."""
        with (site.etc / "main.cf").open("a") as file:
            file.write(f"import_environment = MAIL_CONFIG LD_PRELOAD={self.library}\n")

    def fail(self, name: str, error: int) -> None:
        """Let each lookup of a name fail with an error; 0: there is no such account."""
        (self._names / name).write_text(str(error))

    def recover(self, name: str) -> None:
        """Let lookups of a name reach the machine's accounts again."""
        (self._names / name).unlink()

    def block(self, name: str) -> None:
        """Let each lookup of a name wait until `answer`."""
        os.mkfifo(self._names / name, 0o644)

    def wait_for_lookup(self, name: str) -> int:
        """Wait until a lookup of a blocked name has begun; return what `answer` needs."""
        opened: list[int] = []

        def is_read() -> bool:
            # A FIFO that nobody reads cannot be opened for writing.
            with suppress(OSError):
                opened.append(os.open(self._names / name, os.O_WRONLY | os.O_NONBLOCK))
            return bool(opened)

        wait_for(f"a lookup of {name}", is_read)
        return opened[0]

    def answer(self, lookup: int, error: int) -> None:
        """End the lookup with an error; 0: there is no such account."""
        os.write(lookup, str(error).encode())
        os.close(lookup)
