//! Addresses on their way to another host: smtp_generic_maps, lmtp_generic_maps (generic(5), ADDRESS_REWRITING_README).
//!
//! The sender, the recipients and the addresses in the message's own header are replaced once each; a result is not
//! looked up again. Headers of attached messages stay. A failed lookup is an error: the mail waits, and no address goes
//! out unmapped.

use super::map::{MapRules, Mapping, Named};
use super::rewrite::Rewrite;
use super::rewriting::{Propagation, canonical_form};
use crate::inquiry::{Asker, Failure, SIDE_BY_SIDE, all};
use crate::lookup::Maps;
use crate::mail::address::{addresses, replaced};
use crate::settings;
use crate::settings::Source;
use std::ops::Range;
use std::sync::Arc;

settings! {
    /// The parameters of the mapping.
    #[derive(Debug, Clone)]
    pub struct Generic {
        maps: Maps = "smtp_generic_maps",
        propagation: Propagation = "propagate_unmatched_extensions",
        /// Keys and results.
        rules: MapRules => settings,
        /// Completes results.
        complete: Rewrite => settings,
        /// Maximum number of tokens of a header whose addresses are mapped.
        header_address_token_limit: usize = "header_address_token_limit",
        /// The name of the list of tables, for the log.
        parameter: &'static str,
    }
}

/// Addresses or a header after the mapping, and the warnings about it.
pub type Outcome<T> = (Result<T, Failure>, Vec<String>);

impl Generic {
    /// Read the parameters, `None` without tables. `name`: `smtp_generic_maps`.
    pub fn read_some<S: Source>(source: &S, name: &str) -> Result<Option<Arc<Self>>, S::Error> {
        if source.items(name)?.is_empty() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { parameter: "smtp_generic_maps", ..Self::read(source)? })))
    }

    /// Return what replaces each address, `None` for one that stays. `given`: the sender, then the recipients. The value
    /// `<>` makes the sender the null sender; for a recipient it is an error.
    pub async fn map(self: Arc<Self>, asker: Asker, given: Vec<Box<str>>) -> Outcome<Vec<Option<Box<str>>>> {
        let mapping = self.mapping(&asker);
        let mut found = Vec::with_capacity(given.len());
        let given = given.iter().enumerate().collect::<Vec<_>>();
        for some in given.chunks(SIDE_BY_SIDE) {
            found.extend(all(some.iter().map(|(at, address)| self.one(&mapping, address, *at == 0)).collect()).await);
        }
        (found.into_iter().collect(), mapping.into_warnings())
    }

    /// Return a text with the addresses of its parts mapped. `lists`: where the text has lists of addresses, in order.
    pub async fn map_lists(self: Arc<Self>, asker: Asker, text: Vec<u8>, lists: Vec<Range<usize>>) -> Outcome<Vec<u8>> {
        let mapping = self.mapping(&asker);
        let mut new = Vec::with_capacity(lists.len());
        for some in lists.chunks(SIDE_BY_SIDE) {
            new.extend(all(some.iter().map(|list| self.list(&mapping, &text[list.clone()])).collect()).await);
        }
        let mapped = new.into_iter().collect::<Result<Vec<_>, _>>().map(|new| {
            let mut out = Vec::with_capacity(text.len());
            let mut copied = 0;
            for (list, new) in lists.iter().zip(new) {
                if let Some(new) = new {
                    out.extend_from_slice(&text[copied..list.start]);
                    out.extend_from_slice(&new);
                    copied = list.end;
                }
            }
            out.extend_from_slice(&text[copied..]);
            out
        });
        (mapped, mapping.into_warnings())
    }

    fn mapping<'a>(&'a self, asker: &'a Asker) -> Mapping<'a> {
        Mapping::outgoing(&self.rules, &self.complete, asker)
    }

    async fn list(&self, mapping: &Mapping<'_>, list: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
        let found = addresses(list, self.header_address_token_limit).into_iter().filter(|address| address.certain);
        let found: Vec<_> = found.collect();
        let mut new = Vec::with_capacity(found.len());
        for some in found.chunks(SIDE_BY_SIDE) {
            let written: Vec<_> = some.iter().map(|address| canonical_form(&address.text)).collect();
            new.extend(all(written.iter().map(|address| self.one(mapping, address, true)).collect()).await);
        }
        let mut new = new.into_iter().collect::<Result<Vec<_>, _>>()?;
        for address in new.iter_mut().flatten().filter(|address| address.is_empty()) {
            // A field must keep its address.
            *address = "\"\"".into();
        }
        Ok(replaced(list, &found, new))
    }

    /// Return what replaces an address, `None` if it stays. The null address stays.
    async fn one(&self, mapping: &Mapping<'_>, address: &str, may_be_null: bool) -> Result<Option<Box<str>>, Failure> {
        if address.is_empty() {
            return Ok(None);
        }
        let named = Named { parameter: self.parameter, maps: &self.maps, propagates: self.propagation.generic };
        let Some(results) = mapping.results_or_null(named, address).await? else {
            return Ok(None);
        };
        if results.is_empty() {
            return if may_be_null { Ok(Some("".into())) } else { Err(mapping.no_address(named, address)) };
        }
        if results.len() > 1 {
            mapping.warn(format!("multi-valued {} result for {address}", self.parameter));
        }
        Ok(results.into_iter().next())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::address::names::NameList;
    use crate::table::testing::{Fixed, local, remote, run};

    /// Return a mapping by these tables, at a site whose only domain is example.org.
    pub(crate) fn generic(maps: Maps, propagates: bool) -> Generic {
        let mut generic = Generic { maps, parameter: "smtp_generic_maps", ..Generic::default() };
        generic.propagation.generic = propagates;
        generic.rules.extensions.delimiters = "+".into();
        generic.rules.local.origin = "example.org".into();
        generic.rules.local.destinations = NameList::of(&["example.org"]);
        generic.complete = Rewrite::local("example.org");
        generic
    }

    const ROWS: &[(&str, &str)] = &[
        ("ann@a.example", "ann@public.example"),
        ("bob", "bob@public.example"),
        ("carl@a.example", "dan@a.example"),
        ("dan@a.example", "eve@a.example"),
        ("\"a b\"@a.example", "\"x y\"@public.example"),
        ("@dom.example", "@other.example"),
        ("two@a.example", "x@public.example, y@public.example"),
        ("bare@a.example", "user"),
        ("down@a.example", "!"),
        ("null@a.example", "<>"),
    ];

    /// Map with a local table, and with a remote one that answers in either order.
    fn each<T: PartialEq + std::fmt::Debug, F: Future<Output = T> + Send + Sync + 'static>(
        propagates: bool,
        map: impl Fn(Arc<Generic>, Asker) -> F,
    ) -> T {
        let of = |maps, backwards| {
            let generic = Arc::new(generic(maps, propagates));
            run(&[Fixed::new(ROWS)], backwards, |asker| map(generic, asker))
        };
        let found = of(local(ROWS), false);
        assert_eq!(of(remote(0), false), found);
        assert_eq!(of(remote(0), true), found);
        found
    }

    #[test]
    fn addresses_of_the_envelope_are_mapped_once() {
        for (address, propagates, expected) in [
            ("ann@a.example", false, Some("ann@public.example")),
            ("Ann@A.Example", false, Some("ann@public.example")),
            ("ann+x@a.example", false, Some("ann@public.example")),
            ("ann+x@a.example", true, Some("ann+x@public.example")),
            ("bob+x@example.org", true, Some("bob+x@public.example")),
            ("bob@a.example", false, None),
            ("carl@a.example", false, Some("dan@a.example")),
            ("u+v@dom.example", false, Some("u+v@other.example")),
            ("\"a b\"@a.example", false, Some("\"x y\"@public.example")),
            ("bare@a.example", false, Some("user@example.org")),
            ("null@a.example", false, Some("")),
            ("", false, None),
        ] {
            let (found, warnings) = each(propagates, |generic, asker| generic.map(asker, vec![address.into()]));
            assert_eq!(found.unwrap()[0].as_deref(), expected, "{address}");
            assert_eq!(warnings, Vec::<String>::new());
        }
    }

    #[test]
    fn a_list_of_several_results_gives_a_warning_and_a_failed_table_an_error() {
        let given = |address: &str| vec!["ann@a.example".into(), address.into()];
        let (found, warnings) = each(false, |generic, asker| generic.map(asker, given("two@a.example")));
        assert_eq!(found.unwrap()[1].as_deref(), Some("x@public.example"));
        assert_eq!(warnings, ["multi-valued smtp_generic_maps result for two@a.example"]);
        let (found, warnings) = each(false, |generic, asker| generic.map(asker, given("down@a.example")));
        assert!(found.is_err());
        assert_eq!(warnings[1], "smtp_generic_maps map lookup problem for down@a.example");
        let (found, warnings) = each(false, |generic, asker| generic.map(asker, given("null@a.example")));
        assert!(found.is_err(), "a recipient must have an address");
        assert_eq!(warnings[0], "the value for null@a.example has no address");
    }

    #[test]
    fn only_the_addresses_of_a_list_change() {
        for (list, expected) in [
            (" Ann <ann@a.example>, bob@example.org (Bob)", " Ann <ann@public.example>, bob@public.example (Bob)"),
            (" g: ann@a.example,\r\n\tx@y;", " g: ann@public.example,\r\n\tx@y;"),
            (" Ann Lee ann@a.example bob@x", " Ann Lee ann@public.example bob@x"),
            (" <@r:\"a b\"@a.example>", " <\"x y\"@public.example>"),
            (" ann@b.example", " ann@b.example"),
        ] {
            let text = format!("To:{list}\r\nX: ann@a.example\r\nCc:{list}\r\n").into_bytes();
            let cc = text.len() - 2 - list.len();
            let lists = vec![3..3 + list.len(), cc..cc + list.len()];
            let (found, _) = each(false, |generic, asker| generic.map_lists(asker, text.clone(), lists.clone()));
            let expected = format!("To:{expected}\r\nX: ann@a.example\r\nCc:{expected}\r\n");
            assert_eq!(String::from_utf8(found.unwrap()).unwrap(), expected);
        }
        let whole = std::iter::once(0..14).collect::<Vec<_>>();
        let (found, _) =
            each(false, |generic, asker| generic.map_lists(asker, b"down@a.example".into(), whole.clone()));
        assert!(found.is_err());
    }
}
