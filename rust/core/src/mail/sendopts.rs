//! Postfix's number for what a sender asks for besides DSN: in size records and in the output of postcat(1).

/// SMTPUTF8 of MAIL.
pub const SMTPUTF8: u32 = 1;
/// The header `TLS-Required: no`.
pub const TLS_REQUIRED_NO: u32 = 16;
/// REQUIRETLS.
pub const REQUIRETLS: u32 = 32;
