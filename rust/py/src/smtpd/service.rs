//! `SmtpdService`: see `postillion_core::smtpd::service`.

use super::session::{SmtpdConfig, SmtpdSession, to_reply};
use crate::queue::Journal;
use postillion_core::net::reactor::Key;
use postillion_core::queue::Appender;
use postillion_core::smtpd::conversation::SLEEPING;
use postillion_core::smtpd::service::{self, Acquaintance, Opening, Service, Wish};
use postillion_core::smtpd::session::Client;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

/// A wish: the connection's number, what is wished for, and a time or a text.
type Told = (u64, i8, f64, Option<String>);

/// All sessions of a process.
#[pyclass(module = "postillion._core.smtpd")]
pub struct SmtpdService {
    service: Service,
}

#[pymethods]
impl SmtpdService {
    #[classattr]
    const GONE: i8 = service::GONE;
    #[classattr]
    const WELCOME: i8 = service::WELCOME;
    #[classattr]
    const SWEEP: i8 = service::SWEEP;
    #[classattr]
    const EMPTY: i8 = service::EMPTY;
    #[classattr]
    const ACCEPT_FAILED: i8 = service::ACCEPT_FAILED;

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

    fn drain(&mut self) -> PyResult<Option<Vec<Told>>> {
        self.service.drain()?;
        Ok(self.told())
    }

    fn adopt(
        &mut self,
        socket: &Bound<'_, PyAny>,
        address: &str,
        port: u16,
        now: f64,
    ) -> PyResult<(u64, Option<Vec<Told>>)> {
        let address = address.parse().map_err(|error| PyValueError::new_err(format!("{address:?}: {error}")))?;
        let key = self.service.adopt(copy_of(socket)?, SocketAddr::new(address, port), now)?;
        Ok((key.token(), self.told()))
    }

    fn __len__(&self) -> usize {
        self.service.len()
    }

    fn peer(&self, key: u64) -> Option<(String, u16)> {
        let (address, port) = self.service.peer(self.key(key)?)?;
        Some((address.to_string(), port))
    }

    fn session(&mut self, key: u64) -> Option<SmtpdSession> {
        self.service.session(self.key(key)?).map(SmtpdSession::of)
    }

    #[pyo3(signature = (address, name, reverse_name, until, *, group=None, rewrites_headers=false,
                        bare_newline_spared=false))]
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
    ) {
        let who = acquaintance(address, name, reverse_name, group, rewrites_headers, bare_newline_spared);
        self.service.know(who, until);
    }

    fn remember(&self, group: u8, scope: &str, until: f64) {
        self.service.remember(group, scope, until);
    }

    fn turn(&mut self, now: f64) -> PyResult<Option<Vec<Told>>> {
        self.service.turn(now)?;
        Ok(self.told())
    }

    fn settle(&mut self, now: f64) -> Option<Vec<Told>> {
        self.service.settle(now);
        self.told()
    }

    #[pyo3(signature = (key, address, name, reverse_name, now, *, group=None, rewrites_headers=false,
                        bare_newline_spared=false, refusal=None, turn_away=None))]
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
        refusal: Option<(u16, String, String)>,
        turn_away: Option<String>,
    ) -> PyResult<Option<Vec<Told>>> {
        let opening = match (turn_away, refusal) {
            (Some(text), _) => Opening::TurnAway(text),
            (None, Some((code, dsn, text))) => Opening::Refuse(to_reply(code, &dsn, &text)?),
            (None, None) => Opening::Greet,
        };
        if let Some(key) = self.key(key) {
            let who = acquaintance(address, name, reverse_name, group, rewrites_headers, bare_newline_spared);
            self.service.begin(key, who, &opening, now);
        }
        Ok(self.told())
    }

    fn proceed(&mut self, key: u64, turn: i8, now: f64) -> Option<Vec<Told>> {
        self.at(key, |service, key| service.proceed(key, turn, now))
    }

    fn wake(&mut self, key: u64, now: f64) -> Option<Vec<Told>> {
        self.at(key, |service, key| service.wake(key, now))
    }

    fn abort(&mut self, key: u64, now: f64) -> Option<Vec<Told>> {
        self.at(key, |service, key| service.abort(key, now))
    }

    fn write(&mut self, key: u64, octets: &[u8], now: f64) -> Option<Vec<Told>> {
        self.at(key, |service, key| service.write(key, octets.to_vec(), now))
    }

    fn sweep(&mut self, now: f64) -> (bool, Option<Vec<Told>>) {
        (self.service.sweep(now), self.told())
    }

    fn stop(&mut self, now: f64) -> Option<Vec<Told>> {
        self.service.stop(now);
        self.told()
    }
}

impl SmtpdService {
    fn key(&self, token: u64) -> Option<Key> {
        self.service.key_of(token)
    }

    fn at(&mut self, key: u64, act: impl FnOnce(&mut Service, Key)) -> Option<Vec<Told>> {
        if let Some(key) = self.key(key) {
            act(&mut self.service, key);
        }
        self.told()
    }

    fn told(&mut self) -> Option<Vec<Told>> {
        let wishes = self.service.take_wishes();
        (!wishes.is_empty()).then(|| wishes.into_iter().map(told).collect())
    }
}

/// A copy of the descriptor of one of Python's sockets.
#[expect(unsafe_code, reason = "a descriptor comes from Python as a number")]
fn copy_of(socket: &Bound<'_, PyAny>) -> PyResult<OwnedFd> {
    let descriptor: RawFd = socket.call_method0("fileno")?.extract()?;
    if descriptor < 0 {
        return Err(PyValueError::new_err("the socket is closed"));
    }
    // SAFETY: the socket has the descriptor open, and is kept from being closed by our reference to it and by the GIL
    // until the copy is made.
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?)
}

fn told(wish: Wish) -> Told {
    match wish {
        Wish::Decide(key, question) => (key.token(), question, 0.0, None),
        Wish::Wake(key, at) => (key.token(), SLEEPING, at, None),
        Wish::Gone(key) => (key.token(), service::GONE, 0.0, None),
        Wish::Welcome(key) => (key.token(), service::WELCOME, 0.0, None),
        Wish::Sweep => (0, service::SWEEP, 0.0, None),
        Wish::Empty => (0, service::EMPTY, 0.0, None),
        Wish::AcceptFailed(error) => (0, service::ACCEPT_FAILED, 0.0, Some(error)),
    }
}

fn acquaintance(
    address: &str,
    name: &str,
    reverse_name: &str,
    group: Option<u8>,
    rewrites_headers: bool,
    bare_newline_spared: bool,
) -> Acquaintance {
    let client = Client {
        name: name.into(),
        reverse_name: reverse_name.into(),
        address: address.into(),
        port: 0,
        rewrites_headers,
        bare_newline_spared,
    };
    Acquaintance { client, group }
}
