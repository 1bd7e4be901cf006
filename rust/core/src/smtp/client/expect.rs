//! The commands that await a reply: their names in log lines, and their timeouts.

use super::settings::Timeouts;

/// The command that an awaited reply answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    Greeting,
    Ehlo,
    Helo,
    Lhlo,
    StartTls,
    /// AUTH, or a line of its exchange.
    Auth,
    Rset,
    /// RSET behind the recipients of a probe: no message follows.
    Abort,
    Mail,
    Rcpt(usize),
    Data,
    Dot,
    /// After the final dot of LMTP: the verdict for one recipient.
    DotFor(usize),
    /// Sent together with the final dot. The client does not wait for its reply.
    Quit,
}

impl Expect {
    /// The command in `(in reply to RCPT TO command)`.
    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Ehlo => "EHLO command",
            Self::Helo => "HELO command",
            Self::Lhlo => "LHLO command",
            Self::StartTls => "STARTTLS command",
            Self::Auth => "AUTH command",
            Self::Rset | Self::Abort => "RSET command",
            Self::Mail => "MAIL FROM command",
            Self::Rcpt(_) => "RCPT TO command",
            Self::Data => "DATA command",
            Self::Dot | Self::DotFor(_) => "end of DATA command",
            Self::Quit => "QUIT command",
        }
    }

    /// The stage in `lost connection with ... while sending RCPT TO`.
    pub(super) fn stage(self) -> &'static str {
        match self {
            Self::Greeting => "receiving the initial server greeting",
            Self::Ehlo => "performing the EHLO handshake",
            Self::Helo => "performing the HELO handshake",
            Self::Lhlo => "performing the LHLO handshake",
            // As in Postfix, both are a part of the handshake.
            Self::StartTls | Self::Auth => "performing the EHLO handshake",
            Self::Rset => "sending RSET probe",
            Self::Abort => "sending RSET",
            Self::Mail => "sending MAIL FROM",
            Self::Rcpt(_) => "sending RCPT TO",
            Self::Data => "sending DATA command",
            Self::Dot | Self::DotFor(_) => "sending end of data -- message may be sent more than once",
            Self::Quit => "sending QUIT",
        }
    }

    pub(super) fn timeout_s(self, timeouts: &Timeouts) -> f64 {
        match self {
            Self::Greeting | Self::Ehlo | Self::Helo | Self::Lhlo | Self::StartTls | Self::Auth => timeouts.helo,
            Self::Rset | Self::Abort => timeouts.rset,
            Self::Mail => timeouts.mail,
            Self::Rcpt(_) => timeouts.rcpt,
            Self::Data => timeouts.data_init,
            Self::Dot | Self::DotFor(_) | Self::Quit => timeouts.data_done,
        }
    }
}
