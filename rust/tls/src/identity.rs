//! Keys and certificates of this side.

use crate::{facts, ffi};
use openssl::asn1::Asn1Time;
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::SslContextBuilder;
use openssl::x509::X509;
use postillion_core::tls::settings::ServerTls;
use std::fs;
use std::path::Path;

pub(crate) const BEGIN: &str = "-----BEGIN ";
/// Maximum octets of a file of keys and certificates.
const FILE_MAX_OCTETS: u64 = 4 * 1024 * 1024;
/// In place of a file: the server has no certificate on purpose, so anonymous ciphers only.
const NONE: &str = "none";

/// A parameter whose value cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The parameter of main.cf.
    pub parameter: &'static str,
    /// The text of the error.
    pub text: String,
    /// The advice.
    pub fix: &'static str,
}

impl Problem {
    pub(crate) fn new(parameter: &'static str, text: impl Into<String>, fix: &'static str) -> Self {
        Self { parameter, text: text.into(), fix }
    }
}

/// A key, and its certificate with those behind it.
struct Identity {
    key: PKey<Private>,
    chain: Vec<X509>,
}

/// The certificate of a chain that expires first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The parameter of main.cf.
    pub parameter: &'static str,
    /// The common name of its subject.
    pub subject: String,
    /// Whole days until it expires; negative after that.
    pub days: i32,
}

/// The files of keys and certificates, each with the name of its parameter.
pub struct Pairs<'a> {
    /// Files of any number of keys, each with its chain. With them, `pairs` do not count.
    pub chains: (&'static str, &'a [String]),
    /// Certificate and key.
    pub pairs: [(&'static str, &'a str, &'static str, &'a str); 3],
}

/// Return the files of settings: `pairs!(settings, "smtpd")`.
macro_rules! pairs {
    ($settings:ident, $prefix:literal) => {
        $crate::identity::Pairs {
            chains: (concat!($prefix, "_tls_chain_files"), &$settings.chain_files),
            pairs: [
                (
                    concat!($prefix, "_tls_cert_file"),
                    &$settings.cert_file,
                    concat!($prefix, "_tls_key_file"),
                    &$settings.key_file,
                ),
                (
                    concat!($prefix, "_tls_eccert_file"),
                    &$settings.eccert_file,
                    concat!($prefix, "_tls_eckey_file"),
                    &$settings.eckey_file,
                ),
                (
                    concat!($prefix, "_tls_dcert_file"),
                    &$settings.dcert_file,
                    concat!($prefix, "_tls_dkey_file"),
                    &$settings.dkey_file,
                ),
            ],
        }
    };
}
pub(crate) use pairs;

/// Return the names of all files of keys and certificates of a server.
pub fn files(settings: &ServerTls) -> impl Iterator<Item = &Path> {
    let Pairs { chains: (_, chains), pairs } = pairs!(settings, "smtpd");
    let pairs = pairs.into_iter().flat_map(|(_, cert_file, _, key_file)| [cert_file, key_file]);
    let files = chains.iter().map(String::as_str).chain(pairs.filter(|_| chains.is_empty())).map(str::trim);
    files.filter(|file| !file.is_empty() && *file != NONE).map(Path::new)
}

/// Load all keys and certificates of a server; return when each chain expires.
pub fn load(context: &mut SslContextBuilder, settings: &ServerTls) -> Result<Vec<Expiry>, Problem> {
    let files = pairs!(settings, "smtpd");
    if settings.chain_files.is_empty() && files.pairs.iter().all(|(_, cert_file, ..)| cert_file.trim().is_empty()) {
        let text = "no certificate is set".to_owned();
        return Err(Problem::new("smtpd_tls_chain_files", text, "give the files of a key and its chain"));
    }
    load_files(context, &files)
}

/// Load keys and certificates; return when each chain expires.
pub fn load_files(context: &mut SslContextBuilder, files: &Pairs<'_>) -> Result<Vec<Expiry>, Problem> {
    let (name, chains) = files.chains;
    if !chains.is_empty() {
        let mut text = String::new();
        for file in chains {
            text.push_str(&read(name, file)?);
            text.push('\n');
        }
        return load_text(context, name, &text);
    }
    let mut expiries = Vec::new();
    for (cert_name, cert_file, key_name, key_file) in files.pairs {
        let (cert_file, key_file) = (cert_file.trim(), key_file.trim());
        if cert_file.is_empty() || cert_file == NONE {
            continue;
        }
        let chain = certificates(cert_name, &read(cert_name, cert_file)?)?;
        if chain.is_empty() {
            return Err(Problem::new(
                cert_name,
                format!("{cert_file} has no certificate"),
                "give a file in PEM format",
            ));
        }
        let key = private_key(&read(key_name, key_file)?);
        let key =
            key.map_err(|text| Problem::new(key_name, format!("{key_file}: {text}"), "give a key without a password"))?;
        expiries.push(set(context, cert_name, key_name, Identity { key, chain })?);
    }
    Ok(expiries)
}

/// Load the keys and certificates of a text; return when each chain expires. `name`: the parameter.
pub fn load_text(context: &mut SslContextBuilder, name: &'static str, text: &str) -> Result<Vec<Expiry>, Problem> {
    identities(name, text)?.into_iter().map(|identity| set(context, name, name, identity)).collect()
}

/// Set a key and its certificates; return when they expire. OpenSSL keeps one of each type of key.
fn set(
    context: &mut SslContextBuilder,
    cert: &'static str,
    key: &'static str,
    identity: Identity,
) -> Result<Expiry, Problem> {
    let Identity { key: private, chain } = identity;
    let (leaf, others) = chain.split_first().expect("a chain has a certificate");
    let refused = |errors: ErrorStack| {
        let reason = errors.errors().first().and_then(|error| error.reason()).unwrap_or("refused by OpenSSL");
        Problem::new(cert, format!("the certificate cannot be used: {reason}"), "give another certificate")
    };
    if !leaf.public_key().is_ok_and(|public| public.public_eq(&private)) {
        let text = "the key does not match the certificate".to_owned();
        return Err(Problem::new(key, text, "give the key that the certificate was made for"));
    }
    context.set_certificate(leaf).map_err(refused)?;
    context.set_private_key(&private).map_err(refused)?;
    others.iter().try_for_each(|other| ffi::add_chain_certificate(context, other)).map_err(refused)?;
    expiry(cert, &chain).map_err(refused)
}

fn expiry(parameter: &'static str, chain: &[X509]) -> Result<Expiry, ErrorStack> {
    let now = Asn1Time::days_from_now(0)?;
    let mut first: Option<Expiry> = None;
    for certificate in chain {
        let left = now.diff(certificate.not_after())?;
        // Both parts have the same sign.
        let days = if left.secs < 0 { left.days - 1 } else { left.days };
        if first.as_ref().is_none_or(|other| days < other.days) {
            let subject = facts::name(certificate.subject_name(), &[Nid::COMMONNAME, Nid::ORGANIZATIONNAME]);
            first = Some(Expiry { parameter, subject, days });
        }
    }
    Ok(first.expect("a chain has a certificate"))
}

/// Return the keys of a text, each with the certificates behind it.
fn identities(name: &'static str, text: &str) -> Result<Vec<Identity>, Problem> {
    let mut found: Vec<Identity> = Vec::new();
    for block in blocks(text) {
        let label = block.strip_prefix(BEGIN).and_then(|rest| rest.split("-----").next()).unwrap_or_default();
        if label.ends_with("PRIVATE KEY") {
            let key = private_key(block).map_err(|text| Problem::new(name, text, "give a key without a password"))?;
            found.push(Identity { key, chain: Vec::new() });
        } else if label.ends_with("CERTIFICATE") {
            let Some(identity) = found.last_mut() else {
                return Err(Problem::new(name, "a certificate stands before the first key", "put each key in front"));
            };
            identity.chain.extend(certificates(name, block)?);
        }
    }
    if found.is_empty() {
        return Err(Problem::new(name, "no key is in these files", "give files in PEM format: a key, then its chain"));
    }
    if found.iter().any(|identity| identity.chain.is_empty()) {
        return Err(Problem::new(name, "a key has no certificate behind it", "put its chain behind each key"));
    }
    Ok(found)
}

/// Return the blocks of a PEM text.
pub(crate) fn blocks(text: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([text.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| &text[start..end])
}

fn certificates(name: &'static str, text: &str) -> Result<Vec<X509>, Problem> {
    X509::stack_from_pem(text.as_bytes())
        .map_err(|_| Problem::new(name, "a certificate is malformed", "give a file in PEM format"))
}

fn private_key(text: &str) -> Result<PKey<Private>, String> {
    // Without a password OpenSSL would ask for one on the terminal.
    PKey::private_key_from_pem_callback(text.as_bytes(), |_| Ok(0)).map_err(|_| "no readable key".to_owned())
}

pub(crate) fn read(name: &'static str, path: &str) -> Result<String, Problem> {
    let problem = |text: String| Problem::new(name, format!("{path}: {text}"), "give a file that root can read");
    let facts = fs::metadata(path).map_err(|error| problem(error.to_string()))?;
    if !facts.is_file() || facts.len() > FILE_MAX_OCTETS {
        return Err(problem(format!("no file of at most {FILE_MAX_OCTETS} octets")));
    }
    let octets = fs::read(path).map_err(|error| problem(error.to_string()))?;
    Ok(String::from_utf8_lossy(&octets).into_owned())
}
