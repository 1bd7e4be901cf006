//! SMTP (RFC 5321): the server and the client as state machines.
//!
//! ```text
//! server/   the dialogue (line, commands, auth, bdat, content, deadline) with its config
//!           next             what the owner does next: a question, or how to wait
//!           command          a line's verb and arguments
//!           data, chunk      where content ends, by DATA and by BDAT
//!           intake, whole    for an owner that runs the dialogue itself
//! client/   the dialogue (transaction, pipeline, expect, replies, pace) with its settings
//!           response         replies as they are read
//!           capability       what EHLO offers
//!           starttls, auth   the dialogue before the first message
//!           requiretls       what REQUIRETLS needs of a server
//! ```

pub mod client;
pub mod server;
