//! A client and a server, and the octets between them.

use crate::certificates::{Directory, Issued};
use openssl::ssl::{ErrorCode, Ssl, SslContext, SslContextBuilder, SslMethod, SslStream, SslVerifyMode};
use postillion_core::tls::client_settings::{ClientTls, Wanted};
use postillion_core::tls::{Channel, ClientEngines, ClientLevel, Facts, Failure, Policy};
use postillion_tls::client::{Client, Prefix};
use std::io::{self, Read, Write};
use std::sync::Arc;

/// Maximum number of times that octets go back and forth.
const ROUNDS_MAX: usize = 20;

#[derive(Default)]
struct Pipe {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let octets = self.input.len().min(buffer.len());
        buffer[..octets].copy_from_slice(&self.input[..octets]);
        self.input.drain(..octets);
        Ok(octets)
    }
}

impl Write for Pipe {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A server whose connections share a context.
pub struct Server(SslContext);

impl Server {
    /// Return a server with a certificate.
    pub fn new(issued: &Issued) -> Self {
        Self::with(Some(issued), |_| ())
    }

    /// Return a server with settings of its own.
    pub fn with(issued: Option<&Issued>, change: impl FnOnce(&mut SslContextBuilder)) -> Self {
        let mut context = SslContext::builder(SslMethod::tls_server()).unwrap();
        context.set_security_level(0);
        context.set_min_proto_version(None).unwrap();
        context.set_session_id_context(b"test").unwrap();
        if let Some(issued) = issued {
            context.set_certificate(&issued.certificate).unwrap();
            context.set_private_key(&issued.key).unwrap();
            issued.chain.iter().for_each(|other| context.add_extra_chain_cert(other.clone()).unwrap());
        }
        change(&mut context);
        Self(context.build())
    }

    /// Return a server that asks for a certificate, and takes any.
    pub fn asking(issued: &Issued) -> Self {
        Self::with(Some(issued), |context| context.set_verify_callback(SslVerifyMode::PEER, |_, _| true))
    }

    fn accept(&self) -> SslStream<Pipe> {
        let mut ssl = Ssl::new(&self.0).unwrap();
        ssl.set_accept_state();
        SslStream::new(ssl, Pipe::default()).unwrap()
    }
}

/// The result of a connection.
#[derive(Debug, Default)]
pub struct Meeting {
    pub facts: Option<Facts>,
    pub failure: Option<Failure>,
    /// The name that the client has asked for.
    pub servername: Option<String>,
    /// The octets of the server.
    pub octets: usize,
}

/// The octets of the server on their way to the client.
pub type Change<'a> = &'a mut dyn FnMut(Vec<u8>) -> Vec<Vec<u8>>;

/// Let a client connect to a server.
pub fn meet(client: &Client, policy: &Arc<Policy>, server: &Server) -> Meeting {
    meet_through(client, policy, server, &mut |octets| vec![octets])
}

/// The same through `change`, which returns the pieces that arrive.
pub fn meet_through(client: &Client, policy: &Arc<Policy>, server: &Server, change: Change<'_>) -> Meeting {
    let mut meeting = Meeting::default();
    let mut channel = Channel::new(client.connect(policy).unwrap());
    channel.begin().unwrap();
    let mut accepted = server.accept();
    for _ in 0..ROUNDS_MAX {
        let sent = channel.take_output();
        let is_quiet = sent.is_empty();
        accepted.get_mut().input.extend(sent);
        // A server that fails has an alert in its output.
        if accepted.do_handshake().is_ok() {
            let mut buffer = [0; 1024];
            while accepted.ssl_read(&mut buffer).is_ok() {}
            meeting.servername = accepted.ssl().servername(openssl::ssl::NameType::HOST_NAME).map(str::to_owned);
        }
        let octets = std::mem::take(&mut accepted.get_mut().output);
        if is_quiet && octets.is_empty() {
            break;
        }
        meeting.octets += octets.len();
        for piece in change(octets) {
            let heard = channel.receive(&piece);
            if let Some(facts) = heard.established {
                assert!(meeting.facts.is_none(), "established twice");
                meeting.facts = Some(*facts);
            }
            meeting.failure = meeting.failure.or(heard.failure);
        }
    }
    meeting
}

/// Let a client and a server exchange plaintext behind the handshake.
pub fn converse(client: &Client, policy: &Arc<Policy>, server: &Server, said: &[u8]) -> Vec<u8> {
    let mut channel = Channel::new(client.connect(policy).unwrap());
    channel.begin().unwrap();
    let mut accepted = server.accept();
    let (mut heard, mut is_said) = (Vec::new(), false);
    for _ in 0..ROUNDS_MAX {
        accepted.get_mut().input.extend(channel.take_output());
        let mut buffer = [0; 4096];
        loop {
            match accepted.ssl_read(&mut buffer) {
                Ok(octets) => {
                    accepted.ssl_write(&buffer[..octets]).unwrap();
                }
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::WANT_READ, "{error}");
                    break;
                }
            }
        }
        let received = channel.receive(&std::mem::take(&mut accepted.get_mut().output));
        heard.extend(received.plain);
        if received.established.is_some() && !std::mem::replace(&mut is_said, true) {
            channel.send(said);
        }
    }
    heard
}

/// A client that trusts an authority, with its files.
pub struct Trusting {
    pub client: Client,
    _directory: Directory,
}

impl Trusting {
    pub fn new(authority: &Issued) -> Self {
        Self::with(authority, |_, _| ())
    }

    /// Return a client with settings of its own.
    pub fn with(authority: &Issued, change: impl FnOnce(&mut ClientTls, &Directory)) -> Self {
        let directory = Directory::new();
        let ca_file = directory.certificate("ca.pem", authority);
        let mut settings = ClientTls { ca_file, fingerprint_digest: "sha256".into(), ..ClientTls::default() };
        change(&mut settings, &directory);
        let client = Client::new(settings, Prefix::Smtp).unwrap();
        Self { client, _directory: directory }
    }

    /// Return the policy of a level, with the name `mx.example` where the level needs one.
    pub fn policy(&self, level: ClientLevel) -> Arc<Policy> {
        self.wanting(Wanted { level, ..Wanted::default() })
    }

    /// Return a policy, with the name `mx.example` where the level needs one.
    pub fn wanting(&self, mut wanted: Wanted<'_>) -> Arc<Policy> {
        if wanted.level.matches_names() && wanted.names.is_empty() {
            wanted.names.push("mx.example".into());
        }
        Arc::new(self.client.policy(wanted).unwrap())
    }

    /// Return the facts of a connection that does not fail.
    pub fn facts(&self, policy: &Arc<Policy>, server: &Server) -> Facts {
        let meeting = meet(&self.client, policy, server);
        assert_eq!(meeting.failure, None);
        meeting.facts.expect("the handshake is complete")
    }
}

/// Return the word of the log and whether the server is the wanted one: `Verified+`, `Trusted-`.
pub fn opinion(facts: &Facts) -> String {
    format!("{}{}", facts.trust().word(), if facts.matched() { '+' } else { '-' })
}
