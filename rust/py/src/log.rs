//! `Log`: see `postillion_core::log`.

use postillion_core::log::{self, LogTarget, Severity};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

/// A program's log; each process needs only one.
#[pyclass(frozen, module = "postillion._core.log")]
pub struct Log {
    /// The same log for the Rust side.
    pub inner: Arc<log::Log>,
}

#[pymethods]
impl Log {
    /// `destination`: a path to append to (`/dev/stdout` for standard output of any kind), `syslog:` and a socket's
    /// path, or `memory:`. `facility`: syslog's number, 2 for mail. Raises `OSError` when it cannot be opened.
    #[new]
    #[pyo3(signature = (host, syslog_name, program, pid, utc_offset_s, destination, *, permissions=0o600, facility=2))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        host: &str,
        syslog_name: &str,
        program: &str,
        pid: u32,
        utc_offset_s: i32,
        destination: &str,
        permissions: u32,
        facility: u8,
    ) -> PyResult<Self> {
        let destination = if destination == "memory:" {
            LogTarget::Memory
        } else if let Some(path) = destination.strip_prefix("syslog:") {
            let socket = UnixDatagram::unbound()?;
            std::fs::metadata(path)?;
            LogTarget::Syslog(socket, path.into(), facility)
        } else if destination == "/dev/stdout" {
            // Opening the path fails when standard output is a socket, as under systemd.
            LogTarget::File(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
        } else {
            LogTarget::File(OpenOptions::new().append(true).create(true).mode(permissions).open(destination)?)
        };
        Ok(Self { inner: Arc::new(log::Log::new(host, syslog_name, program, pid, utc_offset_s, destination)) })
    }

    /// Add a line of `severity` info, warning, error, fatal or panic.
    fn line(&self, severity: &str, text: &str) -> PyResult<()> {
        let severity = match severity {
            "info" => Severity::Info,
            "warning" => Severity::Warning,
            "error" => Severity::Error,
            "fatal" => Severity::Fatal,
            "panic" => Severity::Panic,
            _ => return Err(PyValueError::new_err(format!("no severity is called {severity:?}"))),
        };
        self.inner.line(severity, format_args!("{text}"));
        Ok(())
    }

    fn info(&self, text: &str) {
        self.inner.info(format_args!("{text}"));
    }

    fn warning(&self, text: &str) {
        self.inner.warning(format_args!("{text}"));
    }

    fn set_utc_offset(&self, utc_offset_s: i32) {
        self.inner.set_utc_offset(utc_offset_s);
    }

    fn flush(&self, py: Python<'_>) {
        py.detach(|| self.inner.flush());
    }

    fn take_lines(&self) -> Vec<String> {
        self.inner.take_lines()
    }
}
