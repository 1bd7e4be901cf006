#!/bin/sh
# openssl 0.10.82 (rust-openssl) with OpenSSL 3.0: an SslSession of TLS 1.3 is resumed by one connection, and its clone by none.
#
# A cache of a client keeps an SslSession and gives each connection a clone (`Ssl::set_session` takes it again and again without an
# error). With TLS 1.2 each of them resumes. With TLS 1.3 OpenSSL marks the session as used when a handshake with it is complete,
# and a clone is the same object with one more reference: every later connection makes a full handshake, although the server would
# take the ticket again. `SslSession::from_der(&session.to_der()?)` makes an object of its own, which is resumed.
#
# Exit status 0 while clones resume at TLS 1.2 each time, at TLS 1.3 once, and copies at TLS 1.3 each time.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mx -keyout key.pem -out cert.pem 2> /dev/null
mkdir src
cat > Cargo.toml <<'TOML'
[package]
name = "probe"
version = "0.1.0"
edition = "2021"
[dependencies]
openssl = "=0.10.82"
TOML
cat > src/main.rs <<'RUST'
use openssl::ssl::{
    Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslSession, SslSessionCacheMode, SslStream, SslVersion,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread;

fn context(version: SslVersion) -> SslContextBuilder {
    let mut context = SslContext::builder(SslMethod::tls()).unwrap();
    context.set_min_proto_version(Some(version)).unwrap();
    context.set_max_proto_version(Some(version)).unwrap();
    context
}

/// Return whether each of four connections resumed the session of the connection before them.
fn resumed(version: SslVersion, of: fn(&SslSession) -> SslSession) -> Vec<bool> {
    let mut server = context(version);
    server.set_certificate_file("cert.pem", SslFiletype::PEM).unwrap();
    server.set_private_key_file("key.pem", SslFiletype::PEM).unwrap();
    server.set_session_id_context(b"probe").unwrap();
    let server = server.build();
    let first = Arc::new(Mutex::new(None));
    let mut client = context(version);
    client.set_session_cache_mode(SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL);
    let kept = Arc::clone(&first);
    client.set_new_session_callback(move |_, session| {
        kept.lock().unwrap().get_or_insert(session);
    });
    let client = client.build();
    let mut found = Vec::new();
    for _ in 0..5 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let other = Ssl::new(&server).unwrap();
        let peer = thread::spawn(move || {
            let mut stream = SslStream::new(other, theirs).unwrap();
            stream.accept().unwrap();
            stream.write_all(b"220 mx").unwrap();
            let _ = stream.read(&mut [0; 8]);
        });
        let mut ssl = Ssl::new(&client).unwrap();
        if let Some(session) = &*first.lock().unwrap() {
            // SAFETY: the session comes from a connection of the same context.
            unsafe { ssl.set_session(&of(session)) }.unwrap();
        }
        let mut stream = SslStream::new(ssl, ours).unwrap();
        stream.connect().unwrap();
        stream.read_exact(&mut [0; 6]).unwrap();
        stream.write_all(b"QUIT").unwrap();
        found.push(stream.ssl().session_reused());
        // Without it, OpenSSL takes a session of TLS 1.2 for damaged.
        let _ = stream.shutdown();
        peer.join().unwrap();
    }
    found.split_off(1)
}

fn main() {
    let clone = |session: &SslSession| session.clone();
    let copy = |session: &SslSession| SslSession::from_der(&session.to_der().unwrap()).unwrap();
    let old = resumed(SslVersion::TLS1_2, clone);
    let new = resumed(SslVersion::TLS1_3, clone);
    let copies = resumed(SslVersion::TLS1_3, copy);
    println!("{}", openssl::version::version());
    println!("TLS 1.2, clones of a session: {old:?}\nTLS 1.3, clones of a session: {new:?}");
    println!("TLS 1.3, copies of a session: {copies:?}");
    let holds = old == [true; 4] && new == [true, false, false, false] && copies == [true; 4];
    std::process::exit(if holds { 0 } else { 1 });
}
RUST
cargo build --quiet
./target/debug/probe
