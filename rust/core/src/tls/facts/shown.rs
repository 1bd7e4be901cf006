//! The chain of a server, for an administrator, and the part of it that the policy has matched.

use super::{Facts, Fingerprints};
use crate::tls::dane::Tlsa;
use crate::tls::level::ClientLevel;

/// Octets of a record's data above which a line has only its begin and its end.
const DATA_MAX_OCTETS: usize = 64;

/// The certificates of a server, and the match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// The chain as the server has sent it, its own certificate first; empty for an anonymous server.
    pub chain: Vec<ShownCertificate>,
    /// The name of the certificate that is one of the policy.
    pub matched_name: Option<String>,
    /// The TLSA record that has matched. Fingerprints and trust anchors are records, too.
    pub matched_record: Option<MatchedRecord>,
}

/// A certificate of the chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownCertificate {
    /// Its subject as `/C=XX/CN=name`, safe to print.
    pub subject: String,
    /// Its issuer in the same form.
    pub issuer: String,
    /// Its digests.
    pub fingerprints: Fingerprints,
    /// The certificate in PEM format.
    pub pem: String,
}

/// A TLSA record, and the certificate that it has matched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatchedRecord {
    /// The place of the certificate in the chain; 0 is the server's.
    pub depth: u32,
    /// The record has a public key, which has signed a certificate of the chain.
    pub is_signer: bool,
    /// The record.
    pub tlsa: Tlsa,
}

impl Shown {
    /// Return the log lines about what has matched. `level`: that of the policy.
    pub fn matches(&self, level: ClientLevel, peer: &str) -> Vec<String> {
        let name = self.matched_name.as_ref().map(|name| format!("{peer}: matched peername: {name}"));
        let record = self.matched_record.as_ref().map(|record| format!("{peer}: {}", record.told_at(level)));
        name.into_iter().chain(record).collect()
    }
}

impl MatchedRecord {
    fn told_at(&self, level: ClientLevel) -> String {
        let Self { depth, is_signer, tlsa } = self;
        let Tlsa { usage, selector, matching, data } = tlsa;
        match level {
            ClientLevel::Verify | ClientLevel::Secure => format!("Matched trust anchor at depth {depth}"),
            ClientLevel::Fingerprint => format!("Matched fingerprint: {}", in_digits(data)),
            _ => {
                let what = match (is_signer, depth) {
                    (true, _) => "TA public key verified certificate",
                    (false, 0) => "EE certificate",
                    (false, _) => "TA certificate",
                };
                let data = in_digits(data);
                format!("Matched DANE {what} at depth {depth}: {usage} {selector} {matching} {data}")
            }
        }
    }
}

impl Facts {
    /// Return the log line about a server's certificate; `None` without one.
    pub fn certificate_to(&self, shown: &Shown, peer: &str) -> Option<String> {
        let (server, own) = (self.server.as_ref()?, shown.chain.first()?);
        let Fingerprints { certificate, public_key } = &own.fingerprints;
        let (subject, issuer) = (&server.subject, &server.issuer);
        Some(format!(
            "{peer}: subject_CN={subject}, issuer_CN={issuer}, fingerprint={certificate}, pkey_fingerprint={public_key}"
        ))
    }
}

fn in_digits(data: &[u8]) -> String {
    let digits = |octets: &[u8]| octets.iter().map(|octet| format!("{octet:02X}")).collect::<String>();
    if data.len() <= DATA_MAX_OCTETS {
        return digits(data);
    }
    let half = DATA_MAX_OCTETS / 2;
    format!("{}...{}", digits(&data[..half]), digits(&data[data.len() - half..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::facts::ServerCertificate;

    fn record(usage: u8, depth: u32, is_signer: bool) -> MatchedRecord {
        MatchedRecord { depth, is_signer, tlsa: Tlsa { usage, selector: 1, matching: 1, data: vec![0xab, 1] } }
    }

    #[test]
    fn matches_are_told_in_postfixs_words() {
        use ClientLevel::{Dane, Fingerprint, HalfDane, Secure, Verify};
        let rows = [
            (Dane, record(3, 0, false), "Matched DANE EE certificate at depth 0: 3 1 1 AB01"),
            (HalfDane, record(2, 1, false), "Matched DANE TA certificate at depth 1: 2 1 1 AB01"),
            (Dane, record(2, 0, true), "Matched DANE TA public key verified certificate at depth 0: 2 1 1 AB01"),
            (Verify, record(2, 1, false), "Matched trust anchor at depth 1"),
            (Secure, record(2, 2, false), "Matched trust anchor at depth 2"),
            (Fingerprint, record(3, 0, false), "Matched fingerprint: AB01"),
        ];
        for (level, record, line) in rows {
            let shown = Shown { matched_record: Some(record), ..Shown::default() };
            assert_eq!(shown.matches(level, "mx"), [format!("mx: {line}")]);
        }
        let shown = Shown { matched_name: Some("*.example".into()), ..Shown::default() };
        assert_eq!(shown.matches(Secure, "mx"), ["mx: matched peername: *.example"]);
        assert_eq!(Shown::default().matches(Secure, "mx"), [""; 0]);
    }

    #[test]
    fn long_data_has_its_begin_and_its_end() {
        assert_eq!(in_digits(&[7; 64]), "07".repeat(64));
        assert_eq!(in_digits(&[7; 65]), format!("{0}...{0}", "07".repeat(32)));
    }

    #[test]
    fn the_certificate_has_a_line_if_there_is_one() {
        let server = ServerCertificate { subject: "mx".into(), issuer: "CA".into(), ..ServerCertificate::default() };
        let mut facts = Facts { server: Some(server), ..Facts::default() };
        assert_eq!(facts.certificate_to(&Shown::default(), "mx"), None);
        let shown = Shown {
            chain: vec![ShownCertificate {
                subject: "/CN=mx".into(),
                issuer: "/CN=CA".into(),
                fingerprints: Fingerprints { certificate: "AA:BB".into(), public_key: "CC:DD".into() },
                pem: String::new(),
            }],
            ..Shown::default()
        };
        let line = "p: subject_CN=mx, issuer_CN=CA, fingerprint=AA:BB, pkey_fingerprint=CC:DD";
        assert_eq!(facts.certificate_to(&shown, "p").as_deref(), Some(line));
        facts.server = None;
        assert_eq!(facts.certificate_to(&shown, "p"), None);
    }
}
