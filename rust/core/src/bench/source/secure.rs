//! TLS of a client: STARTTLS or wrapper mode, and the kind of its handshake.

use super::Source;
use crate::bench::tally::Stage;
use crate::bench::tls::complaint;
use crate::smtp::client::response::{Response, ResponseReader};
use crate::smtp::server::Next;
use crate::tls::{Channel, Facts, Failure};
use std::time::Instant;

/// TLS of a client.
#[derive(Debug, Default)]
pub(super) struct Secure {
    /// For the owner of the socket.
    pub channel: Option<Channel>,
    /// The handshake is complete.
    pub is_on: bool,
}

impl Source {
    /// Begin a connection that was established. In wrapper mode the handshake comes first.
    pub fn open(&mut self) -> Next {
        if self.plan.tls.as_ref().is_none_or(|tls| !tls.wrapper) {
            return Next::Idle;
        }
        // The greeting is awaited behind the handshake.
        self.awaited.clear();
        self.shake()
    }

    /// Return whether TLS must begin before the first message.
    pub(super) fn wants_tls(&self) -> bool {
        self.plan.tls.is_some() && !self.secure.is_on
    }

    /// Say STARTTLS, if the server offers it; otherwise the connection is useless.
    pub(super) fn ask_for_tls(&mut self, offers: &Response) -> Next {
        if !offers.text.contains("STARTTLS") {
            self.tally.counts().complain("TLS: STARTTLS is not offered");
            return Next::Close;
        }
        self.say(Stage::Starttls, "STARTTLS");
        Next::Idle
    }

    /// Have a channel for the owner of the socket.
    pub(super) fn shake(&mut self) -> Next {
        match self.plan.tls.as_ref().map(|tls| tls.begin()) {
            Some(Ok(channel)) => {
                self.secure.channel = Some(channel);
                self.awaited.push_back((Stage::Handshake, Instant::now()));
                Next::StartTls
            }
            Some(Err(failure)) => self.unshaken(&failure),
            None => Next::Close,
        }
    }

    /// The handshake is complete: count it, and begin the dialogue anew.
    pub(super) fn shaken(&mut self, facts: &Facts) -> Next {
        let began = self.awaited.pop_front();
        // Octets that came in the clear are never read as a reply.
        (self.reader, self.secure.is_on) = (ResponseReader::default(), true);
        if !self.is_first() {
            let mut counts = self.tally.counts();
            if let Some((_, since)) = began {
                counts.replies[Stage::Handshake as usize].record(since.elapsed().as_micros() as u64);
            }
            counts.handshakes += 1;
            counts.resumed += u64::from(facts.resumed);
            if self.plan.tls.as_ref().is_some_and(|tls| tls.resumes() != facts.resumed) {
                counts.mismatched += 1;
                let kind = if facts.resumed { "resumed" } else { "not resumed" };
                counts.complain(&format!("TLS: a session was {kind}"));
            }
        }
        if self.plan.tls.as_ref().is_some_and(|tls| tls.wrapper) {
            self.awaited.push_back((Stage::Greeting, Instant::now()));
        } else {
            self.greet();
        }
        Next::Idle
    }

    /// The handshake, or the channel behind it, has failed: the connection is useless.
    pub(super) fn unshaken(&mut self, failure: &Failure) -> Next {
        self.tally.counts().complain(&complaint(failure));
        Next::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::plan::Plan;
    use crate::bench::tally::Tally;
    use crate::bench::tls::SourceTls;
    use crate::net::Dialogue;
    use crate::tls::Policy;
    use crate::tls::testing::Plains;
    use std::sync::Arc;

    const OFFERS: &str = "250-mx\r\n250 STARTTLS\r\n";

    fn client(session_key: &str, wrapper: bool, number: Option<u64>) -> (Source, Arc<Tally>) {
        let policy = Arc::new(Policy { session_key: session_key.into(), ..Policy::default() });
        let tls = Some(SourceTls { engines: Arc::new(Plains), policy, wrapper });
        let tally = Arc::new(Tally::default());
        let plan = Arc::new(Plan { tls, ..Plan::default() });
        (Source::new(plan, Arc::clone(&tally), number, Instant::now()), tally)
    }

    fn answer(source: &mut Source, reply: &str) -> (Next, String) {
        let next = source.receive(reply.as_bytes(), 0.0);
        (next, said(source))
    }

    fn said(source: &mut Source) -> String {
        String::from_utf8(source.take_output().unwrap_or_default()).unwrap().replace("\r\n", "|")
    }

    fn shaken(source: &mut Source, resumed: bool) -> Next {
        assert!(source.take_channel().is_some());
        source.secured(Box::new(Facts { resumed, ..Facts::default() }), 0.0)
    }

    #[test]
    fn mail_follows_the_handshake_and_plaintext_behind_220_is_dropped() {
        let (mut source, tally) = client("", false, Some(0));
        assert_eq!(source.open(), Next::Idle);
        assert_eq!(answer(&mut source, "220 mx\r\n").1, "EHLO source.example|");
        assert_eq!(answer(&mut source, OFFERS), (Next::Idle, "STARTTLS|".into()));
        assert_eq!(answer(&mut source, "220 go\r\n250 in the clear\r\n250"), (Next::StartTls, String::new()));
        assert_eq!((shaken(&mut source, false), said(&mut source)), (Next::Idle, "EHLO source.example|".into()));
        assert_eq!(answer(&mut source, "250 mx\r\n").1, "MAIL FROM:<bench@source.example>|");
        let counts = tally.counts();
        assert_eq!((counts.handshakes, counts.resumed, counts.mismatched), (1, 0, 0));
        assert_eq!(counts.replies[Stage::Handshake as usize].count(), 1);
    }

    #[test]
    fn wrapper_mode_begins_with_the_handshake() {
        let (mut source, _) = client("", true, Some(0));
        assert_eq!((source.open(), said(&mut source)), (Next::StartTls, String::new()));
        assert_eq!((shaken(&mut source, false), said(&mut source)), (Next::Idle, String::new()));
        assert_eq!(answer(&mut source, "220 mx\r\n").1, "EHLO source.example|");
        assert_eq!(answer(&mut source, OFFERS).1, "MAIL FROM:<bench@source.example>|");
    }

    #[test]
    fn a_handshake_of_the_wrong_kind_is_counted() {
        for (session_key, resumed, mismatched) in
            [("", false, 0), ("", true, 1), ("bench", true, 0), ("bench", false, 1)]
        {
            let (mut source, tally) = client(session_key, true, Some(0));
            source.open();
            shaken(&mut source, resumed);
            let counts = tally.counts();
            assert_eq!((counts.resumed, counts.mismatched), (u64::from(resumed), mismatched), "{session_key}");
        }
    }

    #[test]
    fn the_first_client_sends_no_mail_and_counts_nothing() {
        let (mut source, tally) = client("bench", true, None);
        source.open();
        shaken(&mut source, false);
        answer(&mut source, "220 mx\r\n");
        assert_eq!(answer(&mut source, "250 mx\r\n"), (Next::Idle, "QUIT|".into()));
        assert_eq!(answer(&mut source, "221 bye\r\n").0, Next::Close);
        source.lost();
        let counts = tally.counts();
        assert_eq!((counts.handshakes, counts.mismatched, counts.broken, counts.unanswered), (0, 0, 0, 0));
        assert!(counts.replies.iter().all(|times| times.count() == 0));
    }

    #[test]
    fn no_mail_goes_out_in_the_clear() {
        for (replies, complaint) in [
            (&["220 mx\r\n", "250 mx\r\n"][..], "TLS: STARTTLS is not offered"),
            (&["220 mx\r\n", OFFERS, "454 no TLS\r\n"][..], "STARTTLS: 454 no TLS"),
        ] {
            let (mut source, tally) = client("", false, Some(0));
            let last = replies.iter().map(|reply| answer(&mut source, reply)).last();
            assert_eq!(last, Some((Next::Close, String::new())));
            assert_eq!(tally.counts().complaints, [complaint]);
        }
        let (mut source, tally) = client("", true, Some(0));
        source.open();
        let problems = vec!["wrong version number".into()];
        assert_eq!(source.insecure(&Failure { problems, ..Failure::default() }, 0.0), Next::Close);
        source.lost();
        let counts = tally.counts();
        assert_eq!((counts.unanswered, &counts.complaints[0][..]), (1, "TLS: wrong version number"));
    }
}
