//! Log lines of Postfix 3.7 with OpenSSL 3.0, recorded with `posttls-finger` and smtp(8) against servers with such
//! certificates.

use crate::certificates::{Issued, LATER, OVER, Request, authority, issue, rsa_key, server};
use crate::wire::{Server, Trusting, opinion};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;

const PEER: &str = "mx.example[192.0.2.1]:25";

/// Certificates of servers, by what is special about them.
struct Servers {
    root: Issued,
    other: Issued,
    good: Issued,
    rsa: Issued,
    below: Issued,
    deep: Issued,
    deeper: Issued,
    expired: Issued,
    early: Issued,
    client: Issued,
    alone: Issued,
}

impl Servers {
    fn new() -> Self {
        let (root, other) = (authority("CA", None), authority("Other", None));
        let first = authority("Inter", Some(&root));
        let second = authority("Inter2", Some(&first));
        let third = authority("Inter3", Some(&second));
        let of_root = |days| issue(Request { issuer: Some(&root), days, ..Request::default() });
        Self {
            good: server(&root),
            rsa: issue(Request { issuer: Some(&root), key: rsa_key(), ..Request::default() }),
            below: server(&first),
            deep: server(&second),
            deeper: server(&third),
            expired: of_root(OVER),
            early: of_root(LATER),
            client: issue(Request { issuer: Some(&root), of_client: true, ..Request::default() }),
            alone: issue(Request::default()),
            root,
            other,
        }
    }
}

#[test]
fn lines_about_certificates_are_those_of_postfix() {
    let servers = Servers::new();
    let without_chain = Issued { chain: Vec::new(), ..servers.below.clone() };
    let of_other = server(&servers.other);
    let with_root = Issued { chain: vec![servers.other.certificate.clone()], ..of_other.clone() };
    let trusting = Trusting::new(&servers.root);
    let rows: [(&str, &Issued, &str, &str, &str); 11] = [
        // the server, at may, at secure, and the line behind it
        ("good", &servers.good, "Trusted-", "Verified+", ""),
        ("with a chain", &servers.below, "Trusted-", "Verified+", ""),
        ("without its chain", &without_chain, "Untrusted-", "Untrusted-", "|untrusted issuer /CN=Inter"),
        ("another authority", &of_other, "Untrusted-", "Untrusted-", "|untrusted issuer /CN=Other"),
        ("and its root", &with_root, "Untrusted-", "Untrusted-", "|untrusted issuer /CN=Other"),
        ("expired", &servers.expired, "Untrusted-", "Untrusted-", "server |certificate has expired"),
        ("early", &servers.early, "Untrusted-", "Untrusted-", "server |certificate not yet valid"),
        ("of a client", &servers.client, "Untrusted-", "Untrusted-", "|not designated for use as a server certificate"),
        ("self-signed", &servers.alone, "Untrusted-", "Untrusted-", "|self-signed certificate"),
        ("two authorities", &servers.deep, "Trusted-", "Verified+", ""),
        ("three authorities", &servers.deeper, "Trusted-", "Verified+", ""),
    ];
    for (case, issued, at_may, at_secure, line) in rows {
        let server = Server::new(issued);
        let facts = trusting.facts(&trusting.policy(ClientLevel::May), &server);
        assert_eq!((opinion(&facts).as_str(), facts.distrust_of(PEER)), (at_may, None), "{case}");
        let facts = trusting.facts(&trusting.policy(ClientLevel::Encrypt), &server);
        assert_eq!((opinion(&facts).as_str(), facts.distrust_of(PEER)), (at_may, None), "{case}");
        let facts = trusting.facts(&trusting.policy(ClientLevel::Secure), &server);
        assert_eq!(opinion(&facts), at_secure, "{case}");
        let line = line.replace('|', &format!("certificate verification failed for {PEER}: "));
        assert_eq!(facts.distrust_of(PEER).unwrap_or_default(), line, "{case}");
    }
}

#[test]
fn a_wrong_name_is_worse_than_a_wrong_date() {
    let servers = Servers::new();
    let trusting = Trusting::new(&servers.root);
    let wanted = Wanted { level: ClientLevel::Verify, names: vec!["other.example".into()], ..Wanted::default() };
    let policy = trusting.wanting(wanted);
    for issued in [&servers.good, &servers.expired] {
        let facts = trusting.facts(&policy, &Server::new(issued));
        let line = format!("server certificate verification failed for {PEER}: num=62:hostname mismatch");
        assert_eq!((opinion(&facts), facts.distrust_of(PEER)), ("Untrusted-".into(), Some(line)));
    }
}

#[test]
fn an_authority_without_its_root_is_no_trust_anchor() {
    let root = authority("CA", None);
    let below = authority("Inter", Some(&root));
    let trusting = Trusting::new(&below);
    let facts = trusting.facts(&trusting.policy(ClientLevel::Secure), &Server::new(&server(&below)));
    let line = format!("CA certificate verification failed for {PEER}: num=2:unable to get issuer certificate");
    assert_eq!((opinion(&facts), facts.distrust_of(PEER)), ("Untrusted-".into(), Some(line)));
}

#[test]
fn a_long_chain_is_not_trusted() {
    let servers = Servers::new();
    let rows = [
        // smtp_tls_scert_verifydepth, the server, the limit in the line
        (0, &servers.good, None),
        (0, &servers.below, None),
        (0, &servers.deep, Some(1)),
        (0, &servers.deeper, Some(1)),
        (1, &servers.deep, None),
        (1, &servers.deeper, Some(2)),
        (2, &servers.deeper, None),
    ];
    for (depth, issued, limit) in rows {
        let trusting = Trusting::with(&servers.root, |settings, _| settings.scert_verifydepth = depth);
        let facts = trusting.facts(&trusting.policy(ClientLevel::Secure), &Server::new(issued));
        let line = limit.map(|limit| {
            format!("certificate verification failed for {PEER}: certificate chain longer than limit({limit})")
        });
        assert_eq!((facts.distrust_of(PEER), facts.matched()), (line, limit.is_none()), "{depth}");
    }
}

#[test]
fn log_level_2_says_why_a_certificate_is_not_trusted_where_nobody_needs_it() {
    let servers = Servers::new();
    let trusting = Trusting::with(&servers.root, |settings, _| settings.loglevel.0 = 2);
    let facts = trusting.facts(&trusting.policy(ClientLevel::May), &Server::new(&servers.alone));
    let line = format!("certificate verification failed for {PEER}: self-signed certificate");
    assert_eq!(facts.distrust_of(PEER), Some(line));
    let facts = trusting.facts(&trusting.policy(ClientLevel::May), &Server::new(&servers.good));
    assert_eq!(facts.distrust_of(PEER), None);
}

#[test]
fn the_line_of_a_connection_has_keys_and_signatures() {
    let servers = Servers::new();
    let chain = |settings: &mut postillion_core::tls::client_settings::ClientTls, directory: &_| {
        let directory: &crate::certificates::Directory = directory;
        settings.chain_files = vec![directory.chain("client.pem", &servers.client)];
    };
    let with_certificate = Trusting::with(&servers.root, chain);
    let without = Trusting::new(&servers.root);
    let start = format!(
        "Verified TLS connection established to {PEER}: TLSv1.3 with cipher TLS_AES_256_GCM_SHA384 (256/256 bits) \
         key-exchange X25519"
    );
    let ecdsa = "server-signature ECDSA (prime256v1) server-digest SHA256";
    let rsa = "server-signature RSA-PSS (2048 bits) server-digest SHA256";
    let own = "client-signature ECDSA (prime256v1) client-digest SHA256";
    let rows = [
        (&without, Server::new(&servers.good), format!("{start} {ecdsa}")),
        (&without, Server::new(&servers.rsa), format!("{start} {rsa}")),
        (&without, Server::asking(&servers.rsa), format!("{start} {rsa}")),
        (&with_certificate, Server::new(&servers.rsa), format!("{start} {rsa}")),
        (&with_certificate, Server::asking(&servers.rsa), format!("{start} {rsa} {own}")),
    ];
    for (trusting, server, line) in rows {
        let facts = trusting.facts(&trusting.policy(ClientLevel::Secure), &server);
        assert_eq!(facts.established_to(PEER), line);
        let certificate = facts.server.unwrap();
        assert_eq!((&*certificate.subject, &*certificate.issuer), ("mx.example", "CA"));
    }
}
