//! Tables of tables: `unionmap:{type:name, ...}`, `pipemap:{type:name, ...}`; and `randmap:{value, ...}`.

use super::{Table, words};
use crate::ask::Answer;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Maximum number of tables or values.
pub const MEMBERS_MAX: usize = 1000;

/// How the answers of the members are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// All values, with commas.
    Union,
    /// Each value is the key of the next table.
    Pipe,
}

/// A table of tables.
#[derive(Debug)]
pub struct Combined {
    name: Box<str>,
    how: How,
    members: Box<[Arc<dyn Table>]>,
}

/// Return the members in a name, as `need` says they are. Errors: the list is malformed.
pub fn members<'a>(name: &str, rest: &'a [u8], need: &str) -> Result<Vec<&'a [u8]>, String> {
    let parts = words::inside(rest).map(words::parts).filter(|parts| !parts.is_empty());
    let kind = name.split(':').next().unwrap_or_default();
    let parts = parts.ok_or_else(|| format!("bad syntax: \"{name}\"; need \"{kind}:{{{need}...}}\""))?;
    if parts.len() > MEMBERS_MAX {
        return Err(format!("\"{kind}\" table with more than {MEMBERS_MAX} members"));
    }
    Ok(parts)
}

impl Combined {
    /// Return the table of these members.
    pub fn new(name: &str, how: How, members: Vec<Arc<dyn Table>>) -> Self {
        Self { name: name.into(), how, members: members.into() }
    }
}

impl Table for Combined {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, key: &[u8]) -> Answer {
        let mut found: Option<Vec<u8>> = None;
        for table in &self.members {
            let key = if self.how == How::Pipe { found.as_deref().unwrap_or(key) } else { key };
            match (self.how, table.lookup(key)) {
                (_, Answer::Failed(problem)) => return Answer::Failed(problem),
                (How::Pipe, Answer::NotFound) => return Answer::NotFound,
                (How::Union, Answer::NotFound) => {}
                (How::Pipe, Answer::Found(value)) => found = Some(value.into()),
                (How::Union, Answer::Found(value)) => match &mut found {
                    Some(values) => {
                        values.push(b',');
                        values.extend_from_slice(&value);
                    }
                    None => found = Some(value.into()),
                },
            }
        }
        found.map_or(Answer::NotFound, |value| Answer::Found(value.into()))
    }

    fn takes_parts(&self) -> bool {
        self.members.iter().all(|table| table.takes_parts())
    }

    fn owner(&self) -> Option<u32> {
        // A value from any table that does not belong to root is not root's.
        let owners = self.members.iter().filter_map(|table| table.owner());
        owners.fold(None, |owner, other| if owner.is_none_or(|owner| owner == 0) { Some(other) } else { owner })
    }

    fn refresh(&self) -> Result<(), Box<str>> {
        self.members.iter().try_for_each(|table| table.refresh())
    }

    fn is_outdated(&self) -> bool {
        self.members.iter().any(|table| table.is_outdated())
    }

    fn is_closed(&self) -> bool {
        self.members.iter().any(|table| table.is_closed())
    }

    fn has_addresses(&self) -> bool {
        self.members.iter().any(|table| table.has_addresses())
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        match self.how {
            How::Pipe => self.members.last().map_or(Ok(Vec::new()), |table| table.values()),
            How::Union => Ok(self.members.iter().map(|table| table.values()).collect::<Result<Vec<_>, _>>()?.concat()),
        }
    }
}

/// `randmap:{value, ...}`: one of the values for every key.
#[derive(Debug)]
pub struct Random {
    name: Box<str>,
    values: Box<[Box<[u8]>]>,
    keys: RandomState,
    count: AtomicU64,
}

impl Random {
    /// `rest`: the values. Errors: the list is malformed.
    pub fn new(name: &str, rest: &[u8]) -> Result<Self, String> {
        let values: Vec<Box<[u8]>> = members(name, rest, "value")?.into_iter().map(Into::into).collect();
        Ok(Self { name: name.into(), values: values.into(), keys: RandomState::new(), count: AtomicU64::new(0) })
    }
}

impl Table for Random {
    fn name(&self) -> &str {
        &self.name
    }

    fn lookup(&self, _: &[u8]) -> Answer {
        let drawn = self.keys.hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        Answer::Found(self.values[(drawn % self.values.len() as u64) as usize].clone())
    }

    fn values(&self) -> Result<Vec<Box<[u8]>>, Box<str>> {
        Ok(self.values.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixed::Fail;
    use super::super::inline::Inline;
    use super::super::options::Options;
    use super::*;

    fn inline(rest: &str) -> Arc<dyn Table> {
        Arc::new(Inline::new("inline:x", rest.as_bytes(), Options::plain()).unwrap())
    }

    fn found(value: &str) -> Answer {
        Answer::Found(value.as_bytes().into())
    }

    #[test]
    fn a_union_has_all_values_and_a_pipe_the_last() {
        let union = Combined::new("u", How::Union, vec![inline("{a=1}"), inline("{a=2}"), inline("{b=3}")]);
        assert_eq!((union.lookup(b"a"), union.lookup(b"c")), (found("1,2"), Answer::NotFound));
        let pipe = Combined::new("p", How::Pipe, vec![inline("{a=b}"), inline("{b=c}")]);
        assert_eq!((pipe.lookup(b"a"), pipe.lookup(b"b")), (found("c"), Answer::NotFound));
    }

    #[test]
    fn a_member_that_fails_is_a_failure_of_the_whole() {
        let fail = || -> Arc<dyn Table> { Arc::new(Fail { name: "fail:x".into() }) };
        for how in [How::Union, How::Pipe] {
            for members in [vec![inline("{a=1}"), fail()], vec![fail(), inline("{a=1}")]] {
                assert!(matches!(Combined::new("c", how, members).lookup(b"a"), Answer::Failed(_)));
            }
        }
    }

    #[test]
    fn every_value_of_a_randmap_comes_up() {
        let table = Random::new("randmap:{a b}", b"{a, b}").unwrap();
        for wanted in ["a", "b"] {
            assert!((0..1000).any(|_| table.lookup(b"k") == found(wanted)));
        }
        assert_eq!(
            Random::new("randmap:{}", b"{}").unwrap_err(),
            "bad syntax: \"randmap:{}\"; need \"randmap:{value...}\""
        );
    }
}
