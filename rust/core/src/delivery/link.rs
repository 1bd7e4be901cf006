//! An agent's connection to the queue manager, without the socket: frames in, jobs out.

use super::work::{Agent, Work};
use crate::ipc::frame::{Frame, FrameError, FrameReader};
use std::fmt;
use std::sync::Arc;

/// The agent's end of the connection.
#[derive(Debug)]
pub struct Link {
    reader: FrameReader,
    agent: Arc<Agent>,
}

/// The queue manager sent something else than jobs: the connection is unusable.
#[derive(Debug, PartialEq, Eq)]
pub enum LinkError {
    /// Octets that are no frame.
    Frame(FrameError),
    /// A frame that is no job.
    NoJob,
}

impl Link {
    /// Create the link of an agent that is not connected yet.
    pub fn new(agent: Agent) -> Self {
        Self { reader: FrameReader::default(), agent: Arc::new(agent) }
    }

    /// Return the agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// Append the first frame of a new connection to `out`, and drop the rest of the connection before.
    /// `capacity`: the maximum number of jobs at a time.
    pub fn register(&mut self, transport: &str, pid: u32, capacity: u32, out: &mut Vec<u8>) {
        self.reader = FrameReader::default();
        Frame::Agent { transport: transport.into(), pid, capacity }.encode(out);
    }

    /// Return the jobs that are complete with these octets. `wall_now_us`: microseconds since 1970.
    pub fn receive(&mut self, octets: &[u8], wall_now_us: u64) -> Result<Vec<Work>, LinkError> {
        self.reader.receive(octets);
        let mut jobs = Vec::new();
        while let Some(frame) = self.reader.next_frame().map_err(LinkError::Frame)? {
            let Frame::Deliver(job) = frame else { return Err(LinkError::NoJob) };
            jobs.push(Work::new(*job, Arc::clone(&self.agent), wall_now_us));
        }
        Ok(jobs)
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(error) => write!(f, "the queue manager sent {error}"),
            Self::NoJob => f.write_str("the queue manager sent a frame that is no job"),
        }
    }
}
