//! Cipher grades and the exclusions from them: the cipher list in OpenSSL's syntax (postconf(5), smtpd_tls_ciphers).

use super::words;
use crate::settings;
use crate::settings::{Source, Value};

/// A minimum of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grade {
    /// Not used any more: the same as `low`.
    Export,
    /// Not used any more.
    Low,
    /// `tls_medium_cipherlist`
    Medium,
    /// `tls_high_cipherlist`
    High,
    /// `tls_null_cipherlist`: no encryption.
    Null,
}

impl Grade {
    /// Return the grade with this name, in any case.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match &*word.trim().to_ascii_lowercase() {
            "export" => Self::Export,
            "low" => Self::Low,
            "medium" => Self::Medium,
            "high" => Self::High,
            "null" => Self::Null,
            _ => return None,
        })
    }
}

impl Value for Grade {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let word = source.text(name)?;
        Self::parse(&word).ok_or_else(|| source.bad(name, &word, "give one of high, medium, null, low, export"))
    }
}

settings! {
    /// The ciphers of each grade, in OpenSSL's syntax.
    #[derive(Debug, Clone)]
    pub struct Lists {
        export: String = "tls_export_cipherlist",
        low: String = "tls_low_cipherlist",
        medium: String = "tls_medium_cipherlist",
        high: String = "tls_high_cipherlist",
        null: String = "tls_null_cipherlist",
    }
}

/// Ciphers that are never used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exclusions {
    /// The words, each without an operator in front.
    pub words: Vec<String>,
}

impl Value for Exclusions {
    fn read<S: Source>(source: &S, name: &str) -> Result<Self, S::Error> {
        let text = source.text(name)?;
        let mut found = Self::default();
        for word in words(&text) {
            if word.starts_with(['!', '+', '-', '@']) {
                return Err(source.bad(name, word, "give names of ciphers without !, +, - and @"));
            }
            found.words.push(word.to_owned());
        }
        Ok(found)
    }
}

impl Lists {
    /// Return the cipher list of a grade without what is excluded.
    pub fn without<'a>(&self, grade: Grade, excluded: impl Iterator<Item = &'a str>) -> String {
        let list = match grade {
            // The lists of the two lower grades may be empty: they are not used any more.
            Grade::Export if !self.export.trim().is_empty() => &self.export,
            Grade::Export | Grade::Low if !self.low.trim().is_empty() => &self.low,
            Grade::Export | Grade::Low | Grade::Medium => &self.medium,
            Grade::High => &self.high,
            Grade::Null => &self.null,
        };
        let mut list = list.clone();
        for word in excluded {
            list.push_str(":!");
            list.push_str(word);
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusions_follow_the_list_of_the_grade() {
        let lists = Lists { high: "HIGH:@STRENGTH".into(), medium: "MEDIUM".into(), ..Lists::default() };
        assert_eq!(lists.without(Grade::High, ["aNULL", "RC4"].into_iter()), "HIGH:@STRENGTH:!aNULL:!RC4");
        assert_eq!(lists.without(Grade::Low, [].into_iter()), "MEDIUM");
    }
}
