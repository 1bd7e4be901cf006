//! The frames between the programs and the queue manager.
//!
//! On the wire: `u32` octets that follow, `u8` version, `u8` kind, payload. A frame longer than `FRAME_MAX_OCTETS`, of
//! another version or of an unknown kind is an error that closes its connection. Nothing else is lost: every fact in a
//! frame is on disk or will be sent again.
//!
//! ```text
//! smtpd, pickup, bounce, local    Producer, Arrived, Sealed   ->  qmgr
//! smtp, local, bounce, error ...  Agent, Delivered, Traced, Result, Told  ->  qmgr
//! qmgr                            Deliver                     ->  smtp, local, bounce, error ...
//! qmgr                            Flow                        ->  smtpd, pickup, bounce, local
//! postqueue, postsuper, master    Control                     ->  qmgr  -> ControlReply
//! ```

use crate::codec::{CodecError, Put, Take};
use crate::mail::envelope::{Envelope, Recipient, decode_recipient, encode_recipient};
use crate::mail::id::QueueId;
use crate::mail::locator::{Locator, SegmentId};
use crate::mail::status::{Status, decode_status, encode_status};
use crate::mail::trace::{Traced, decode_traced, encode_traced};
use std::fmt;
use std::sync::Arc;

/// The frame version of this release.
pub const FRAME_VERSION: u8 = 1;
/// Maximum number of octets in a frame, without its length field.
pub const FRAME_MAX_OCTETS: usize = 64 * 1024 * 1024;
const LENGTH_OCTETS: usize = 4;

/// A message that a producer has on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Its place on disk.
    pub locator: Locator,
    /// Its envelope.
    pub envelope: Envelope,
}

/// A recipient of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRecipient {
    /// Its index in the message's envelope, for `Result`.
    pub index: u32,
    /// The recipient; the resolver has set `address`.
    pub recipient: Recipient,
    /// The status to report, for `Bounce`, `Warn` and `Confirm`.
    pub status: Option<Status>,
}

/// The task of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobKind {
    /// Deliver the message to the recipients.
    Deliver,
    /// Send the sender a non-delivery report about the recipients.
    Bounce,
    /// Send the sender a delay warning about the recipients.
    Warn,
    /// Tell the sender that the recipients have the message, or that it was relayed to a server without DSN (RFC 3461).
    Confirm,
    /// Say whether the message could be delivered to the recipients, and deliver nothing (`sendmail -bv`).
    Probe,
    /// Send the sender a report of all that `Job::traced` says.
    Report,
}

/// Work for a delivery agent: one message, one next hop, some of its recipients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// The job's number, for the result.
    pub job: u64,
    /// The task.
    pub kind: JobKind,
    /// The segment file, relative to the queue directory.
    pub path: Box<str>,
    /// The place in the file.
    pub locator: Locator,
    /// The transport's name in master.cf.
    pub transport: Arc<str>,
    /// The next hop, in the transport's own syntax.
    pub nexthop: Arc<str>,
    /// Time at which the message became active: microseconds since 1970 (the second of the log's `delays=`).
    pub active_us: u64,
    /// The envelope without its recipients.
    pub envelope: Arc<Envelope>,
    /// The recipients of this job.
    pub recipients: Vec<JobRecipient>,
    /// The lines of the report, for `JobKind::Report`; several of one recipient for the targets of an alias.
    pub traced: Vec<Traced>,
}

/// An agent's result for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobResult {
    /// The job's number.
    pub job: u64,
    /// The message. A restarted queue manager does not know the job's number, but can still use the result.
    pub id: QueueId,
    /// Set when the destination as a whole failed (no connection, no greeting, session lost): the queue manager then
    /// lowers the destination's concurrency and may suspend it.
    pub site: Option<Status>,
    /// The status of each recipient, by its index in the envelope. A missing recipient counts as deferred.
    pub recipients: Vec<(u32, Status)>,
}

/// A frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// First frame of a process that commits messages: its current segment, and the end of the last commit in it
    /// (`SegmentId(0)` without one).
    Producer {
        /// The process ID.
        pid: u32,
        /// Its segment.
        segment: SegmentId,
        /// Octets of the segment that are committed.
        end: u64,
    },
    /// Messages that are on disk, in the order of their places.
    Arrived(Vec<Arrival>),
    /// The producer has closed a segment: nothing is appended any more.
    Sealed {
        /// The segment.
        segment: SegmentId,
        /// Its committed octets.
        end: u64,
    },
    /// First frame of a delivery agent.
    Agent {
        /// The service's name in master.cf.
        transport: Box<str>,
        /// The process ID.
        pid: u32,
        /// Maximum number of jobs that it takes at a time.
        capacity: u32,
    },
    /// An agent's result for a job.
    Result(JobResult),
    /// A job for an agent.
    Deliver(Box<Job>),
    /// A request as JSON: `{"verb": "list"}`.
    Control(Vec<u8>),
    /// The reply, as JSON, in one or more frames of which the last is marked.
    ControlReply {
        /// No further frame belongs to this reply.
        last: bool,
        /// JSON lines.
        json: Vec<u8>,
    },
    /// Before the result of a job: these recipients were sent, the sender wants a report (NOTIFY=SUCCESS), and no later
    /// host will send one.
    Delivered {
        /// The job.
        job: u64,
        /// The recipients, by their index in the envelope.
        recipients: Vec<u32>,
    },
    /// An agent's result for a job that told the sender something, and finished no recipient: a warning, a
    /// confirmation, the report of an attempt. A restarted queue manager has no use for it.
    Told(JobResult),
    /// Before the result of a job whose message asks for a report of the first attempt: what happened.
    Traced {
        /// The job.
        job: u64,
        /// In the order of the log lines.
        traced: Vec<Traced>,
    },
    /// For programs that accept mail: whether the queue manager has fallen behind, see `qmgr::flow`.
    Flow {
        /// New messages wait for `in_flow_delay`.
        behind: bool,
    },
}

/// The reason why a stream of frames cannot continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameError {
    /// The frame is longer than `FRAME_MAX_OCTETS`, or shorter than its own header.
    Length(usize),
    /// Another version of the program wrote it.
    Version(u8),
    /// No frame has this kind.
    Kind(u8),
    /// The payload does not match the kind.
    Payload(CodecError),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(octets) => write!(f, "a frame of {octets} octets"),
            Self::Version(version) => write!(f, "frame version {version}, this program speaks {FRAME_VERSION}"),
            Self::Kind(kind) => write!(f, "unknown frame kind {kind}"),
            Self::Payload(error) => write!(f, "bad frame: {error}"),
        }
    }
}

impl std::error::Error for FrameError {}

impl From<CodecError> for FrameError {
    fn from(error: CodecError) -> Self {
        Self::Payload(error)
    }
}

impl Frame {
    fn kind(&self) -> u8 {
        match self {
            Self::Producer { .. } => 1,
            Self::Arrived(_) => 2,
            Self::Sealed { .. } => 3,
            Self::Agent { .. } => 4,
            Self::Result(_) => 5,
            Self::Deliver(_) => 6,
            Self::Control(_) => 7,
            Self::ControlReply { .. } => 8,
            Self::Flow { .. } => 9,
            Self::Delivered { .. } => 10,
            Self::Traced { .. } => 11,
            Self::Told(_) => 12,
        }
    }

    /// Append the frame with its header.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.put_u32(0);
        out.put_u8(FRAME_VERSION);
        out.put_u8(self.kind());
        match self {
            Self::Producer { pid, segment, end } => {
                out.put_u32(*pid);
                out.put_u64(segment.0);
                out.put_u64(*end);
            }
            Self::Arrived(arrivals) => {
                out.put_u32(arrivals.len() as u32);
                for arrival in arrivals {
                    arrival.locator.encode(out);
                    arrival.envelope.encode(out);
                }
            }
            Self::Sealed { segment, end } => {
                out.put_u64(segment.0);
                out.put_u64(*end);
            }
            Self::Agent { transport, pid, capacity } => {
                out.put_str(transport);
                out.put_u32(*pid);
                out.put_u32(*capacity);
            }
            Self::Result(result) | Self::Told(result) => encode_result(result, out),
            Self::Deliver(job) => encode_job(job, out),
            Self::Control(json) => out.put_bytes(json),
            Self::ControlReply { last, json } => {
                out.put_u8(u8::from(*last));
                out.put_bytes(json);
            }
            Self::Flow { behind } => out.put_u8(u8::from(*behind)),
            Self::Delivered { job, recipients } => {
                out.put_u64(*job);
                out.put_u32(recipients.len() as u32);
                recipients.iter().for_each(|index| out.put_u32(*index));
            }
            Self::Traced { job, traced } => {
                out.put_u64(*job);
                encode_traced(traced, out);
            }
        }
        let octets = (out.len() - start - LENGTH_OCTETS) as u32;
        out[start..start + LENGTH_OCTETS].copy_from_slice(&octets.to_le_bytes());
    }

    fn decode(body: &[u8]) -> Result<Self, FrameError> {
        let mut take = Take::new(body);
        let version = take.u8()?;
        if version != FRAME_VERSION {
            return Err(FrameError::Version(version));
        }
        let frame = match take.u8()? {
            1 => Self::Producer { pid: take.u32()?, segment: SegmentId(take.u64()?), end: take.u64()? },
            2 => {
                let count = take.count(Locator::ENCODED_OCTETS)?;
                let arrival = |take: &mut Take<'_>| {
                    Ok(Arrival { locator: Locator::decode(take)?, envelope: Envelope::decode(take)? })
                };
                Self::Arrived((0..count).map(|_| arrival(&mut take)).collect::<Result<_, CodecError>>()?)
            }
            3 => Self::Sealed { segment: SegmentId(take.u64()?), end: take.u64()? },
            4 => Self::Agent { transport: take.str()?.into(), pid: take.u32()?, capacity: take.u32()? },
            5 => Self::Result(decode_result(&mut take)?),
            6 => Self::Deliver(Box::new(decode_job(&mut take)?)),
            7 => Self::Control(take.bytes()?.to_vec()),
            8 => Self::ControlReply { last: take.u8()? != 0, json: take.bytes()?.to_vec() },
            9 => Self::Flow { behind: take.u8()? != 0 },
            10 => {
                let job = take.u64()?;
                let count = take.count(4)?;
                Self::Delivered { job, recipients: (0..count).map(|_| take.u32()).collect::<Result<_, CodecError>>()? }
            }
            11 => Self::Traced { job: take.u64()?, traced: decode_traced(&mut take)? },
            12 => Self::Told(decode_result(&mut take)?),
            kind => return Err(FrameError::Kind(kind)),
        };
        take.end()?;
        Ok(frame)
    }
}

/// Append an `Arrived` frame of `count` encoded arrivals, each a locator and an envelope.
pub(crate) fn encode_arrived(count: u32, arrivals: &[u8], out: &mut Vec<u8>) {
    out.put_u32((2 + 4 + arrivals.len()) as u32);
    out.put_u8(FRAME_VERSION);
    out.put_u8(2);
    out.put_u32(count);
    out.extend_from_slice(arrivals);
}

fn encode_result(result: &JobResult, out: &mut Vec<u8>) {
    out.put_u64(result.job);
    out.put_u64(result.id.0);
    encode_option_status(result.site.as_ref(), out);
    out.put_u32(result.recipients.len() as u32);
    for (index, status) in &result.recipients {
        out.put_u32(*index);
        encode_status(status, out);
    }
}

fn decode_result(take: &mut Take<'_>) -> Result<JobResult, CodecError> {
    let job = take.u64()?;
    let id = QueueId(take.u64()?);
    let site = decode_option_status(take)?;
    let count = take.count(4)?;
    let recipient = |take: &mut Take<'_>| Ok((take.u32()?, decode_status(take)?));
    let recipients = (0..count).map(|_| recipient(take)).collect::<Result<_, CodecError>>()?;
    Ok(JobResult { job, id, site, recipients })
}

fn encode_option_status(status: Option<&Status>, out: &mut Vec<u8>) {
    out.put_u8(u8::from(status.is_some()));
    if let Some(status) = status {
        encode_status(status, out);
    }
}

fn decode_option_status(take: &mut Take<'_>) -> Result<Option<Status>, CodecError> {
    match take.u8()? {
        0 => Ok(None),
        1 => decode_status(take).map(Some),
        _ => Err(CodecError::BadValue("presence byte")),
    }
}

fn encode_job(job: &Job, out: &mut Vec<u8>) {
    out.put_u64(job.job);
    out.put_u8(match job.kind {
        JobKind::Deliver => 0,
        JobKind::Bounce => 1,
        JobKind::Warn => 2,
        JobKind::Confirm => 3,
        JobKind::Probe => 4,
        JobKind::Report => 5,
    });
    out.put_str(&job.path);
    job.locator.encode(out);
    out.put_str(&job.transport);
    out.put_str(&job.nexthop);
    out.put_u64(job.active_us);
    job.envelope.encode(out);
    out.put_u32(job.recipients.len() as u32);
    for recipient in &job.recipients {
        out.put_u32(recipient.index);
        encode_recipient(&recipient.recipient, out);
        encode_option_status(recipient.status.as_ref(), out);
    }
    if job.kind == JobKind::Report {
        encode_traced(&job.traced, out);
    }
}

fn decode_job(take: &mut Take<'_>) -> Result<Job, CodecError> {
    let job = take.u64()?;
    let kind = match take.u8()? {
        0 => JobKind::Deliver,
        1 => JobKind::Bounce,
        2 => JobKind::Warn,
        3 => JobKind::Confirm,
        4 => JobKind::Probe,
        5 => JobKind::Report,
        _ => return Err(CodecError::BadValue("job kind")),
    };
    let path = take.str()?.into();
    let locator = Locator::decode(take)?;
    let transport = take.str()?.into();
    let nexthop = take.str()?.into();
    let active_us = take.u64()?;
    let envelope = Arc::new(Envelope::decode(take)?);
    if envelope.is_probe() && kind != JobKind::Probe && kind != JobKind::Report {
        return Err(CodecError::BadValue("job kind of a probe"));
    }
    let count = take.count(4)?;
    let recipient = |take: &mut Take<'_>| {
        Ok(JobRecipient { index: take.u32()?, recipient: decode_recipient(take)?, status: decode_option_status(take)? })
    };
    let recipients = (0..count).map(|_| recipient(take)).collect::<Result<_, CodecError>>()?;
    let traced = if kind == JobKind::Report { decode_traced(take)? } else { Vec::new() };
    Ok(Job { job, kind, path, locator, transport, nexthop, active_us, envelope, recipients, traced })
}

/// Reads frames from a stream of bytes.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// Append bytes from the stream; never parses, never fails.
    pub fn receive(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Return the next whole frame, or `None` until more bytes arrive. After an error the stream is unusable.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((length, rest)) = self.buffer[self.start..].split_first_chunk::<LENGTH_OCTETS>() else {
            return Ok(None);
        };
        let octets = u32::from_le_bytes(*length) as usize;
        if !(2..=FRAME_MAX_OCTETS).contains(&octets) {
            return Err(FrameError::Length(octets));
        }
        let Some(body) = rest.get(..octets) else {
            return Ok(None);
        };
        let frame = Frame::decode(body)?;
        self.start += LENGTH_OCTETS + octets;
        Ok(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;
    use crate::mail::status::Outcome;
    use crate::mail::trace::{Action, Trace};

    fn traced(status: Status) -> Traced {
        let (address, relay) = ("r@example.org".into(), "none".into());
        Traced { index: 0, address, action: Action::Undeliverable, relay, status }
    }

    fn examples() -> Vec<Frame> {
        let envelope = Envelope {
            arrival_us: 1,
            size_octets: 5,
            ..Envelope::plain(QueueId(9), "s@example.org", vec![Recipient::plain("r@example.org")])
        };
        let locator = Locator { segment: SegmentId(7), offset: 64, record_octets: 100 };
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        let status = Status { outcome: Outcome::Deferred, dsn, text: "no route".into(), remote: None };
        vec![
            Frame::Producer { pid: 5, segment: SegmentId(7), end: 64 },
            Frame::Arrived(vec![Arrival { locator, envelope: envelope.clone() }]),
            Frame::Sealed { segment: SegmentId(7), end: 164 },
            Frame::Agent { transport: "smtp".into(), pid: 6, capacity: 50 },
            Frame::Result(JobResult {
                job: 3,
                id: QueueId(9),
                site: Some(status.clone()),
                recipients: vec![(0, status.clone())],
            }),
            Frame::Deliver(Box::new(Job {
                job: 3,
                kind: JobKind::Bounce,
                path: "incoming/0000000000000007".into(),
                locator,
                transport: "bounce".into(),
                nexthop: "".into(),
                active_us: 2,
                envelope: Arc::new(envelope),
                recipients: vec![JobRecipient {
                    index: 0,
                    recipient: Recipient::plain("r@example.org"),
                    status: Some(status.clone()),
                }],
                traced: Vec::new(),
            })),
            Frame::Deliver(Box::new(Job {
                job: 4,
                kind: JobKind::Report,
                path: "incoming/0000000000000007".into(),
                locator,
                transport: "bounce".into(),
                nexthop: "".into(),
                active_us: 2,
                envelope: Arc::new(Envelope { trace: Trace::Probe, ..Envelope::plain(QueueId(9), "s", Vec::new()) }),
                recipients: Vec::new(),
                traced: vec![traced(status.clone())],
            })),
            Frame::Traced { job: 4, traced: vec![traced(status.clone())] },
            Frame::Told(JobResult { job: 4, id: QueueId(9), site: None, recipients: vec![(0, status)] }),
            Frame::Control(b"{}".to_vec()),
            Frame::ControlReply { last: true, json: b"[]".to_vec() },
            Frame::Flow { behind: true },
            Frame::Delivered { job: 3, recipients: vec![0, 7] },
        ]
    }

    #[test]
    fn frames_are_read_back_whole_and_byte_by_byte() {
        let mut bytes = Vec::new();
        for frame in examples() {
            frame.encode(&mut bytes);
        }
        for step in [1, 3, bytes.len()] {
            let mut reader = FrameReader::default();
            let mut frames = Vec::new();
            for chunk in bytes.chunks(step) {
                reader.receive(chunk);
                while let Some(frame) = reader.next_frame().unwrap() {
                    frames.push(frame);
                }
            }
            assert_eq!(frames, examples(), "{step} octets at a time");
        }
    }

    #[test]
    fn no_job_delivers_a_probe() {
        for kind in
            [JobKind::Deliver, JobKind::Bounce, JobKind::Warn, JobKind::Confirm, JobKind::Probe, JobKind::Report]
        {
            let Some(Frame::Deliver(job)) = examples().into_iter().find(|frame| matches!(frame, Frame::Deliver(_)))
            else {
                unreachable!("there is a job");
            };
            let envelope = Arc::new(Envelope { trace: Trace::Probe, ..Envelope::clone(&job.envelope) });
            let mut bytes = Vec::new();
            Frame::Deliver(Box::new(Job { kind, envelope, ..*job })).encode(&mut bytes);
            let mut reader = FrameReader::default();
            reader.receive(&bytes);
            let allowed = matches!(kind, JobKind::Probe | JobKind::Report);
            assert_eq!(reader.next_frame().is_ok(), allowed, "{kind:?}");
        }
    }

    #[test]
    fn a_damaged_frame_is_an_error_and_no_panic() {
        for frame in examples() {
            let mut bytes = Vec::new();
            frame.encode(&mut bytes);
            for at in 0..bytes.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut damaged = bytes.clone();
                    damaged[at] = value;
                    let mut reader = FrameReader::default();
                    reader.receive(&damaged);
                    let _ = reader.next_frame();
                }
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        let mut reader = FrameReader::default();
        reader.receive(&[2, 0, 0, 0, 9, 1]);
        assert_eq!(reader.next_frame(), Err(FrameError::Version(9)));
    }
}
