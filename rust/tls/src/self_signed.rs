//! A certificate that nobody else has signed, for servers of measurements and tests.

use openssl::asn1::Asn1Time;
use openssl::bn::{BigNum, MsbOption};
use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::pkey::PKey;
use openssl::rsa::Rsa;
use openssl::x509::extension::SubjectAlternativeName;
use openssl::x509::{X509, X509Name};

/// Bits of the key: as many as most servers of mail have.
const KEY_BITS: u32 = 2048;
/// Version 3 (RFC 5280 §4.1.2.1).
const VERSION_3: i32 = 2;
/// At most 20 octets, and positive (RFC 5280 §4.1.2.2).
const SERIAL_BITS: i32 = 159;
const DAYS: u32 = 30;

/// Return a new RSA key and its certificate for the host `name`, in PEM format.
pub fn self_signed(name: &str) -> Result<Vec<u8>, ErrorStack> {
    let key = PKey::from_rsa(Rsa::generate(KEY_BITS)?)?;
    let mut serial = BigNum::new()?;
    serial.rand(SERIAL_BITS, MsbOption::MAYBE_ZERO, false)?;
    let serial = serial.to_asn1_integer()?;
    let mut subject = X509Name::builder()?;
    subject.append_entry_by_text("CN", name)?;
    let subject = subject.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(VERSION_3)?;
    certificate.set_serial_number(&serial)?;
    certificate.set_subject_name(&subject)?;
    certificate.set_issuer_name(&subject)?;
    let (from, to) = (Asn1Time::days_from_now(0)?, Asn1Time::days_from_now(DAYS)?);
    certificate.set_not_before(&from)?;
    certificate.set_not_after(&to)?;
    certificate.set_pubkey(&key)?;
    let names = SubjectAlternativeName::new().dns(name).build(&certificate.x509v3_context(None, None))?;
    certificate.append_extension(names)?;
    certificate.sign(&key, MessageDigest::sha256())?;
    let mut pem = key.private_key_to_pem_pkcs8()?;
    pem.extend(certificate.build().to_pem()?);
    Ok(pem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_fits_its_certificate() {
        let pem = self_signed("sink.example").unwrap();
        let (key, certificate) = (PKey::private_key_from_pem(&pem).unwrap(), X509::from_pem(&pem).unwrap());
        assert!(certificate.verify(&key).unwrap());
        assert_eq!(key.bits(), KEY_BITS);
        let names = certificate.subject_alt_names().unwrap();
        assert_eq!(names.iter().filter_map(|name| name.dnsname()).collect::<Vec<_>>(), ["sink.example"]);
        assert!(self_signed(&"x".repeat(1000)).is_err(), "a common name has at most 64 characters");
    }
}
