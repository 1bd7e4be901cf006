//! Search keys: what a table is asked for an address, in order (virtual(5), transport(5), ADDRESS_CLASS_README).
//!
//! Keys are in lower case. The first key with a value decides.

use super::local_part::Extensions;

/// Return the keys of tables that list recipients: `user+extension@domain`, `user@domain`, for a local domain
/// `user+extension` and `user`, and `@domain`. `local` is a value without quotes.
pub fn recipient(local: &str, domain: &str, extensions: &Extensions, is_local: bool) -> Vec<String> {
    let (local, domain) = (local.to_lowercase(), domain.to_lowercase());
    let users = users(&local, extensions);
    let mut keys: Vec<String> = users.clone().map(|user| format!("{user}@{domain}")).collect();
    if is_local {
        keys.extend(users.map(str::to_owned));
    }
    keys.push(format!("@{domain}"));
    keys
}

/// Return the keys of tables that list senders: those of a recipient, and for an address without a domain the local part
/// alone.
pub fn sender(local: &str, domain: Option<&str>, extensions: &Extensions, is_local: bool) -> Vec<String> {
    match domain {
        Some(domain) => recipient(local, domain, extensions, is_local),
        None => users(&local.to_lowercase(), extensions).map(str::to_owned).collect(),
    }
}

/// Return the keys of transport(5): `user+extension@domain`, `user@domain`, `domain`, `.parent` for each domain above
/// it, the nearest first, and `*`. `bare_parents`: `parent` without its dot (parent_domain_matches_subdomains).
pub fn transport(local: &str, domain: &str, extensions: &Extensions, bare_parents: bool) -> Vec<String> {
    let (local, domain) = (local.to_lowercase(), domain.to_lowercase());
    let mut keys: Vec<String> = users(&local, extensions).map(|user| format!("{user}@{domain}")).collect();
    keys.push(domain.clone());
    let dot = usize::from(bare_parents);
    keys.extend(domain.match_indices('.').map(|(at, _)| domain[at + dot..].to_owned()));
    keys.push("*".to_owned());
    keys
}

/// The local part as it is, and without its extension.
fn users<'a>(local: &'a str, extensions: &Extensions) -> impl Iterator<Item = &'a str> + Clone {
    [Some(local), extensions.split(local).map(|extended| extended.user)].into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plus() -> Extensions {
        Extensions { delimiters: "+".into(), ..Extensions::default() }
    }

    #[test]
    fn recipient_is_asked_with_and_without_its_extension() {
        for (local, is_local, keys) in [
            ("User+Ext", true, vec!["user+ext@example.org", "user@example.org", "user+ext", "user", "@example.org"]),
            ("user+", true, vec!["user+@example.org", "user@example.org", "user+", "user", "@example.org"]),
            ("user", true, vec!["user@example.org", "user", "@example.org"]),
            ("user+ext", false, vec!["user+ext@example.org", "user@example.org", "@example.org"]),
        ] {
            assert_eq!(recipient(local, "Example.org", &plus(), is_local), keys, "{local}");
        }
    }

    #[test]
    fn sender_without_a_domain_is_asked_by_its_local_part() {
        assert_eq!(sender("User+Ext", None, &plus(), true), ["user+ext", "user"]);
        assert_eq!(sender("user", Some("far.org"), &plus(), false), ["user@far.org", "@far.org"]);
    }

    #[test]
    fn transport_is_asked_up_to_the_top_level_domain() {
        let keys = ["user+ext@sub.example.com", "user@sub.example.com", "sub.example.com", ".example.com", ".com", "*"];
        assert_eq!(transport("user+ext", "sub.example.com", &plus(), false), keys);
        assert_eq!(transport("user", "host", &plus(), false), ["user@host", "host", "*"]);
        let bare = ["user@sub.example.com", "sub.example.com", "example.com", "com", "*"];
        assert_eq!(transport("user", "sub.example.com", &plus(), true), bare);
    }
}
