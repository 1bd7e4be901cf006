//! The reasons to wait: each text is kept once, for any number of messages.

use super::chunks::Chunks;
use crate::mail::status::Status;
use hashbrown::HashTable;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

/// The number of a reason.
pub(crate) type Reason = u32;

/// Number for no reason.
pub(crate) const NO_REASON: Reason = u32::MAX;

/// The texts, by number.
pub(crate) type Statuses = Chunks<Option<Arc<Status>>>;

/// The number of each reason, and how many messages have it.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    counts: Vec<u32>,
    free: Vec<Reason>,
    known: HashTable<Reason>,
    hasher: RandomState,
}

impl Reasons {
    /// Return the number of different reasons.
    pub(crate) fn len(&self) -> usize {
        self.known.len()
    }

    /// Return the number of a reason; `release` gives it back.
    pub(crate) fn take(&mut self, status: &Arc<Status>, statuses: &mut Statuses) -> Reason {
        let hash = self.hasher.hash_one(&**status);
        let same = |number: &Reason| statuses.get(*number).as_ref().is_some_and(|known| **known == **status);
        if let Some(number) = self.known.find(hash, same).copied() {
            self.counts[number as usize] += 1;
            return number;
        }
        let number = match self.free.pop() {
            Some(number) => {
                *statuses.get_mut(number) = Some(Arc::clone(status));
                self.counts[number as usize] = 1;
                number
            }
            None => {
                self.counts.push(1);
                statuses.push(Some(Arc::clone(status)))
            }
        };
        let hasher = &self.hasher;
        self.known.insert_unique(hash, number, |number| hash_of(hasher, statuses, *number));
        number
    }

    /// Release a message's reason. `NO_REASON` needs no release.
    pub(crate) fn release(&mut self, number: Reason, statuses: &mut Statuses) {
        if number == NO_REASON {
            return;
        }
        self.counts[number as usize] -= 1;
        if self.counts[number as usize] > 0 {
            return;
        }
        if let Some(status) = statuses.get_mut(number).take() {
            let hash = self.hasher.hash_one(&*status);
            if let Ok(found) = self.known.find_entry(hash, |other| *other == number) {
                found.remove();
            }
            self.free.push(number);
        }
    }
}

fn hash_of(hasher: &RandomState, statuses: &Statuses, number: Reason) -> u64 {
    statuses.get(number).as_ref().map_or(0, |status| hasher.hash_one(&**status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::reply::Enhanced;
    use crate::mail::status::Outcome;

    fn status(text: &str) -> Arc<Status> {
        let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
        Arc::new(Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None })
    }

    #[test]
    fn a_text_is_kept_once_and_while_it_is_in_use() {
        let (mut reasons, mut statuses) = (Reasons::default(), Statuses::default());
        let many: Vec<Reason> = (0..2000).map(|n| reasons.take(&status(&n.to_string()), &mut statuses)).collect();
        let again: Vec<Reason> = (0..2000).map(|n| reasons.take(&status(&n.to_string()), &mut statuses)).collect();
        assert_eq!((&many, reasons.len()), (&again, 2000));
        many.iter().for_each(|number| reasons.release(*number, &mut statuses));
        assert_eq!((reasons.len(), statuses.get(many[7]).as_ref().map(|known| &*known.text)), (2000, Some("7")));
        again.iter().for_each(|number| reasons.release(*number, &mut statuses));
        assert_eq!((reasons.len(), statuses.iter_from(0).filter(|(_, known)| known.is_some()).count()), (0, 0));
        reasons.take(&status("new"), &mut statuses);
        assert_eq!(statuses.len(), 2000, "numbers are used again");
    }
}
