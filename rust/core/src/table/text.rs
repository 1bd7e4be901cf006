//! A table in a text file, read into memory: `texthash:`, and the text of an index.

use super::dictionary::Dictionary;
use super::file::{EachValue, Entries, Format, Loaded};
use super::options::Options;
use super::{Each, key, octets, source};
use crate::errno::reason;
use crate::mail::base64;
use std::fs::{self, File, Metadata};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Maximum octets of a text.
pub const TEXT_MAX_OCTETS: u64 = 1024 * 1024 * 1024;
/// Maximum octets of the files that one value names (postmap -F).
pub const FILES_MAX_OCTETS: u64 = 16 * 1024 * 1024;

/// A text file.
#[derive(Debug)]
pub struct Text {
    /// The file.
    pub path: PathBuf,
    /// How it is read.
    pub options: Options,
}

impl Format for Text {
    fn files(&self) -> Vec<PathBuf> {
        vec![self.path.clone()]
    }

    fn read(&self, warnings: &mut Vec<String>) -> Result<Loaded, String> {
        let (text, owner) = read(&self.path)?;
        let path = self.path.display().to_string();
        let mut dictionary = Dictionary::default();
        parse(&text, &self.options, false, &mut dictionary, &mut |event| {
            if let Event::Duplicate { number, written, .. } = event {
                let written = String::from_utf8_lossy(written);
                warnings.push(format!("{path}, line {number}: duplicate entry: \"{written}\""));
            } else if let Event::Problem(problem) = event {
                warnings.push(format!("{path}, {problem}"));
            }
        })?;
        Ok(Loaded { entries: Box::new(dictionary), owner })
    }

    fn is_text(&self) -> bool {
        true
    }
}

impl Entries for Dictionary {
    fn get(&self, key: &[u8]) -> Result<Option<Box<[u8]>>, String> {
        Ok(Self::get(self, key).map(Into::into))
    }

    fn get_each(&self, keys: &[&[u8]], each: EachValue) {
        keys.iter().enumerate().all(|(at, key)| each(at, Ok(Self::get(self, key))));
    }

    fn each(&self, each: Each) -> Result<(), String> {
        Self::each(self, each);
        Ok(())
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }

    fn has_addresses(&self) -> bool {
        Self::has_addresses(self)
    }
}

/// An event while a text is read.
#[derive(Debug)]
pub enum Event<'a> {
    /// A line with an error or a remark.
    Problem(source::Problem),
    /// A key that was there; the first value stays.
    Duplicate {
        /// The line.
        number: usize,
        /// The key, folded.
        key: &'a [u8],
        /// The key as the text has it.
        written: &'a [u8],
    },
}

/// Add the entries of a text to a dictionary. `replace`: the last value of a key counts, else the first. Errors: the
/// dictionary is full.
pub fn parse(
    text: &[u8],
    options: &Options,
    replace: bool,
    dictionary: &mut Dictionary,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<(), String> {
    for line in source::lines(text) {
        let line = match line {
            Ok(line) => line,
            Err(problem) => {
                tell(Event::Problem(problem));
                continue;
            }
        };
        let number = line.number;
        let entry = match source::entry(&line, options) {
            Ok(entry) => entry,
            Err(problem) => {
                tell(Event::Problem(problem));
                continue;
            }
        };
        if let Some(text) = entry.remark {
            tell(Event::Problem(source::Problem { number, text, lost: false }));
        }
        let content = match options.files.then(|| files_content(entry.value)) {
            None => None,
            Some(Ok(content)) => Some(content),
            Some(Err(text)) => {
                tell(Event::Problem(source::Problem { number, text, lost: true }));
                continue;
            }
        };
        let value = content.as_deref().unwrap_or(entry.value);
        let written = entry.key.clone();
        let key = if options.fold { key::fold(entry.key, options.utf8) } else { entry.key };
        let added =
            if replace { dictionary.replace(&key, value).map(|()| true) } else { dictionary.insert(&key, value) };
        match added {
            Ok(true) => {}
            Ok(false) => tell(Event::Duplicate { number, key: &key, written: &written }),
            Err(_) => return Err(format!("line {number}: the table is too large")),
        }
    }
    Ok(())
}

/// Open a text file. Errors: why it cannot be read.
pub fn open(path: &Path) -> Result<(File, Metadata), String> {
    let (file, status) = octets::open(path)?;
    if status.size() > TEXT_MAX_OCTETS {
        return Err(format!("{} has more than {TEXT_MAX_OCTETS} octets", path.display()));
    }
    Ok((file, status))
}

/// Return a text file's octets, and the uid of its owner. Errors: why it cannot be read.
pub fn read(path: &Path) -> Result<(Vec<u8>, u32), String> {
    let (file, status) = open(path)?;
    let mut text = Vec::with_capacity(status.size() as usize + 1);
    let read = file.take(TEXT_MAX_OCTETS).read_to_end(&mut text);
    read.map_err(|error| format!("read {}: {}", path.display(), reason(&error)))?;
    Ok((text, status.uid()))
}

/// Return the content of the files in a list, a newline between two of them, in base64 (postmap -F).
pub fn files_content(list: &[u8]) -> Result<Vec<u8>, String> {
    use std::os::unix::ffi::OsStrExt;
    let mut content = Vec::new();
    let names = super::words::parts(list);
    if names.is_empty() {
        return Err(format!("empty pathname list: >>{}<<': skipping this entry", String::from_utf8_lossy(list)));
    }
    for (at, name) in names.into_iter().enumerate() {
        let path = Path::new(std::ffi::OsStr::from_bytes(name));
        let octets = fs::metadata(path).and_then(|status| {
            if content.len() as u64 + status.len() > FILES_MAX_OCTETS {
                return Err(std::io::ErrorKind::FileTooLarge.into());
            }
            fs::read(path)
        });
        let octets =
            octets.map_err(|error| format!("open {}: {}: skipping this entry", path.display(), reason(&error)))?;
        if at > 0 {
            content.push(b'\n');
        }
        content.extend_from_slice(&octets);
    }
    Ok(base64::encode(&content))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_folded_and_the_first_value_counts() {
        let mut dictionary = Dictionary::default();
        let mut told = Vec::new();
        parse(b"User one\nuser two\nbad\n", &Options::plain(), false, &mut dictionary, &mut |event| match event {
            Event::Duplicate { number, key, .. } => told.push(format!("{number} {}", String::from_utf8_lossy(key))),
            Event::Problem(problem) => told.push(problem.to_string()),
        })
        .unwrap();
        assert_eq!(dictionary.get(b"user"), Some(&b"one"[..]));
        assert_eq!(told, ["2 user", "line 3: expected format: key whitespace value -- ignoring this line"]);
    }
}
