//! Lookups and their answers: see `postillion_core::ask` and `postillion.tables.answers`.

use postillion_core::ask::{Answer, Lookup};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A lookup in Python: the table's number and the key.
pub type LookupTuple = (usize, Vec<u8>);
/// An answer in Python: `found` and the value, `not found`, or `failed` and the reason.
pub type AnswerTuple<'py> = (String, Bound<'py, PyAny>);

/// Convert lookups for Python.
pub fn lookups(py: Python<'_>, lookups: Vec<Lookup>) -> Vec<(usize, Bound<'_, PyBytes>)> {
    lookups.into_iter().map(|lookup| (lookup.table, PyBytes::new(py, &lookup.key))).collect()
}

/// Convert lookups and their answers, which have the same order.
pub fn answers(lookups: Vec<LookupTuple>, answers: Vec<AnswerTuple<'_>>) -> PyResult<Vec<(Lookup, Answer)>> {
    if lookups.len() != answers.len() {
        return Err(PyValueError::new_err(format!("{} lookups, {} answers", lookups.len(), answers.len())));
    }
    let lookups = lookups.into_iter().map(|(table, key)| Lookup { table, key: key.into() });
    lookups.zip(answers).map(|(lookup, answer)| Ok((lookup, answer_of(answer)?))).collect()
}

fn answer_of((kind, value): AnswerTuple<'_>) -> PyResult<Answer> {
    match kind.as_str() {
        "found" => Ok(Answer::Found(value.extract::<Vec<u8>>()?.into())),
        "not found" => Ok(Answer::NotFound),
        "failed" => Ok(Answer::Failed(value.extract::<String>()?.into())),
        _ => Err(PyValueError::new_err(format!("unknown answer {kind:?}"))),
    }
}
