//! `Table`, `Index` and `open_table`: see `postillion_core::table` and `postillion_maps`.

use postillion_core::ask::Answer;
use postillion_core::table::options::{Form, Options, Warn};
use postillion_core::{lookup, table};
use postillion_maps::build::{Build, Duplicates};
use postillion_maps::open::{self, OpenError, TYPES};
use pyo3::exceptions::{PyException, PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use std::path::PathBuf;
use std::sync::Arc;

pyo3::create_exception!(
    postillion._core.tables,
    TableError,
    PyException,
    "A temporary failure of a table: the mail waits (`451 4.3.0`)."
);
pyo3::create_exception!(
    postillion._core.tables,
    TableTypeError,
    PyValueError,
    "A table name that is never valid; the text names the valid form."
);

/// One opened table.
#[pyclass(frozen, module = "postillion._core.tables")]
pub struct Table {
    /// The same table for the Rust side.
    pub inner: Arc<dyn table::Table>,
    name: Box<str>,
}

#[pymethods]
impl Table {
    /// The table as main.cf names it.
    #[getter]
    fn name(&self) -> &str {
        &self.name
    }

    #[getter]
    fn owner(&self) -> Option<u32> {
        self.inner.owner()
    }

    #[getter]
    fn has_addresses(&self) -> bool {
        self.inner.has_addresses()
    }

    #[getter]
    fn takes_parts(&self) -> bool {
        self.inner.takes_parts()
    }

    #[getter]
    fn is_outdated(&self) -> bool {
        self.inner.is_outdated()
    }

    #[getter]
    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }

    fn lookup<'py>(&self, key: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyString>>> {
        let Some(octets) = octets_of(key)? else { return Ok(None) };
        match self.inner.lookup(&octets) {
            Answer::Found(value) => text_of(key.py(), &value).map(Some),
            Answer::NotFound => Ok(None),
            Answer::Failed(problem) => Err(failure(problem)),
        }
    }

    fn refresh(&self, py: Python<'_>) -> PyResult<()> {
        py.detach(|| self.inner.refresh()).map_err(failure)
    }

    fn values<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyString>>> {
        let values = py.detach(|| self.inner.values()).map_err(failure)?;
        values.iter().map(|value| text_of(py, value)).collect()
    }

    /// Return the entries as lines: key, `separator`, value.
    fn lines<'py>(&self, py: Python<'py>, separator: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let lines = py.detach(|| {
            let mut lines = Vec::new();
            self.inner.entries(&mut |key, value| {
                for part in [key, separator, value, b"\n"] {
                    lines.extend_from_slice(part);
                }
                true
            })?;
            Ok(lines)
        });
        lines.map(|lines| PyBytes::new(py, &lines)).map_err(failure)
    }

    fn items<'py>(&self, py: Python<'py>) -> PyResult<Vec<(Bound<'py, PyString>, Bound<'py, PyString>)>> {
        let entries = py.detach(|| {
            let mut entries = Vec::new();
            self.inner.entries(&mut |key, value| {
                entries.push((Box::<[u8]>::from(key), Box::<[u8]>::from(value)));
                true
            })?;
            Ok(entries)
        });
        let entries = entries.map_err(failure)?;
        entries.iter().map(|(key, value)| Ok((text_of(py, key)?, text_of(py, value)?))).collect()
    }

    fn __repr__(&self) -> String {
        format!("<Table {}>", self.name)
    }
}

/// Open a table. `form`: map, alias or mixed. Raises `TableTypeError`.
#[pyfunction]
#[expect(clippy::too_many_arguments, reason = "the options of a table, all but one by keyword")]
#[pyo3(signature = (name, *, form="map", warn=None, log=None, fold=true, utf8=true, files=false, substitution=true,
                    loaded_max_octets=0))]
pub fn open_table(
    name: &Bound<'_, PyString>,
    form: &str,
    warn: Option<Py<PyAny>>,
    log: Option<Py<PyAny>>,
    fold: bool,
    utf8: bool,
    files: bool,
    substitution: bool,
    loaded_max_octets: u64,
) -> PyResult<Table> {
    let octets = octets_of(name)?.ok_or_else(|| TableTypeError::new_err("the name is no text"))?;
    let options =
        Options { log: callback(log), substitution, loaded_max_octets, ..options(form, warn, fold, utf8, files)? };
    let inner = open::open(&octets, &options).map_err(|error| match error {
        OpenError::UnknownType(kind) => TableTypeError::new_err(format!(
            "\"{}\": unknown table type \"{kind}\"; known types: {}",
            String::from_utf8_lossy(&octets),
            TYPES.join(" ")
        )),
        OpenError::Malformed(problem) => TableTypeError::new_err(problem),
    })?;
    Ok(Table { inner, name: String::from_utf8_lossy(&octets).into() })
}

/// Return the types of tables that `open_table` opens.
#[pyfunction]
pub fn table_types() -> Vec<&'static str> {
    TYPES.to_vec()
}

/// Return one line for each key that a table has: the key, `separator`, the value. The first table with it counts.
#[pyfunction]
pub fn answer_lines<'py>(
    py: Python<'py>,
    tables: Vec<Bound<'py, Table>>,
    keys: &[u8],
    separator: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let tables: Vec<Arc<dyn table::Table>> = tables.iter().map(|table| Arc::clone(&table.get().inner)).collect();
    let mut lines = Vec::new();
    match py.detach(|| lookup::answer_lines(&tables, keys, separator, &mut lines)) {
        Ok(()) => Ok(PyBytes::new(py, &lines)),
        Err(problem) => Err(TableError::new_err((problem.into_string(), PyBytes::new(py, &lines).unbind()))),
    }
}

/// The index of a text, as postmap writes it.
#[pyclass(frozen, module = "postillion._core.tables")]
pub struct Index {
    kind: String,
    path: PathBuf,
    options: Options,
    duplicates: Duplicates,
    nulls: Option<bool>,
    mode: u32,
    map_octets: usize,
}

#[pymethods]
impl Index {
    /// `duplicates`: warn, ignore or replace. `nulls`: None as Postfix does it for this type.
    #[new]
    #[pyo3(signature = (kind, path, *, form="map", warn=None, fold=true, utf8=true, files=false, duplicates="warn",
                        nulls=None, mode=0o644, map_octets=16_777_216))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        kind: String,
        path: PathBuf,
        form: &str,
        warn: Option<Py<PyAny>>,
        fold: bool,
        utf8: bool,
        files: bool,
        duplicates: &str,
        nulls: Option<bool>,
        mode: u32,
        map_octets: usize,
    ) -> PyResult<Self> {
        let duplicates = match duplicates {
            "warn" => Duplicates::Warn,
            "ignore" => Duplicates::Ignore,
            "replace" => Duplicates::Replace,
            _ => return Err(PyValueError::new_err(format!("duplicates: {duplicates:?}"))),
        };
        let options = options(form, warn, fold, utf8, files)?;
        Ok(Self { kind, path, options, duplicates, nulls, mode, map_octets })
    }

    /// Write the index of a text. `name`: the text's name in warnings. Raises `TableError`.
    fn create(&self, py: Python<'_>, text: &[u8], name: &str) -> PyResult<()> {
        py.detach(|| self.build().create(text, name)).map_err(|problem| failure(problem.into()))
    }

    /// Add the entries of a text. Raises `TableError`.
    fn update(&self, py: Python<'_>, text: &[u8], name: &str) -> PyResult<()> {
        py.detach(|| self.build().update(text, name)).map_err(|problem| failure(problem.into()))
    }

    /// Remove keys; return how many were there. Raises `TableError`.
    fn remove(&self, py: Python<'_>, keys: Vec<Vec<u8>>) -> PyResult<usize> {
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        py.detach(|| self.build().remove(&keys)).map_err(|problem| failure(problem.into()))
    }
}

impl Index {
    fn build(&self) -> Build<'_> {
        let Self { kind, path, options, duplicates, nulls, mode, map_octets } = self;
        let options = options.clone();
        Build { kind, path, options, duplicates: *duplicates, nulls: *nulls, mode: *mode, map_octets: *map_octets }
    }
}

fn failure(problem: Box<str>) -> PyErr {
    TableError::new_err(problem.into_string())
}

fn options(form: &str, warn: Option<Py<PyAny>>, fold: bool, utf8: bool, files: bool) -> PyResult<Options> {
    let form = match form {
        "map" => Form::Map,
        "alias" => Form::Alias,
        "mixed" => Form::Mixed,
        _ => return Err(PyValueError::new_err(format!("no form is called {form:?}"))),
    };
    Ok(Options { form, fold, utf8, files, warn: callback(warn), ..Options::plain() })
}

fn callback(function: Option<Py<PyAny>>) -> Warn {
    match function {
        None => Arc::new(|_| ()),
        // The core holds no lock during the call.
        Some(function) => Arc::new(move |text| {
            Python::attach(|py| {
                if let Err(error) = function.call1(py, (text,)) {
                    error.write_unraisable(py, Some(function.bind(py)));
                }
            });
        }),
    }
}

/// Return the octets of a text, those of surrogates as Python escaped them. `None`: the text has other surrogates.
fn octets_of(text: &Bound<'_, PyString>) -> PyResult<Option<Vec<u8>>> {
    if let Ok(text) = text.to_str() {
        return Ok(Some(text.as_bytes().to_vec()));
    }
    let py = text.py();
    match text.call_method1("encode", ("utf-8", "surrogateescape")) {
        Ok(octets) => Ok(Some(octets.extract()?)),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Return octets as a text, with a surrogate for each octet that is not UTF-8.
fn text_of<'py>(py: Python<'py>, octets: &[u8]) -> PyResult<Bound<'py, PyString>> {
    match std::str::from_utf8(octets) {
        Ok(text) => Ok(PyString::new(py, text)),
        Err(_) => {
            let text = PyBytes::new(py, octets).call_method1("decode", ("utf-8", "surrogateescape"))?;
            Ok(text.cast_into()?)
        }
    }
}
