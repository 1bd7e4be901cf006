//! The opinion of a client about a server after the handshake, in Postfix's words.

use super::{Distrust, Facts};

/// The certificate of a server, as the policy of the connection sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerCertificate {
    /// The common name of its subject, safe to print.
    pub subject: String,
    /// The common name or the organisation of its issuer, safe to print.
    pub issuer: String,
    /// The word in the log.
    pub trust: Trust,
    /// The server is the one that the policy wants. Below level `fingerprint` this is never known.
    pub matched: bool,
    /// Why it is not, where the policy wants to know.
    pub distrust: Option<Distrust>,
}

/// Texts in the reasons of `Distrust`, and their kinds in reports (RFC 8460 §4.3).
const KINDS: [(&str, &str); 4] = [
    ("mismatch", "certificate-host-mismatch"),
    ("expired", "certificate-expired"),
    ("untrusted issuer", "certificate-not-trusted"),
    ("self-signed", "certificate-not-trusted"),
];

/// The word in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Trust {
    /// The server has shown no certificate.
    Anonymous,
    /// Nobody whom the client trusts has issued the certificate, or it is another server's.
    #[default]
    Untrusted,
    /// An authority has issued the certificate. Its names were not compared, or the name to compare may be forged.
    Trusted,
    /// The server is the one that the policy wants.
    Verified,
}

impl Trust {
    /// Return the word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Anonymous => "Anonymous",
            Self::Untrusted => "Untrusted",
            Self::Trusted => "Trusted",
            Self::Verified => "Verified",
        }
    }
}

impl Facts {
    /// Return what a client thinks of the server.
    pub fn trust(&self) -> Trust {
        self.server.as_ref().map_or(Trust::Anonymous, |certificate| certificate.trust)
    }

    /// Return whether the server is the one that the policy of the connection wants.
    pub fn matched(&self) -> bool {
        self.server.as_ref().is_some_and(|certificate| certificate.matched)
    }

    /// Return the log line of a client: `Verified TLS connection established to mx.example[192.0.2.1]:25: ...`.
    pub fn established_to(&self, peer: &str) -> String {
        let mut text = format!("{} TLS connection established to {peer}: {}", self.trust().word(), self.summary());
        self.write_keys(&mut text, "");
        text
    }

    /// Return why this is not the server that the policy wants: the kind of the failure, in the words of RFC 8460 §4.3, and
    /// the reason.
    pub fn failure(&self) -> (&'static str, &str) {
        let distrust = self.server.as_ref().and_then(|certificate| certificate.distrust.as_ref());
        let reason = distrust.map_or("", |distrust| &*distrust.reason);
        let kind = KINDS.iter().find(|(text, _)| reason.contains(text)).map_or("validation-failure", |(_, kind)| *kind);
        (kind, reason)
    }

    /// Return the log line of a client that wants another server than this one.
    pub fn distrust_of(&self, peer: &str) -> Option<String> {
        Some(self.server.as_ref()?.distrust.as_ref()?.told_of(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_client_are_those_of_postfix() {
        let facts = |trust: Option<Trust>| Facts {
            protocol: "TLSv1.2".into(),
            cipher: "ECDHE-RSA-AES256-GCM-SHA384".into(),
            used_bits: 256,
            cipher_bits: 256,
            server: trust.map(|trust| ServerCertificate { trust, ..ServerCertificate::default() }),
            ..Facts::default()
        };
        for (trust, word) in [
            (None, "Anonymous"),
            (Some(Trust::Untrusted), "Untrusted"),
            (Some(Trust::Trusted), "Trusted"),
            (Some(Trust::Verified), "Verified"),
        ] {
            assert_eq!(
                facts(trust).established_to("mx.example[192.0.2.1]:25"),
                format!(
                    "{word} TLS connection established to mx.example[192.0.2.1]:25: TLSv1.2 with cipher \
                     ECDHE-RSA-AES256-GCM-SHA384 (256/256 bits)"
                )
            );
        }
        let mut facts = facts(Some(Trust::Untrusted));
        assert_eq!(facts.distrust_of("mx[192.0.2.1]:25"), None);
        let rows = [
            ("server", "num=62:hostname mismatch", "server certificate verification failed for mx[192.0.2.1]:25: "),
            ("CA", "certificate has expired", "CA certificate verification failed for mx[192.0.2.1]:25: "),
            ("", "untrusted issuer /CN=CA", "certificate verification failed for mx[192.0.2.1]:25: "),
        ];
        for (whose, reason, line) in rows {
            facts.server.as_mut().unwrap().distrust = Some(Distrust { whose, reason: reason.into() });
            assert_eq!(facts.distrust_of("mx[192.0.2.1]:25"), Some(format!("{line}{reason}")));
        }
    }
}
