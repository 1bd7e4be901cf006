//! Work on the parts of a large table, in several threads.

use std::iter;
use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Maximum number of threads that load a table, the caller's included.
const THREADS_MAX: usize = 4;
/// Minimum octets of a text for more than one thread: for fewer, starting a thread costs more than it saves.
const SEVERAL_MIN_OCTETS: u64 = 256 * 1024;

/// Return the number of threads for a text of that many octets.
pub fn count(octets: u64) -> usize {
    if octets < SEVERAL_MIN_OCTETS {
        return 1;
    }
    thread::available_parallelism().map_or(1, |cpus| cpus.get().min(THREADS_MAX))
}

/// Return what `work` makes of each item, in the order of the items. The caller's thread and at most `threads - 1` others
/// take one item after the other; without a free thread, those that there are do the work.
pub fn each<T: Sync, R: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let at = next.fetch_add(1, Ordering::Relaxed);
        items.get(at).map(|item| (at, work(item)))
    };
    let run = || iter::from_fn(take).collect::<Vec<_>>();
    let mut done = thread::scope(|scope| {
        let begin = |_| thread::Builder::new().name("table".into()).spawn_scoped(scope, run).ok();
        let others: Vec<_> = (1..threads.min(THREADS_MAX).min(items.len())).filter_map(begin).collect();
        let mut done = run();
        done.extend(others.into_iter().flat_map(|other| other.join().unwrap_or_else(|panic| resume_unwind(panic))));
        done
    });
    done.sort_unstable_by_key(|&(at, _)| at);
    done.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_have_the_order_of_the_items() {
        for threads in 0..=THREADS_MAX + 1 {
            for items in [0, 1, 2, 100] {
                let items: Vec<usize> = (0..items).collect();
                assert!(each(&items, threads, |item| item * 2).into_iter().eq(items.iter().map(|item| item * 2)));
            }
        }
    }

    #[test]
    fn a_panic_of_another_thread_is_passed_on() {
        let caller = thread::current().id();
        let meet = std::sync::Barrier::new(2);
        let work = |_: &u8| {
            meet.wait();
            assert!(thread::current().id() == caller, "as the test wants");
        };
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| each(&[0, 1], 2, work))).is_err());
    }
}
