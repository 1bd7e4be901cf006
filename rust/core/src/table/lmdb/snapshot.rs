//! The content of an LMDB file as one transaction left it.

use super::super::Each;
use super::super::octets::Octets;
use super::pages::{Meta, Metas, PAGE_HEAD_OCTETS, Page, Tree, Value, damaged, long_value, text};
use std::io;

/// See above.
#[derive(Debug)]
pub struct Snapshot {
    /// The file.
    pub octets: Octets,
    /// The meta pages.
    pub metas: Metas,
    /// The content of the newer one.
    pub meta: Meta,
}

impl Snapshot {
    /// Take a file and its meta pages. Errors: the file is no LMDB file, or is not whole.
    pub fn of(octets: Octets, metas: Metas) -> Result<Self, String> {
        let meta = metas.newest()?;
        let snapshot = Self { octets, metas, meta };
        let pages = snapshot.octets.len() / meta.page_octets as u64;
        // The last pages may be missing if they are free: all others are read.
        if pages <= meta.last_page { snapshot.check() } else { snapshot.check_root() }.map_err(|error| text(&error))?;
        Ok(snapshot)
    }

    /// Call `found` with the value of a key, and return whether there is one.
    pub fn find(&self, key: &[u8], found: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        let Some(mut number) = self.meta.main.root else { return Ok(false) };
        let mut buffer = Vec::new();
        for _ in 0..self.meta.main.depth {
            let page = self.page(number, &mut buffer)?;
            if !page.is_leaf {
                number = page.child(key)?;
                continue;
            }
            let Some(node) = page.exact(key)? else { return Ok(false) };
            match node.value()? {
                Value::Here(value) => found(value),
                Value::Long(number, octets) => found(self.long(number, octets, &mut Vec::new())?),
            }
            return Ok(true);
        }
        Err(damaged())
    }

    /// Call `each` with every entry, until it returns false.
    pub fn each(&self, each: Each) -> io::Result<()> {
        self.list(&self.meta.main, each)
    }

    /// Read all pages that are in use. Errors: one is damaged or missing.
    pub fn check(&self) -> io::Result<()> {
        self.list(&self.meta.main, &mut |_, _| true)?;
        self.list(&self.meta.free, &mut |_, _| true)
    }

    fn check_root(&self) -> io::Result<()> {
        match self.meta.main.root {
            Some(root) => self.page(root, &mut Vec::new()).map(|_| ()),
            None => Ok(()),
        }
    }

    fn list(&self, tree: &Tree, each: Each) -> io::Result<()> {
        let Some(root) = tree.root else { return Ok(()) };
        // A tree names each page once. A damaged one could name pages again and again.
        let mut pages = self.octets.len() / self.meta.page_octets as u64;
        self.list_below(root, tree.depth, &mut pages, each).map(|_| ())
    }

    /// List the entries below a page. `depth`: maximum number of pages from this one to a leaf. `pages`: maximum number
    /// of pages that may still be read. False: `each` wants no more.
    fn list_below(&self, number: u64, depth: u16, pages: &mut u64, each: Each) -> io::Result<bool> {
        let depth = depth.checked_sub(1).ok_or_else(damaged)?;
        *pages = pages.checked_sub(1).ok_or_else(damaged)?;
        let (mut buffer, mut long_buffer) = (Vec::new(), Vec::new());
        let page = self.page(number, &mut buffer)?;
        for at in 0..page.nodes() {
            let node = page.node(at)?;
            let goes_on = if page.is_leaf {
                match node.value()? {
                    Value::Here(value) => each(node.key, value),
                    Value::Long(number, octets) => {
                        *pages = pages.checked_sub(self.pages_of(octets)).ok_or_else(damaged)?;
                        each(node.key, self.long(number, octets, &mut long_buffer)?)
                    }
                }
            } else {
                self.list_below(node.page(), depth, pages, each)?
            };
            if !goes_on {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn page<'a>(&'a self, number: u64, buffer: &'a mut Vec<u8>) -> io::Result<Page<'a>> {
        Page::of(self.octets.piece(self.place(number)?, self.meta.page_octets, buffer)?, number)
    }

    /// Return a long value that begins in a page.
    fn long<'a>(&'a self, number: u64, octets: usize, buffer: &'a mut Vec<u8>) -> io::Result<&'a [u8]> {
        let length = octets.checked_add(PAGE_HEAD_OCTETS).ok_or_else(damaged)?;
        long_value(self.octets.piece(self.place(number)?, length, buffer)?, number, self.pages_of(octets))
    }

    fn place(&self, number: u64) -> io::Result<u64> {
        number.checked_mul(self.meta.page_octets as u64).ok_or_else(damaged)
    }

    /// Return the number of pages of a long value.
    fn pages_of(&self, octets: usize) -> u64 {
        (octets as u64 + PAGE_HEAD_OCTETS as u64).div_ceil(self.meta.page_octets as u64)
    }
}
