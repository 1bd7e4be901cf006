//! Authorities and certificates of a test.

use openssl::asn1::{Asn1Integer, Asn1Time};
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::rsa::Rsa;
use openssl::x509::extension::{BasicConstraints, ExtendedKeyUsage, SubjectAlternativeName};
use openssl::x509::{X509, X509Name, X509NameRef};
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

const DAY_S: i64 = 86_400;
/// From yesterday to tomorrow, in days from now.
pub const NOW: (i64, i64) = (-1, 1);
pub const OVER: (i64, i64) = (-3, -2);
pub const LATER: (i64, i64) = (2, 3);

/// Numbers of certificates and directories.
static NUMBER: AtomicU32 = AtomicU32::new(1);

/// A certificate, its key, and the certificates that its server sends behind it.
#[derive(Clone)]
pub struct Issued {
    pub certificate: X509,
    pub key: PKey<Private>,
    pub chain: Vec<X509>,
}

/// A certificate to make.
pub struct Request<'a> {
    pub name: &'a str,
    pub alternatives: &'a [&'a str],
    pub issuer: Option<&'a Issued>,
    pub days: (i64, i64),
    pub is_authority: bool,
    /// It is for clients only.
    pub of_client: bool,
    pub key: PKey<Private>,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self {
            name: "mx.example",
            alternatives: &["mx.example"],
            issuer: None,
            days: NOW,
            is_authority: false,
            of_client: false,
            key: ec_key(),
        }
    }
}

pub fn ec_key() -> PKey<Private> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap()
}

pub fn rsa_key() -> PKey<Private> {
    PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
}

/// Return an authority. Its chain has the intermediate authorities above a certificate that it issues.
pub fn authority(name: &str, issuer: Option<&Issued>) -> Issued {
    let mut made = issue(Request { name, alternatives: &[], issuer, is_authority: true, ..Request::default() });
    if issuer.is_some() {
        made.chain.insert(0, made.certificate.clone());
    }
    made
}

/// Return a certificate for `mx.example`.
pub fn server(issuer: &Issued) -> Issued {
    issue(Request { issuer: Some(issuer), ..Request::default() })
}

pub fn issue(request: Request<'_>) -> Issued {
    let subject = distinguished(request.name);
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(NUMBER.fetch_add(1, Ordering::Relaxed)).unwrap();
    builder.set_serial_number(&Asn1Integer::from_bn(&serial).unwrap()).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_pubkey(&request.key).unwrap();
    builder.set_not_before(&time(request.days.0)).unwrap();
    builder.set_not_after(&time(request.days.1)).unwrap();
    let mut constraints = BasicConstraints::new();
    if request.is_authority {
        constraints.critical().ca();
    }
    builder.append_extension(constraints.build().unwrap()).unwrap();
    if request.of_client {
        builder.append_extension(ExtendedKeyUsage::new().client_auth().build().unwrap()).unwrap();
    }
    let own: &X509NameRef = &subject;
    builder.set_issuer_name(request.issuer.map_or(own, |issuer| issuer.certificate.subject_name())).unwrap();
    if !request.alternatives.is_empty() {
        let mut alternatives = SubjectAlternativeName::new();
        for name in request.alternatives {
            match name.strip_prefix("IP:") {
                Some(address) => alternatives.ip(address),
                None => alternatives.dns(name),
            };
        }
        let context = builder.x509v3_context(None, None);
        let extension = alternatives.build(&context).unwrap();
        builder.append_extension(extension).unwrap();
    }
    let signer = request.issuer.map_or(&request.key, |issuer| &issuer.key);
    builder.sign(signer, MessageDigest::sha256()).unwrap();
    let chain = request.issuer.map(|issuer| issuer.chain.clone()).unwrap_or_default();
    Issued { certificate: builder.build(), key: request.key, chain }
}

fn distinguished(common_name: &str) -> X509Name {
    let mut builder = X509Name::builder().unwrap();
    builder.append_entry_by_text("CN", common_name).unwrap();
    builder.build()
}

fn time(days: i64) -> Asn1Time {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    Asn1Time::from_unix(i64::try_from(now).unwrap() + days * DAY_S).unwrap()
}

/// A directory of a test, which goes with it.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("postillion-tls-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Write a file; return its path.
    pub fn write(&self, name: &str, content: &[u8]) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Write a certificate without its key; return the path.
    pub fn certificate(&self, name: &str, issued: &Issued) -> String {
        self.write(name, &issued.certificate.to_pem().unwrap())
    }

    /// Write the key and the chain of a certificate; return the path.
    pub fn chain(&self, name: &str, issued: &Issued) -> String {
        let mut text = issued.key.private_key_to_pem_pkcs8().unwrap();
        for certificate in std::iter::once(&issued.certificate).chain(&issued.chain) {
            text.extend(certificate.to_pem().unwrap());
        }
        self.write(name, &text)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
