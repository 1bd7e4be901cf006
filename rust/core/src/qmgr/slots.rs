//! Delivery slots: when a small job may preempt a large one (Postfix, SCHEDULER_README).
//!
//! Each delivery of a job earns one unit. `cost` units are one slot, which pays for one delivery of another job
//! before this one's next. So preemption delays a job by at most one part in `cost - 1`, and a small job does not
//! wait for the end of a long list. With a loan and a discount a preemption begins before all its slots are earned;
//! they are earned before the next one begins.

use super::settings::SlotRules;

/// The delivery slots of a job.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Units earned and not spent; negative while a loan is paid back.
    pub available: i64,
    /// Deliveries so far; for a preempting job, less the expected ones.
    pub used: i64,
    /// Deliveries given to agents.
    pub selected: u64,
    /// Deliveries of its recipients in memory, including earlier ones.
    pub read: u64,
}

impl Slots {
    /// Count a delivery that goes to an agent.
    pub fn count_one(&mut self) {
        self.available += 1;
        self.used += 1;
        self.selected += 1;
    }

    /// Return the deliveries left, if each of its `unread` recipients takes one.
    pub fn left(&self, unread: u64) -> u64 {
        (self.read + unread).saturating_sub(self.selected)
    }

    /// Return whether the job may be preempted. `unread`: recipients on disk.
    pub fn is_large(&self, rules: &SlotRules, unread: u64) -> bool {
        rules.cost >= 2 && self.read + unread >= u64::from(rules.minimum) * u64::from(rules.cost)
    }

    /// Return whether it may be preempted for slots now.
    pub fn can_pay(&self, rules: &SlotRules, unread: u64) -> bool {
        self.available > 0 && self.is_large(rules, unread)
    }

    /// Return the slots that it will have earned after its recipients in memory.
    pub fn most(&self, rules: &SlotRules) -> i64 {
        let left = self.read.saturating_sub(self.selected) as i64;
        (left + self.available) / i64::from(rules.cost.max(1))
    }

    /// Return whether it has earned enough for `needed` deliveries of another job, with loan and discount.
    pub fn affords(&self, rules: &SlotRules, needed: u64) -> bool {
        let earned = self.available / i64::from(rules.cost.max(1)) + i64::from(rules.loan);
        earned * 100 >= needed as i64 * (100 - i64::from(rules.discount_percent.min(100)))
    }

    /// Pay for a preemption by another job with `needed` deliveries.
    pub fn pay(&mut self, other: &mut Self, rules: &SlotRules, needed: u64) {
        self.available -= needed as i64 * i64::from(rules.cost);
        other.used = -(needed as i64);
    }

    /// Account for a preemption that ends: the difference between used and expected deliveries.
    pub fn finish(&mut self, other: &Self, rules: &SlotRules) {
        self.available -= other.used * i64::from(rules.cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(read: u64, selected: u64) -> Slots {
        Slots { available: selected as i64, used: selected as i64, selected, read }
    }

    #[test]
    fn jobs_below_the_minimum_are_never_preempted() {
        let rules = SlotRules::default();
        for (read, unread, selected, can) in
            [(14, 0, 10, false), (15, 0, 0, false), (15, 0, 1, true), (5, 9, 1, false), (5, 10, 1, true)]
        {
            assert_eq!(of(read, selected).can_pay(&rules, unread), can, "{read}+{unread}, {selected} out");
        }
        for cost in [0, 1] {
            assert!(!of(1000, 500).can_pay(&SlotRules { cost, ..rules }, 0), "a cost of {cost} turns preemption off");
        }
        assert!(of(4, 1).can_pay(&SlotRules { cost: 2, minimum: 2, ..rules }, 0));
    }

    #[test]
    fn loan_and_discount_bring_a_preemption_forward() {
        // cost, loan, discount, units earned -> deliveries of a preempting job
        for (cost, loan, discount_percent, available, most) in [
            (5, 3, 50, 1, 6),
            (5, 3, 50, 4, 6),
            (5, 3, 50, 5, 8),
            (5, 0, 0, 4, 0),
            (5, 0, 0, 5, 1),
            (5, 0, 0, 14, 2),
            (5, 3, 0, 1, 3),
            (5, 0, 50, 5, 2),
            (2, 0, 0, 10, 5),
            (50, 0, 0, 49, 0),
            (5, 0, 0, -7, 0),
            (5, 3, 0, -7, 2),
        ] {
            let rules = SlotRules { cost, loan, discount_percent, minimum: 3 };
            let slots = Slots { available, ..of(1000, 0) };
            let affordable = (1..1000).take_while(|needed| slots.affords(&rules, *needed)).count();
            assert_eq!(affordable, most, "cost {cost}, loan {loan}, discount {discount_percent}, {available} units");
        }
        let all = SlotRules { discount_percent: 100, ..SlotRules::default() };
        assert!(of(1000, 1).affords(&all, 1_000_000));
    }

    #[test]
    fn unused_slots_are_paid_back() {
        let rules = SlotRules::default();
        let (mut list, mut small) = (of(100, 20), Slots { read: 4, ..Slots::default() });
        list.pay(&mut small, &rules, 4);
        assert_eq!((list.available, small.used), (0, -4));
        for _ in 0..3 {
            small.count_one();
        }
        list.finish(&small, &rules);
        assert_eq!(list.available, 5, "three of four were used");
        list.pay(&mut small, &rules, 2);
        (0..3).for_each(|_| small.count_one());
        list.finish(&small, &rules);
        assert_eq!(list.available, -10, "one more than expected is paid, too");
    }

    #[test]
    fn the_number_of_slots_has_a_limit() {
        let rules = SlotRules::default();
        assert_eq!(of(100, 0).most(&rules), 20);
        assert_eq!(of(100, 50).most(&rules), 20);
        assert_eq!(Slots { available: -10, ..of(100, 50) }.most(&rules), 8);
    }
}
