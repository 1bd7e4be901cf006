#!/bin/sh
# PyO3 0.29.3: std::io::Error becomes an OSError of the right class, but without errno, strerror and filename.
#
# `?` in a #[pyfunction] turns an io::Error into FileNotFoundError, PermissionError and so on, so it looks complete. Its only
# argument is the text, and Python fills errno and strerror only from two arguments: a caller that compares
# `error.errno == errno.ENOENT`, or that passes on `error.strerror`, gets None where open() gives 2 and "No such file or
# directory".
#
# Exit status 0 while the class is FileNotFoundError and errno is None.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "probe"
version = "0.1.0"
edition = "2021"
[lib]
crate-type = ["cdylib"]
[dependencies]
pyo3 = { version = "=0.29.3", features = ["extension-module"] }
TOML
cat > src/lib.rs <<'RUST'
use pyo3::prelude::*;

#[pyfunction]
fn read(path: &str) -> PyResult<Vec<u8>> {
    Ok(std::fs::read(path)?)
}

#[pymodule]
fn probe(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(read, module)?)
}
RUST
cargo build --quiet
cp target/debug/libprobe.so probe.so
python3 - <<'PYTHON'
import probe

for name, read in (("open()", lambda path: open(path).read()), ("PyO3", probe.read)):
    try:
        read("missing")
    except OSError as error:
        print(f"{name}: {type(error).__name__}, errno {error.errno}, strerror {error.strerror}, filename {error.filename}")
        found = type(error) is FileNotFoundError and error.errno is None
raise SystemExit(0 if found else 1)
PYTHON
