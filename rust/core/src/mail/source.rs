//! The origin of a message by program, which decides whether it is searched for text that needs SMTPUTF8
//! (postconf(5), smtputf8_autodetect_classes).

use crate::settings::{Source, Value};

/// The program that gives a message to cleanup, by Postfix's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailSource {
    /// sendmail(1)
    Sendmail,
    /// A client on the network.
    Smtpd,
    /// A report to a sender.
    Bounce,
    /// Forwarded by local(8).
    Forward,
    /// A report to postmaster.
    Notify,
    /// Anything else.
    Unknown,
}

const NAMES: [(&str, u16); 9] = [
    ("sendmail", 1 << MailSource::Sendmail as u16),
    ("smtpd", 1 << MailSource::Smtpd as u16),
    ("bounce", 1 << MailSource::Bounce as u16),
    ("forward", 1 << MailSource::Forward as u16),
    ("notify", 1 << MailSource::Notify as u16),
    ("unknown", 1 << MailSource::Unknown as u16),
    // No program here sends these.
    ("qmqpd", 0),
    ("verify", 0),
    ("all", u16::MAX),
];

impl MailSource {
    /// Return the source with this name.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "sendmail" => Self::Sendmail,
            "smtpd" => Self::Smtpd,
            "bounce" => Self::Bounce,
            "forward" => Self::Forward,
            "notify" => Self::Notify,
            "unknown" => Self::Unknown,
            _ => return None,
        })
    }
}

/// The sources whose mail gets SMTPUTF8 when an address or a header needs it; none without `smtputf8_enable`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Autodetected(u16);

impl Autodetected {
    /// Return the set with one source.
    pub fn only(source: MailSource) -> Self {
        Self(1 << source as u16)
    }

    /// Return whether mail of this source is searched.
    pub fn has(self, source: MailSource) -> bool {
        self.0 & 1 << source as u16 != 0
    }
}

impl Value for Autodetected {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let mut sources = 0;
        for word in source.items(name)? {
            let Some((_, bits)) = NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&word)) else {
                let fix = "use all, or some of sendmail, smtpd, qmqpd, forward, bounce, notify, verify and unknown";
                return Err(source.bad(name, &word, fix));
            };
            sources |= bits;
        }
        Ok(Self(if source.flag("smtputf8_enable")? { sources } else { 0 }))
    }
}
