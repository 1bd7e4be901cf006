//! Lists of names in main.cf: words and tables, `!` excludes (postconf(5): mydestination, masquerade_exceptions).
//!
//! The first word that fits decides. Case makes no difference.

use crate::inquiry::{Asker, Failure};
use crate::lookup::{Key, Maps};
use crate::settings::{Source, Value};

/// A list of names.
#[derive(Debug, Clone, Default)]
pub struct NameList(Box<[(bool, Item)]>);

#[derive(Debug, Clone)]
enum Item {
    Name(Box<str>),
    Table(Maps),
}

impl NameList {
    /// Return a list of these names.
    pub fn of(names: &[&str]) -> Self {
        Self(names.iter().map(|name| (true, Item::Name((*name).into()))).collect())
    }

    /// Return whether the list has the name.
    pub async fn has(&self, name: &str, asker: &Asker) -> Result<bool, Failure> {
        for (wanted, item) in &self.0 {
            let fits = match item {
                Item::Name(word) => word.eq_ignore_ascii_case(name),
                Item::Table(table) => table.find(name.as_bytes(), Key::Whole, asker).await?.is_some(),
            };
            if fits {
                return Ok(*wanted);
            }
        }
        Ok(false)
    }
}

impl Value for NameList {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let item = |word: String| {
            let (wanted, bare) = match_word(&word);
            let is_table = bare.contains(':') && !bare.starts_with('[');
            let item = if is_table { Item::Table(source.table(name, bare)?) } else { Item::Name(bare.into()) };
            Ok((wanted, item))
        };
        Ok(Self(source.items(name)?.into_iter().map(item).collect::<Result<_, _>>()?))
    }
}

/// Return whether a word of a list includes what fits it, and the word without its `!`: an odd number of them excludes.
pub(super) fn match_word(word: &str) -> (bool, &str) {
    let bare = word.trim_start_matches('!');
    ((word.len() - bare.len()).is_multiple_of(2), bare)
}
