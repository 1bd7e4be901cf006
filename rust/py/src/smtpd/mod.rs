//! `postillion._core.smtpd`: configuration, sessions, and the service that has them on its sockets.

mod next;
mod service;
mod session;

pub use next::{Next, Request};
pub use service::SmtpdService;
pub use session::{SmtpdConfig, SmtpdSession};
