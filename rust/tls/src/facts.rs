//! The result of a handshake, read from the library.

use crate::ffi::{self, Signer};
use crate::{trust, verify};
use openssl::ec::EcKey;
use openssl::hash::{MessageDigest, hash};
use openssl::nid::Nid;
use openssl::pkey::{Id, PKeyRef, Public};
use openssl::ssl::{SslRef, SslVersion};
use openssl::x509::{X509NameRef, X509Ref, X509VerifyResult};
use postillion_core::tls::Facts;
use postillion_core::tls::facts::{Certificate, Fingerprints, Strength};

/// Return what either side tells about a connection.
pub fn of(ssl: &SslRef) -> Facts {
    let mut facts = Facts { protocol: ssl.version_str().into(), ..Facts::default() };
    if let Some(cipher) = ssl.current_cipher() {
        let bits = cipher.bits();
        facts.cipher = cipher.name().into();
        facts.used_bits = u32::try_from(bits.secret).unwrap_or_default();
        facts.cipher_bits = u32::try_from(bits.algorithm).unwrap_or_default();
    }
    let has_keys = ssl.version2() == Some(SslVersion::TLS1_3);
    if has_keys {
        facts.key_exchange = ssl.peer_tmp_key().ok().map(|key| exchange(&key, ssl.is_server()));
    }
    let (own, peer) = (ssl.certificate(), ssl.peer_certificate());
    facts.resumed = ssl.session_reused();
    if ssl.is_server() {
        add_client(&mut facts, ssl, peer.as_deref());
    } else {
        facts.server = peer.as_deref().map(|certificate| trust::of(ssl, certificate));
    }
    if has_keys {
        let signed_by = |signer, certificate: Option<&X509Ref>| {
            (certificate.and_then(|certificate| signature(ssl, signer, certificate)), digest(ssl, signer))
        };
        let key = peer.as_deref().and_then(|certificate| certificate.public_key().ok());
        let (own, mut peer) = (signed_by(Signer::Own, own), signed_by(Signer::Peer, peer.as_deref()));
        if facts.resumed && !ssl.is_server() {
            // Nothing was signed this time. As Postfix does, name the signature that belongs to the key.
            peer.0 = key.as_deref().map(usual_signature);
        }
        let (server, client) = if ssl.is_server() { (own, peer) } else { (peer, own) };
        (facts.server_signature, facts.server_digest) = server;
        (facts.client_signature, facts.client_digest) = client;
    }
    facts
}

fn add_client(facts: &mut Facts, ssl: &SslRef, peer: Option<&X509Ref>) {
    facts.client = peer.map(|certificate| Certificate {
        subject: subject(certificate),
        issuer: issuer(certificate),
        trusted: ssl.verify_result() == X509VerifyResult::OK,
        distrust: verify::distrust(ssl),
    });
}

/// Return the common name of a certificate.
pub fn subject(certificate: &X509Ref) -> String {
    name(certificate.subject_name(), &[Nid::COMMONNAME])
}

/// Return the common name or the organisation of the issuer.
pub fn issuer(certificate: &X509Ref) -> String {
    name(certificate.issuer_name(), &[Nid::COMMONNAME, Nid::ORGANIZATIONNAME])
}

/// Return the digests of a certificate and of its public key.
pub fn fingerprints(certificate: &X509Ref, digest: MessageDigest) -> Option<Fingerprints> {
    let key = certificate.public_key().ok()?.public_key_to_der().ok()?;
    Some(Fingerprints {
        certificate: in_pairs(&certificate.digest(digest).ok()?),
        public_key: in_pairs(&hash(digest, &key).ok()?),
    })
}

/// Return octets as `D4:6A:AB`.
fn in_pairs(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02X}")).collect::<Vec<_>>().join(":")
}

fn digest(ssl: &SslRef, signer: Signer) -> Option<String> {
    ffi::signature_digest(ssl, signer).and_then(|nid| nid.short_name().ok()).map(str::to_owned)
}

/// Return a key exchange. As in Postfix, a server has NIST's names of curves and a client those of OpenSSL.
fn exchange(key: &PKeyRef<Public>, is_server: bool) -> Strength {
    let name = if is_server { of_nist } else { short_name };
    match key.id() {
        Id::EC => Strength { name: "ECDHE".into(), curve: curve(key).map(name), bits: None },
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

/// Return the signature of TLS 1.3 that belongs to a key.
fn usual_signature(key: &PKeyRef<Public>) -> Strength {
    match key.id() {
        Id::RSA | Id::RSA_PSS => Strength { name: "RSA-PSS".into(), curve: None, bits: Some(key.bits()) },
        Id::EC => Strength { name: "ECDSA".into(), curve: curve(key).map(short_name), bits: None },
        id => Strength { name: short_name(Nid::from_raw(id.as_raw())), ..Strength::default() },
    }
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
pub fn name(name: &X509NameRef, kinds: &[Nid]) -> String {
    let entries = kinds.iter().find_map(|kind| name.entries_by_nid(*kind).next());
    let text = entries.and_then(|entry| entry.data().to_string().ok());
    text.filter(|text| !text.contains(char::is_control)).unwrap_or_default()
}
