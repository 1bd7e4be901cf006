//! Names of certificates, and those that a policy wants.

use crate::certificates::{Request, authority, issue};
use crate::wire::{Server, Trusting, opinion};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;

#[test]
fn a_name_matches_as_in_postfix() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let rows: [(&str, &[&str], &str, bool); 26] = [
        // common name, alternative names, wanted, matches
        ("x", &["mx.example"], "mx.example", true),
        ("x", &["mx.example"], "MX.Example", true),
        ("x", &["MX.example"], "mx.example", true),
        ("x", &["a.example", "mx.example"], "mx.example", true),
        ("x", &["mx.example"], "x", false),
        ("mx.example", &["a.example"], "mx.example", false),
        ("mx.example", &[], "mx.example", true),
        ("mx.example", &["IP:192.0.2.1"], "mx.example", true),
        ("192.0.2.1", &["IP:192.0.2.1"], "mx.example", false),
        ("x", &["mx.example"], ".example", true),
        ("x", &["a.mx.example"], ".example", true),
        ("x", &["example"], ".example", false),
        ("x", &["mx.example"], ".mx.example", false),
        ("x", &["mxexample"], ".example", false),
        ("x", &["*.example.org"], "mx.example.org", true),
        ("x", &["*.example.org"], "a.mx.example.org", false),
        ("x", &["*.example.org"], "example.org", false),
        ("x", &["*.example.org"], ".example.org", true),
        ("x", &["*.example.org"], ".mx.example.org", false),
        ("x", &["*.example.org"], "*.example.org", true),
        ("x", &["m*.example.org"], "mx.example.org", false),
        ("x", &["*x.example.org"], "mx.example.org", false),
        ("x", &["mx.*.org"], "mx.example.org", false),
        ("*.example.org", &[], "mx.example.org", true),
        ("x", &["*.org"], "example.org", false),
        ("x", &["*"], "example", false),
    ];
    for (name, alternatives, wanted, matches) in rows {
        let issued = issue(Request { name, alternatives, issuer: Some(&root), ..Request::default() });
        let server = Server::new(&issued);
        let names = vec!["no.example".into(), wanted.into()];
        let policy = trusting.wanting(Wanted { level: ClientLevel::Verify, names, ..Wanted::default() });
        let expected = if matches { "Verified+" } else { "Untrusted-" };
        assert_eq!(opinion(&trusting.facts(&policy, &server)), expected, "{name} {alternatives:?} {wanted}");
    }
}

#[test]
fn the_client_asks_for_the_server_by_its_name() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let server = Server::new(&crate::certificates::server(&root));
    for (servername, expected) in [(None, None), (Some("MX.example"), Some("mx.example"))] {
        let policy = trusting.wanting(Wanted { level: ClientLevel::May, servername, ..Wanted::default() });
        let meeting = crate::wire::meet(&trusting.client, &policy, &server);
        assert_eq!(meeting.servername.as_deref(), expected);
    }
}
