//! Files that were read, and whether they are the same still.
//!
//! The files, and the links to them, stay open. So a program that has given up root's rights sees a file replaced or
//! written in a directory that it may not enter any more, such as certbot's.

use rustix::fs::OFlags;
use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Maximum number of links behind each other (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Files, opened without a right to read them.
#[derive(Debug, Default)]
pub struct Files(Vec<Opened>);

#[derive(Debug)]
struct Opened {
    path: PathBuf,
    /// The links, and the file behind them.
    found: Vec<File>,
}

/// The identity and age of each file at one time.
#[derive(Debug, Clone, Default)]
pub struct Stamp(Vec<Mark>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    Missing,
    /// The program may not enter the directory.
    Hidden,
    Found(Identity),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    modified: (i64, i64),
    /// A change of the name or of the number of names changes this time alone.
    changed: (i64, i64),
    size: u64,
    inode: u64,
    device: u64,
}

impl Files {
    /// Open files, which need not exist.
    pub fn open<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        Self(paths.map(|path| Opened { path: path.to_owned(), found: with_links(path) }).collect())
    }

    /// Return the stamp of the files.
    pub fn stamp(&self) -> Stamp {
        let marks = self.0.iter().flat_map(|file| {
            let opened = file.found.iter().map(|found| mark(found.metadata()));
            opened.chain(std::iter::once(mark(fs::metadata(&file.path))))
        });
        Stamp(marks.collect())
    }

    /// Whether this process has not the right to read one of the files.
    pub fn are_closed(&self) -> bool {
        // A pipe in the place of a file must not be waited for.
        let mut options = File::options();
        options.read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
        let is_denied =
            |file: &Opened| options.open(&file.path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied);
        self.0.iter().any(is_denied)
    }
}

impl Stamp {
    /// Whether the files are the same, as far as it can be seen.
    pub fn is_same(&self, other: &Self) -> bool {
        let is_same = |(one, other): (&Mark, &Mark)| one == other || [one, other].contains(&&Mark::Hidden);
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(is_same)
    }
}

/// Open each link to a file, and the file.
fn with_links(path: &Path) -> Vec<File> {
    let mut found = Vec::new();
    let mut path = path.to_owned();
    while found.len() <= LINKS_MAX {
        let flags = OFlags::PATH | OFlags::NOFOLLOW;
        let Ok(file) = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(&path) else { break };
        let is_link = file.metadata().is_ok_and(|metadata| metadata.is_symlink());
        found.push(file);
        match fs::read_link(&path) {
            Ok(target) if is_link => path = path.parent().unwrap_or(Path::new("/")).join(target),
            _ => break,
        }
    }
    found
}

fn mark(metadata: std::io::Result<Metadata>) -> Mark {
    match metadata {
        Ok(file) => Mark::Found(Identity {
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
            size: file.size(),
            inode: file.ino(),
            device: file.dev(),
        }),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Mark::Hidden,
        Err(_) => Mark::Missing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn directory(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("postillion-files-{}-{name}", std::process::id()));
        fs::create_dir_all(path.join("archive")).unwrap();
        path
    }

    #[test]
    fn each_way_to_replace_a_file_changes_the_stamp() {
        type Change = fn(&Path);
        const CHANGES: [(&str, Change); 6] = [
            ("written", |at| fs::write(at.join("archive/1"), "two").unwrap()),
            ("renamed over", |at| fs::rename(at.join("archive/2"), at.join("archive/1")).unwrap()),
            ("removed", |at| fs::remove_file(at.join("archive/1")).unwrap()),
            ("moved away", |at| fs::rename(at.join("archive/1"), at.join("archive/3")).unwrap()),
            ("link replaced", |at| {
                symlink("archive/2", at.join("new")).unwrap();
                fs::rename(at.join("new"), at.join("key")).unwrap();
            }),
            ("link removed", |at| fs::remove_file(at.join("key")).unwrap()),
        ];
        for (number, (name, change)) in CHANGES.into_iter().enumerate() {
            let at = directory(&format!("change{number}"));
            fs::write(at.join("archive/1"), "one").unwrap();
            fs::write(at.join("archive/2"), "other").unwrap();
            symlink("archive/1", at.join("key")).unwrap();
            let mut files = Files::open([at.join("key").as_path()].into_iter());
            // As in a directory that may not be entered: only the descriptors tell.
            files.0[0].path = PathBuf::from("/missing");
            let before = files.stamp();
            assert!(before.is_same(&files.stamp()), "{name}");
            change(&at);
            assert!(!before.is_same(&files.stamp()), "{name}");
            fs::remove_dir_all(at).unwrap();
        }
    }

    #[test]
    fn a_missing_file_that_appears_changes_the_stamp() {
        let at = directory("missing");
        let files = Files::open([at.join("key").as_path()].into_iter());
        let before = files.stamp();
        fs::write(at.join("key"), "one").unwrap();
        assert!(!before.is_same(&files.stamp()));
        fs::remove_dir_all(at).unwrap();
    }

    #[test]
    fn a_directory_that_may_not_be_entered_any_more_is_no_change() {
        let found = Stamp(vec![mark(fs::metadata("/"))]);
        assert!(found.is_same(&Stamp(vec![Mark::Hidden])));
        assert!(!found.is_same(&Stamp(vec![Mark::Missing])));
    }
}
