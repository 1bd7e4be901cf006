//! `Stub`: see `postillion_core::net::dns`.

use postillion_core::net::dns::answer::{Answer, Kind, Question, Record};
use postillion_core::net::dns::name::Name;
use postillion_core::net::dns::resolv_conf::{ResolvConf, Search};
use postillion_core::net::dns::sockets::{Resolver, Servers};
use postillion_core::net::dns::stub::{Asked, Limits};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyTuple};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;

/// A stub resolver with its sockets.
#[pyclass(module = "postillion._core.dns")]
pub struct Stub {
    inner: Resolver,
}

/// An answer in Python: its kind, records or reason, time to live, and whether it is secure.
type AnswerTuple<'py> = (&'static str, Bound<'py, PyAny>, f64, bool);

#[pymethods]
impl Stub {
    #[new]
    #[pyo3(signature = (
        *, resolv_conf=None, nameservers=None, port=53, timeout_s=None, questions_max=None, waiting_max=None,
        answers_max=None, octets_max=None
    ))]
    #[expect(clippy::too_many_arguments, reason = "limits, all by keyword")]
    fn new(
        resolv_conf: Option<PathBuf>,
        nameservers: Option<Vec<IpAddr>>,
        port: u16,
        timeout_s: Option<f64>,
        questions_max: Option<usize>,
        waiting_max: Option<usize>,
        answers_max: Option<usize>,
        octets_max: Option<usize>,
    ) -> PyResult<Self> {
        let servers = match resolv_conf {
            Some(path) => Servers::File(path),
            None => {
                let nameservers = nameservers.filter(|servers| !servers.is_empty());
                let nameservers = nameservers.ok_or_else(|| PyValueError::new_err("no name servers"))?;
                let servers = nameservers.into_iter().map(|address| SocketAddr::new(address, port));
                Servers::Fixed(ResolvConf::with_servers(servers.collect()))
            }
        };
        let mut limits = Limits::default();
        limits.timeout_s = timeout_s.unwrap_or(limits.timeout_s);
        limits.questions_max = questions_max.unwrap_or(limits.questions_max);
        limits.waiting_max = waiting_max.unwrap_or(limits.waiting_max);
        limits.cache.answers_max = answers_max.unwrap_or(limits.cache.answers_max);
        limits.cache.octets_max = octets_max.unwrap_or(limits.cache.octets_max);
        Ok(Self { inner: Resolver::new(servers, limits)? })
    }

    #[pyo3(signature = (name, kind, now, *, defnames=false, dnsrch=false))]
    fn ask<'py>(
        &mut self,
        py: Python<'py>,
        name: &str,
        kind: &str,
        now: f64,
        defnames: bool,
        dnsrch: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let kind = Kind::parse(kind).ok_or_else(|| PyValueError::new_err(format!("unknown kind {kind:?}")))?;
        let Ok(name) = Name::parse(name) else {
            return Ok(("bad name", py.None(), 0.0, false).into_pyobject(py)?.into_any());
        };
        match self.inner.ask(&Question { name, kind }, Search { defnames, dnsrch }, now) {
            Asked::Open(number) => Ok(number.into_pyobject(py)?.into_any()),
            Asked::Answer(answer) => Ok(converted(py, answer)?.into_pyobject(py)?.into_any()),
        }
    }

    fn poll<'py>(&mut self, py: Python<'py>, now: f64) -> PyResult<Vec<(u64, AnswerTuple<'py>)>> {
        let finished = self.inner.poll(now)?;
        finished.into_iter().map(|(number, answer)| Ok((number, converted(py, answer)?))).collect()
    }

    fn next_timeout(&self) -> Option<f64> {
        self.inner.next_timeout()
    }

    fn fileno(&self) -> RawFd {
        self.inner.descriptor().as_raw_fd()
    }

    #[getter]
    fn open_questions(&self) -> usize {
        self.inner.open()
    }

    #[getter]
    fn cached_answers(&self) -> usize {
        self.inner.cached().0
    }

    #[getter]
    fn cached_octets(&self) -> usize {
        self.inner.cached().1
    }
}

fn converted(py: Python<'_>, answer: Answer) -> PyResult<AnswerTuple<'_>> {
    let none = || py.None().into_bound(py);
    Ok(match answer {
        Answer::Records { list, ttl, secure } => {
            let list = list.iter().map(|record| value(py, record)).collect::<PyResult<Vec<_>>>()?;
            ("records", PyTuple::new(py, list)?.into_any(), ttl, secure)
        }
        Answer::NoData { ttl } => ("no data", none(), ttl, false),
        Answer::NoName { ttl } => ("no name", none(), ttl, false),
        Answer::Failed(why) => ("failed", PyString::new(py, &why).into_any(), 0.0, false),
    })
}

fn value<'py>(py: Python<'py>, record: &Record) -> PyResult<Bound<'py, PyAny>> {
    Ok(match record {
        Record::Address(address) => PyString::new(py, &address.to_string()).into_any(),
        Record::Host(host) => PyString::new(py, host).into_any(),
        Record::Mx { preference, host } => (preference, &**host).into_pyobject(py)?.into_any(),
        Record::Text(text) => PyBytes::new(py, text).into_any(),
        Record::Tlsa { usage, selector, matching, data } => {
            (usage, selector, matching, PyBytes::new(py, data)).into_pyobject(py)?.into_any()
        }
        Record::Srv { priority, weight, port, host } => (priority, weight, port, &**host).into_pyobject(py)?.into_any(),
    })
}
