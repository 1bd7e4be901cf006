//! `postillion._core.smtpd`: configuration, sessions, and the service that has them on its sockets.

mod service;
mod session;

pub use service::SmtpdService;
pub use session::{SmtpdConfig, SmtpdSession};
