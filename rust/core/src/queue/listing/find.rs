//! Find one message by its queue ID, for a process that is not the queue manager (postcat(1)).

use crate::codec::Take;
use crate::mail::envelope::Envelope;
use crate::mail::id::QueueId;
use crate::mail::locator::Locator;
use crate::queue::disk::RealDisk;
use crate::queue::error::QueueError;
use crate::queue::segment::SEGMENT_HEADER_OCTETS;
use crate::queue::segment::content::{ContentReader, read_envelope_bytes};
use crate::queue::segment::scan::{Found, SegmentReader};
use crate::queue::store::recovery;
use std::fs::File;
use std::path::Path;

/// A message on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnDisk {
    /// Its segment, relative to the queue directory.
    pub path: String,
    /// Its place in the segment.
    pub at: Locator,
    /// Octets of its head, which is behind the body; 0 in a record of version 1.
    pub head_octets: u64,
    /// The envelope.
    pub envelope: Envelope,
    /// Recipients that are done, ascending.
    pub done: Vec<u32>,
}

/// Return the message with this ID; `None` when it is not in the queue. Changes nothing. May read every segment.
pub fn find(queue_directory: &Path, id: QueueId) -> Result<Option<OnDisk>, QueueError> {
    let mut facts = recovery::facts(&RealDisk, queue_directory)?;
    let known = facts.messages.remove(&id).unwrap_or_default();
    let mut found = None;
    let disk = RealDisk::shared();
    for (directory, segment, path) in recovery::segments(&*disk, queue_directory)? {
        let Some(mut reader) = SegmentReader::open(&disk, path, segment)? else { continue };
        let to = reader.octets()?.min(facts.ends.get(&segment).copied().unwrap_or(u64::MAX));
        reader.scan(SEGMENT_HEADER_OCTETS as u64, to, &mut |what| {
            if let Found::Record { locator, envelope } = what
                && envelope.id == id
                && !known.is_over(envelope.recipients.len())
            {
                let path = format!("{directory}/{}", segment.file_name());
                found = Some(OnDisk { path, at: locator, head_octets: 0, envelope, done: known.kept.done.clone() });
            }
        })?;
        if found.is_some() {
            break;
        }
    }
    if let Some(message) = &mut found {
        message.head_octets = ContentReader::open(queue_directory, &message.path, &message.at)?.head_octets();
    }
    Ok(found)
}

/// Return the message at a known place, as a running queue manager reports it.
pub fn read_at(queue_directory: &Path, path: &str, at: Locator) -> Result<OnDisk, QueueError> {
    // Let the reader reject paths that are not segments of the queue.
    let head_octets = ContentReader::open(queue_directory, path, &at)?.head_octets();
    let full_path = queue_directory.join(path);
    let file = File::open(&full_path).map_err(|error| QueueError::io("open", &full_path, &error))?;
    let bytes = read_envelope_bytes(&file, &full_path, &at)?;
    let envelope = Envelope::decode(&mut Take::new(&bytes))
        .map_err(|error| QueueError::Corrupt(format!("{path} at {}: {error}", at.offset).into()))?;
    let known = recovery::facts(&RealDisk, queue_directory)?.messages.remove(&envelope.id).unwrap_or_default();
    Ok(OnDisk { path: path.into(), at, head_octets, envelope, done: known.kept.done })
}
