//! The addresses for which the lines of a block count.

use super::pattern::Network;
use crate::table::ranges::{Bits, Range};

/// The ranges that a list of conditions leaves: those of one family, since no address has two.
#[derive(Debug, Clone)]
pub enum Scope {
    All,
    V4(Vec<Range<u32>>),
    V6(Vec<Range<u128>>),
}

/// Return the addresses outside of a range.
fn outside<A: Bits>((first, last): Range<A>) -> Vec<Range<A>> {
    let below = first.previous().map(|end| (A::default(), end));
    let above = last.next().map(|start| (start, A::MAX));
    below.into_iter().chain(above).collect()
}

/// Return the common addresses of two lists of ranges.
fn common<A: Bits>(a: &[Range<A>], b: &[Range<A>]) -> Vec<Range<A>> {
    let meet = |x: &Range<A>, y: &Range<A>| (x.0.max(y.0), x.1.min(y.1));
    a.iter().flat_map(|x| b.iter().map(move |y| meet(x, y))).filter(|range| range.0 <= range.1).collect()
}

impl Scope {
    /// Return the addresses of this scope that a pattern matches.
    pub fn narrow(&self, network: Network, negated: bool) -> Self {
        fn ranges<A: Bits>(range: Range<A>, negated: bool) -> Vec<Range<A>> {
            if negated { outside(range) } else { vec![range] }
        }
        match (self, network) {
            (Self::All, Network::V4(range)) => Self::V4(ranges(range, negated)),
            (Self::All, Network::V6(range)) => Self::V6(ranges(range, negated)),
            (Self::V4(scope), Network::V4(range)) => Self::V4(common(scope, &ranges(range, negated))),
            (Self::V6(scope), Network::V6(range)) => Self::V6(common(scope, &ranges(range, negated))),
            (Self::V4(_), Network::V6(_)) | (Self::V6(_), Network::V4(_)) => Self::V4(Vec::new()),
        }
    }
}
