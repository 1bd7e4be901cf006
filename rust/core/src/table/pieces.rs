//! A text that is read piece by piece: a large one is never in memory as a whole.

use super::{source, text, threads};
use crate::errno::reason;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// Octets of a piece, which stays in the processor's cache. A longer logical line, with the comments in it, is one piece.
const PIECE_OCTETS: usize = 256 * 1024;

/// A text.
#[derive(Debug)]
pub struct Pieces<'a> {
    origin: Origin<'a>,
    octets: u64,
    /// Octets that are read at once, at least two.
    pub piece_octets: usize,
}

#[derive(Debug)]
enum Origin<'a> {
    Memory(&'a [u8]),
    File(File, &'a Path),
}

/// A part of a text, from the start of a logical line to that of another one, or to the end.
#[derive(Debug)]
pub struct Part<'a> {
    text: &'a Pieces<'a>,
    start: u64,
    end: u64,
}

impl<'a> Pieces<'a> {
    /// Return a text in memory.
    pub fn of(text: &'a [u8]) -> Self {
        Self { origin: Origin::Memory(text), octets: text.len() as u64, piece_octets: PIECE_OCTETS }
    }

    /// Return a text file, and the uid of its owner. Errors: why it cannot be read.
    pub fn open(path: &'a Path) -> Result<(Self, u32), String> {
        let (file, status) = text::open(path)?;
        let origin = Origin::File(file, path);
        Ok((Self { origin, octets: status.size(), piece_octets: PIECE_OCTETS }, status.uid()))
    }

    /// Return parts of about the same length, one for each thread. Errors: why the text cannot be read.
    pub fn parts(&self) -> Result<Vec<Part<'_>>, String> {
        let count = threads::count(self.octets) as u64;
        self.cut((1..count).map(|number| self.octets / count * number))
    }

    /// Cut the text behind some places in ascending order. Some parts may be empty. Errors: why it cannot be read.
    pub fn cut(&self, places: impl Iterator<Item = u64>) -> Result<Vec<Part<'_>>, String> {
        let starts: Vec<u64> = places.map(|at| self.start(at)).collect::<Result<_, _>>()?;
        // The last part has all that is there when it is read.
        let mut bounds = [&[0][..], &starts, &[text::TEXT_MAX_OCTETS]].concat();
        // A file that changes may have its lines elsewhere by then.
        bounds.sort_unstable();
        Ok(bounds.windows(2).map(|pair| Part { text: self, start: pair[0], end: pair[1] }).collect())
    }

    /// Return the place behind `at` where a logical line begins, at most the end of the text.
    fn start(&self, mut at: u64) -> Result<u64, String> {
        let mut piece = Vec::new();
        while at < self.octets {
            piece.clear();
            let octets = self.read(&mut piece, at, self.piece_octets)? as u64;
            if let Some(start) = source::starts(&piece).next() {
                return Ok(self.octets.min(at + start as u64));
            }
            if octets < 2 {
                break;
            }
            // The last octet may be the newline before a logical line.
            at += octets - 1;
        }
        Ok(self.octets)
    }

    /// Add at most `octets` octets at `at` to a buffer; return how many there were.
    fn read(&self, buffer: &mut Vec<u8>, at: u64, octets: usize) -> Result<usize, String> {
        let old = buffer.len();
        match &self.origin {
            Origin::Memory(text) => {
                buffer.extend(text[text.len().min(at as usize)..].iter().take(octets));
            }
            Origin::File(file, path) => {
                buffer.resize(old + octets, 0);
                let read = loop {
                    match file.read_at(&mut buffer[old..], at) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        read => break read,
                    }
                };
                let read = read.map_err(|error| format!("read {}: {}", path.display(), reason(&error)))?;
                buffer.truncate(old + read);
            }
        }
        Ok(buffer.len() - old)
    }
}

impl Part<'_> {
    /// Return the octets, which may be more when they are read.
    pub fn octets(&self) -> usize {
        self.end.min(self.text.octets).saturating_sub(self.start) as usize
    }

    /// Read the pieces, each of whole logical lines. Errors: why the text cannot be read.
    pub fn each(&self, mut take: impl FnMut(&[u8])) -> Result<(), String> {
        let (mut piece, mut at) = (Vec::new(), self.start);
        loop {
            let old = piece.len();
            let wanted = self.text.piece_octets.min((self.end - at) as usize);
            let octets = self.text.read(&mut piece, at, wanted)?;
            if octets == 0 {
                take(&piece);
                return Ok(());
            }
            at += octets as u64;
            // No logical line begins in what is left of the piece before.
            let seen = old.saturating_sub(1);
            let start = source::starts(&piece[seen..]).next_back();
            if let Some(start) = start {
                take(&piece[..seen + start]);
                piece.drain(..seen + start);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"a 1\n\tb\n#c\n\nd\ne\r\n f\n\n\n#\n g\nh";

    /// Return the pieces of all parts.
    fn read(text: &Pieces<'_>, places: &[u64]) -> Vec<Vec<u8>> {
        let mut pieces = Vec::new();
        for part in text.cut(places.iter().copied()).unwrap() {
            part.each(|piece| pieces.push(piece.to_vec())).unwrap();
        }
        pieces
    }

    #[test]
    fn parts_and_pieces_end_where_logical_lines_begin() {
        let starts: Vec<usize> = source::starts(TEXT).collect();
        assert_eq!(starts.iter().map(|&start| TEXT[start]).collect::<Vec<_>>(), *b"deh");
        let path = std::env::temp_dir().join(format!("postillion-pieces-{}", std::process::id()));
        std::fs::write(&path, TEXT).unwrap();
        for mut text in [Pieces::of(TEXT), Pieces::open(&path).unwrap().0] {
            for piece_octets in 2..=TEXT.len() + 1 {
                text.piece_octets = piece_octets;
                for at in 0..=TEXT.len() as u64 {
                    let pieces = read(&text, &[at, at + 5]);
                    assert_eq!(pieces.concat(), TEXT, "{piece_octets} at {at}");
                    let ends = pieces.iter().scan(0, |end, piece| {
                        *end += piece.len();
                        Some(*end)
                    });
                    assert!(ends.into_iter().all(|end| [0, TEXT.len()].contains(&end) || starts.contains(&end)));
                }
            }
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_text_that_grows_or_shrinks_is_read_to_its_end() {
        for octets in [0, 4, 1000] {
            let text = Pieces { octets, ..Pieces::of(TEXT) };
            assert_eq!(read(&text, &[octets / 3, octets / 3 * 2]).concat(), TEXT);
        }
    }
}
