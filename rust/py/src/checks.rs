//! The tables of `header_checks` and related parameters from Python: see `postillion_core::table::checks`.

use crate::tables::Table;
use postillion_core::table::checks::{List, Lists};
use pyo3::prelude::*;
use std::sync::Arc;

/// A parameter and its tables.
pub type ListTuple<'py> = (String, Vec<PyRef<'py, Table>>);

/// Convert the four lists, in the order of `Lists`.
pub fn lists(given: Option<[ListTuple<'_>; 4]>) -> Arc<Lists> {
    let list = |(parameter, tables): ListTuple<'_>| List {
        parameter: parameter.into(),
        tables: tables.iter().map(|table| Arc::clone(&table.inner)).collect(),
    };
    Arc::new(given.map_or_else(Lists::default, |given| {
        let [header, mime_header, nested_header, body] = given.map(list);
        Lists { header, mime_header, nested_header, body }
    }))
}
