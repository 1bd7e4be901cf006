//! Names of certificates, and those that a policy wants.

use crate::certificates::{Request, authority, issue};
use crate::wire::{Server, Trusting, opinion};
use postillion_core::tls::ClientLevel;
use postillion_core::tls::client_settings::Wanted;

#[test]
fn a_name_matches_as_in_postfix() {
    let root = authority("CA", None);
    let trusting = Trusting::new(&root);
    let strict = Trusting::with(&root, |settings, _| settings.wide_wildcards = false);
    let rows: [(&str, &[&str], &str, bool, bool); 26] = [
        // common name, alternative names, wanted, matches, with tls_wildcard_matches_multiple_labels = no
        ("x", &["mx.example"], "mx.example", true, true),
        ("x", &["mx.example"], "MX.Example", true, true),
        ("x", &["MX.example"], "mx.example", true, true),
        ("x", &["a.example", "mx.example"], "mx.example", true, true),
        ("x", &["mx.example"], "x", false, false),
        ("mx.example", &["a.example"], "mx.example", false, false),
        ("mx.example", &[], "mx.example", true, true),
        ("mx.example", &["IP:192.0.2.1"], "mx.example", true, true),
        ("192.0.2.1", &["IP:192.0.2.1"], "mx.example", false, false),
        ("x", &["mx.example"], ".example", true, true),
        ("x", &["a.mx.example"], ".example", true, true),
        ("x", &["example"], ".example", false, false),
        ("x", &["mx.example"], ".mx.example", false, false),
        ("x", &["mxexample"], ".example", false, false),
        ("x", &["*.example.org"], "mx.example.org", true, true),
        ("x", &["*.example.org"], "a.mx.example.org", true, false),
        ("x", &["*.example.org"], "example.org", false, false),
        ("x", &["*.example.org"], ".example.org", true, true),
        ("x", &["*.example.org"], ".mx.example.org", false, false),
        ("x", &["*.example.org"], "*.example.org", true, true),
        ("x", &["m*.example.org"], "mx.example.org", false, false),
        ("x", &["*x.example.org"], "mx.example.org", false, false),
        ("x", &["mx.*.org"], "mx.example.org", false, false),
        ("*.example.org", &[], "mx.example.org", true, true),
        ("x", &["*.org"], "example.org", false, false),
        ("x", &["*"], "example", false, false),
    ];
    for (name, alternatives, wanted, matches, is_strict) in rows {
        let issued = issue(Request { name, alternatives, issuer: Some(&root), ..Request::default() });
        let server = Server::new(&issued);
        for (trusting, expected) in [(&trusting, matches), (&strict, is_strict)] {
            let names = vec!["no.example".into(), wanted.into()];
            let policy = trusting.wanting(Wanted { level: ClientLevel::Verify, names, ..Wanted::default() });
            let expected = if expected { "Verified+" } else { "Untrusted-" };
            assert_eq!(opinion(&trusting.facts(&policy, &server)), expected, "{name} {alternatives:?} {wanted}");
        }
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
