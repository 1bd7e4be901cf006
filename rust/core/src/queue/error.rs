//! The errors of the queue, as a value that carries its reply.

use std::fmt;
use std::io;
use std::path::Path;

/// The reason why a queue operation failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueueError {
    /// The file system is full, a quota or a file size limit is reached, or `queue_minfree` is not met.
    NoSpace,
    /// A system call failed: the operation, and the error.
    Io(io::ErrorKind, Box<str>),
    /// Another queue manager has this queue directory open.
    Locked(Box<str>),
    /// A newer release wrote this file: its path, its version, and the newest version that this release reads.
    Version(Box<str>, u16, u16),
    /// The bytes on disk are damaged: the place, and the defect.
    Corrupt(Box<str>),
    /// The message is a probe: nobody may read it to deliver it.
    Probe,
}

impl QueueError {
    /// Return the reply to a client whose message cannot be queued: code, subject and detail, text.
    pub fn reply(&self) -> (u16, [u16; 2], &'static str) {
        match self {
            Self::NoSpace => (452, [3, 1], "Insufficient system storage"),
            _ => (451, [3, 0], "Error: queue file write error"),
        }
    }

    /// Return the reply as a line: `452 4.3.1 Insufficient system storage`.
    pub fn reply_text(&self) -> String {
        let (code, [subject, detail], text) = self.reply();
        format!("{code} {}.{subject}.{detail} {text}", code / 100)
    }

    /// Return the error for a failed system call on `path`; `doing` is the verb: "open", "write".
    pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        if is_no_space(error) {
            return Self::NoSpace;
        }
        Self::Io(error.kind(), format!("{doing} {}: {error}", path.display()).into())
    }

    /// Return the error as an `io::Error`, for callers behind `Sink`.
    pub fn into_io(self) -> io::Error {
        match self {
            Self::NoSpace => io::Error::new(io::ErrorKind::StorageFull, self.to_string()),
            Self::Io(kind, text) => io::Error::new(kind, text.into_string()),
            other => io::Error::other(other.to_string()),
        }
    }
}

impl fmt::Display for QueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space left in the queue's file system"),
            Self::Io(_, text) => f.write_str(text),
            Self::Locked(path) => write!(f, "{path}: another queue manager works in this queue directory"),
            Self::Version(path, found, newest) => write!(
                f,
                "{path}: queue file version {found}, but this release reads versions up to {newest}: \
                 start the newer release, or let it empty the queue first"
            ),
            Self::Corrupt(text) => f.write_str(text),
            Self::Probe => f.write_str("an address probe is not delivered"),
        }
    }
}

impl std::error::Error for QueueError {}

impl From<io::Error> for QueueError {
    fn from(error: io::Error) -> Self {
        if is_no_space(&error) { Self::NoSpace } else { Self::Io(error.kind(), error.to_string().into()) }
    }
}

/// ENOSPC, EDQUOT or EFBIG: the message may fit later, so the reply is 452, not 451.
fn is_no_space(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_carry_the_reply_to_the_client() {
        for (errno, code) in [(28, 452), (122, 452), (27, 452), (5, 451), (30, 451), (24, 451)] {
            let error = QueueError::from(io::Error::from_raw_os_error(errno));
            assert_eq!(error.reply().0, code, "errno {errno}");
            assert_eq!(QueueError::from(error.into_io()).reply().0, code, "errno {errno} by way of io::Error");
        }
    }
}
