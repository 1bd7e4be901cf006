//! Tables by their names in main.cf, `type:name`.

use crate::{accounts, pcre, regexp};
use postillion_core::table::cdb::CdbFile;
use postillion_core::table::cidr::CidrTable;
use postillion_core::table::combined::{Combined, How, Random, members};
use postillion_core::table::file::{FileTable, Format};
use postillion_core::table::fixed::{Debug, Environ, Fail, Internal, Static};
use postillion_core::table::indexed::Indexed;
use postillion_core::table::inline::Inline;
use postillion_core::table::lmdb::LmdbFile;
use postillion_core::table::options::{Form, Options};
use postillion_core::table::rules::PatternTable;
use postillion_core::table::text::Text;
use postillion_core::table::{Table, source};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

/// The types of tables that are opened here.
pub const TYPES: [&str; 19] = [
    "btree", "cdb", "cidr", "debug", "environ", "fail", "hash", "inline", "internal", "lmdb", "pcre", "pipemap",
    "proxy", "randmap", "regexp", "static", "texthash", "unionmap", "unix",
];
/// Maximum depth of tables in the names of tables.
const DEPTH_MAX: usize = 8;

/// Why a name is no table of this crate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// The type is not one of `TYPES`.
    UnknownType(String),
    /// The name is malformed.
    Malformed(String),
}

/// Open a table. Its file, if it has one, is read at the first use.
pub fn open(name: &[u8], options: &Options) -> Result<Arc<dyn Table>, OpenError> {
    open_within(name, options, 0)
}

/// Return a name without `proxy:`: no program here is in a chroot jail, so none needs a proxy.
pub fn flat(name: &[u8]) -> &[u8] {
    let mut flat = source::trim(name);
    while let Some(rest) = flat.strip_prefix(b"proxy:") {
        flat = rest;
    }
    flat
}

fn open_within(name: &[u8], options: &Options, depth: usize) -> Result<Arc<dyn Table>, OpenError> {
    let shown = String::from_utf8_lossy(name).into_owned();
    let malformed = OpenError::Malformed;
    if depth > DEPTH_MAX {
        return Err(malformed(format!("\"{shown}\": more than {DEPTH_MAX} tables in each other")));
    }
    let flat = flat(name);
    let Some(colon) = flat.iter().position(|&octet| octet == b':') else {
        return Err(malformed(format!(
            "\"{shown}\" is not a table: expected type:name, for instance \"texthash:{shown}\""
        )));
    };
    let (kind, rest) = (&flat[..colon], source::trim(&flat[colon + 1..]));
    let kind = String::from_utf8_lossy(kind).into_owned();
    if rest.is_empty() {
        return Err(malformed(format!("\"{shown}\": a name is missing after the colon")));
    }
    let options = options.clone();
    let path = Path::new(OsStr::from_bytes(rest));
    let boxed = || shown.clone().into_boxed_str();
    let file = |format: Box<dyn Format>, options| Arc::new(FileTable::new(&shown, format, options)) as Arc<dyn Table>;
    let plain = |options: &Options| Options { form: Form::Map, ..options.clone() };
    Ok(match kind.as_str() {
        "texthash" => file(Box::new(Text { path: path.into(), options: options.clone() }), options),
        "hash" | "btree" => file(Box::new(Indexed::new(&kind, path, options.clone())), options),
        "cdb" => file(Box::new(CdbFile::new(path, &options)), options),
        "lmdb" => file(Box::new(LmdbFile::new(path, &options)), options),
        "cidr" => Arc::new(CidrTable::new(&shown, rest, &options).map_err(malformed)?),
        "regexp" => Arc::new(PatternTable::<regexp::Regexp>::new(&shown, rest, &options).map_err(malformed)?),
        "pcre" => Arc::new(PatternTable::<pcre::Pcre>::new(&shown, rest, &options).map_err(malformed)?),
        "inline" => Arc::new(Inline::new(&shown, rest, plain(&options)).map_err(malformed)?),
        "static" => Arc::new(Static::new(&shown, rest, &options).map_err(malformed)?),
        "unix" => Arc::new(accounts::Accounts::new(&shown, rest).map_err(malformed)?),
        "fail" => Arc::new(Fail { name: boxed() }),
        "environ" => Arc::new(Environ { name: boxed() }),
        "internal" => Arc::new(Internal { name: boxed() }),
        "randmap" => Arc::new(Random::new(&shown, rest).map_err(malformed)?),
        "debug" => {
            let inner = open_within(rest, &options, depth + 1)?;
            Arc::new(Debug::new(&shown, inner, Arc::clone(&options.log)))
        }
        "unionmap" | "pipemap" => {
            let how = if kind == "unionmap" { How::Union } else { How::Pipe };
            let names = members(&shown, rest, "type:name").map_err(malformed)?;
            let tables = names.into_iter().map(|name| open_within(name, &options, depth + 1));
            Arc::new(Combined::new(&shown, how, tables.collect::<Result<_, _>>()?))
        }
        _ => return Err(OpenError::UnknownType(kind)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use postillion_core::ask::Answer;

    fn lookup(name: &str, key: &str) -> Result<Answer, OpenError> {
        open(name.as_bytes(), &Options::plain()).map(|table| table.lookup(key.as_bytes()))
    }

    fn found(value: &str) -> Result<Answer, OpenError> {
        Ok(Answer::Found(value.as_bytes().into()))
    }

    #[test]
    fn tables_are_opened_by_their_names() {
        let rows = [
            ("inline:{a=b}", "A", found("b")),
            ("proxy:proxy:static:x", "a", found("x")),
            ("unionmap:{inline:{a=1},static:2}", "a", found("1,2")),
            ("pipemap:{regexp:{{/(A)/i 1$1}},inline:{1a=c}}", "A", found("c")),
            ("debug:inline:{a=b}", "a", found("b")),
            ("internal:x", "a", Ok(Answer::NotFound)),
        ];
        for (name, key, answer) in rows {
            assert_eq!(lookup(name, key), answer, "{name}");
        }
    }

    #[test]
    fn bad_names_are_refused() {
        assert_eq!(lookup("ldap:/x", "a"), Err(OpenError::UnknownType("ldap".into())));
        assert_eq!(lookup("pipemap:{foo:x}", "a"), Err(OpenError::UnknownType("foo".into())));
        for name in [
            "/etc/aliases",
            "hash:",
            "environ:",
            "internal:",
            "fail:",
            "unix:shadow",
            "inline:a=b",
            "unionmap:{}",
            "cidr:{1.1.1.1 x}",
        ] {
            assert!(matches!(lookup(name, "a"), Err(OpenError::Malformed(_))), "{name}");
        }
        let deep = "debug:".repeat(20) + "static:x";
        assert!(matches!(lookup(&deep, "a"), Err(OpenError::Malformed(_))));
    }
}
