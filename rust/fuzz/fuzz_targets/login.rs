//! A login at a hostile server: before its success the client says lines of the exchange alone, of limited length and
//! number; a server that does not know the password gets no mail with SCRAM; and any split gives the same.
//!
//! Input: flags, the seed of the split, then the server's octets behind EHLO in parts, each ended by `|`. A part that
//! begins with `#` is a challenge, in which `$` stands for the client's nonce.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::mail::base64;
use postillion_core::sasl::{Credentials, Kind, Kinds, Login, Options};
use postillion_core::smtp::client::{Client, ClientSettings, Event, Peer};
use postillion_fuzz::{Choices, bit, splits};
use postillion_sasl::Library;
use std::sync::Arc;

const PART_ENDS: u8 = b'|';
const PASSWORD: &str = "canary";
const LINE_MAX_OCTETS: usize = 12_288;
/// Maximum number of lines: AUTH, the answers to challenges, the end of the exchange, QUIT.
const LINES_MAX: usize = 13;

/// The events without their texts, because a nonce is random, and the lengths of the lines.
#[derive(Debug, Default, PartialEq)]
struct Heard {
    events: Vec<String>,
    lines: Vec<usize>,
    is_ready: bool,
}

struct Talk {
    client: Client,
    nonce: Vec<u8>,
    heard: Heard,
}

impl Talk {
    fn new(kind: Kind, flags: u8) -> Self {
        let mut settings = ClientSettings::default();
        settings.auth.options = Options::default();
        settings.auth.filter = Some(Kinds::from_iter(Kind::ALL));
        settings.auth.library = Some(Arc::new(Library));
        settings.auth.soft_bounce = bit(flags, 4);
        settings.auth.names_identity = bit(flags, 5);
        let password = if bit(flags, 6) { PASSWORD.repeat(100) } else { PASSWORD.into() };
        let login = Login::As(Arc::new(Credentials::new("user", password.as_bytes())));
        let peer = Peer { login, ..Peer::new("mx", "192.0.2.1", 25, "example.net", true, true) };
        let client = Client::new(Arc::new(settings), peer, 0.0);
        let mut talk = Self { client, nonce: vec![], heard: Heard::default() };
        talk.hear(b"220 mx ESMTP\r\n");
        talk.heard.lines.clear();
        talk.hear(format!("250-mx\r\n250 AUTH {}\r\n", kind.name()).as_bytes());
        talk
    }

    fn hear(&mut self, octets: &[u8]) {
        self.client.receive(octets, 0.0);
        while let Some(event) = self.client.next_event() {
            self.heard.is_ready |= event == Event::Ready;
            let shown = format!("{event:?}");
            assert!(!shown.contains(PASSWORD), "{shown}");
            // The rest depends on the nonce: a server may repeat it anywhere.
            self.heard.events.push(match event {
                Event::Failed { status, .. } => format!("failed {}", status.dsn),
                Event::Warning(_) => "warning".into(),
                _ => shown,
            });
        }
        assert!(!format!("{:?}", self.client).contains(PASSWORD));
        let output = self.client.take_output().unwrap_or_default();
        for line in output.split_inclusive(|octet| *octet == b'\n') {
            self.check(line.strip_suffix(b"\r\n").expect("a line has its end"));
        }
    }

    fn check(&mut self, line: &[u8]) {
        assert!(line.len() + 2 <= LINE_MAX_OCTETS);
        self.heard.lines.push(line.len());
        assert!(self.heard.lines.len() <= LINES_MAX);
        let is_known = line.starts_with(b"AUTH ") || line.starts_with(b"EHLO ") || line == b"*" || line == b"QUIT";
        assert!(is_known || base64::decode(line).is_some(), "{line:?}");
        let first = line.strip_prefix(b"AUTH ").and_then(|rest| base64::decode(rest.rsplit(|b| *b == b' ').next()?));
        if let Some(first) = first
            && let Some(at) = first.windows(3).position(|part| part == b",r=")
        {
            self.nonce = first[at + 3..].to_vec();
        }
    }
}

/// Return the octets of a part of the input: one line, because a reply too early is an error that depends on the split.
fn octets(part: &[u8], nonce: &[u8]) -> Vec<u8> {
    let Some(challenge) = part.strip_prefix(b"#") else {
        return part.split_inclusive(|octet| *octet == b'\n').next().unwrap_or_default().to_vec();
    };
    let filled: Vec<u8> = challenge
        .iter()
        .flat_map(|octet| if *octet == b'$' { nonce } else { std::slice::from_ref(octet) })
        .copied()
        .collect();
    [b"334 ", &*base64::encode(&filled), b"\r\n"].concat()
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let (flags, seed) = (choices.byte(), choices.byte());
    let kind = Kind::ALL[usize::from(flags & 15) % Kind::ALL.len()];
    let parts: Vec<&[u8]> = choices.rest().split(|octet| *octet == PART_ENDS).collect();
    let play = |split: usize| {
        let mut talk = Talk::new(kind, flags);
        for part in &parts {
            let octets = octets(part, &talk.nonce);
            let splits = splits(&octets, seed);
            for piece in &splits[split.min(splits.len() - 1)] {
                talk.hear(piece);
            }
        }
        talk.heard
    };
    let whole = play(0);
    let is_scram = matches!(kind, Kind::ScramSha1 | Kind::ScramSha256 | Kind::ScramSha512);
    assert!(!(is_scram && whole.is_ready), "without a signature");
    for split in 1..3 {
        let other = play(split);
        assert_eq!((whole.is_ready, &whole.events), (other.is_ready, &other.events));
    }
});
