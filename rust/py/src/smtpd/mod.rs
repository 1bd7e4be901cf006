//! `postillion._core.smtpd`: configuration, sessions, and the service that owns their sockets.

mod next;
mod service;
mod session;

pub use next::{Next, Request};
pub use service::SmtpdService;
pub use session::{SmtpdConfig, SmtpdSession};
