//! The cores of Postillion: the hot paths, independent of Python.
//!
//! Protocol cores are sans-IO state machines: bytes and `now` go in, events and bytes come out. They own no socket, no
//! clock and no thread. The exceptions own the resource in their name: `queue` writes and syncs files, `table` reads
//! those of local tables, `log` writes lines, `net` moves octets between sockets and cores, `bench` measures.
//! `docs/flow.md` follows a message through these modules.
//!
//! A module imports only from those below it (`tests/test_layers.py`):
//!
//! ```text
//! bench                                        load and sink for measurements
//! qmgr                                         the queue manager
//! smtpd                                        the SMTP server as a program
//! delivery                                     jobs of a delivery agent
//! cleanup                                      from the sender to the queue
//! pickup                                       maildrop/
//! queue                                        the queue on disk
//! ipc                                          frames between the programs
//! smtp                                         both ends of the protocol
//! address                                      paths, rewriting
//! net                                          sockets
//! tls                                          TLS around any dialogue
//! sasl                                         mechanisms of a client's login
//! inspection                                   header_checks and related lists
//! table                                        types of lookup tables
//! mail                                         envelopes, header fields, replies, IDs
//! settings                                     parameters of main.cf as fields of a struct
//! lookup                                       the interface of lookup tables
//! inquiry                                      lookups of one message, as one future
//! codec, log, clock, errno, ask, action, slab, few, spread  the ground
//! ```

#![forbid(unsafe_code)]

pub mod action;
pub mod address;
pub mod ask;
pub mod bench;
pub mod cleanup;
pub mod clock;
pub mod codec;
pub mod delivery;
pub mod errno;
pub mod few;
pub mod inquiry;
pub mod inspection;
pub mod ipc;
pub mod log;
pub mod lookup;
pub mod mail;
pub mod net;
pub mod pickup;
pub mod qmgr;
pub mod queue;
pub mod sasl;
pub mod settings;
pub mod slab;
pub mod smtp;
pub mod smtpd;
pub mod spread;
pub mod table;
pub mod tls;
