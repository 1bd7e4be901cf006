//! The chain for the name that a client asks for (RFC 6066 §3; postconf(5), tls_server_sni_maps).

use crate::{ffi, guest, identity};
use openssl::base64;
use openssl::error::ErrorStack;
use openssl::ssl::{NameType, SniError, SslAlert, SslContext, SslContextBuilder, SslMethod, SslRef};
use postillion_core::ask::Answer;
use postillion_core::lookup::Table;
use postillion_core::tls::facts::ServerName;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of chains that are kept ready; above it, all are made again.
const CHAINS_MAX: usize = 100;
/// Maximum octets of a host name, and of a label in it (RFC 1035 §2.3.4).
const NAME_MAX_OCTETS: usize = 255;
const LABEL_MAX_OCTETS: usize = 63;
const NAME: &str = "tls_server_sni_maps";

/// Tables of chains by server name.
#[derive(Debug, Default)]
pub struct Chains {
    /// They answer at once: a handshake does not wait.
    tables: Box<[Arc<dyn Table>]>,
    /// The chains that were used, by the values of the tables.
    ready: Mutex<HashMap<Box<[u8]>, SslContext>>,
}

impl Chains {
    /// Return the chains of these tables.
    pub fn new(tables: Box<[Arc<dyn Table>]>) -> Self {
        Self { tables, ready: Mutex::default() }
    }

    /// Use the chains in new connections.
    pub fn serve(self: &Arc<Self>, context: &mut SslContextBuilder) {
        if self.tables.is_empty() {
            return;
        }
        let chains = Arc::clone(self);
        context.set_servername_callback(move |ssl, alert| chains.choose(ssl, alert));
    }

    /// Choose the chain of a connection. An unknown name gets the default chain, and so does an invalid one.
    fn choose(&self, ssl: &mut SslRef, alert: &mut SslAlert) -> Result<(), SniError> {
        let Some(name) = ssl.servername_raw(NameType::HOST_NAME).map(<[u8]>::to_vec) else {
            return Err(SniError::NOACK);
        };
        let shown = String::from_utf8_lossy(&name).into_owned();
        let is_valid = is_hostname(&name);
        let found = if is_valid { self.find(&name) } else { Ok(None) };
        let used = found.and_then(|found| match found {
            Some(chain) => ssl.set_ssl_context(&chain).map(|()| true).map_err(|errors| errors.to_string()),
            None => Ok(false),
        });
        let Some(mut asked) = guest::asked(ssl) else { return Err(SniError::NOACK) };
        match used {
            Ok(true) => {
                asked.answer = Some(ServerName::Matched(shown));
                Ok(())
            }
            Ok(false) => {
                asked.answer = Some(if is_valid { ServerName::Unmatched(shown) } else { ServerName::Invalid(shown) });
                Err(SniError::NOACK)
            }
            Err(problem) => {
                asked.problem = Some(format!("{NAME}: {shown}: {problem}"));
                *alert = SslAlert::INTERNAL_ERROR;
                Err(SniError::ALERT_FATAL)
            }
        }
    }

    /// Return the chain of a name, or that of a domain above it. Errors: a table cannot answer, or has no usable chain.
    fn find(&self, name: &[u8]) -> Result<Option<SslContext>, String> {
        for key in keys(name) {
            for table in &self.tables {
                if key[0] == b'.' && !table.takes_parts() {
                    continue;
                }
                match table.lookup(key) {
                    Answer::Found(value) => return self.chain(value).map(Some),
                    Answer::NotFound => {}
                    Answer::Failed(problem) => return Err(problem.into()),
                }
            }
        }
        Ok(None)
    }

    /// Return the chain of a value: keys and certificates in PEM format, in base64.
    fn chain(&self, value: Box<[u8]>) -> Result<SslContext, String> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(context) = ready.get(&value) {
            return Ok(context.clone());
        }
        let malformed = "the value is no base64 of keys and certificates: write the table with postmap -F";
        let text = std::str::from_utf8(&value).map_err(|_| malformed)?;
        let chain = base64::decode_block(text.trim()).map_err(|_| malformed)?;
        let mut context = context().map_err(|errors| errors.to_string())?;
        identity::load_text(&mut context, NAME, &String::from_utf8_lossy(&chain)).map_err(|problem| problem.text)?;
        let context = context.build();
        if ready.len() >= CHAINS_MAX {
            ready.clear();
        }
        ready.insert(value, context.clone());
        Ok(context)
    }
}

/// Return a context for a chain. A connection takes over what belongs to certificates: the security level too.
fn context() -> Result<SslContextBuilder, ErrorStack> {
    let mut context = SslContext::builder(SslMethod::tls_server())?;
    context.set_security_level(0);
    ffi::choose_dh_parameters(&mut context);
    Ok(context)
}

/// Yield the keys of a name: the name, and the domains above it, each with a dot in front.
fn keys(name: &[u8]) -> impl Iterator<Item = &[u8]> {
    let dots = name.iter().enumerate().skip(1).filter(|(_, octet)| **octet == b'.');
    std::iter::once(name).chain(dots.map(|(at, _)| &name[at..]))
}

/// Whether a name is a host name: labels of letters, digits, hyphens and underscores, and no IP address.
fn is_hostname(name: &[u8]) -> bool {
    let is_label = |label: &[u8]| {
        (1..=LABEL_MAX_OCTETS).contains(&label.len())
            && label.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-_".contains(octet))
            && label[0] != b'-'
            && label[label.len() - 1] != b'-'
    };
    name.len() <= NAME_MAX_OCTETS
        && name.split(|octet| *octet == b'.').all(is_label)
        && !name.iter().all(|octet| octet.is_ascii_digit() || *octet == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_with_the_domains_above_it() {
        let found: Vec<&[u8]> = keys(b"mx.a.example").collect();
        assert_eq!(found, [&b"mx.a.example"[..], b".a.example", b".example"]);
    }

    #[test]
    fn host_names_are_no_addresses_and_have_no_odd_octets() {
        for (name, is_valid) in [
            ("mx.example", true),
            ("xn--bcher-kva.example", true),
            ("under_score.example", true),
            ("1.example", true),
            ("", false),
            ("192.0.2.1", false),
            ("a..b", false),
            (".a", false),
            ("a.", false),
            ("-a.example", false),
            ("a-.example", false),
            ("a b", false),
            ("b\u{fc}cher.example", false),
        ] {
            assert_eq!(is_hostname(name.as_bytes()), is_valid, "{name}");
        }
        assert!(!is_hostname("a".repeat(64).as_bytes()));
        assert!(!is_hostname("abc.".repeat(64).trim_end_matches('.').repeat(2).as_bytes()));
    }
}
