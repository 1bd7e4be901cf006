//! Queue directories with known messages, damage to their files from an input, and the result of a listing.

use crate::{Choices, directory};
use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::id::QueueId;
use postillion_core::mail::sink::Sink;
use postillion_core::queue::listing::find::find;
use postillion_core::queue::listing::rows::Form;
use postillion_core::queue::{Journal, JournalOptions, QueueError, list_queue, read_content};
use std::fs;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// Maximum number of octets that a damage appends.
const APPENDED_MAX_OCTETS: usize = 4096;
const COMMIT_MAX: Duration = Duration::from_secs(60);

/// A queue directory with one file that is rewritten for each input.
pub struct Queue {
    /// The queue directory.
    pub directory: PathBuf,
    /// The segment.
    pub segment: PathBuf,
    /// Its undamaged octets.
    pub octets: Vec<u8>,
    /// Each message's ID, and its record's octets in the segment.
    pub records: Vec<(QueueId, Range<usize>)>,
}

impl Queue {
    /// Write a queue of messages with these contents, in one segment, without a writer.
    pub fn write(name: &str, contents: &[&[u8]]) -> Self {
        let directory = directory(name);
        let options = JournalOptions { minfree_octets: 0, ..JournalOptions::default() };
        let journal = Journal::open(&directory, options).expect("a new journal");
        let mut records = Vec::new();
        let mut segment = PathBuf::new();
        for content in contents {
            let mut draft = journal.draft().expect("a draft");
            let (head, body) = content.split_at(content.len() / 3);
            draft.write(body).expect("a body");
            let id = draft.id();
            let recipients = ["a@example.org", "b@example.org"].map(Recipient::plain).to_vec();
            journal.commit(draft, head, &Envelope::plain(id, "s@example.org", recipients), 0);
            let at = journal.wait(COMMIT_MAX).remove(0).result.expect("a commit");
            segment = directory.join("incoming").join(at.segment.file_name());
            records.push((id, at.offset as usize..(at.offset + at.record_octets) as usize));
        }
        journal.close();
        let octets = fs::read(&segment).expect("the segment");
        Self { directory, segment, octets, records }
    }

    /// Return the IDs of the messages that a listing finds, each with its line.
    pub fn listed(&self) -> Result<Vec<(QueueId, String)>, QueueError> {
        let mut lines = String::new();
        let mut take = |text: &str| {
            lines.push_str(text);
            true
        };
        list_queue(&self.directory, Form::Json, true, |_, _, _| true, &mut take)?;
        Ok(lines.lines().map(|line| (name(line), line.to_owned())).collect())
    }

    /// Return the content of each message that a queue manager finds.
    pub fn contents(&self) -> Vec<(QueueId, Vec<u8>)> {
        let listed = self.listed().expect("a listing");
        let content = |id| {
            let message = find(&self.directory, id).expect("a readable queue").expect("a listed message");
            read_content(&self.directory, &message.path, &message.at).expect("an intact content")
        };
        listed.into_iter().map(|(id, _)| (id, content(id))).collect()
    }
}

fn name(line: &str) -> QueueId {
    assert!(line.starts_with('{') && line.ends_with('}') && !line.contains(char::is_control), "no JSON: {line:?}");
    let (_, rest) = line.split_once("\"queue_id\": \"").expect("a name");
    let (name, _) = rest.split_once('"').expect("its end");
    QueueId::parse(name).expect("a queue ID")
}

/// Return a damaged file: octets changed or overwritten, its end cut off, octets appended.
pub fn damaged(file: &[u8], mut choices: Choices<'_>) -> Vec<u8> {
    let mut file = file.to_vec();
    while !choices.is_empty() {
        let what = choices.byte();
        let (at, value) = (choices.word(), choices.byte());
        let octets = file.len();
        match what % 4 {
            0 if octets > 0 => file[at % octets] ^= value,
            1 if octets > 0 => {
                let end = octets.min(at % octets + usize::from(value));
                file[at % octets..end].fill(what);
            }
            2 => file.truncate(at % (octets + 1)),
            _ => file.resize(octets + at % APPENDED_MAX_OCTETS, if value % 2 == 0 { 0 } else { value }),
        }
    }
    file
}
