//! The vocabulary of mail: replies, IDs, envelopes, header fields, and the forms of octets.
//!
//! ```text
//! reply, status      the result of a command, and of a recipient
//! id, locator        a message's ID, and its place in the queue
//! envelope           sender, recipients and options of a message
//! header, address, phrase, date    header fields and their parts
//! mime, quoted_printable  the structure of a message, and its 7-bit form
//! stuff, line_limit  the wire form: dots, and the limit for lines
//! base64             octets as text
//! xtext              the form of addresses and names in parameters
//! sendopts           Postfix's number for options of a sender
//! sink               the receiver of content
//! source             the program that a message comes from
//! trace              the report that the sender wants of the first attempt
//! ```

pub mod address;
pub mod base64;
pub mod date;
pub mod envelope;
pub mod header;
pub mod id;
pub mod line_limit;
pub mod locator;
pub mod mime;
pub mod phrase;
pub mod quoted_printable;
pub mod reply;
pub mod sendopts;
pub mod sink;
pub mod source;
pub mod status;
pub mod stuff;
pub mod trace;
pub mod xtext;
