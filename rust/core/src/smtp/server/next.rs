//! The next step of an SMTP session: one enum from the dialogue to the policy in Python.
//!
//! The dialogue stops at a question, and its owner answers it. All other steps say how the owner waits.

use crate::mail::reply::Reply;

/// The next step of a session's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// Write the output; then wait for octets, for the deadline, or for the journal.
    Idle,
    /// Write the output, and read no more until the open question is answered or the journal is done.
    Full,
    /// Wait until the deadline; neither read nor write before.
    Sleep,
    /// Write the output and close: the session has ended.
    Close,
    /// Write the output; the client speaks TLS from then on (RFC 3207). `secured` or `insecure` follows.
    StartTls,
    /// Decide about HELO or EHLO (`helo`). Asked with `asks_helo`.
    Helo,
    /// Decide about a sender (`sender`). Asked with `asks_mail`.
    Mail,
    /// Decide about a recipient (`recipient`).
    Rcpt,
    /// Decide whether a recipient (`recipient`) may be asked about.
    Vrfy,
    /// Decide whether content may follow DATA, or a message's first BDAT. A session asks with `asks_data`.
    Data,
    /// Decide about a whole content. A session asks with `asks_content`.
    EndOfData,
    /// Answer RSET; the transaction has ended. Asked with `asks_verbs`.
    Rset,
    /// Answer NOOP. Asked with `asks_verbs`.
    Noop,
    /// Answer QUIT; the session ends after the reply. Asked with `asks_verbs`.
    Quit,
    /// Answer AUTH or a line of its exchange (`argument`): 334 is a challenge, 235 a success.
    Auth,
    /// Make the lookups of a message that is complete, or arrives; a session asks, when tables are remote.
    Lookup,
    /// Store the whole message of a stand-alone session.
    Message,
}

impl Next {
    /// Whether the owner must answer before the session goes on.
    pub fn is_question(self) -> bool {
        !matches!(self, Self::Idle | Self::Full | Self::Sleep | Self::Close | Self::StartTls)
    }

    /// Whether the output waits for the owner's answer, or for its `finish`.
    pub fn waits_for_owner(self) -> bool {
        self.is_question() || self == Self::Close
    }

    /// Return the accepting reply. With an empty text, the server adds its own words.
    pub fn acceptance(self) -> Reply {
        match self {
            Self::Mail => Reply::new(250, [1, 0], "Ok"),
            Self::Rcpt => Reply::new(250, [1, 5], "Ok"),
            Self::Vrfy => Reply::new(252, [0, 0], ""),
            Self::Data => Reply::bare(354, "End data with <CR><LF>.<CR><LF>"),
            Self::Auth => Reply::new(235, [7, 0], "Authentication successful"),
            Self::Quit => Reply::new(221, [0, 0], "Bye"),
            Self::Helo => Reply::bare(250, ""),
            _ => Reply::new(250, [0, 0], "Ok"),
        }
    }
}
