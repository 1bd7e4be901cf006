//! `postillion.config.Config` as the source of a core's settings.

use postillion_core::settings::Source;
use pyo3::prelude::*;

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

    /// Return the name in main.cf: `_destination_rate_delay` is the transport's own, or that of all transports.
    fn name(&self, name: &str) -> PyResult<String> {
        match name.strip_prefix('_') {
            Some(suffix) => self.config.call_method1("transport_name", (self.transport, suffix))?.extract(),
            None => Ok(name.into()),
        }
    }
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

    fn bad(&self, name: &str, value: &str, fix: &str) -> PyErr {
        let error = |name: String| {
            let problem = format!("bad value \"{value}\" for {name}");
            self.config.call_method1("error", (name, problem, fix))
        };
        self.name(name).and_then(error).map_or_else(|error| error, PyErr::from_value)
    }
}
