//! The result of a handshake: Postfix's words for the log and the Received header.

pub mod shown;
pub mod trust;

pub use shown::{MatchedRecord, Shown, ShownCertificate};
use std::fmt::Write;
pub use trust::{ServerCertificate, Trust};

/// A key or a signature: its name, and its curve or its length.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strength {
    /// `X25519`, `ECDHE`, `RSA-PSS` ...
    pub name: String,
    /// The curve, such as `P-256`.
    pub curve: Option<String>,
    /// The length of the key in bits, without a curve.
    pub bits: Option<u32>,
}

impl Strength {
    fn write(&self, text: &mut String, label: &str) {
        let _ = write!(text, " {label} {}", self.name);
        match (&self.curve, self.bits) {
            (Some(curve), _) => text.push_str(&format!(" ({curve})")),
            (None, Some(bits)) => text.push_str(&format!(" ({bits} bits)")),
            (None, None) => {}
        }
    }
}

/// A certificate of the peer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject, safe to print.
    pub subject: String,
    /// The common name or the organisation of its issuer, safe to print.
    pub issuer: String,
    /// A trusted authority has issued it.
    pub trusted: bool,
    /// Why it is not trusted.
    pub distrust: Option<Distrust>,
}

/// Why a certificate is not trusted, in Postfix's words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distrust {
    /// The certificate in question: `client`, `server` or `CA`; empty where the line does not say.
    pub whose: &'static str,
    /// The reason.
    pub reason: String,
}

impl Distrust {
    /// Return the log line.
    pub fn told_of(&self, peer: &str) -> String {
        let (whose, blank) = (self.whose, if self.whose.is_empty() { "" } else { " " });
        format!("{whose}{blank}certificate verification failed for {peer}: {}", self.reason)
    }
}

/// Digests that identify a client's certificate: `D4:6A:AB:19:...`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the certificate.
    pub certificate: String,
    /// Of its public key.
    pub public_key: String,
}

/// The name of the server that a client has asked for, where a server has chains for names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// The client has got the chain for it.
    Matched(String),
    /// No chain is for it: the client has got the default one.
    Unmatched(String),
    /// It is no host name: the client has got the default chain.
    Invalid(String),
}

/// The result of a handshake.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `TLSv1.3`
    pub protocol: String,
    /// `TLS_AES_256_GCM_SHA384`
    pub cipher: String,
    /// The secret bits of the cipher.
    pub used_bits: u32,
    /// All bits of the cipher.
    pub cipher_bits: u32,
    /// From TLS 1.3 on: the key exchange.
    pub key_exchange: Option<Strength>,
    /// From TLS 1.3 on: the server's signature.
    pub server_signature: Option<Strength>,
    /// The digest of that signature.
    pub server_digest: Option<String>,
    /// From TLS 1.3 on: the client's signature.
    pub client_signature: Option<Strength>,
    /// The digest of that signature.
    pub client_digest: Option<String>,
    /// The certificate that the client has shown.
    pub client: Option<Certificate>,
    /// The fingerprints of this certificate, at a server.
    pub fingerprints: Option<Fingerprints>,
    /// For a client: the certificate that the server has shown.
    pub server: Option<ServerCertificate>,
    /// The handshake went on with an earlier session.
    pub resumed: bool,
    /// The name of the server that the client has asked for.
    pub server_name: Option<ServerName>,
}

impl Facts {
    /// Return the log line of a server: `Anonymous TLS connection established from client[192.0.2.1]: ...`.
    pub fn established_from(&self, peer: &str) -> String {
        let trust = match &self.client {
            None => "Anonymous",
            Some(certificate) if certificate.trusted => "Trusted",
            Some(_) => "Untrusted",
        };
        let name = match &self.server_name {
            Some(ServerName::Matched(name)) => format!(" to {name}"),
            _ => String::new(),
        };
        let mut text = format!("{trust} TLS connection established from {peer}{name}: {}", self.summary());
        self.write_keys(&mut text, "");
        text
    }

    /// Return the log line about a client's certificate; `None` without one.
    pub fn certificate_from(&self, peer: &str) -> Option<String> {
        let (client, prints) = (self.client.as_ref()?, self.fingerprints.as_ref()?);
        let (subject, issuer) = (&client.subject, &client.issuer);
        let (certificate, key) = (&prints.certificate, &prints.public_key);
        Some(format!(
            "{peer}: subject_CN={subject}, issuer={issuer}, fingerprint={certificate}, pkey_fingerprint={key}"
        ))
    }

    /// Return the lines of the Received header, each with LF and TAB in front. `asked`: for a client's certificate.
    pub fn received(&self, asked: bool) -> String {
        let mut text = format!("\n\t(using {}", self.summary());
        self.write_keys(&mut text, "\n\t");
        text.push(')');
        match &self.client {
            Some(certificate) => {
                let trust = if certificate.trusted { "verified OK" } else { "not verified" };
                let (subject, issuer) = (in_comment(&certificate.subject), in_comment(&certificate.issuer));
                let _ = write!(text, "\n\t(Client CN \"{subject}\", Issuer \"{issuer}\" ({trust}))");
            }
            None if asked => text.push_str("\n\t(Client did not present a certificate)"),
            None => text.push_str("\n\t(No client certificate requested)"),
        }
        text
    }

    pub(super) fn summary(&self) -> String {
        format!("{} with cipher {} ({}/{} bits)", self.protocol, self.cipher, self.used_bits, self.cipher_bits)
    }

    /// Write what only TLS 1.3 tells. `fold`: text in front of the keys, and of the client's ones.
    pub(super) fn write_keys(&self, text: &mut String, fold: &str) {
        if self.key_exchange.is_some() || self.server_signature.is_some() {
            text.push_str(fold);
        }
        if let Some(key) = &self.key_exchange {
            key.write(text, "key-exchange");
        }
        if let Some(signature) = &self.server_signature {
            signature.write(text, "server-signature");
            if let Some(digest) = &self.server_digest {
                let _ = write!(text, " server-digest {digest}");
            }
        }
        if let Some(signature) = &self.client_signature {
            text.push_str(fold);
            signature.write(text, "client-signature");
            if let Some(digest) = &self.client_digest {
                let _ = write!(text, " client-digest {digest}");
            }
        }
    }
}

/// Return a name for a comment of a header (RFC 5322 §3.2.2): in ASCII, without backslashes, each bracket with its partner.
fn in_comment(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut open = 0_usize;
    for octet in name.bytes() {
        let kept = match octet {
            b'(' => {
                open += 1;
                true
            }
            b')' if open > 0 => {
                open -= 1;
                true
            }
            b')' | b'\\' => false,
            _ => (b' '..=b'~').contains(&octet),
        };
        text.push(if kept { char::from(octet) } else { '?' });
    }
    text.extend(std::iter::repeat_n(')', open));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_postfix() {
        let mut facts = Facts {
            protocol: "TLSv1.3".into(),
            cipher: "TLS_AES_256_GCM_SHA384".into(),
            used_bits: 256,
            cipher_bits: 256,
            key_exchange: Some(Strength { name: "X25519".into(), ..Strength::default() }),
            server_signature: Some(Strength { name: "RSA-PSS".into(), bits: Some(2048), curve: None }),
            server_digest: Some("SHA256".into()),
            ..Facts::default()
        };
        assert_eq!(
            facts.established_from("c.example[192.0.2.1]"),
            "Anonymous TLS connection established from c.example[192.0.2.1]: TLSv1.3 with cipher \
             TLS_AES_256_GCM_SHA384 (256/256 bits) key-exchange X25519 server-signature RSA-PSS (2048 bits) \
             server-digest SHA256"
        );
        assert_eq!(
            facts.received(false),
            "\n\t(using TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits)\n\t key-exchange X25519 \
             server-signature RSA-PSS (2048 bits) server-digest SHA256)\n\t(No client certificate requested)"
        );
        facts.client = Some(Certificate { subject: "a (b".into(), issuer: "CA".into(), ..Certificate::default() });
        assert!(facts.received(true).ends_with("\n\t(Client CN \"a (b)\", Issuer \"CA\" (not verified))"));
    }

    #[test]
    fn a_name_does_not_end_its_comment() {
        for (name, expected) in
            [("a(b)c", "a(b)c"), ("a)(b", "a?(b)"), ("a\\) \"b\"\u{7f}", "a?? \"b\"?"), ("\u{fc}", "??")]
        {
            assert_eq!(in_comment(name), expected);
        }
    }
}
