//! Indexes that postmap(1) and postalias(1) write: created from a text, or changed.

use crate::lmdb;
use postillion_core::errno::reason;
use postillion_core::table::cdb::{self, Cdb};
use postillion_core::table::database;
use postillion_core::table::dictionary::Dictionary;
use postillion_core::table::file::{Entries, Format};
use postillion_core::table::index::{self, Index};
use postillion_core::table::indexed::{self, Kind};
use postillion_core::table::lmdb::LmdbFile;
use postillion_core::table::octets::{self, Octets};
use postillion_core::table::options::Options;
use postillion_core::table::text::{self, Event};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

/// Maximum number of times that the file is replaced while its lock is waited for.
const REPLACED_MAX: usize = 100;

/// The fate of an entry whose key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// It stays, with a warning.
    Warn,
    /// It stays.
    Ignore,
    /// The new entry replaces it.
    Replace,
}

/// A table to write.
#[derive(Debug)]
pub struct Build<'a> {
    /// The type: hash, btree, cdb or lmdb.
    pub kind: &'a str,
    /// The text's file.
    pub path: &'a Path,
    /// How the text is read. `warn`: called for each bad line.
    pub options: Options,
    /// See above.
    pub duplicates: Duplicates,
    /// Whether keys and values end with a null octet; `None`: as Postfix does it for this type.
    pub nulls: Option<bool>,
    /// The mode of a new file.
    pub mode: u32,
    /// The initial limit of the size of an lmdb file.
    pub map_octets: usize,
}

impl Build<'_> {
    /// Return the file of an index. Errors: this type has none.
    fn index(&self) -> Result<PathBuf, String> {
        match self.kind {
            "hash" | "btree" => Ok(database::path_of(self.path, ".db")),
            "cdb" => Ok(database::path_of(self.path, ".cdb")),
            "lmdb" => Ok(database::path_of(self.path, ".lmdb")),
            "fail" => Err(format!("table fail:{}: write error: Application error", self.path.display())),
            kind => Err(format!("unsupported dictionary type: {kind} does not support bulk-mode creation.")),
        }
    }

    /// Write the index of a text. `name`: the text's name in warnings. Errors: what cannot be written.
    pub fn create(&self, text: &[u8], name: &str) -> Result<(), String> {
        let index = self.index()?;
        let _lock = self.lock(&index)?;
        let mut entries = Dictionary::default();
        self.add(text, name, &mut entries, &index)?;
        self.write(&entries, &index)
    }

    /// Add the entries of a text to the index. Errors: as `create`; and cdb files do not change.
    pub fn update(&self, text: &[u8], name: &str) -> Result<(), String> {
        let index = self.changeable()?;
        let _lock = self.lock(&index)?;
        // The lock has made an lmdb file that was missing.
        let exists = index.metadata().is_ok_and(|status| status.size() > 0);
        let mut entries = if exists { self.load(&index)? } else { Dictionary::default() };
        self.add(text, name, &mut entries, &index)?;
        self.write(&entries, &index)
    }

    /// Remove keys from the index; return how many were there. Errors: as `update`.
    pub fn remove(&self, keys: &[&[u8]]) -> Result<usize, String> {
        let index = self.changeable()?;
        let _lock = self.lock(&index)?;
        // As in `update`; Postfix leaves an empty lmdb database.
        let exists = self.kind != "lmdb" || index.metadata().is_ok_and(|status| status.size() > 0);
        let mut entries = if exists { self.load(&index)? } else { Dictionary::default() };
        let folded = keys.iter().filter_map(|key| postillion_core::table::key::prepare(key, &self.options));
        let removed = folded.filter(|key| entries.remove(key)).count();
        if removed > 0 || !exists {
            self.write(&entries, &index)?;
        }
        Ok(removed)
    }

    fn changeable(&self) -> Result<PathBuf, String> {
        let name = format!("{}:{}", self.kind, self.path.display());
        match self.kind {
            "cdb" => Err(format!("table {name}: a cdb file is not changed but created anew from its text")),
            "hash" | "btree" | "lmdb" => self.index(),
            _ => Err(format!("{name} map requires O_RDONLY access mode")),
        }
    }

    fn add(&self, text: &[u8], name: &str, entries: &mut Dictionary, index: &Path) -> Result<(), String> {
        let replace = self.duplicates == Duplicates::Replace;
        let place = match self.kind {
            "cdb" => self.path.display().to_string(),
            "lmdb" => format!("lmdb:{}", self.path.display()),
            _ => index.display().to_string(),
        };
        text::parse(text, &self.options, replace, entries, &mut |event| match event {
            Event::Problem(problem) => (self.options.warn)(&format!("{name}, {problem}")),
            Event::Duplicate { key, .. } if self.duplicates == Duplicates::Warn => {
                (self.options.warn)(&format!("{place}: duplicate entry: \"{}\"", String::from_utf8_lossy(key)));
            }
            Event::Duplicate { .. } => {}
        })
        .map_err(|problem| format!("{name}, {problem}"))
    }

    /// Read the entries of an index.
    fn load(&self, index: &Path) -> Result<Dictionary, String> {
        let entries: Box<dyn Entries> = if self.kind == "lmdb" {
            LmdbFile::new(self.path, &self.options).read(&mut Vec::new())?.entries
        } else {
            let (file, status) = octets::open(index).map_err(|problem| problem.replacen("open", "open database", 1))?;
            let open = |problem: String| format!("open database {}: {problem}", index.display());
            let read = |error: io::Error| open(reason(&error));
            if self.kind == "cdb" {
                Box::new(
                    Cdb::of(Octets::of(file, status.size(), self.options.loaded_max_octets).map_err(read)?)
                        .map_err(open)?,
                )
            } else if indexed::kind_of(&file).map_err(read)? == Kind::Berkeley {
                let name = format!("{}:{}", self.kind, self.path.display());
                return Err(open(format!("a Berkeley DB file: write an index with \"postmap {name}\" first")));
            } else {
                Box::new(
                    Index::of(Octets::of(file, status.size(), self.options.loaded_max_octets).map_err(read)?)
                        .map_err(open)?,
                )
            }
        };
        let mut dictionary = Dictionary::default();
        let mut full = false;
        entries.each(&mut |key, value| {
            full = dictionary.insert(key, value).is_err();
            !full
        })?;
        if full { Err(format!("{}: the table is too large", index.display())) } else { Ok(dictionary) }
    }

    /// Lock the index against other writers; a missing one needs no lock, but for lmdb, which is made.
    fn lock(&self, index: &Path) -> Result<Option<File>, String> {
        let error = |error: io::Error| format!("open database {}: {}", index.display(), reason(&error));
        for _ in 0..REPLACED_MAX {
            let lmdb = self.kind == "lmdb";
            let mut options = File::options();
            options.read(true).write(lmdb).create(lmdb).truncate(false).mode(self.mode).custom_flags(libc::O_NONBLOCK);
            let file = match options.open(index) {
                Ok(file) => file,
                Err(problem) if problem.kind() == io::ErrorKind::NotFound && !lmdb => return Ok(None),
                Err(problem) => return Err(error(problem)),
            };
            // SAFETY: flock takes a descriptor and flags.
            while unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX) } != 0 {
                let problem = io::Error::last_os_error();
                if problem.kind() != io::ErrorKind::Interrupted {
                    return Err(error(problem));
                }
            }
            let (ours, named) = (file.metadata().map_err(error)?, index.metadata());
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (ours.dev(), ours.ino())) {
                return Ok(Some(file));
            }
        }
        Err(format!("{}: other programs write it without end", index.display()))
    }

    fn write(&self, entries: &Dictionary, index: &Path) -> Result<(), String> {
        if self.kind == "lmdb" {
            return lmdb::write(entries, index, self.nulls.unwrap_or(true), self.map_octets)
                .map_err(|problem| format!("write {}: {problem}", index.display()));
        }
        let fill = |file: &File| match self.kind {
            "cdb" => cdb::write(entries, file, self.nulls.unwrap_or(false)),
            _ => index::write(entries, file),
        };
        // A cdb file is always a new one.
        let keeps_mode = self.kind != "cdb";
        replace(index, self.mode, keeps_mode, fill)
            .map_err(|error| format!("write {}: {}", index.display(), reason(&error)))
    }
}

/// Write a new file beside `path`, sync it, and rename it to `path`: a reader sees the old or the new file.
/// `keeps_mode`: the new file has the old one's mode, if there is one.
fn replace(path: &Path, mode: u32, keeps_mode: bool, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut name = b".".to_vec();
    name.extend_from_slice(path.file_name().unwrap_or_default().as_bytes());
    name.extend_from_slice(format!(".{}.new", std::process::id()).as_bytes());
    let new = directory.join(std::ffi::OsStr::from_bytes(&name));
    // The owner of the directory could place a link under this name: create_new follows none.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&new)?;
    let written = fill(&file).and_then(|()| {
        match fs::metadata(path) {
            Ok(old) => {
                let mine = file.metadata()?;
                if (old.uid(), old.gid()) != (mine.uid(), mine.gid()) {
                    // Without the right to do so the file belongs to whom writes it.
                    let _ = fchown(&file, Some(old.uid()), Some(old.gid()));
                }
                let mode = if keeps_mode { old.mode() & 0o777 } else { mode };
                file.set_permissions(Permissions::from_mode(mode))?;
            }
            Err(_) => file.set_permissions(Permissions::from_mode(mode))?,
        }
        file.sync_all()?;
        fs::rename(&new, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&new);
        return written;
    }
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::open;
    use postillion_core::ask::Answer;
    use postillion_core::table::Table;
    use std::sync::{Arc, Mutex};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("postillion-build-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    type Told = Arc<Mutex<Vec<String>>>;

    fn build<'a>(kind: &'a str, path: &'a Path) -> (Build<'a>, Told) {
        let told = Told::default();
        let warnings = Arc::clone(&told);
        let warn: Arc<dyn Fn(&str) + Send + Sync> =
            Arc::new(move |text: &str| warnings.lock().unwrap().push(text.to_owned()));
        let options = Options { warn, ..Options::plain() };
        let duplicates = Duplicates::Warn;
        (Build { kind, path, options, duplicates, nulls: None, mode: 0o640, map_octets: 0 }, told)
    }

    fn opened(kind: &str, path: &Path) -> Arc<dyn Table> {
        open(format!("{kind}:{}", path.display()).as_bytes(), &Options::plain()).unwrap()
    }

    fn found(value: &str) -> Answer {
        Answer::Found(value.as_bytes().into())
    }

    #[test]
    fn every_type_is_written_and_read() {
        for kind in ["hash", "btree", "cdb", "lmdb"] {
            let folder = Folder::new(kind);
            let path = folder.0.join("m");
            fs::write(&path, "a b\n").unwrap();
            let (build, told) = build(kind, &path);
            build.create(b"a b\nbad\nC d\nc e\n", "m").unwrap();
            let place = match kind {
                "cdb" => path.display().to_string(),
                "lmdb" => format!("lmdb:{}", path.display()),
                _ => format!("{}.db", path.display()),
            };
            assert_eq!(
                told.lock().unwrap()[0],
                "m, line 2: expected format: key whitespace value -- ignoring this line"
            );
            assert_eq!(told.lock().unwrap()[1], format!("{place}: duplicate entry: \"c\""));
            let table = opened(kind, &path);
            assert_eq!(
                (table.lookup(b"A"), table.lookup(b"c"), table.lookup(b"x")),
                (found("b"), found("d"), Answer::NotFound)
            );
            let index = build.index().unwrap();
            assert_eq!(fs::metadata(&index).unwrap().mode() & 0o777, 0o640);
            assert_eq!(fs::read_dir(&folder.0).unwrap().count(), 2, "only text and index");
        }
    }

    #[test]
    fn entries_are_added_replaced_and_removed() {
        for kind in ["hash", "lmdb"] {
            let folder = Folder::new(&format!("change-{kind}"));
            let path = folder.0.join("m");
            let (mut build, told) = build(kind, &path);
            build.update(b"a 1\nb 2\n", "stdin").unwrap();
            build.update(b"a 3\nc 4\n", "stdin").unwrap();
            assert_eq!(told.lock().unwrap().len(), 1);
            assert_eq!(opened(kind, &path).lookup(b"a"), found("1"));
            build.duplicates = Duplicates::Ignore;
            build.update(b"a 5\n", "stdin").unwrap();
            assert_eq!(opened(kind, &path).lookup(b"a"), found("1"));
            build.duplicates = Duplicates::Replace;
            build.update(b"a 6\n", "stdin").unwrap();
            assert_eq!(opened(kind, &path).lookup(b"a"), found("6"));
            assert_eq!(told.lock().unwrap().len(), 1);
            assert_eq!(build.remove(&[b"A", b"x", b"c"]), Ok(2));
            assert_eq!(build.remove(&[b"a"]), Ok(0));
            let table = opened(kind, &path);
            assert_eq!((table.lookup(b"a"), table.lookup(b"b")), (Answer::NotFound, found("2")));
        }
    }

    #[test]
    fn an_index_decides_and_not_its_text() {
        let folder = Folder::new("decides");
        let path = folder.0.join("m");
        fs::write(&path, "a new\n").unwrap();
        let table = opened("hash", &path);
        let Answer::Failed(problem) = table.lookup(b"a") else { panic!("no index, and an answer") };
        assert!(problem.contains(&format!("run \"postmap hash:{}\"", path.display())), "{problem}");
        build("hash", &path).0.create(b"a old\n", "m").unwrap();
        table.refresh().unwrap();
        assert_eq!(table.lookup(b"a"), found("old"));
    }

    #[test]
    fn beside_a_berkeley_file_the_text_decides() {
        let folder = Folder::new("berkeley");
        let path = folder.0.join("m");
        let mut berkeley = vec![0; 8192];
        berkeley[12..16].copy_from_slice(&0x0006_1561_u32.to_le_bytes());
        fs::write(database::path_of(&path, ".db"), berkeley).unwrap();
        let table = opened("hash", &path);
        assert!(matches!(table.lookup(b"a"), Answer::Failed(problem) if problem.contains("db5.3_dump")));
        fs::write(&path, "a b\n").unwrap();
        table.refresh().unwrap();
        assert_eq!(table.lookup(b"a"), found("b"));
        assert!(build("hash", &path).0.update(b"c d\n", "stdin").unwrap_err().contains("a Berkeley DB file"));
        build("hash", &path).0.create(b"a c\n", "m").unwrap();
        table.refresh().unwrap();
        assert_eq!(table.lookup(b"a"), found("c"));
    }

    #[test]
    fn types_without_an_index_are_refused() {
        let path = Path::new("m");
        for (kind, problem) in [("texthash", "does not support bulk-mode creation"), ("fail", "write error")] {
            assert!(build(kind, path).0.create(b"", "m").unwrap_err().contains(problem));
        }
        assert!(build("cdb", path).0.update(b"", "stdin").is_err());
        assert_eq!(build("regexp", path).0.remove(&[]).unwrap_err(), "regexp:m map requires O_RDONLY access mode");
    }
}
