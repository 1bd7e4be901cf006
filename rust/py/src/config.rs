//! `postillion.config.Config` as the source of a core's settings.

use crate::tables::Table;
use postillion_core::lookup::{Entry, Maps};
use postillion_core::settings::Source;
use pyo3::prelude::*;
use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

/// A site's main.cf, or the parameters that it gives one transport. An error is the `ConfigError` of the parameter.
pub struct MainCf<'a, 'py> {
    config: &'a Bound<'py, PyAny>,
    transport: &'a str,
}

impl<'a, 'py> MainCf<'a, 'py> {
    /// Return the parameters that all transports share.
    pub fn new(config: &'a Bound<'py, PyAny>) -> Self {
        Self { config, transport: "default" }
    }

    /// Return the parameters of one transport, whose names begin with `_`.
    pub fn of_transport(config: &'a Bound<'py, PyAny>, transport: &'a str) -> Self {
        Self { config, transport }
    }

    fn call<T: for<'b> FromPyObject<'b, 'py, Error = PyErr>>(&self, method: &str, name: &str) -> PyResult<T> {
        self.config.call_method1(method, (self.name(name)?,))?.extract()
    }

    fn tables(&self) -> PyResult<Bound<'py, PyModule>> {
        self.config.py().import("postillion.tables")
    }

    /// Return the addresses at which this machine receives mail.
    pub fn own_addresses(&self) -> PyResult<Box<[IpAddr]>> {
        let classes = self.config.py().import("postillion.address.classes")?;
        let own: HashSet<String> = classes.call_method1("own_addresses", (self.config,))?.extract()?;
        Ok(own.iter().filter_map(|address| address.parse().ok()).collect())
    }

    /// Return the name in main.cf: `_destination_rate_delay` is the transport's own, or that of all transports.
    fn name(&self, name: &str) -> PyResult<String> {
        match name.strip_prefix('_') {
            Some(suffix) => self.config.call_method1("transport_name", (self.transport, suffix))?.extract(),
            None => Ok(name.into()),
        }
    }
}

fn of_entries(tables: Box<[Entry]>) -> Maps {
    Maps { tables }
}

/// Return a table for a core: one of Rust answers at once, one in Python gets a number.
pub fn entry(table: &Bound<'_, PyAny>) -> PyResult<Entry> {
    if let Ok(local) = table.cast::<Table>() {
        return Ok(Entry::Local(Arc::clone(&local.borrow().inner)));
    }
    let answers = table.py().import("postillion.tables.answers")?;
    let index = answers.call_method1("number", (table,))?.extract()?;
    let takes_parts = match table.getattr_opt("takes_parts")? {
        Some(takes_parts) => takes_parts.extract()?,
        None => true,
    };
    Ok(Entry::Remote { index, takes_parts })
}

impl Source for MainCf<'_, '_> {
    type Error = PyErr;

    fn text(&self, name: &str) -> PyResult<String> {
        self.call("text", name)
    }

    fn number(&self, name: &str) -> PyResult<i64> {
        self.call("number", name)
    }

    fn seconds(&self, name: &str) -> PyResult<f64> {
        self.call("seconds", name)
    }

    fn flag(&self, name: &str) -> PyResult<bool> {
        self.call("flag", name)
    }

    fn items(&self, name: &str) -> PyResult<Vec<String>> {
        self.call("items", name)
    }

    fn maps(&self, name: &str) -> PyResult<Maps> {
        // Most sites have no tables here: then nothing is imported.
        if self.items(name)?.is_empty() {
            return Ok(Maps::default());
        }
        let opened = self.tables()?.call_method1("open_maps", (self.name(name)?, self.config))?;
        opened.getattr("tables")?.try_iter()?.map(|table| entry(&table?)).collect::<PyResult<_>>().map(of_entries)
    }

    fn table(&self, name: &str, word: &str) -> PyResult<Maps> {
        let opened = self.tables()?.call_method1("open_word", (self.name(name)?, word, self.config))?;
        Ok(of_entries(Box::new([entry(&opened)?])))
    }

    fn bad(&self, name: &str, value: &str, fix: &str) -> PyErr {
        let error = |name: String| {
            let problem = format!("bad value \"{value}\" for {name}");
            self.config.call_method1("error", (name, problem, fix))
        };
        self.name(name).and_then(error).map_or_else(|error| error, PyErr::from_value)
    }
}
