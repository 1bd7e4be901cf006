//! `postillion bench`: a load of SMTP clients, and a sink that takes the mail at the other end.
//!
//! ```text
//! plan        the load: sessions, messages, recipients, octets, pauses
//! source      one client's dialogue
//! load        all clients of a run: connections, ramp, pauses
//! fault       behaviour of a sink for a domain: refuse, wait, hang up
//! sink        one dialogue of the sink, on the server's own core
//! drain       all connections of a sink
//! tally       counts, and times of replies
//! tls         which handshakes a run has
//! histogram   times in buckets: percentiles of any number of them
//! ```
//!
//! These are instruments: unlike all other cores they read the clock themselves, at the moment of each reply.

pub mod drain;
pub mod fault;
pub mod histogram;
pub mod load;
pub mod plan;
pub mod sink;
pub mod source;
pub mod tally;
pub mod tls;
