"""The licences of C code in the extension: an installation has the texts, and they are those of the code."""

from __future__ import annotations

import os
import re
from importlib.metadata import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEXTS = ROOT / "rust/maps/licenses"
SOURCES = Path(os.environ.get("CARGO_HOME", str(Path.home() / ".cargo"))) / "registry/src"
PCRE2 = "pcre2-sys-*/upstream"
LMDB = "lmdb-master-sys-*/lmdb/libraries/liblmdb"
ORIGINS = {
    "LMDB": f"{LMDB}/LICENSE",
    "LMDB-BTREE": f"{LMDB}/mdb.c",
    "LMDB-COPYRIGHT": f"{LMDB}/COPYRIGHT",
    "PCRE2": f"{PCRE2}/src/pcre2_compile.c",
    "PCRE2-JIT": f"{PCRE2}/src/pcre2_jit_compile.c",
    "PCRE2-SLJIT": f"{PCRE2}/deps/sljit/sljit_src/sljitLir.c",
}
"""Each text, and the file of a crate that has it."""


def words(text: str) -> str:
    """Return a text without the marks of a comment, and with one blank between words."""
    return " ".join(re.sub(r"(?m)^ ?\*+/?|/\*+", " ", text).split())


def test_every_library_in_c_has_its_texts() -> None:
    assert {path.name for path in TEXTS.iterdir()} == set(ORIGINS)
    crates = re.findall(r"(?m)^([\w-]+-sys) = ", (ROOT / "rust/maps/Cargo.toml").read_text())
    assert sorted(crates) == ["lmdb-master-sys", "pcre2-sys"]


@pytest.mark.parametrize("name", ORIGINS)
def test_a_text_is_that_of_the_code(name: str) -> None:
    found = list(SOURCES.glob(f"*/{ORIGINS[name]}"))
    if not found:
        pytest.skip("cargo has not unpacked the crate here")
    text = words((TEXTS / name).read_text())
    assert any(text in words(path.read_text(errors="replace")) for path in found)


def test_an_installation_has_the_texts() -> None:
    installed = {str(path).partition(".dist-info/licenses/")[2] for path in files("postillion") or ()}
    wanted = {"LICENSE-APACHE", "LICENSE-MIT", *(f"rust/maps/licenses/{name}" for name in ORIGINS)}
    assert wanted <= installed
