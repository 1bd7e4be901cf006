//! A job that an agent and a session work on, with the agent's log, queue directory and open segments.

use super::job::{Delivery, Handover, JobSettings};
use crate::ipc::frame::{Job, JobKind};
use crate::log::Log;
use crate::mail::status::Status;
use crate::mail::stuff::Unstuffer;
use crate::queue::{ContentReader, QueueError, SegmentFiles, read_content};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The process that delivers: the log, the queue directory and the open segments of its jobs.
#[derive(Debug)]
pub struct Agent {
    log: Arc<Log>,
    queue_directory: PathBuf,
    settings: JobSettings,
    files: Mutex<SegmentFiles>,
}

impl Agent {
    /// Create an agent without open segments. Segment paths start at `queue_directory`.
    pub fn new(log: Arc<Log>, queue_directory: PathBuf, settings: JobSettings) -> Self {
        Self { log, queue_directory, settings, files: Mutex::default() }
    }

    /// Close segments that were not read recently, and return the number of open ones. `now`: seconds, monotonic.
    pub fn close_idle_files(&self, now: f64) -> usize {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).close_idle(now)
    }
}

/// A job in progress, shared between the agent and a session.
#[derive(Debug)]
pub struct Work {
    delivery: Mutex<Delivery>,
    agent: Arc<Agent>,
}

impl Work {
    /// Create the state of a job that the agent received at `handoff_us` (microseconds since 1970).
    pub fn new(job: Job, agent: Arc<Agent>, handoff_us: u64) -> Self {
        Self { delivery: Mutex::new(Delivery::new(job, agent.settings, handoff_us)), agent }
    }

    /// Lock the state for one call. After a panic, recipients may lack a status; the queue manager retries them.
    pub fn lock(&self) -> MutexGuard<'_, Delivery> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Return the log for the job's lines.
    pub fn log(&self) -> &Log {
        &self.agent.log
    }

    /// Give all recipients without a status this one: no server is available. `wall_now_us`: microseconds since 1970.
    pub fn fail(&self, status: &Status, wall_now_us: u64) {
        let mut delivery = self.lock();
        let setup_us = wall_now_us.saturating_sub(delivery.handoff_us());
        let handover = Handover { relay: "none", conn_use: 0, setup_us, transmission_us: Some(0), wall_now_us };
        delivery.failed(status, true, &handover, self.log());
    }

    /// As `fail`, with the failure of the last server; with `otherwise` when there was none.
    pub fn fail_as_heard(&self, otherwise: Status, wall_now_us: u64) {
        let heard = self.lock().last_heard().cloned();
        self.fail(&heard.unwrap_or(otherwise), wall_now_us);
    }

    /// Return a reader of the message, whose segment stays open for the next job. `now`: seconds, monotonic.
    pub fn open_content(&self, now: f64) -> Result<ContentReader, QueueError> {
        let delivery = self.lock();
        let job = delivery.job();
        refuse_probe(job)?;
        let mut files = self.agent.files.lock().unwrap_or_else(PoisonError::into_inner);
        let segment = files.open(&self.agent.queue_directory, &job.path, job.locator.segment, now)?;
        drop(files);
        ContentReader::of(segment, &job.locator)
    }

    /// Return the whole message in wire form (CRLF, dots stuffed, no final dot), its checksum verified.
    pub fn content(&self) -> Result<Vec<u8>, QueueError> {
        let (path, locator) = {
            let delivery = self.lock();
            refuse_probe(delivery.job())?;
            (delivery.job().path.clone(), delivery.job().locator)
        };
        read_content(&self.agent.queue_directory, &path, &locator)
    }

    /// Return the whole message in the line ends of `unstuffer`, without stuffed dots.
    pub fn text(&self, mut unstuffer: Unstuffer) -> Result<Vec<u8>, QueueError> {
        let wire = self.content()?;
        let mut text = Vec::with_capacity(wire.len());
        unstuffer.feed(&wire, &mut text);
        unstuffer.finish(&mut text);
        Ok(text)
    }
}

/// No agent may deliver a probe, so none gets its content; only its report has the headers.
fn refuse_probe(job: &Job) -> Result<(), QueueError> {
    if job.envelope.is_probe() && job.kind != JobKind::Report { Err(QueueError::Probe) } else { Ok(()) }
}
