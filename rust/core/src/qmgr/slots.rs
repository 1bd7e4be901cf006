//! Delivery slots: when a small message may overtake a large one (Postfix, SCHEDULER_README).
//!
//! Each delivery of a message earns one unit; `cost` units are one slot, which pays for one delivery of another message
//! before this one's next. So what is overtaken is late by one part in `cost - 1` at most, and what overtakes does not
//! wait for the end of a long list. A loan and a discount let an overtaking begin before all its slots are earned; they
//! are earned afterwards, before the next one.

use super::settings::SlotRules;

/// What a message has of slots on one transport.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slots {
    /// Units that are earned and not spent; negative while a loan is paid back.
    pub available: i64,
    /// Deliveries so far; of one that overtakes, less what they were expected to be.
    pub used: i64,
    /// Deliveries that were given to agents.
    pub selected: u64,
    /// Deliveries that its recipients in memory make, those before included.
    pub read: u64,
}

impl Slots {
    /// One of its deliveries goes to an agent.
    pub fn count_one(&mut self) {
        self.available += 1;
        self.used += 1;
        self.selected += 1;
    }

    /// Deliveries that are left, if each of its `unread` recipients takes one.
    pub fn left(&self, unread: u64) -> u64 {
        (self.read + unread).saturating_sub(self.selected)
    }

    /// Is it so large that it may be overtaken? `unread`: recipients that are still on disk.
    pub fn is_large(&self, rules: &SlotRules, unread: u64) -> bool {
        rules.cost >= 2 && self.read + unread >= u64::from(rules.minimum) * u64::from(rules.cost)
    }

    /// May it be overtaken for slots now?
    pub fn can_pay(&self, rules: &SlotRules, unread: u64) -> bool {
        self.available > 0 && self.is_large(rules, unread)
    }

    /// Slots that it has or will have earned when its recipients in memory are delivered.
    pub fn most(&self, rules: &SlotRules) -> i64 {
        let left = self.read.saturating_sub(self.selected) as i64;
        (left + self.available) / i64::from(rules.cost.max(1))
    }

    /// Has it earned enough for another one's `needed` deliveries, loan and discount counted in?
    pub fn affords(&self, rules: &SlotRules, needed: u64) -> bool {
        let earned = self.available / i64::from(rules.cost.max(1)) + i64::from(rules.loan);
        earned * 100 >= needed as i64 * (100 - i64::from(rules.discount_percent.min(100)))
    }

    /// Another one with `needed` deliveries overtakes it.
    pub fn pay(&mut self, other: &mut Self, rules: &SlotRules, needed: u64) {
        self.available -= needed as i64 * i64::from(rules.cost);
        other.used = -(needed as i64);
    }

    /// The one that overtook it is through: what it used more or less than was expected is settled.
    pub fn settle(&mut self, other: &Self, rules: &SlotRules) {
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
    fn messages_below_the_minimum_are_never_overtaken() {
        let rules = SlotRules::default();
        for (read, unread, selected, can) in
            [(14, 0, 10, false), (15, 0, 0, false), (15, 0, 1, true), (5, 9, 1, false), (5, 10, 1, true)]
        {
            assert_eq!(of(read, selected).can_pay(&rules, unread), can, "{read}+{unread}, {selected} out");
        }
        for cost in [0, 1] {
            assert!(!of(1000, 500).can_pay(&SlotRules { cost, ..rules }, 0), "a cost of {cost} is no overtaking");
        }
        assert!(of(4, 1).can_pay(&SlotRules { cost: 2, minimum: 2, ..rules }, 0));
    }

    #[test]
    fn loan_and_discount_bring_an_overtaking_forward() {
        // cost, loan, discount, units earned -> deliveries that may overtake
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
    fn what_is_paid_too_much_comes_back() {
        let rules = SlotRules::default();
        let (mut list, mut small) = (of(100, 20), Slots { read: 4, ..Slots::default() });
        list.pay(&mut small, &rules, 4);
        assert_eq!((list.available, small.used), (0, -4));
        for _ in 0..3 {
            small.count_one();
        }
        list.settle(&small, &rules);
        assert_eq!(list.available, 5, "three of four were used");
        list.pay(&mut small, &rules, 2);
        (0..3).for_each(|_| small.count_one());
        list.settle(&small, &rules);
        assert_eq!(list.available, -10, "one more than expected is paid, too");
    }

    #[test]
    fn nobody_is_let_in_that_the_slots_will_never_cover() {
        let rules = SlotRules::default();
        assert_eq!(of(100, 0).most(&rules), 20);
        assert_eq!(of(100, 50).most(&rules), 20);
        assert_eq!(Slots { available: -10, ..of(100, 50) }.most(&rules), 8);
    }
}
