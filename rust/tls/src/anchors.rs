//! Trust anchors of a site: certificates and public keys in files, as TLSA records with all of their octets.
//!
//! Each is two records: an anchor may be an authority, or the server's own certificate.

use crate::identity::{BEGIN, blocks};
use openssl::pkey::PKey;
use openssl::x509::X509;
use postillion_core::tls::dane::{CERTIFICATE, END_ENTITY, FULL, PUBLIC_KEY, TRUST_ANCHOR, Tlsa};

/// Maximum number of trust anchors in a text.
const ANCHORS_MAX: usize = 1000;

/// Return the trust anchors of a text in PEM format. Errors: what is wrong with it.
pub fn parse(text: &str) -> Result<Vec<Tlsa>, String> {
    let mut anchors = Vec::new();
    for block in blocks(text) {
        let label = block.strip_prefix(BEGIN).and_then(|rest| rest.split("-----").next()).unwrap_or_default();
        let (selector, data) = match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => {
                let certificate = X509::from_pem(block.as_bytes());
                (CERTIFICATE, certificate.and_then(|certificate| certificate.to_der()))
            }
            "PUBLIC KEY" => {
                let key = PKey::public_key_from_pem(block.as_bytes());
                (PUBLIC_KEY, key.and_then(|key| key.public_key_to_der()))
            }
            _ => return Err(format!("\"{}\" is neither a certificate nor a public key", label.escape_debug())),
        };
        let data = data.map_err(|_| "a certificate or public key is malformed".to_owned())?;
        let of = |usage| Tlsa { usage, selector, matching: FULL, data: data.clone() };
        anchors.extend([of(END_ENTITY), of(TRUST_ANCHOR)]);
        if anchors.len() > 2 * ANCHORS_MAX {
            return Err(format!("more than {ANCHORS_MAX} trust anchors"));
        }
    }
    if anchors.is_empty() { Err("no certificate or public key is there".into()) } else { Ok(anchors) }
}
