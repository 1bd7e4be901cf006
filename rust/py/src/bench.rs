//! `BenchSource` and `BenchSink`: see `postillion_core::bench`.

use crate::tls::TlsServer;
use crate::tls::client::{TlsClient, TlsPolicy};
use postillion_core::bench::drain::Drain;
use postillion_core::bench::fault::{Fault, NotFault};
use postillion_core::bench::histogram::Histogram;
use postillion_core::bench::load::Load;
use postillion_core::bench::plan::Plan;
use postillion_core::bench::tally::{Stage, Tally};
use postillion_core::bench::tls::{SinkTls, SourceTls};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Clients that load a server.
#[pyclass(frozen, module = "postillion._core.bench")]
pub struct BenchSource {
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    load: Mutex<Load>,
}

#[pymethods]
impl BenchSource {
    #[new]
    #[pyo3(signature = (address, port, *, sessions=20, messages=None, octets=vec![4096], recipients=1,
                        domains=vec!["sink.example".into()], sender="bench@source.example", reuse=1, think_s=0.0,
                        ramp_s=0.0, rate=None, pipelining=false, tls=None, wrapper=false, helo="source.example"))]
    #[expect(clippy::too_many_arguments, reason = "one an option of the command, nearly all by keyword")]
    fn new(
        address: &str,
        port: u16,
        sessions: usize,
        messages: Option<u64>,
        octets: Vec<usize>,
        recipients: usize,
        domains: Vec<String>,
        sender: &str,
        reuse: u32,
        think_s: f64,
        ramp_s: f64,
        rate: Option<f64>,
        pipelining: bool,
        tls: Option<(Bound<'_, TlsClient>, Bound<'_, TlsPolicy>)>,
        wrapper: bool,
        helo: &str,
    ) -> PyResult<Self> {
        if sessions == 0 || recipients == 0 || domains.is_empty() || octets.is_empty() {
            return Err(PyValueError::new_err(
                "a load has at least one session, one size, one recipient and one domain",
            ));
        }
        if let Some(rate) = rate.filter(|rate| !(rate.is_finite() && *rate > 0.0)) {
            return Err(PyValueError::new_err(format!("{rate} is no rate")));
        }
        let words = domains.iter().map(String::as_str).chain([sender, helo]);
        if let Some(word) = words.into_iter().find(|word| word.contains(['\r', '\n', '<', '>'])) {
            return Err(PyValueError::new_err(format!("{word:?} cannot stand in a command")));
        }
        let plan = Arc::new(Plan {
            sessions,
            messages,
            octets,
            recipients,
            domains: domains.into_iter().map(Into::into).collect(),
            sender: sender.into(),
            reuse,
            think: seconds(think_s)?,
            ramp: seconds(ramp_s)?,
            rate,
            pipelining,
            tls: tls.map(|(client, policy)| source_tls(client.get(), policy.get(), wrapper)).transpose()?,
            helo: helo.into(),
            ..Plan::default()
        });
        let tally = Arc::new(Tally::default());
        let peer = SocketAddr::new(ip_address(address)?, port);
        let load = Mutex::new(Load::new(Arc::clone(&plan), Arc::clone(&tally), peer)?);
        Ok(Self { plan, tally, load })
    }

    fn run(&self, py: Python<'_>, time_s: f64) -> PyResult<bool> {
        let time = seconds(time_s)?;
        Ok(py.detach(|| self.load.lock().unwrap_or_else(PoisonError::into_inner).run(time))?)
    }

    fn stop(&self) {
        self.plan.stop();
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, &self.tally)
    }
}

/// The other end: it accepts all mail except for its faults.
#[pyclass(frozen, module = "postillion._core.bench")]
pub struct BenchSink {
    tally: Arc<Tally>,
    port: u16,
    drain: Mutex<Drain>,
}

#[pymethods]
impl BenchSink {
    #[new]
    #[pyo3(signature = (address, port, *, name="sink.example", faults=vec![], seed=1, tls=None))]
    fn new(
        address: &str,
        port: u16,
        name: &str,
        faults: Vec<String>,
        seed: u64,
        tls: Option<Bound<'_, TlsServer>>,
    ) -> PyResult<Self> {
        let faults: Result<Vec<Fault>, NotFault> = faults.iter().map(|fault| fault.parse()).collect();
        let faults = faults.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let tls = tls.map(|server| sink_tls(server.get())).transpose()?;
        let listener = TcpListener::bind(SocketAddr::new(ip_address(address)?, port))?;
        let port = listener.local_addr()?.port();
        let tally = Arc::new(Tally::default());
        let drain = Mutex::new(Drain::new(name, faults, seed, Arc::clone(&tally), tls, &[listener])?);
        Ok(Self { tally, port, drain })
    }

    #[getter]
    fn port(&self) -> u16 {
        self.port
    }

    fn run(&self, py: Python<'_>, time_s: f64) -> PyResult<()> {
        let time = seconds(time_s)?;
        Ok(py.detach(|| self.drain.lock().unwrap_or_else(PoisonError::into_inner).run(time))?)
    }

    fn counts<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        counts(py, &self.tally)
    }
}

fn source_tls(client: &TlsClient, policy: &TlsPolicy, wrapper: bool) -> PyResult<SourceTls> {
    let engines = client.engines().ok_or_else(|| PyValueError::new_err("the TLS client has a problem"))?;
    Ok(SourceTls { engines, policy: policy.policy(), wrapper })
}

fn sink_tls(server: &TlsServer) -> PyResult<SinkTls> {
    let tls = server.parts().1.ok_or_else(|| PyValueError::new_err("the TLS server is off, or has a problem"))?;
    Ok(SinkTls { engines: tls.engines, wrapper: tls.wrapper })
}

fn counts<'py>(py: Python<'py>, tally: &Tally) -> PyResult<Bound<'py, PyDict>> {
    let counts = tally.counts().clone();
    let all = PyDict::new(py);
    for (name, count) in [
        ("connections", counts.connections),
        ("broken", counts.broken),
        ("messages", counts.messages),
        ("recipients", counts.recipients),
        ("octets", counts.octets),
        ("refused", counts.refused),
        ("refusals", counts.refusals),
        ("unanswered", counts.unanswered),
        ("duplicates", counts.duplicates),
        ("handshakes", counts.handshakes),
        ("resumed", counts.resumed),
        ("mismatched", counts.mismatched),
    ] {
        all.set_item(name, count)?;
    }
    let replies = PyDict::new(py);
    for stage in Stage::ALL {
        replies.set_item(stage.name(), times(py, &counts.replies[stage as usize])?)?;
    }
    all.set_item("replies", replies)?;
    all.set_item("message", times(py, &counts.message)?)?;
    all.set_item("delivery", times(py, &counts.delivery)?)?;
    all.set_item("complaints", counts.complaints)?;
    Ok(all)
}

fn times<'py>(py: Python<'py>, histogram: &Histogram) -> PyResult<Bound<'py, PyDict>> {
    let times = PyDict::new(py);
    times.set_item("count", histogram.count())?;
    for (name, us) in [
        ("mean", histogram.mean_us()),
        ("p50", histogram.quantile_us(0.5)),
        ("p90", histogram.quantile_us(0.9)),
        ("p99", histogram.quantile_us(0.99)),
        ("p999", histogram.quantile_us(0.999)),
        ("longest", histogram.longest_us()),
    ] {
        times.set_item(name, us as f64 / 1e6)?;
    }
    Ok(times)
}

fn seconds(time_s: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(time_s).map_err(|_| PyValueError::new_err(format!("{time_s} is no time in seconds")))
}

fn ip_address(text: &str) -> PyResult<IpAddr> {
    text.parse().map_err(|_| PyValueError::new_err(format!("{text:?} is no IP address")))
}
