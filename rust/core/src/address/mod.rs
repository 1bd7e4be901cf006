//! Addresses: the one place that parses them (RFC 5321 §4.1.2; trivial-rewrite(8), postconf(5)).
//!
//! ```text
//! domain      host names and literals: the syntax of a domain
//! local_part  quotes, and where an address extension starts
//! path        MAIL's and RCPT's argument in its one form
//! syntax      what a site asks of an address beyond RFC 5321
//! rewrite     incomplete addresses are completed
//! routing     where a local part routes on
//! keys        what a table is asked for an address, in order
//! names       lists of names in main.cf
//! map         an address in a table, and the addresses in the table's value
//! masquerade  host names are left out
//! alias       virtual aliases: a recipient becomes several
//! rewriting   all of these for the addresses of a message
//! generic     the addresses of a message on its way to another host
//! ```
//!
//! smtpd, cleanup, the queue manager and local(8) use these rules, so they cannot disagree.

pub mod alias;
pub mod domain;
pub mod generic;
pub mod keys;
pub mod local_part;
pub mod map;
pub mod masquerade;
pub mod names;
pub mod path;
pub mod rewrite;
pub mod rewriting;
pub mod routing;
pub mod syntax;
