//! The tables of `header_checks` and related parameters from Python: see `postillion_core::inspection::lists`.

use crate::config::entry;
use postillion_core::inspection::lists::{List, Lists};
use pyo3::prelude::*;
use std::sync::Arc;

/// A parameter and its tables.
pub type ListTuple<'py> = (String, Vec<Bound<'py, PyAny>>);

/// Convert the four lists, in the order of `Lists`.
pub fn lists(given: Option<[ListTuple<'_>; 4]>) -> PyResult<Arc<Lists>> {
    let list = |(parameter, tables): ListTuple<'_>| {
        let tables = tables.iter().map(entry).collect::<PyResult<_>>()?;
        PyResult::Ok(List { parameter: parameter.into(), tables })
    };
    let Some([header, mime_header, nested_header, body]) = given else { return Ok(Arc::default()) };
    Ok(Arc::new(Lists {
        header: list(header)?,
        mime_header: list(mime_header)?,
        nested_header: list(nested_header)?,
        body: list(body)?,
    }))
}
