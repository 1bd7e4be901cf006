//! `QueueManager`: see `postillion_core::qmgr::hub`.

use crate::config::MainCf;
use crate::log::Log;
use crate::queue::queue_error;
use postillion_core::clock::Now;
use postillion_core::mail::id::QueueId;
use postillion_core::mail::locator::Locator;
use postillion_core::mail::reply::Enhanced;
use postillion_core::mail::status::{Outcome, Status};
use postillion_core::qmgr::control::Verb;
use postillion_core::qmgr::hub::{Hub, Request};
use postillion_core::qmgr::route::{Keyed, Question, Resolved};
use postillion_core::qmgr::scheduler::Scheduler;
use postillion_core::qmgr::settings::{Settings, TransportSettings};
use postillion_core::queue::listing::rows::{Form, Offsets};
use postillion_core::queue::store::disk_store::DiskStore;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::path::Path;
use std::sync::Arc;

/// The queue manager: scheduler, queue on disk and the frames of its clients.
#[pyclass(module = "postillion._core.qmgr")]
pub struct QueueManager {
    open: Option<Hub<DiskStore>>,
}

/// ID, segment file, offset, octets.
type RecordPlace = (String, String, u64, u64);

impl QueueManager {
    fn hub(&mut self) -> PyResult<&mut Hub<DiskStore>> {
        self.open.as_mut().ok_or_else(|| PyValueError::new_err("the queue manager is closed"))
    }
}

#[pymethods]
impl QueueManager {
    #[new]
    #[pyo3(signature = (queue_directory, config, log, now, wall_now, *, routes_by_address=false,
                        routes_by_sender=false, piecemeal=false, offline=false))]
    #[expect(clippy::too_many_arguments, reason = "both clocks, and four by keyword")]
    fn new(
        py: Python<'_>,
        queue_directory: &str,
        config: Option<&Bound<'_, PyAny>>,
        log: &Log,
        now: f64,
        wall_now: f64,
        routes_by_address: bool,
        routes_by_sender: bool,
        piecemeal: bool,
        offline: bool,
    ) -> PyResult<Self> {
        let now = Now::from_seconds(now, wall_now);
        let settings = read_settings(config, routes_by_address, routes_by_sender)?;
        let settings = if offline { settings.offline() } else { settings };
        let rescan_us = settings.queue_run_delay_us;
        let store = py.detach(|| DiskStore::open(Path::new(queue_directory))).map_err(queue_error)?;
        let scheduler = Scheduler::new(settings, now);
        let mut hub = Hub::new(scheduler, store, Arc::clone(&log.inner), rescan_us, now);
        if !piecemeal {
            py.detach(|| hub.recover_all(now));
        }
        Ok(Self { open: Some(hub) })
    }

    /// Release the queue directory; every other method fails afterwards.
    fn close(&mut self) {
        self.open = None;
    }

    #[pyo3(signature = (config, *, routes_by_address, routes_by_sender))]
    fn configure(
        &mut self,
        config: &Bound<'_, PyAny>,
        routes_by_address: bool,
        routes_by_sender: bool,
    ) -> PyResult<()> {
        let settings = read_settings(Some(config), routes_by_address, routes_by_sender)?;
        self.hub()?.rescan_every(settings.queue_run_delay_us);
        self.hub()?.scheduler().configure(settings);
        Ok(())
    }

    fn configure_transport(
        &mut self,
        name: Option<&str>,
        config: &Bound<'_, PyAny>,
        process_limit: u32,
    ) -> PyResult<()> {
        let source = name.map_or_else(|| MainCf::new(config), |name| MainCf::of_transport(config, name));
        let settings = TransportSettings { process_limit, ..TransportSettings::read(&source)? };
        self.hub()?.scheduler().configure_transport(name, settings);
        Ok(())
    }

    #[pyo3(signature = (client, *, control=false))]
    fn connected(&mut self, client: u32, control: bool) -> PyResult<()> {
        self.hub()?.connected(client, control);
        Ok(())
    }

    fn receive(&mut self, client: u32, data: &[u8], now: f64, wall_now: f64) -> PyResult<()> {
        let received = self.hub()?.receive(client, data, Now::from_seconds(now, wall_now));
        received.map_err(|error| PyConnectionError::new_err(error.to_string()))
    }

    fn blocked(&mut self, client: u32, blocked: bool) -> PyResult<()> {
        self.hub()?.blocked(client, blocked);
        Ok(())
    }

    fn lost(&mut self, client: u32, now: f64, wall_now: f64) -> PyResult<()> {
        self.hub()?.lost(client, Now::from_seconds(now, wall_now));
        Ok(())
    }

    fn tick(&mut self, now: f64, wall_now: f64) -> PyResult<()> {
        self.hub()?.tick(Now::from_seconds(now, wall_now));
        Ok(())
    }

    fn rescan(&mut self, now: f64, wall_now: f64) -> PyResult<()> {
        self.hub()?.rescan(Now::from_seconds(now, wall_now));
        Ok(())
    }

    /// Return `("resolve", address, sender)`, `("trigger", transport)`, `("control", client, json)` or None.
    fn next_event<'py>(&mut self, py: Python<'py>, now: f64, wall_now: f64) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(request) = self.hub()?.next_request(Now::from_seconds(now, wall_now)) else {
            return Ok(None);
        };
        Ok(Some(match request {
            Request::Resolve { address, sender } => ("resolve", &*address, &*sender).into_pyobject(py)?.into_any(),
            Request::Trigger { transport } => ("trigger", &*transport).into_pyobject(py)?.into_any(),
            Request::Control { client, json } => {
                ("control", client, PyBytes::new(py, &json)).into_pyobject(py)?.into_any()
            }
        }))
    }

    #[pyo3(signature = (address, sender, transport, nexthop, recipient, now, wall_now))]
    #[expect(clippy::too_many_arguments, reason = "a question, its answer, and both clocks")]
    fn resolved(
        &mut self,
        address: &str,
        sender: &str,
        transport: &str,
        nexthop: &str,
        recipient: Option<&str>,
        now: f64,
        wall_now: f64,
    ) -> PyResult<()> {
        let (question, route) = (Question { address, sender }, Resolved { transport, nexthop, recipient });
        self.hub()?.scheduler().resolved(question, route, Now::from_seconds(now, wall_now));
        Ok(())
    }

    fn unresolved(
        &mut self,
        address: &str,
        sender: &str,
        dsn: &str,
        text: &str,
        now: f64,
        wall_now: f64,
    ) -> PyResult<()> {
        let dsn: Enhanced = dsn.parse().map_err(|_| PyValueError::new_err(format!("{dsn:?} is no status code")))?;
        let outcome = if dsn.class == 5 { Outcome::Bounced } else { Outcome::Deferred };
        let status = Status { outcome, dsn, text: text.into(), remote: None };
        let question = Question { address, sender };
        self.hub()?.scheduler().unresolved(question, status, Now::from_seconds(now, wall_now));
        Ok(())
    }

    fn trigger_failed(&mut self, transport: &str, reason: &str, now: f64, wall_now: f64) -> PyResult<()> {
        self.hub()?.scheduler().trigger_failed(transport, reason, Now::from_seconds(now, wall_now));
        Ok(())
    }

    fn outputs<'py>(&mut self, py: Python<'py>) -> PyResult<Vec<(u32, Bound<'py, PyBytes>)>> {
        Ok(self.hub()?.outputs().into_iter().map(|(client, bytes)| (client, PyBytes::new(py, &bytes))).collect())
    }

    fn deadline(&mut self) -> PyResult<f64> {
        Ok(self.hub()?.deadline() as f64 / 1e6)
    }

    #[pyo3(signature = (client, json, *, last=true))]
    fn reply(&mut self, client: u32, json: &[u8], last: bool) -> PyResult<()> {
        self.hub()?.reply(client, json, last);
        Ok(())
    }

    /// Return the end of a pipe, for the caller to close.
    #[pyo3(signature = (client, now, wall_now, *, text=false, waits=false, offsets=Vec::new(), privileged=false))]
    #[allow(clippy::too_many_arguments)]
    fn list(
        &mut self,
        client: u32,
        now: f64,
        wall_now: f64,
        text: bool,
        waits: bool,
        offsets: Offsets,
        privileged: bool,
    ) -> PyResult<i32> {
        let form = if text { Form::Text { offsets, waits } } else { Form::Json };
        let pipe = self.hub()?.list(client, privileged, form, Now::from_seconds(now, wall_now))?;
        Ok(pipe.into_raw_fd())
    }

    fn flush_site(&mut self, site: &str, now: f64, wall_now: f64) -> PyResult<()> {
        Ok(self.hub()?.flush_site(site, Now::from_seconds(now, wall_now))?)
    }

    /// Return a descriptor that is readable when a thread has a report.
    fn fileno(&mut self) -> PyResult<Option<i32>> {
        Ok(self.hub()?.event_fd().map(|event| event.as_raw_fd()))
    }

    /// Return the IDs that `verb` changed, of `ids` (None: all) in `queues` (empty: in any).
    fn apply(
        &mut self,
        verb: &str,
        ids: Option<Vec<String>>,
        queues: Vec<String>,
        now: f64,
        wall_now: f64,
    ) -> PyResult<Vec<String>> {
        let verb = Verb::parse(verb).ok_or_else(|| PyValueError::new_err(format!("no verb is called {verb:?}")))?;
        let ids = ids.map(|ids| ids.iter().filter_map(|id| QueueId::parse(id)).collect());
        let scheduler = self.hub()?.scheduler();
        let long = scheduler.settings().long_queue_ids;
        let done = scheduler.apply(verb, ids, &queues, Now::from_seconds(now, wall_now));
        Ok(done.into_iter().map(|id| id.text(long)).collect())
    }

    /// Return messages for `client` to move to maildrop/, busy ones, and the ID after which there may be more.
    #[pyo3(signature = (client, ids, queues, after))]
    fn leave(
        &mut self,
        client: u32,
        ids: Option<Vec<String>>,
        queues: Vec<String>,
        after: &str,
    ) -> PyResult<(Vec<RecordPlace>, Vec<String>, Option<String>)> {
        let ids = ids.map(|ids| ids.iter().filter_map(|id| QueueId::parse(id)).collect());
        let after = QueueId::parse(after).unwrap_or(QueueId(0));
        let hub = self.hub()?;
        let long = hub.scheduler().settings().long_queue_ids;
        let batch = hub.scheduler().requeue(client, ids, &queues, after);
        let place =
            |(id, at): &(QueueId, Locator)| (id.text(long), hub.store().path(at.segment), at.offset, at.record_octets);
        let messages = batch.messages.iter().map(place).collect();
        let busy = batch.busy.iter().map(|id| id.text(long)).collect();
        Ok((messages, busy, batch.next.map(|id| id.text(long))))
    }

    /// Forget the messages that `client` moved; return their IDs.
    fn left(&mut self, client: u32, ids: Vec<String>) -> PyResult<Vec<String>> {
        let ids: Vec<QueueId> = ids.iter().filter_map(|id| QueueId::parse(id)).collect();
        let scheduler = self.hub()?.scheduler();
        let long = scheduler.settings().long_queue_ids;
        Ok(scheduler.requeued(client, &ids).into_iter().map(|id| id.text(long)).collect())
    }

    /// Return segment file, offset and octets of the record.
    fn place(&mut self, id: &str) -> PyResult<Option<(String, u64, u64)>> {
        let hub = self.hub()?;
        Ok(QueueId::parse(id).and_then(|id| hub.place(id)))
    }

    fn counts<'py>(&mut self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let counts = PyDict::new(py);
        for (name, count) in self.hub()?.scheduler().counts() {
            counts.set_item(name, count)?;
        }
        Ok(counts)
    }
}

/// Read every parameter of the queue manager, also those of these transports, and use none; raises `ConfigError`.
#[pyfunction]
pub fn check_settings(config: &Bound<'_, PyAny>, transports: Vec<String>) -> PyResult<()> {
    Settings::read(&MainCf::new(config))?;
    for transport in &transports {
        TransportSettings::read(&MainCf::of_transport(config, transport))?;
    }
    Ok(())
}

/// Read the settings of all transports; the defaults without `config`.
fn read_settings(config: Option<&Bound<'_, PyAny>>, by_address: bool, by_sender: bool) -> PyResult<Settings> {
    let settings = config.map_or_else(|| Ok(Settings::default()), |config| Settings::read(&MainCf::new(config)))?;
    Ok(Settings { routes: Keyed { by_address, by_sender }, ..settings })
}
