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

/// The queue manager sent a frame other than a job: the connection is unusable.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::job::JobSettings;
    use crate::delivery::job::tests::job;
    use crate::log::{Log, LogTarget};

    fn link() -> Link {
        let log = Arc::new(Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory));
        let settings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };
        Link::new(Agent::new(log, "/nowhere".into(), settings))
    }

    #[test]
    fn jobs_arrive_in_any_split_and_a_new_connection_drops_a_partial_one() {
        let mut octets = Vec::new();
        [1, 2].iter().for_each(|count| Frame::Deliver(Box::new(job(&vec![0; *count]))).encode(&mut octets));
        for step in 1..=octets.len() {
            let mut link = link();
            let jobs: Vec<_> = octets.chunks(step).flat_map(|piece| link.receive(piece, 1).unwrap()).collect();
            let recipients: Vec<_> = jobs.iter().map(|work| work.lock().left()).collect();
            assert_eq!(recipients, [1, 2], "{step}");
        }
        let mut link = link();
        assert_eq!(link.receive(&octets[..20], 1).unwrap().len(), 0);
        let mut hello = Vec::new();
        link.register("smtp", 7, 20, &mut hello);
        assert!(!hello.is_empty());
        assert_eq!(link.receive(&octets, 1).unwrap().len(), 2);
    }

    #[test]
    fn a_frame_that_is_no_job_ends_the_connection() {
        let mut octets = Vec::new();
        Frame::Agent { transport: "smtp".into(), pid: 1, capacity: 2 }.encode(&mut octets);
        let error = link().receive(&octets, 1).unwrap_err();
        assert_eq!((&error, &*error.to_string()), (&LinkError::NoJob, "the queue manager sent a frame that is no job"));
        assert!(matches!(link().receive(&[0xff; 64], 1), Err(LinkError::Frame(_))));
    }
}
