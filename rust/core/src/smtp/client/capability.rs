//! The keywords of a server's EHLO reply (RFC 5321 §4.1.1.1) that the client uses.

use super::response::Response;
use crate::sasl::{Kind, Kinds};

/// EHLO keywords that the client acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Capabilities {
    /// Commands need not wait for earlier replies (RFC 2920).
    pub pipelining: bool,
    /// BODY= (RFC 6152).
    pub eight_bit_mime: bool,
    /// UTF-8 in addresses and headers (RFC 6531).
    pub smtputf8: bool,
    /// REQUIRETLS (RFC 8689): a message goes on inside TLS alone. Ignored outside TLS.
    pub requiretls: bool,
    /// RET, ENVID, NOTIFY, ORCPT (RFC 3461).
    pub dsn: bool,
    /// SIZE= (RFC 1870).
    pub size: bool,
    /// Maximum octets of a message; `None` if the server gave no limit, or 0.
    pub size_limit: Option<u64>,
    /// STARTTLS (RFC 3207).
    pub starttls: bool,
    /// SASL mechanisms (RFC 4954).
    pub auth: Offer,
}

/// The mechanisms in a server's EHLO reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// The server has the keyword AUTH.
    pub is_present: bool,
    /// The known mechanisms.
    pub kinds: Kinds,
    /// The server has other mechanisms, too.
    pub has_others: bool,
}

impl Offer {
    /// Add the mechanisms of a line. Some servers have several: `AUTH=LOGIN` is an obsolete form.
    pub fn add<'a>(&mut self, names: impl Iterator<Item = &'a str>) {
        self.is_present = true;
        for name in names {
            match Kind::named(name) {
                Some(kind) => self.kinds.add(kind),
                None => self.has_others = true,
            }
        }
    }
}

impl Capabilities {
    /// Parse the reply's lines after the first. `discarded`: keywords to ignore (smtp_discard_ehlo_keywords), in any
    /// case of letters.
    pub fn parse(response: &Response, discarded: &[String]) -> Self {
        let mut offered = Self::default();
        for line in response.text.split('\n').skip(1) {
            // Some servers write `AUTH=` instead of `AUTH `.
            let mut words = line.get(4..).unwrap_or("").split([' ', '\t', '=']).filter(|word| !word.is_empty());
            let Some(keyword) = words.next() else { continue };
            if discarded.iter().any(|name| name.eq_ignore_ascii_case(keyword)) {
                continue;
            }
            match keyword.to_ascii_uppercase().as_str() {
                "PIPELINING" => offered.pipelining = true,
                "8BITMIME" => offered.eight_bit_mime = true,
                "SMTPUTF8" => offered.smtputf8 = true,
                "REQUIRETLS" => offered.requiretls = true,
                "DSN" => offered.dsn = true,
                "STARTTLS" => offered.starttls = true,
                "AUTH" => offered.auth.add(words),
                "SIZE" => {
                    offered.size = true;
                    let limit = words.next().and_then(|word| word.parse().ok());
                    offered.size_limit = limit.filter(|limit| *limit > 0);
                }
                _ => {}
            }
        }
        // SMTPUTF8 implies 8BITMIME (RFC 6531 §3.1), even if the server omits it.
        offered.eight_bit_mime |= offered.smtputf8;
        offered
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mechanisms_of_all_lines_are_parsed() {
        for (text, present, names, others) in [
            ("250-mx\n250 X", false, "", false),
            ("250-mx\n250 AUTH", true, "", false),
            ("250-mx\n250 auth plain Login", true, "PLAIN LOGIN", false),
            ("250-mx\n250-AUTH=LOGIN\n250 AUTH PLAIN GSSAPI", true, "PLAIN LOGIN", true),
        ] {
            let response = Response { code: 250, enhanced: None, text: text.into(), garbage: false };
            let auth = Capabilities::parse(&response, &[]).auth;
            assert_eq!((auth.is_present, &*auth.kinds.names(), auth.has_others), (present, names, others), "{text:?}");
        }
    }

    #[test]
    fn keywords_are_parsed() {
        let none = Capabilities::default();
        let cases = [
            ("250 mx", none),
            ("250-mx\n250 PIPELINING", Capabilities { pipelining: true, ..none }),
            ("250-PIPELINING\n250 pipelining", Capabilities { pipelining: true, ..none }),
            ("250-PIPELINING\n250 X", none),
            ("250-mx\n250-size 1000\n250 DSN", Capabilities { size: true, size_limit: Some(1000), dsn: true, ..none }),
            (
                "250-mx\n250-SIZE=5\n250-8BITMIME\n250 ",
                Capabilities { size: true, size_limit: Some(5), eight_bit_mime: true, ..none },
            ),
            ("250-mx\n250 SIZE 0", Capabilities { size: true, ..none }),
            ("250-mx\n250 SIZE 99999999999999999999999", Capabilities { size: true, ..none }),
            ("250-mx\n250 SMTPUTF8", Capabilities { smtputf8: true, eight_bit_mime: true, ..none }),
            ("250-mx\n250 RequireTLS", Capabilities { requiretls: true, ..none }),
            ("250-mx\n250-XVERP\n250", none),
        ];
        for (text, expected) in cases {
            let response = Response { code: 250, enhanced: None, text: text.into(), garbage: false };
            let offered = Capabilities::parse(&response, &["xverp".into()]);
            assert_eq!(offered, expected, "{text:?}");
        }
        let response = Response { code: 250, enhanced: None, text: "250-mx\n250 PIPELINING".into(), garbage: false };
        assert_eq!(Capabilities::parse(&response, &["pipelining".into()]), none);
    }
}
