//! The format of an LMDB file, in the byte order and with the word length of this machine.
//!
//! ```text
//! pages     of one size; the first two are meta pages
//! meta      magic, version, the roots of two trees, the number of the transaction that wrote it
//! branch    nodes in the order of their keys: a key, and the page of this and of greater keys
//! leaf      nodes in the order of their keys: a key, and its value or the page where a long value begins
//! overflow  a long value, in pages that follow each other
//! ```
//!
//! The meta page with the greater number counts. Nothing here is trusted: each offset, length and page number is
//! checked before it is used, so a damaged file gives an error.

use crate::errno::reason;
use std::cmp::Ordering;
use std::io;

/// Octets of a page number or of a count.
const WORD: usize = size_of::<usize>();
/// Octets in front of the nodes of a page, or in front of a long value.
pub const PAGE_HEAD_OCTETS: usize = WORD + 8;
const NODE_HEAD_OCTETS: usize = 8;
const MAGIC: u32 = 0xbeef_c0de;
const VERSION: u32 = 1;
const MAGIC_AT: usize = PAGE_HEAD_OCTETS;
/// Octets of a tree's description.
const TREE_OCTETS: usize = 8 + 5 * WORD;
/// The tree of free pages. It names the size of a page, too.
const FREE_AT: usize = MAGIC_AT + 8 + 2 * WORD;
/// The tree of entries.
const MAIN_AT: usize = FREE_AT + TREE_OCTETS;
const LAST_PAGE_AT: usize = MAIN_AT + TREE_OCTETS;
/// Octets of a meta page that have a meaning.
pub const META_OCTETS: usize = LAST_PAGE_AT + 2 * WORD;
const PAGE_MIN_OCTETS: usize = 512;
const PAGE_MAX_OCTETS: usize = 32 * 1024;
/// Maximum depth of a tree, LMDB's own limit.
const DEPTH_MAX: u16 = 32;
/// Maximum number of times that the meta pages are read until they stay the same.
const META_READS_MAX: usize = 16;
/// Flags of a tree whose keys are in another order, or have several values.
const OTHER_ORDERS: u16 = 0x7e;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const OVERFLOW: u16 = 0x04;
const META: u16 = 0x08;
/// All flags that name the kind of a page.
const KINDS: u16 = 0x6f;
/// A node's flag: the value is in overflow pages.
const BIG: u16 = 0x01;
/// A node's flags: the value is a database of its own, or several values.
const NESTED: u16 = 0x06;

/// Return the error of a file whose content contradicts itself.
pub fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the file is damaged")
}

/// Return the text of an error. A file that ends too early is damaged.
pub fn text(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::UnexpectedEof { damaged().to_string() } else { reason(error) }
}

#[inline]
fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    octets.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    octets.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn word_at(octets: &[u8], at: usize) -> Option<u64> {
    octets.get(at..at + WORD)?.try_into().ok().map(|word| usize::from_ne_bytes(word) as u64)
}

/// A tree, as a meta page describes it.
#[derive(Debug, Clone, Copy)]
pub struct Tree {
    /// The page at the top; `None`: the tree is empty.
    pub root: Option<u64>,
    /// The number of pages between the top and a leaf, both counted.
    pub depth: u16,
    /// The number of entries.
    pub entries: u64,
    flags: u16,
}

impl Tree {
    fn of(meta: &[u8], at: usize) -> Option<Self> {
        let root = word_at(meta, at + 8 + 4 * WORD)?;
        Some(Self {
            root: (root != usize::MAX as u64).then_some(root),
            depth: u16_at(meta, at + 6)?,
            entries: word_at(meta, at + 8 + 3 * WORD)?,
            flags: u16_at(meta, at + 4)?,
        })
    }
}

/// The content of a meta page.
#[derive(Debug, Clone, Copy)]
pub struct Meta {
    /// The size of a page.
    pub page_octets: usize,
    /// The tree of free pages.
    pub free: Tree,
    /// The tree of entries.
    pub main: Tree,
    /// The number of the last page. The file may end before it, where free pages follow.
    pub last_page: u64,
    /// The number of the transaction.
    pub transaction: u64,
}

impl Meta {
    /// Read a meta page. `None`: it is none.
    fn of(octets: &[u8]) -> Option<Self> {
        let page_octets = u32_at(octets, FREE_AT)? as usize;
        let is_meta = u16_at(octets, WORD + 2)? & META != 0
            && u32_at(octets, MAGIC_AT)? == MAGIC
            && u32_at(octets, MAGIC_AT + 4)? == VERSION
            && page_octets.is_power_of_two()
            && (PAGE_MIN_OCTETS..=PAGE_MAX_OCTETS).contains(&page_octets);
        let (free, main) = (Tree::of(octets, FREE_AT)?, Tree::of(octets, MAIN_AT)?);
        (is_meta && free.depth <= DEPTH_MAX && main.depth <= DEPTH_MAX).then_some(Self {
            page_octets,
            free,
            main,
            last_page: word_at(octets, LAST_PAGE_AT)?,
            transaction: word_at(octets, LAST_PAGE_AT + WORD)?,
        })
    }
}

/// A way to read a part of the file, as `read_exact_at`.
pub type ReadAt<'a> = &'a dyn Fn(&mut [u8], u64) -> io::Result<()>;

/// Both meta pages as they are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metas([[u8; META_OCTETS]; 2]);

impl Metas {
    /// Read the meta pages. Errors: the file is no LMDB file, or its pages change all the time.
    pub fn read(read_at: ReadAt) -> Result<Self, String> {
        // A reader may see a meta page that is half written: two equal readings are whole.
        let mut metas = Self::read_once(read_at)?;
        for _ in 0..META_READS_MAX {
            let again = Self::read_once(read_at)?;
            if again == metas {
                return Ok(metas);
            }
            metas = again;
        }
        Err("the file changes too often".to_owned())
    }

    /// Read the meta pages, one of which may be half written. Its number is its last part.
    pub fn read_once(read_at: ReadAt) -> Result<Self, String> {
        let none = || "not an LMDB file".to_owned();
        let mut pages = [[0; META_OCTETS]; 2];
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::UnexpectedEof => none(),
            _ => text(&error),
        };
        read_at(&mut pages[0], 0).map_err(failed)?;
        let page_octets = Meta::of(&pages[0]).ok_or_else(none)?.page_octets;
        read_at(&mut pages[1], page_octets as u64).map_err(failed)?;
        Ok(Self(pages))
    }

    /// Return the content of the newer meta page. Errors: one of them is none, or the keys are not in the order of their
    /// octets.
    pub fn newest(&self) -> Result<Meta, String> {
        let [first, second] = self.0.each_ref().map(|octets| Meta::of(octets));
        let (Some(first), Some(second)) = (first, second) else { return Err("not an LMDB file".to_owned()) };
        let newest = if first.transaction < second.transaction { second } else { first };
        if newest.main.flags & OTHER_ORDERS != 0 {
            return Err("an LMDB file of another program".to_owned());
        }
        Ok(newest)
    }
}

/// A branch or leaf page.
#[derive(Debug)]
pub struct Page<'a> {
    octets: &'a [u8],
    nodes: usize,
    /// See above.
    pub is_leaf: bool,
}

/// A node of a page.
#[derive(Debug)]
pub struct Node<'a> {
    /// The length of the value, or the lower bits of a page's number.
    low: u32,
    flags: u16,
    /// The key.
    pub key: &'a [u8],
    rest: &'a [u8],
}

/// The value of a node.
#[derive(Debug)]
pub enum Value<'a> {
    /// It is in the node.
    Here(&'a [u8]),
    /// It begins in this page and has that many octets.
    Long(u64, usize),
}

impl<'a> Page<'a> {
    /// Take the octets of a whole page. Errors: it is not the page of this number.
    pub fn of(octets: &'a [u8], number: u64) -> io::Result<Self> {
        let found = || {
            let kind = u16_at(octets, WORD + 2)? & KINDS;
            let nodes_end = usize::from(u16_at(octets, WORD + 4)?);
            let nodes = nodes_end.checked_sub(PAGE_HEAD_OCTETS)? / 2;
            let is_sound = word_at(octets, 0)? == number && (kind == BRANCH || kind == LEAF);
            (is_sound && nodes_end <= octets.len()).then_some(Self { octets, nodes, is_leaf: kind == LEAF })
        };
        found().ok_or_else(damaged)
    }

    /// Return the number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Return a node.
    pub fn node(&self, at: usize) -> io::Result<Node<'a>> {
        let found = || {
            if at >= self.nodes {
                return None;
            }
            let start = usize::from(u16_at(self.octets, PAGE_HEAD_OCTETS + 2 * at)?);
            let (head, rest) = self.octets.get(start..)?.split_at_checked(NODE_HEAD_OCTETS)?;
            let (key, rest) = rest.split_at_checked(usize::from(u16_at(head, 6)?))?;
            Some(Node { low: u32_at(head, 0)?, flags: u16_at(head, 4)?, key, rest })
        };
        found().ok_or_else(damaged)
    }

    /// Return the key of a node alone: a search reads many.
    #[inline]
    fn key(&self, at: usize) -> Option<&'a [u8]> {
        let start = usize::from(u16_at(self.octets, PAGE_HEAD_OCTETS + 2 * at)?) + NODE_HEAD_OCTETS;
        let length = usize::from(u16_at(self.octets, start - 2)?);
        self.octets.get(start..start + length)
    }

    /// Return the node of a leaf that has this key.
    pub fn exact(&self, key: &[u8]) -> io::Result<Option<Node<'a>>> {
        match self.place(key, 0)? {
            Ok(at) => self.node(at).map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Return the page below a branch that may have this key. The first node has no key: it stands for all lesser ones.
    pub fn child(&self, key: &[u8]) -> io::Result<u64> {
        let at = self.place(key, 1)?.unwrap_or_else(|greater| greater - 1);
        Ok(self.node(at)?.page())
    }

    /// Return the place of a key from node `first` on, or the place of the first greater one.
    fn place(&self, key: &[u8], first: usize) -> io::Result<Result<usize, usize>> {
        let (mut low, mut high) = (first, self.nodes);
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.key(middle).ok_or_else(damaged)?.cmp(key) {
                Ordering::Equal => return Ok(Ok(middle)),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        Ok(Err(low))
    }
}

impl<'a> Node<'a> {
    /// Return the page below a node of a branch.
    pub fn page(&self) -> u64 {
        // On a machine with words of 32 bits the flags are unused.
        let high = if WORD > 4 { u64::from(self.flags) << 32 } else { 0 };
        u64::from(self.low) | high
    }

    /// Return the value of a node of a leaf.
    pub fn value(&self) -> io::Result<Value<'a>> {
        let octets = self.low as usize;
        let found = match self.flags {
            flags if flags & NESTED != 0 => None,
            flags if flags & BIG != 0 => word_at(self.rest, 0).map(|number| Value::Long(number, octets)),
            _ => self.rest.get(..octets).map(Value::Here),
        };
        found.ok_or_else(damaged)
    }
}

/// Return the long value behind the head of its first page. `octets`: from this head to the value's end. Errors: it is
/// not the page of this number, or has fewer pages. `pages`: how many the value needs.
pub fn long_value(octets: &[u8], number: u64, pages: u64) -> io::Result<&[u8]> {
    let found = || {
        let is_sound = word_at(octets, 0)? == number
            && u16_at(octets, WORD + 2)? & KINDS == OVERFLOW
            && u64::from(u32_at(octets, WORD + 4)?) >= pages;
        octets.get(PAGE_HEAD_OCTETS..).filter(|_| is_sound)
    };
    found().ok_or_else(damaged)
}
