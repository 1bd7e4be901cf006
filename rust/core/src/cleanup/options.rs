//! The parts of cleanup that apply to a message, by the way that it comes: Postfix's cleanup flags.

/// The options of a message. The way that it came decides them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// `header_checks` and related parameters, and the rules about MIME, apply.
    pub checks: bool,
    /// Recipients of copies are added (`always_bcc` and others).
    pub copies: bool,
}

impl Options {
    /// A message from a client or a user.
    pub const EXTERNAL: Self = Self { checks: true, copies: true };
    /// A message that the mail system itself writes: a report, or mail that a user forwards.
    pub const INTERNAL: Self = Self { checks: false, copies: false };
}
