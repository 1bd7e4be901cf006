//! The result of a handshake, read from the library.

use crate::ffi::{self, Signer};
use crate::verify;
use openssl::ec::EcKey;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKeyRef, Public};
use openssl::ssl::{SslRef, SslVersion};
use openssl::x509::{X509NameRef, X509Ref, X509VerifyResult};
use postillion_core::tls::Facts;
use postillion_core::tls::facts::{Certificate, Strength};

/// Return what a server tells about a connection.
pub fn of(ssl: &SslRef) -> Facts {
    let mut facts = Facts { protocol: ssl.version_str().into(), ..Facts::default() };
    if let Some(cipher) = ssl.current_cipher() {
        let bits = cipher.bits();
        facts.cipher = cipher.name().into();
        facts.used_bits = u32::try_from(bits.secret).unwrap_or_default();
        facts.cipher_bits = u32::try_from(bits.algorithm).unwrap_or_default();
    }
    let peer = ssl.peer_certificate();
    facts.client = peer.as_deref().map(|certificate| Certificate {
        subject: name(certificate.subject_name(), &[Nid::COMMONNAME]),
        issuer: name(certificate.issuer_name(), &[Nid::COMMONNAME, Nid::ORGANIZATIONNAME]),
        trusted: ssl.verify_result() == X509VerifyResult::OK,
        distrust: verify::distrust(ssl),
    });
    if ssl.version2() == Some(SslVersion::TLS1_3) {
        facts.key_exchange = ssl.peer_tmp_key().ok().map(|key| exchange(&key));
        let digest =
            |signer| ffi::signature_digest(ssl, signer).and_then(|nid| nid.short_name().ok()).map(str::to_owned);
        facts.server_signature = ssl.certificate().and_then(|own| signature(ssl, Signer::Own, own));
        facts.server_digest = digest(Signer::Own);
        if let Some(certificate) = peer.as_deref() {
            facts.client_signature = signature(ssl, Signer::Peer, certificate);
            facts.client_digest = digest(Signer::Peer);
        }
    }
    facts
}

fn exchange(key: &PKeyRef<Public>) -> Strength {
    match key.id() {
        Id::EC => Strength { name: "ECDHE".into(), curve: curve(key).map(of_nist), bits: None },
        Id::DH => Strength { name: "DHE".into(), curve: None, bits: Some(key.bits()) },
        id => Strength { name: short_name(Nid::from_raw(id.as_raw())), ..Strength::default() },
    }
}

fn signature(ssl: &SslRef, signer: Signer, certificate: &X509Ref) -> Option<Strength> {
    let nid = ffi::signature_type(ssl, signer)?;
    let key = certificate.public_key().ok()?;
    Some(match nid {
        Nid::RSAENCRYPTION => Strength { name: "RSA".into(), curve: None, bits: Some(key.bits()) },
        Nid::RSASSAPSS => Strength { name: "RSA-PSS".into(), curve: None, bits: Some(key.bits()) },
        Nid::X9_62_ID_ECPUBLICKEY => Strength { name: "ECDSA".into(), curve: curve(&key).map(short_name), bits: None },
        nid => Strength { name: short_name(nid), ..Strength::default() },
    })
}

fn curve(key: &PKeyRef<Public>) -> Option<Nid> {
    key.ec_key().ok().as_ref().and_then(|key: &EcKey<Public>| key.group().curve_name())
}

/// Return NIST's name of a curve, if it has one.
fn of_nist(curve: Nid) -> String {
    match curve {
        Nid::X9_62_PRIME256V1 => "P-256".into(),
        Nid::SECP384R1 => "P-384".into(),
        Nid::SECP521R1 => "P-521".into(),
        nid => short_name(nid),
    }
}

fn short_name(nid: Nid) -> String {
    nid.short_name().unwrap_or("unknown").to_owned()
}

/// Return the first entry of the first kind that a name has; an empty text without any, or with control characters.
fn name(name: &X509NameRef, kinds: &[Nid]) -> String {
    let entries = kinds.iter().find_map(|kind| name.entries_by_nid(*kind).next());
    let text = entries.and_then(|entry| entry.data().to_string().ok());
    text.filter(|text| !text.contains(char::is_control)).unwrap_or_default()
}
