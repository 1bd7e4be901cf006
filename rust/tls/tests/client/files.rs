//! Files and values of main.cf that a client cannot use.

use crate::certificates::{Directory, authority, server};
use postillion_core::tls::client_settings::ClientTls;
use postillion_tls::client::{Client, Prefix};

#[test]
fn a_problem_names_its_parameter() {
    let directory = Directory::new();
    let root = authority("CA", None);
    let (first, second) = (server(&root), server(&root));
    let chain = directory.chain("chain.pem", &first);
    let certificate = directory.certificate("certificate.pem", &first);
    let key = directory.write("key.pem", &second.key.private_key_to_pem_pkcs8().unwrap());
    let missing = String::from("/missing");
    let with = |change: &dyn Fn(&mut ClientTls)| {
        let mut settings = ClientTls::default();
        change(&mut settings);
        settings
    };
    let rows = [
        ("_tls_cert_file", with(&|s| s.cert_file = missing.clone())),
        ("_tls_key_file", with(&|s| (s.cert_file, s.key_file) = (certificate.clone(), missing.clone()))),
        ("_tls_key_file", with(&|s| (s.cert_file, s.key_file) = (certificate.clone(), key.clone()))),
        ("_tls_eckey_file", with(&|s| (s.eccert_file, s.eckey_file) = (certificate.clone(), certificate.clone()))),
        ("_tls_dcert_file", with(&|s| s.dcert_file = "/".into())),
        ("_tls_chain_files", with(&|s| s.chain_files = vec![chain.clone(), missing.clone()])),
        ("_tls_chain_files", with(&|s| s.chain_files = vec![certificate.clone()])),
        ("_tls_CAfile", with(&|s| s.ca_file = missing.clone())),
        ("_tls_CAfile", with(&|s| s.ca_file = key.clone())),
        ("_tls_trust_anchor_file", with(&|s| s.trust_anchor_files = vec![missing.clone()])),
        ("_tls_trust_anchor_file", with(&|s| s.trust_anchor_files = vec![key.clone()])),
        ("_tls_fingerprint_digest", with(&|s| s.fingerprint_digest = "sha257".into())),
    ];
    for (suffix, settings) in rows {
        for (prefix, name) in [(Prefix::Smtp, "smtp"), (Prefix::Lmtp, "lmtp")] {
            let problem = Client::new(settings.clone(), prefix).unwrap_err();
            assert_eq!(problem.parameter, format!("{name}{suffix}"), "{problem:?}");
        }
    }
    let good = [
        with(&|s| s.chain_files = vec![chain.clone()]),
        with(&|s| (s.cert_file, s.key_file) = (certificate.clone(), chain.clone())),
        with(&|s| s.ca_file = certificate.clone()),
        with(&|s| s.append_default_ca = true),
        with(&|_| ()),
    ];
    for settings in good {
        assert_eq!(Client::new(settings, Prefix::Smtp).unwrap().warnings, [""; 0]);
    }
    let client = Client::new(with(&|s| s.eecdh_auto_curves = "X25519 nocurve ?other".into()), Prefix::Smtp).unwrap();
    assert_eq!(client.warnings, ["tls_eecdh_auto_curves: OpenSSL does not have \"nocurve\": it is left out"]);
}
