//! Messages in maildrop/ that pickup has not taken yet, for a listing (postqueue(1)).
//!
//! Every user who may submit mail may write there. So only complete regular files with one name are opened, never
//! through a link, and files without a message are skipped.

use crate::pickup::maildrop::{Maildrop, MaildropReader};
use crate::queue::listing::rows::{Head, Rows, Tail};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

/// Maximum number of names that are read.
const FILES_MAX: usize = 100_000;
/// Maximum number of octets of a file that are read for its recipients.
const READ_MAX_OCTETS: u64 = 64 * 1024 * 1024;
const PIECE_OCTETS: usize = 64 * 1024;
const COMPLETE: u32 = 0o700;

/// Print the messages in maildrop/; `each` is called after every message, and ends the listing with false.
pub fn list_submissions(queue_directory: &Path, rows: &mut Rows, each: &mut dyn FnMut(&mut Rows) -> bool) -> bool {
    let Ok(entries) = fs::read_dir(queue_directory.join("maildrop")) else { return true };
    let mut names: Vec<_> = entries.take(FILES_MAX).flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let Some((file, octets, written_s)) = open(&path) else { continue };
        let Some(maildrop) = read(file) else { continue };
        let arrival_s = if maildrop.arrival_us > 0 { maildrop.arrival_us / 1_000_000 } else { written_s };
        let sender = &*maildrop.sender;
        rows.begin(&Head {
            queue: "maildrop",
            name: &name,
            arrival_s,
            size_octets: octets,
            forced_expire: false,
            sender,
        });
        for recipient in &maildrop.recipients {
            rows.recipient(&recipient.address, recipient.original.as_deref(), None);
        }
        rows.end(&Tail { waits: "for pickup", ..Tail::default() });
        if !each(rows) {
            return false;
        }
    }
    true
}

fn open(path: &Path) -> Option<(File, u64, u64)> {
    let whole = |found: &fs::Metadata| {
        found.is_file() && found.nlink() == 1 && found.permissions().mode() & COMPLETE == COMPLETE
    };
    let before = fs::symlink_metadata(path).ok().filter(whole)?;
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path).ok()?;
    let found = file.metadata().ok().filter(whole)?;
    if (found.dev(), found.ino()) != (before.dev(), before.ino()) {
        return None;
    }
    let written = found.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some((file, found.len(), written.as_secs()))
}

fn read(file: File) -> Option<Maildrop> {
    let (mut reader, mut piece, mut content) = (MaildropReader::default(), vec![0; PIECE_OCTETS], Vec::new());
    let mut file = file.take(READ_MAX_OCTETS);
    loop {
        let read = file.read(&mut piece).ok()?;
        if read == 0 {
            return reader.finish().ok();
        }
        content.clear();
        reader.feed(&piece[..read], &mut content).ok()?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::envelope::Recipient;
    use crate::pickup::maildrop::{ContentWriter, LineEndings};
    use crate::queue::listing::rows::Form;
    use crate::queue::proofs::testing::Directory;
    use std::os::unix::fs::symlink;

    #[test]
    fn complete_messages_are_listed_and_hostile_names_are_not() {
        let directory = Directory::new();
        let at = |name: &str| directory.path().join("maildrop").join(name);
        fs::create_dir_all(at("")).unwrap();
        let mut data = Vec::new();
        let maildrop = Maildrop { arrival_us: 7_000_000, sender: "s@example.org".into(), ..Maildrop::default() };
        maildrop.encode_envelope(&mut data);
        let mut writer = ContentWriter::new(false, LineEndings::Never);
        writer.feed(b"Subject: x\n\nbody\n", &mut data);
        writer.finish(&[Recipient::plain("a@example.net")], &mut data);
        for (name, content, mode) in [
            ("ABC1", &data[..], 0o700),
            ("ABC2", &data, 0o600),
            ("ABC3", b"no message", 0o700),
            ("ABC4", &data[..9], 0o744),
        ] {
            fs::write(at(name), content).unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(at("ABC1"), at("ABC5")).unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("ABC6"), rustix::fs::Mode::RWXU).unwrap();
        let mut rows = Rows::new(Form::Json, false);
        assert!(list_submissions(directory.path(), &mut rows, &mut |_| true));
        let expected = format!(
            r#"{{"queue_name": "maildrop", "queue_id": "ABC1", "arrival_time": 7, "message_size": {}, "forced_expire": false, "sender": "s@example.org", "recipients": [{{"address": "a@example.net"}}], "attempts": 0, "waits": "for pickup"}}
"#,
            data.len()
        );
        assert_eq!(rows.out, expected);
    }
}
