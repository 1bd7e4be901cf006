//! `user`, `user_of` and `line`: see `postillion_maps::accounts`. Other threads run while the name service is asked.

use postillion_maps::accounts::{self, Accounts, User};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Name, uid, gid, home directory and shell.
type Fields = (OsString, u32, u32, OsString, OsString);

/// Return the user with this name. Raises `OSError`.
#[pyfunction]
pub fn user(py: Python<'_>, name: OsString) -> PyResult<Option<Fields>> {
    py.detach(|| accounts::user(name.as_bytes())).map(|user| user.map(fields)).map_err(|error| failure(py, &error))
}

/// Return the user with this number. Raises `OSError`.
#[pyfunction]
pub fn user_of(py: Python<'_>, uid: u32) -> PyResult<Option<Fields>> {
    py.detach(|| accounts::user_of(uid)).map(|user| user.map(fields)).map_err(|error| failure(py, &error))
}

/// Return the line of an account in passwd.byname or group.byname. Raises `OSError`.
#[pyfunction]
pub fn line(py: Python<'_>, table: &str, key: OsString) -> PyResult<Option<OsString>> {
    let accounts = Accounts::new(table, table.as_bytes()).map_err(PyValueError::new_err)?;
    match py.detach(|| accounts.line(key.as_bytes())) {
        Ok(line) => Ok(line.map(OsString::from_vec)),
        Err(error) => Err(failure(py, &error)),
    }
}

fn fields(user: User) -> Fields {
    let text = OsString::from_vec;
    (text(user.name), user.uid, user.gid, text(user.home), text(user.shell))
}

/// Return the error with its number and the system's text.
fn failure(py: Python<'_>, error: &io::Error) -> PyErr {
    let number = error.raw_os_error().unwrap_or_default();
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (number,))).and_then(|text| text.extract());
    match text {
        Ok(text) => PyOSError::new_err((number, text) as (i32, String)),
        Err(error) => error,
    }
}
