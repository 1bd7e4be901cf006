//! A process that commits is killed with SIGKILL, again and again: every acknowledged message is in the queue.
//!
//! The test starts itself as the victim: `victim` commits in a loop and prints each ID once the message is stable, at
//! the point where smtpd sends 250.

use postillion_core::mail::envelope::{Envelope, Recipient};
use postillion_core::mail::sink::Sink;
use postillion_core::queue::{Journal, JournalOptions, Spool, read_content};
use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const DIRECTORY: &str = "POSTILLION_TEST_KILL_DIRECTORY";
const ROUNDS: u64 = 12;
/// Lengths of the messages, in a cycle: below and above `large_message_octets`.
const LENGTHS: [usize; 4] = [0, 100, 4096, 20_000];
const IN_FLIGHT: u64 = 8;

fn content(n: u64) -> Vec<u8> {
    vec![b'a' + (n % 26) as u8; LENGTHS[(n % 4) as usize]]
}

fn commit(journal: &Journal, n: u64) {
    let mut draft = journal.draft().unwrap();
    let content = content(n);
    let (head, body) = content.split_at(content.len() / 4);
    draft.write(body).unwrap();
    let envelope =
        Envelope { arrival_us: n, ..Envelope::plain(draft.id(), "", vec![Recipient::plain("r@example.org")]) };
    journal.commit(draft, head, &envelope, n);
}

/// Started by `acknowledged_messages_survive_sigkill`, in a process of its own.
#[test]
#[ignore = "the victim of the kill test"]
fn victim() {
    let Some(directory) = std::env::var_os(DIRECTORY) else { return };
    let options = JournalOptions {
        segment_max_octets: 100_000,
        segment_max_age: Duration::from_millis(20),
        large_message_octets: 10_000,
        ahead_octets: 500,
        minfree_octets: 0,
    };
    let journal = Journal::open(Path::new(&directory), options).unwrap();
    let mut next = 0;
    for _ in 0..IN_FLIGHT {
        commit(&journal, next);
        next += 1;
    }
    let mut out = std::io::stdout().lock();
    loop {
        for completion in journal.wait(Duration::from_secs(10)) {
            completion.result.unwrap();
            writeln!(out, "acknowledged {} {}", completion.id.0, completion.ticket).unwrap();
            out.flush().unwrap();
            commit(&journal, next);
            next += 1;
        }
    }
}

/// Return the messages that a victim acknowledged before it was killed after `life`.
fn killed_after(directory: &Path, life: Duration) -> HashMap<u64, u64> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "victim", "--ignored", "--nocapture"])
        .env(DIRECTORY, directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut acknowledged = HashMap::new();
        let mut line = String::new();
        while output.read_line(&mut line).is_ok_and(|octets| octets > 0) {
            // The last line may be cut; lines of the test runner are no IDs.
            let mut words = line.strip_suffix('\n').unwrap_or("").rsplit(' ');
            if let (Some(n), Some(id), Some(word)) = (words.next(), words.next(), words.next())
                && word.ends_with("acknowledged")
            {
                acknowledged.insert(id.parse().unwrap(), n.parse().unwrap());
            }
            line.clear();
        }
        acknowledged
    });
    std::thread::sleep(life);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn acknowledged_messages_survive_sigkill() {
    let directory = Directory(std::env::temp_dir().join(format!("postillion-kill-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).unwrap();
    let mut acknowledged = HashMap::new();
    for round in 0..ROUNDS {
        let life = Duration::from_millis(40 + round * 37 % 150);
        acknowledged.extend(killed_after(&directory.0, life));
        let (mut spool, stored) = Spool::open(&directory.0).unwrap();
        let mut missing = acknowledged.clone();
        for stored in &stored {
            let at = stored.arrival.locator;
            let found = read_content(&directory.0, &spool.path(at.segment), &at).unwrap();
            assert_eq!(found, content(stored.arrival.envelope.arrival_us), "whole, whether acknowledged or not");
            missing.remove(&stored.arrival.envelope.id.0);
        }
        assert!(missing.is_empty(), "{} of {} lost in round {round}", missing.len(), acknowledged.len());
        assert_eq!(std::fs::read_dir(directory.0.join("corrupt")).unwrap().count(), 0, "{:?}", spool.take_notices());
    }
    assert!(acknowledged.len() as u64 > ROUNDS * IN_FLIGHT, "only {} were acknowledged", acknowledged.len());
}
