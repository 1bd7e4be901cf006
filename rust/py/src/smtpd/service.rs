//! `SmtpdService`: see `postillion_core::smtpd::service`.

use super::session::{SmtpdConfig, SmtpdSession, to_reply};
use super::{Next, Request};
use crate::queue::Journal;
use postillion_core::net::reactor::Key;
use postillion_core::queue::Appender;
use postillion_core::smtpd::listing::Listing;
use postillion_core::smtpd::request::{KnownClient, Opening};
use postillion_core::smtpd::service::Service;
use postillion_core::smtpd::site::Client;
use postillion_core::tls::settings::LogLevel;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

/// All sessions of a process.
#[pyclass(module = "postillion._core.smtpd")]
pub struct SmtpdService {
    service: Service,
}

#[pymethods]
impl SmtpdService {
    #[new]
    #[pyo3(signature = (name, config, stressed, journal, *, limit=0))]
    fn new(
        name: &str,
        config: &SmtpdConfig,
        stressed: Option<&SmtpdConfig>,
        journal: &Journal,
        limit: usize,
    ) -> PyResult<Self> {
        let stressed = stressed.map(|config| Arc::clone(&config.site));
        let journal = Arc::new(Arc::clone(&journal.inner)) as Arc<dyn Appender>;
        Ok(Self { service: Service::new(name, Arc::clone(&config.site), stressed, limit, journal)? })
    }

    fn fileno(&self) -> i32 {
        self.service.descriptor().as_raw_fd()
    }

    fn listen(&mut self, listener: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(self.service.listen(copy_of(listener)?.as_fd())?)
    }

    fn accept(&mut self, accepting: bool) -> PyResult<()> {
        Ok(self.service.accept(accepting)?)
    }

    fn drain(&mut self) -> PyResult<Option<Vec<Request>>> {
        self.service.drain()?;
        Ok(self.requests())
    }

    fn adopt(
        &mut self,
        socket: &Bound<'_, PyAny>,
        address: &str,
        port: u16,
        now: f64,
    ) -> PyResult<(u64, Option<Vec<Request>>)> {
        let address = address.parse().map_err(|error| PyValueError::new_err(format!("{address:?}: {error}")))?;
        let key = self.service.adopt(copy_of(socket)?, SocketAddr::new(address, port), now)?;
        Ok((key.token(), self.requests()))
    }

    fn __len__(&self) -> usize {
        self.service.len()
    }

    fn peer(&self, key: u64) -> Option<(String, u16)> {
        let (address, port) = self.service.peer(self.key(key)?)?;
        Some((address.to_string(), port))
    }

    fn is_stressed(&self, key: u64) -> bool {
        self.key(key).is_some_and(|key| self.service.is_stressed(key))
    }

    fn session(&mut self, key: u64) -> Option<SmtpdSession> {
        self.service.session(self.key(key)?).map(SmtpdSession::of)
    }

    #[pyo3(signature = (address, name, reverse_name, until, *, group=None, rewrites_headers=false,
                        bare_newline_spared=false, tls_log_level=None, stressed=false))]
    #[expect(clippy::too_many_arguments, reason = "a client's facts, half of them by keyword")]
    fn know(
        &mut self,
        address: &str,
        name: &str,
        reverse_name: &str,
        until: f64,
        group: Option<u8>,
        rewrites_headers: bool,
        bare_newline_spared: bool,
        tls_log_level: Option<u8>,
        stressed: bool,
    ) {
        let names = [address, name, reverse_name];
        let client = client(names, rewrites_headers, bare_newline_spared, tls_log_level);
        self.service.know(KnownClient { client, group }, until, stressed);
    }

    #[pyo3(signature = (group, scope, until, *, listing="all", stressed=false))]
    fn remember(&self, group: u8, scope: &str, until: f64, listing: &str, stressed: bool) -> PyResult<()> {
        let known = Listing::of(listing);
        let listing = known.ok_or_else(|| PyValueError::new_err(format!("unknown listing {listing:?}")))?;
        self.service.remember(group, scope, listing, until, stressed);
        Ok(())
    }

    fn poll(&mut self, now: f64) -> PyResult<Option<Vec<Request>>> {
        self.service.poll(now)?;
        Ok(self.requests())
    }

    fn collect(&mut self) {
        self.service.collect();
    }

    fn finish(&mut self, now: f64) -> Option<Vec<Request>> {
        self.service.finish(now);
        self.requests()
    }

    #[pyo3(signature = (key, address, name, reverse_name, now, *, group=None, rewrites_headers=false,
                        bare_newline_spared=false, tls_log_level=None, refusal=None, dismissal=None))]
    #[expect(clippy::too_many_arguments, reason = "a client's facts, most of them by keyword")]
    fn begin(
        &mut self,
        key: u64,
        address: &str,
        name: &str,
        reverse_name: &str,
        now: f64,
        group: Option<u8>,
        rewrites_headers: bool,
        bare_newline_spared: bool,
        tls_log_level: Option<u8>,
        refusal: Option<(u16, String, String)>,
        dismissal: Option<String>,
    ) -> PyResult<Option<Vec<Request>>> {
        let opening = match (dismissal, refusal) {
            (Some(text), _) => Opening::Dismiss(text),
            (None, Some((code, dsn, text))) => Opening::Refuse(to_reply(code, &dsn, &text)?),
            (None, None) => Opening::Greet,
        };
        if let Some(key) = self.key(key) {
            let names = [address, name, reverse_name];
            let client = client(names, rewrites_headers, bare_newline_spared, tls_log_level);
            self.service.begin(key, KnownClient { client, group }, &opening, now);
        }
        Ok(self.requests())
    }

    fn proceed(&mut self, key: u64, next: Next, now: f64) -> Option<Vec<Request>> {
        self.at(key, |service, key| service.proceed(key, next.into(), now))
    }

    fn wake(&mut self, key: u64, now: f64) -> Option<Vec<Request>> {
        self.at(key, |service, key| service.wake(key, now))
    }

    fn abort(&mut self, key: u64, now: f64) -> Option<Vec<Request>> {
        self.at(key, |service, key| service.abort(key, now))
    }

    fn write(&mut self, key: u64, octets: &[u8], now: f64) -> Option<Vec<Request>> {
        self.at(key, |service, key| service.write(key, octets.to_vec(), now))
    }

    fn sweep(&mut self, now: f64) -> (bool, Option<Vec<Request>>) {
        (self.service.sweep(now), self.requests())
    }

    fn stop(&mut self, now: f64) -> Option<Vec<Request>> {
        self.service.stop(now);
        self.requests()
    }
}

impl SmtpdService {
    fn key(&self, token: u64) -> Option<Key> {
        self.service.key_of(token)
    }

    fn at(&mut self, key: u64, act: impl FnOnce(&mut Service, Key)) -> Option<Vec<Request>> {
        if let Some(key) = self.key(key) {
            act(&mut self.service, key);
        }
        self.requests()
    }

    fn requests(&mut self) -> Option<Vec<Request>> {
        let requests = self.service.take_requests();
        (!requests.is_empty()).then(|| requests.into_iter().map(Request::from).collect())
    }
}

/// Return a copy of the descriptor of one of Python's sockets.
#[expect(unsafe_code, reason = "a descriptor comes from Python as a number")]
fn copy_of(socket: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let descriptor: RawFd = socket.call_method0("fileno")?.extract()?;
    if descriptor < 0 {
        return Err(PyValueError::new_err("the socket is closed"));
    }
    // SAFETY: the socket has the descriptor open. Our reference and the GIL keep it open until the copy is made.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?)
}

/// Return a client. `names`: its address, its name, and that of its address in DNS.
fn client(names: [&str; 3], rewrites_headers: bool, bare_newline_spared: bool, tls_log_level: Option<u8>) -> Client {
    let [address, name, reverse_name] = names.map(Into::into);
    let tls_log_level = tls_log_level.map(LogLevel);
    Client { name, reverse_name, address, port: 0, rewrites_headers, bare_newline_spared, tls_log_level }
}
