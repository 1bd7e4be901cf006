//! What everybody knows of mail: replies, IDs, envelopes, header fields, and the forms that octets have.
//!
//! ```text
//! reply, status      what is said of a command, and of a recipient
//! id, locator        a message's name, and where it is in the queue
//! envelope           who sent it, who gets it, and what they asked for
//! header, address, phrase, date    header fields and what is in them
//! stuff, line_limit  the wire form: dots, and lines that are too long
//! xtext              the form of addresses and names in parameters
//! sink               where content goes
//! ```

pub mod address;
pub mod date;
pub mod envelope;
pub mod header;
pub mod id;
pub mod line_limit;
pub mod locator;
pub mod phrase;
pub mod reply;
pub mod sink;
pub mod status;
pub mod stuff;
pub mod xtext;
