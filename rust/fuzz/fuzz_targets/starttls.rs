//! STARTTLS: octets that come in the clear behind the command have no effect, and inside TLS any split gives the same.
//!
//! Input: a byte of settings, the seed of the split, then three parts with their lengths in front: the octets before
//! STARTTLS, those behind it in the same packet, and those inside TLS.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::reply::Reply;
use postillion_core::smtp::server::config::ServerConfig;
use postillion_core::smtp::server::{Event, Next, Server};
use postillion_core::tls::settings::Level;
use postillion_fuzz::{Choices, bit, splits};
use std::sync::Arc;

/// The replies to the client, and the messages of the site.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    output: Vec<u8>,
    stored: Vec<Vec<u8>>,
    counts: String,
    /// The server has switched to TLS.
    switched: bool,
}

fn run(server: &mut Server, arriving: &mut Vec<u8>, heard: &mut Heard) {
    loop {
        let reply = match server.next_event(|octets| arriving.extend_from_slice(octets)) {
            Event::Idle => break,
            Event::Log(..) => continue,
            Event::StartTls => {
                server.start_tls(0.0);
                continue;
            }
            Event::Switch => {
                heard.switched = true;
                heard.output.extend(server.take_output().unwrap_or_default());
                server.secured(None, 0.0);
                assert!(server.helo().is_none() && server.transaction().is_none() && server.identity().is_none());
                continue;
            }
            Event::Ask(Next::Data) => {
                arriving.clear();
                Reply::bare(354, "End data with <CR><LF>.<CR><LF>")
            }
            Event::Ask(Next::Auth) => {
                server.authenticate("PLAIN", "user");
                Reply::new(235, [7, 0], "Authentication successful")
            }
            Event::Ask(_) => Reply::new(250, [0, 0], "Ok"),
            Event::EndOfData(end) => {
                if end.fault.is_none() {
                    heard.stored.push(std::mem::take(arriving));
                }
                Reply::new(250, [0, 0], "Ok")
            }
        };
        server.reply(&reply, 0.0);
    }
    heard.output.extend(server.take_output().unwrap_or_default());
}

/// Play a session: the first packet, then the octets inside TLS if it has begun.
fn play(config: &Arc<ServerConfig>, first: &[u8], inside: &[&[u8]]) -> Heard {
    let mut server = Server::new(Arc::clone(config), "client.example[192.0.2.1]", false, 0.0);
    let (mut heard, mut arriving) = (Heard::default(), Vec::new());
    server.greet(0.0);
    server.receive(first, 0.0);
    run(&mut server, &mut arriving, &mut heard);
    if heard.switched {
        assert!(server.is_secured());
        for piece in inside {
            server.receive(piece, 0.0);
            run(&mut server, &mut arriving, &mut heard);
        }
    }
    heard.counts = server.counts();
    heard
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, seed) = (choices.byte(), choices.byte());
    let (before, behind) = (choices.byte(), choices.byte());
    let rest = choices.rest();
    let (before, rest) = rest.split_at(rest.len().min(usize::from(before)));
    let (behind, inside) = rest.split_at(rest.len().min(usize::from(behind)));
    let config = Arc::new(ServerConfig {
        forbid_unauth_pipelining: false,
        error_sleep_s: 0.0,
        hard_error_limit: 1000,
        tls: if bit(flags, 0) { Level::Encrypt } else { Level::May },
        auth_mechanisms: if bit(flags, 1) { vec!["PLAIN".into()] } else { vec![] },
        auth_needs_tls: bit(flags, 2),
        ..ServerConfig::default()
    });
    let first = [before, b"\r\nSTARTTLS\r\n"].concat();
    let clean = play(&config, &first, &[inside]);
    let injected = play(&config, &[&first, behind].concat(), &[inside]);
    if clean.switched {
        assert_eq!(clean, injected, "octets in the clear have an effect");
        for pieces in splits(inside, seed) {
            assert_eq!(clean, play(&config, &first, &pieces), "in another split");
        }
    }
});
