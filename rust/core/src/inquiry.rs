//! The lookups of one message or recipient, as a plain `async fn` without a runtime.
//!
//! `Lookups` has the lookups so far, and the answers that are there.
//!
//! An `Inquiry` holds the future. `poll` runs it until it has its result, or until it needs answers of remote tables:
//! then `asks` returns the lookups, and `answer` takes their answers. A table that answers at once does so inside the
//! future, which then never stops. An answer holds for the whole message, so no lookup is made twice.

use crate::ask::{Answer, Lookup};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Maximum number of remote lookups for one message.
pub const LOOKUPS_MAX: usize = 100_000;
/// Maximum number of lookups that `asks` returns at a time.
pub const BATCH_MAX: usize = 1_000;
/// Maximum length of a value in octets.
pub const ANSWER_MAX_OCTETS: usize = 1024 * 1024;
/// Maximum length of all answers to one message in octets, as far as they are in memory.
pub const ANSWERS_MAX_OCTETS: usize = 16 * 1024 * 1024;
/// Maximum number of futures for `all`.
pub const SIDE_BY_SIDE: usize = 100;

/// A lookup that cannot be answered now: the mail waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure(pub Box<str>);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The lookups of a message in remote tables, and their answers.
#[derive(Debug, Default)]
pub struct Lookups {
    /// The lookups in memory; `None`: not answered yet.
    known: HashMap<Lookup, Option<Answer>>,
    /// Lookups that `asks` has not returned yet.
    unasked: VecDeque<Lookup>,
    /// All lookups so far.
    asked: usize,
    /// Octets of the answers in memory.
    octets: usize,
}

impl Lookups {
    /// Return the answer to a lookup. `Pending`: `asks` returns the lookup, or has returned it.
    pub fn find(&mut self, lookup: &Lookup) -> Poll<Answer> {
        match self.known.get(lookup) {
            Some(Some(answer)) => Poll::Ready(answer.clone()),
            Some(None) => Poll::Pending,
            None if self.asked >= LOOKUPS_MAX => {
                Poll::Ready(Answer::Failed(format!("a message may cause {LOOKUPS_MAX} lookups").into()))
            }
            None => {
                self.asked += 1;
                self.known.insert(lookup.clone(), None);
                self.unasked.push_back(lookup.clone());
                Poll::Pending
            }
        }
    }

    /// Whether `asks` has lookups.
    pub fn has_asks(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Take the next lookups, at most `BATCH_MAX`.
    pub fn asks(&mut self) -> Vec<Lookup> {
        let taken = self.unasked.len().min(BATCH_MAX);
        self.unasked.drain(..taken).collect()
    }

    /// Receive an answer. An answer to no lookup, and a second answer, have no effect.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        let octets = match &answer {
            Answer::Found(value) => value.len(),
            Answer::NotFound | Answer::Failed(_) => 0,
        };
        let fits = octets <= ANSWER_MAX_OCTETS && self.octets + octets <= ANSWERS_MAX_OCTETS;
        let Some(open @ None) = self.known.get_mut(lookup) else {
            return;
        };
        if fits {
            *open = Some(answer);
            self.octets += octets;
        } else {
            *open = Some(Answer::Failed(format!("a value has {octets} octets, which is too long").into()));
        }
    }

    /// Drop all lookups and answers, but not their number.
    pub fn forget(&mut self) {
        self.known.clear();
        self.unasked.clear();
        self.octets = 0;
    }
}

/// The side of an inquiry on which its future asks.
#[derive(Debug, Clone, Default)]
pub struct Asker(Arc<Mutex<Lookups>>);

impl Asker {
    /// Return the value of a key in a remote table, `None` without one.
    pub async fn remote(&self, table: usize, key: &[u8]) -> Result<Option<Box<[u8]>>, Failure> {
        let lookup = Lookup { table, key: key.into() };
        match std::future::poll_fn(|_| self.lookups().find(&lookup)).await {
            Answer::Found(value) => Ok(Some(value)),
            Answer::NotFound => Ok(None),
            Answer::Failed(why) => Err(Failure(why)),
        }
    }

    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A future and its lookups.
pub struct Inquiry<T> {
    future: Pin<Box<dyn Future<Output = T> + Send + Sync>>,
    asker: Asker,
}

impl<T> fmt::Debug for Inquiry<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inquiry").field("asker", &self.asker).finish_non_exhaustive()
    }
}

impl<T> Inquiry<T> {
    /// Return an inquiry that runs the future of `begin`, without answers yet.
    pub fn new<F: Future<Output = T> + Send + Sync + 'static>(begin: impl FnOnce(Asker) -> F) -> Self {
        Self::with(Asker::default(), begin)
    }

    /// The same, with the answers of an earlier inquiry about the same message.
    pub fn with<F: Future<Output = T> + Send + Sync + 'static>(asker: Asker, begin: impl FnOnce(Asker) -> F) -> Self {
        Self { future: Box::pin(begin(asker.clone())), asker }
    }

    /// Return the result; `Pending`: `asks` has lookups, or answers of earlier ones are missing. Do not call it again
    /// after the result.
    pub fn poll(&mut self) -> Poll<T> {
        self.future.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    /// Take the next lookups, at most `BATCH_MAX`. The others follow after an answer.
    pub fn asks(&mut self) -> Vec<Lookup> {
        self.asker.lookups().asks()
    }

    /// Receive an answer; see `Lookups::answer`.
    pub fn answer(&mut self, lookup: &Lookup, answer: Answer) {
        self.asker.lookups().answer(lookup, answer);
    }
}

/// Return the results of futures, in their order. They run side by side, so that one batch has the lookups of all.
/// Callers with a long list give `SIDE_BY_SIDE` at a time.
pub async fn all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut open = false;
        for (future, result) in &mut running {
            if result.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => *result = Some(value),
                    Poll::Pending => open = true,
                }
            }
        }
        if open { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    running.into_iter().filter_map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(value: &str) -> Answer {
        Answer::Found(value.as_bytes().into())
    }

    type Found = Result<Option<Box<[u8]>>, Failure>;

    async fn chain(asker: &Asker, key: usize) -> Found {
        let value = asker.remote(7, key.to_string().as_bytes()).await?.unwrap_or_default();
        asker.remote(7, &value).await
    }

    /// Ask for the keys `0..count` of table 7, side by side, and for each value again as a key.
    fn inquiry(count: usize) -> Inquiry<Vec<Found>> {
        Inquiry::new(move |asker| async move { all((0..count).map(|key| chain(&asker, key)).collect()).await })
    }

    #[test]
    fn lookups_come_in_batches_and_answers_in_any_order_give_the_same() {
        for backwards in [false, true] {
            let mut inquiry = inquiry(5);
            assert_eq!(inquiry.poll(), Poll::Pending);
            for (round, value) in [(0, "v"), (1, "w")] {
                let mut asked = inquiry.asks();
                assert_eq!(asked.len(), if round == 0 { 5 } else { 1 }, "the second question of all is the same");
                assert_eq!(inquiry.asks(), []);
                if backwards {
                    asked.reverse();
                }
                let (last, others) = asked.split_last().unwrap();
                for lookup in others {
                    inquiry.answer(lookup, found(value));
                    assert_eq!(inquiry.poll(), Poll::Pending);
                }
                inquiry.answer(last, found(value));
                inquiry.answer(last, Answer::Failed("too late".into()));
                if round == 0 {
                    assert_eq!(inquiry.poll(), Poll::Pending);
                }
            }
            let Poll::Ready(results) = inquiry.poll() else { panic!("all answers are there") };
            assert_eq!(results, vec![Ok(Some(b"w"[..].into())); 5]);
        }
    }

    #[test]
    fn a_failure_is_a_result() {
        let mut inquiry = inquiry(2);
        assert!(inquiry.poll().is_pending());
        let asked = inquiry.asks();
        inquiry.answer(&asked[0], Answer::Failed("down".into()));
        inquiry.answer(&asked[1], Answer::NotFound);
        assert!(inquiry.poll().is_pending());
        let asked = inquiry.asks();
        assert_eq!(asked, [Lookup { table: 7, key: Box::default() }]);
        inquiry.answer(&asked[0], Answer::NotFound);
        assert_eq!(inquiry.poll(), Poll::Ready(vec![Err(Failure("down".into())), Ok(None)]));
    }

    #[test]
    fn lookups_batches_and_answers_have_limits() {
        let mut many = inquiry(BATCH_MAX + 1);
        let mut asked = 0;
        while many.poll().is_pending() {
            let batch = many.asks();
            assert!(!batch.is_empty() && batch.len() <= BATCH_MAX);
            asked += batch.len();
            batch.iter().for_each(|lookup| many.answer(lookup, Answer::NotFound));
        }
        assert_eq!(asked, BATCH_MAX + 2);
        let mut long = inquiry(1);
        assert!(long.poll().is_pending());
        let asked = long.asks();
        long.answer(&asked[0], Answer::Found(vec![b'x'; ANSWER_MAX_OCTETS + 1].into()));
        assert!(matches!(long.poll(), Poll::Ready(results) if results[0].is_err()));
        let mut greedy = Inquiry::new(async |asker: Asker| {
            for key in 0..=LOOKUPS_MAX {
                asker.remote(0, &key.to_be_bytes()).await.map_err(|_| key)?;
            }
            Ok(())
        });
        let failed_at = loop {
            match greedy.poll() {
                Poll::Ready(result) => break result,
                Poll::Pending => {
                    greedy.asks().iter().for_each(|lookup| greedy.answer(lookup, Answer::NotFound));
                }
            }
        };
        assert_eq!(failed_at, Err(LOOKUPS_MAX));
    }
}
