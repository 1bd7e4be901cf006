//! The commands of one mail transaction (RFC 5321 §3.3, §4.1.1.2-4): MAIL, RCPT for each recipient, DATA.
//!
//! No argument can end its line early. An address with a control character, or a domain with a character that ends a
//! path, is an error. A parameter that is no `esmtp-value` is left out.

use super::capability::Capabilities;
use super::requiretls::Mark;
use crate::mail::envelope::{BodyType, Envelope, Notify, Recipient, Ret};
use crate::mail::xtext::{ascii_only, uxtext, xtext};
use std::borrow::Cow;

/// Maximum octets of an address in a command. Servers refuse much shorter ones (RFC 5321 §4.5.3.1.3).
pub const ADDRESS_MAX_OCTETS: usize = 1024;
/// Maximum octets of a parameter value.
pub const PARAMETER_MAX_OCTETS: usize = 500;

/// An address that cannot be written as a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadAddress;

/// Append `MAIL FROM:<...>` with the parameters that the server offers (RFC 5321 §4.1.1.2, RFC 1870, 3461, 6152, 6531,
/// 8689). `dummy_auth`: with AUTH=<>, nobody vouches for the sender (RFC 4954 §5).
pub fn push_mail(
    envelope: &Envelope,
    offered: &Capabilities,
    mark: Mark,
    dummy_auth: bool,
    out: &mut Vec<u8>,
) -> Result<(), BadAddress> {
    let path = path(&envelope.sender)?;
    out.extend_from_slice(b"MAIL FROM:<");
    out.extend_from_slice(path.as_bytes());
    out.push(b'>');
    if offered.size {
        out.extend_from_slice(format!(" SIZE={}", envelope.size_octets).as_bytes());
    }
    if offered.eight_bit_mime {
        out.extend_from_slice(match envelope.body {
            BodyType::Unsaid => b"",
            BodyType::SevenBit => b" BODY=7BIT",
            BodyType::EightBitMime => b" BODY=8BITMIME",
        });
    }
    if offered.dsn {
        if let Some(envid) = envelope.envid.as_deref().filter(|value| is_value(value)) {
            push_parameter(" ENVID=", envid, out);
        }
        out.extend_from_slice(match envelope.ret {
            _ if mark == Mark::HeadersOnly => b" RET=HDRS",
            Ret::Unsaid => b"",
            Ret::Full => b" RET=FULL",
            Ret::Hdrs => b" RET=HDRS",
        });
    }
    if offered.smtputf8 && envelope.smtputf8 {
        out.extend_from_slice(b" SMTPUTF8");
    }
    if mark == Mark::Required {
        out.extend_from_slice(b" REQUIRETLS");
    }
    if dummy_auth {
        out.extend_from_slice(b" AUTH=<>");
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Append `RCPT TO:<...>` with the parameters that the server offers (RFC 5321 §4.1.1.3, RFC 3461 §4.1, §4.2).
/// `smtputf8`: the sender asked for it, so an original recipient may have the type utf-8 (RFC 6533 §3).
pub fn push_rcpt(
    recipient: &Recipient,
    offered: &Capabilities,
    smtputf8: bool,
    out: &mut Vec<u8>,
) -> Result<(), BadAddress> {
    let path = path(&recipient.address)?;
    if path.is_empty() {
        return Err(BadAddress);
    }
    out.extend_from_slice(b"RCPT TO:<");
    out.extend_from_slice(path.as_bytes());
    out.push(b'>');
    if offered.dsn {
        push_orcpt(recipient, smtputf8, out);
        push_notify(recipient.notify, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Append ORCPT= as received, in ASCII. Without one, append the address before any mapping, so that a later report names
/// the recipient that the sender used.
fn push_orcpt(recipient: &Recipient, smtputf8: bool, out: &mut Vec<u8>) {
    let value = match recipient.orcpt.as_deref() {
        Some(orcpt) => ascii_only(orcpt),
        None => {
            let original = recipient.original.as_deref().unwrap_or(&recipient.address);
            if smtputf8 && !original.is_ascii() {
                Cow::Owned(format!("utf-8;{}", uxtext(original)))
            } else {
                Cow::Owned(format!("rfc822;{}", xtext(original)))
            }
        }
    };
    if is_value(&value) {
        push_parameter(" ORCPT=", &value, out);
    }
}

fn push_notify(notify: Notify, out: &mut Vec<u8>) {
    let names = [
        (Notify::NEVER, "NEVER"),
        (Notify::SUCCESS, "SUCCESS"),
        (Notify::FAILURE, "FAILURE"),
        (Notify::DELAY, "DELAY"),
    ];
    let said: Vec<_> = names.iter().filter(|(bit, _)| notify.0 & bit != 0).map(|(_, name)| *name).collect();
    // NEVER excludes the others (RFC 3461 §4.1).
    match said.first() {
        None => {}
        Some(&"NEVER") => push_parameter(" NOTIFY=", "NEVER", out),
        Some(_) => push_parameter(" NOTIFY=", &said.join(","), out),
    }
}

fn push_parameter(name: &str, value: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(value.as_bytes());
}

/// Return whether `value` is an `esmtp-value` (RFC 5321 §4.1.2): printable ASCII without blanks. As in Postfix, `=` is
/// valid.
fn is_value(value: &str) -> bool {
    !value.is_empty() && value.len() <= PARAMETER_MAX_OCTETS && value.bytes().all(|b| (b'!'..=b'~').contains(&b))
}

/// Return the address for angle brackets: a local part that is no dot-string is quoted (RFC 5321 §4.1.2).
pub fn path(address: &str) -> Result<Cow<'_, str>, BadAddress> {
    if address.len() > ADDRESS_MAX_OCTETS || address.chars().any(char::is_control) {
        return Err(BadAddress);
    }
    let (local, domain) = match address.rfind('@') {
        Some(at) => address.split_at(at),
        None => (address, ""),
    };
    if domain.bytes().any(|b| b" <>(),;\\\"".contains(&b)) {
        return Err(BadAddress);
    }
    if address.is_empty() || is_dot_string(local) || is_quoted_string(local) {
        return Ok(Cow::Borrowed(address));
    }
    let mut quoted = String::with_capacity(address.len() + 2);
    quoted.push('"');
    for c in local.chars() {
        if c == '"' || c == '\\' {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted.push_str(domain);
    Ok(Cow::Owned(quoted))
}

fn is_dot_string(local: &str) -> bool {
    let atom = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&b) || !b.is_ascii();
    !local.is_empty() && local.split('.').all(|part| !part.is_empty() && part.bytes().all(atom))
}

fn is_quoted_string(local: &str) -> bool {
    let Some(inside) = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for c in inside.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped && local.len() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::smtp::client::tests::envelope;

    #[test]
    fn addresses_become_paths_or_are_refused() {
        for (address, expected) in [
            ("", Ok("")),
            ("a.b@example.org", Ok("a.b@example.org")),
            ("postmaster", Ok("postmaster")),
            ("grüße@example.org", Ok("grüße@example.org")),
            ("a@[192.0.2.1]", Ok("a@[192.0.2.1]")),
            ("a@[IPv6:2001:db8::1]", Ok("a@[IPv6:2001:db8::1]")),
            ("john doe@example.org", Ok("\"john doe\"@example.org")),
            ("a@b@example.org", Ok("\"a@b\"@example.org")),
            ("a..b@example.org", Ok("\"a..b\"@example.org")),
            ("a\"b\\c@example.org", Ok("\"a\\\"b\\\\c\"@example.org")),
            ("\"john doe\"@example.org", Ok("\"john doe\"@example.org")),
            ("\"@example.org", Ok("\"\\\"\"@example.org")),
            ("\"a\\\"@example.org", Ok("\"\\\"a\\\\\\\"\"@example.org")),
            ("a>b@example.org", Ok("\"a>b\"@example.org")),
            ("@example.org", Ok("\"\"@example.org")),
            ("a\r\nRCPT TO:<x>@example.org", Err(BadAddress)),
            ("a\n@example.org", Err(BadAddress)),
            ("a\0@example.org", Err(BadAddress)),
            ("a@example.org\r", Err(BadAddress)),
            ("a@example.org> SIZE=1", Err(BadAddress)),
        ] {
            assert_eq!(path(address), expected.map(Cow::from), "{address:?}");
        }
        assert_eq!(path(&"x".repeat(ADDRESS_MAX_OCTETS + 1)), Err(BadAddress));
    }

    #[test]
    fn parameters_are_sent_to_servers_that_offer_them() {
        let mut envelope = envelope();
        envelope.body = BodyType::EightBitMime;
        envelope.smtputf8 = true;
        envelope.ret = Ret::Hdrs;
        envelope.envid = Some("q+2B1".into());
        let mut recipient = Recipient::plain("a+b@example.org");
        recipient.notify = Notify(Notify::FAILURE | Notify::SUCCESS);
        let all = Capabilities {
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            size: true,
            size_limit: None,
            ..Capabilities::default()
        };
        for (offered, mail, rcpt) in [
            (Capabilities::default(), "MAIL FROM:<s@example.org>\r\n", "RCPT TO:<a+b@example.org>\r\n"),
            (
                all,
                "MAIL FROM:<s@example.org> SIZE=5 BODY=8BITMIME ENVID=q+2B1 RET=HDRS SMTPUTF8\r\n",
                "RCPT TO:<a+b@example.org> ORCPT=rfc822;a+2Bb@example.org NOTIFY=SUCCESS,FAILURE\r\n",
            ),
        ] {
            let mut out = Vec::new();
            push_mail(&envelope, &offered, Mark::None, false, &mut out).unwrap();
            assert_eq!(String::from_utf8(std::mem::take(&mut out)).unwrap(), mail);
            push_rcpt(&recipient, &offered, false, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), rcpt);
        }
    }

    #[test]
    fn an_original_recipient_above_the_limit_as_xtext_is_left_out() {
        let offered = Capabilities { dsn: true, ..Capabilities::default() };
        for (plusses, told) in [(1, true), (160, true), (161, false), (1000, false)] {
            let mut out = Vec::new();
            let local = "+".repeat(plusses);
            push_rcpt(&Recipient::plain(&format!("{local}@example.org")), &offered, false, &mut out).unwrap();
            let orcpt = format!(" ORCPT=rfc822;{}@example.org", "+2B".repeat(plusses));
            let orcpt = if told { &*orcpt } else { "" };
            assert_eq!(String::from_utf8(out).unwrap(), format!("RCPT TO:<{local}@example.org>{orcpt}\r\n"));
        }
    }

    #[test]
    fn an_original_recipient_outside_ascii_is_encoded_by_its_type() {
        let offered = Capabilities { dsn: true, smtputf8: true, ..Capabilities::default() };
        for (orcpt, smtputf8, expected) in [
            (None, true, r"utf-8;j\x{FC}\x{2B}\x{1F600}@example.org"),
            (None, false, "rfc822;j+C3+BC+2B+F0+9F+98+80@example.org"),
            (Some("utf-8;ü@o.example"), true, r"utf-8;\x{FC}@o.example"),
            (Some("utf-8;ü@o.example"), false, r"utf-8;\x{FC}@o.example"),
            (Some(r"utf-8;\x{FC}+2B@o.example"), true, r"utf-8;\x{FC}+2B@o.example"),
        ] {
            let mut recipient = Recipient::plain("jü+😀@example.org");
            recipient.orcpt = orcpt.map(Into::into);
            let mut out = Vec::new();
            push_rcpt(&recipient, &offered, smtputf8, &mut out).unwrap();
            let told = String::from_utf8(out).unwrap();
            assert_eq!(told, format!("RCPT TO:<jü+😀@example.org> ORCPT={expected}\r\n"));
        }
    }

    #[test]
    fn a_parameter_cannot_end_its_line() {
        let offered = Capabilities { dsn: true, ..Capabilities::default() };
        let mut envelope = envelope();
        let mut recipient = Recipient::plain("a@example.org");
        for value in ["a\r\nDATA", "a b", "a\0", ""] {
            envelope.envid = Some(value.into());
            recipient.orcpt = Some(value.into());
            let mut out = Vec::new();
            push_mail(&envelope, &offered, Mark::None, false, &mut out).unwrap();
            push_rcpt(&recipient, &offered, false, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), "MAIL FROM:<s@example.org>\r\nRCPT TO:<a@example.org>\r\n");
        }
    }
}
