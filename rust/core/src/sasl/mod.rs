//! SASL of a client (RFC 4422): challenges in, responses out. It owns no socket, no cryptography and no randomness.
//!
//! ```text
//! mechanism    the interface of a mechanism, and of a library of them: `postillion-sasl` is one
//! kind         the known mechanisms, the options that forbid some of them, and the choice among them
//! credentials  a user's name and password
//! ```

pub mod credentials;
pub mod kind;
pub mod mechanism;
#[cfg(test)]
pub mod testing;

pub use credentials::{Credentials, Login, Refusal, Secret};
pub use kind::{Kind, Kinds, Options, choose};
pub use mechanism::{Failure, Fault, Mechanism, Mechanisms, Request};
