//! The processing of a message between its arrival and the queue (cleanup(8)).
//!
//! smtpd, pickup, bounce and local each drive an `Intake`: envelope, options and content in, a queued record out.
//!
//! The header block is a stream of header fields: some are dropped, some completed, and missing ones follow the last.
//! They stay in memory as the message's head; the body goes to the sink in long runs while nothing needs a change.
//! `header_size_limit` and `HEAD_MAX_OCTETS` bound the memory. After the first problem, the rest of the message is read
//! and dropped, because a client gets its reply only at the end.
//!
//! ```text
//! settings    the parameters
//! options     the parts that apply to one message, by the way that it comes
//! intake      the one way into the queue, for every program that takes or writes mail
//! submission  a message of a program on this machine, until its intake begins
//! envelope    completes addresses of the envelope, drops duplicates
//! lines       the content as lines, in any split
//! checks      header_checks, body_checks, the rules about MIME
//! output      drops, completes and collects header fields, passes the body
//! missing     adds header fields
//! finish      maps addresses at the end of the message
//! ```

mod checks;
mod envelope;
mod finish;
pub mod intake;
mod lines;
mod missing;
pub mod options;
mod output;
pub mod settings;
pub mod submission;
#[cfg(test)]
mod tests;

pub use finish::{Finished, Finishing};
pub use intake::{Intake, rehearse};
pub use options::Options;

use crate::address::rewriting::RewriteClass;
use crate::inquiry::Asker;
use crate::mail::envelope::Envelope;
use crate::mail::header::Seen;
use crate::mail::reply::Reply;
use checks::Checks;
use settings::CleanupSettings;
use std::ops::Range;
use std::sync::Arc;

/// The origin of a message. It decides which header fields are completed and added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// From a client on the network. `trusted`: `local_header_rewrite_clients` names it.
    Network {
        /// Headers are completed and added as for local mail.
        trusted: bool,
    },
    /// From a program on this machine.
    Local,
}

/// The reason to refuse a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// A check, with its reply. It has logged a line.
    Rejected(Box<Reply>),
    /// `hopcount_limit`
    TooManyHops,
    /// `message_size_limit`
    TooBig,
    /// `HEAD_MAX_OCTETS`
    HeadTooBig,
    /// `message_reject_characters`
    DisallowedCharacter,
    /// A lookup table cannot answer.
    LookupFailed,
    /// `BCC_MAX`, `HELD_MAX_OCTETS`
    CheckLimit,
    /// An alias expands without end.
    AliasLimit,
    /// A message without a recipient.
    NoRecipients,
    /// The disk is full.
    NoSpace,
    /// The queue cannot be written.
    WriteError,
}

impl Refusal {
    /// Return the reply to the client, with Postfix's text.
    pub fn reply(self) -> Reply {
        match self {
            Self::Rejected(reply) => *reply,
            Self::TooManyHops => Reply::new(554, [4, 0], "Error: too many hops"),
            Self::TooBig => Reply::new(552, [3, 4], "Error: message file too big"),
            Self::HeadTooBig => Reply::new(552, [3, 4], "Error: message header too big"),
            Self::DisallowedCharacter => Reply::new(550, [7, 1], "disallowed character"),
            Self::LookupFailed | Self::CheckLimit => Reply::new(451, [3, 0], "Error: queue file write error"),
            Self::AliasLimit => Reply::new(451, [6, 0], "Alias expansion error"),
            Self::NoRecipients => Reply::new(550, [1, 0], "Error: no recipients specified"),
            Self::NoSpace => Reply::new(452, [3, 1], "Insufficient system storage"),
            Self::WriteError => Reply::new(451, [3, 0], "Error: queue file write error"),
        }
    }
}

/// Maximum number of octets in a message's head, with trace header and added fields.
pub const HEAD_MAX_OCTETS: usize = 2 * 1024 * 1024;
/// The name of the attribute for the Message-Id with its angle brackets.
pub const MESSAGE_ID: &str = "message_id";
/// The name of the attribute for the Resent-Message-Id.
pub const RESENT_MESSAGE_ID: &str = "resent_message_id";

/// The output of cleanup: the message, and the facts about it.
#[derive(Debug)]
struct Output<S> {
    settings: Arc<CleanupSettings>,
    /// The header fields in wire form, and the empty line behind them.
    head: Vec<u8>,
    /// Parts of the head whose addresses are mapped at the end of the message.
    later: Vec<Later>,
    options: Options,
    /// Whether a header is not ASCII; `None`: nobody asks.
    utf8_header: Option<bool>,
    /// The first header that was ignored, for a warning.
    ignored: Option<Box<str>>,
    /// The message has the header that stands for REQUIRETLS.
    carries_requiretls: bool,
    /// Receives the body.
    sink: S,
    envelope: Envelope,
    origin: Origin,
    full_name: Option<Box<str>>,
    /// The answers of the lookups for its recipients.
    asker: Option<Asker>,
    wall_now_us: u64,
    seen: Seen,
    resent: bool,
    hops: u32,
    /// Octets: a line end counts as one, stuffed dots do not count.
    size_octets: u64,
    body_line_open: bool,
    /// `None` at a site without checks.
    checks: Option<Box<Checks>>,
    /// They see the lines of the body too.
    checks_body: bool,
    /// A check drops the message.
    discarding: bool,
    refusal: Option<Refusal>,
}

/// A part of the head that is mapped at the end.
#[derive(Debug)]
struct Later {
    span: Range<usize>,
    part: Part,
}

/// The kind of a part.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The value of a header with addresses.
    Value(RewriteClass),
    /// The sender in a `From:` that cleanup has added.
    From,
}
