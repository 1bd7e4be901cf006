use super::*;
use crate::mail::reply::Enhanced;
use crate::mail::status::Outcome;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn at(segment: u64, offset: u64) -> Locator {
    Locator { segment: SegmentId(segment), offset, record_octets: 10 }
}

fn add(catalogue: &mut Catalogue, id: u64) -> u32 {
    catalogue.insert(QueueId(id), at(1, id), 2).unwrap()
}

fn status(text: &str) -> Arc<Status> {
    let dsn = Enhanced { class: 4, subject: 4, detail: 1 };
    Arc::new(Status { outcome: Outcome::Deferred, dsn, text: text.into(), remote: None })
}

#[test]
fn an_entry_is_small() {
    assert!(size_of::<Row>() <= 64, "{}", size_of::<Row>());
}

#[test]
fn fresh_messages_come_in_order_of_arrival_and_deferred_ones_when_due() {
    let mut catalogue = Catalogue::default();
    let slots: Vec<u32> = (1..=4).map(|id| add(&mut catalogue, id)).collect();
    assert_eq!(catalogue.insert(QueueId(1), at(1, 1), 2), None, "a message has one entry");
    catalogue.wait_fresh(slots[1]);
    catalogue.wait_fresh(slots[0]);
    catalogue.wait_until(slots[2], 50);
    catalogue.wait_until(slots[3], 20);
    assert_eq!(catalogue.first_fresh(), Some(slots[1]));
    catalogue.place(slots[1], Place::Loading);
    assert_eq!(catalogue.first_fresh(), Some(slots[0]));
    assert_eq!(catalogue.first_due(), Some((20, slots[3])));
    catalogue.wait_until(slots[3], 90);
    assert_eq!(catalogue.first_due(), Some((50, slots[2])));
    catalogue.remove(slots[2]);
    assert_eq!(catalogue.first_due(), Some((90, slots[3])));
    assert_eq!((catalogue.len(), catalogue.deferred()), (3, 1));
}

#[test]
fn ids_stay_right_over_many_arrivals_and_removals() {
    let mut catalogue = Catalogue::default();
    let mut model = BTreeMap::new();
    // A multiplicative generator mixes arrivals and removals well enough.
    let mut dice = 1u32;
    for _ in 0..20_000 {
        dice = dice.wrapping_mul(0x915f_77f5);
        let id = u64::from(dice >> 24);
        match model.remove(&id) {
            Some(slot) => catalogue.remove(slot),
            None => {
                let slot = add(&mut catalogue, id);
                assert!(model.values().all(|other| *other != slot), "two in one slot");
                model.insert(id, slot);
            }
        }
        assert_eq!(catalogue.slot(QueueId(id)), model.get(&id).copied());
        assert_eq!(catalogue.len(), model.len());
    }
    assert!((0..256).all(|id| catalogue.slot(QueueId(id)) == model.get(&id).copied()));
    assert_eq!(catalogue.iter().count(), model.len());
    assert!(catalogue.rows.rows.len() < 256 + 64, "slots are used again: {}", catalogue.rows.rows.len());
}

#[test]
fn a_segment_remembers_its_messages_and_those_that_are_gone() {
    let mut catalogue = Catalogue::default();
    let slots: Vec<u32> = (1..=3).map(|id| add(&mut catalogue, id)).collect();
    catalogue.remove(slots[0]);
    catalogue.moved(slots[1], at(2, 32));
    let [one, two] = [1, 2].map(|segment| catalogue.resident(SegmentId(segment)).unwrap().clone());
    assert_eq!((one.live, one.live_octets, two.live, two.live_octets), (1, 10, 1, 10));
    assert_eq!((one.gone, one.copies), (vec![QueueId(1)], vec![QueueId(2)]));
    assert_eq!(catalogue.all_gone(), [QueueId(1)], "the other one is only elsewhere");
    assert_eq!(catalogue.residents_of(&[SegmentId(1)]).iter().map(Entry::id).collect::<Vec<_>>(), [QueueId(3)]);
    catalogue.remove(slots[1]);
    catalogue.forget_segment(SegmentId(2));
    let mut gone = catalogue.all_gone();
    gone.sort();
    assert_eq!(gone, [QueueId(1), QueueId(2)], "the old segment has a copy yet");
    catalogue.forget_segment(SegmentId(1));
    assert!(catalogue.resident(SegmentId(1)).is_some(), "somebody stands in it");
    // The same message found in a second segment is a copy.
    assert_eq!(catalogue.insert(QueueId(3), at(7, 32), 2), None);
    assert_eq!(catalogue.resident(SegmentId(7)).unwrap().copies, [QueueId(3)]);
    assert_eq!(catalogue.live_octets(), 10);
}

#[test]
fn a_snapshot_does_not_change() {
    let mut catalogue = Catalogue::default();
    for id in 1..=2000 {
        let slot = add(&mut catalogue, id);
        catalogue.tried(slot, &[(1, status("why"))], id);
        catalogue.wait_until(slot, id);
    }
    let snapshot = catalogue.snapshot();
    let of_thread = snapshot.clone();
    for id in 1..=2000 {
        let slot = catalogue.slot(QueueId(id)).unwrap();
        if id % 2 == 0 { catalogue.remove(slot) } else { catalogue.forget_reasons(slot) }
    }
    catalogue.insert(QueueId(9999), at(9, 0), 1);
    let seen = std::thread::spawn(move || {
        of_thread
            .iter()
            .map(|e| (e.id().0, e.due_us(), e.reason(1).map(|why| why.text.to_string())))
            .collect::<Vec<_>>()
    });
    let expected: Vec<_> = (1..=2000).map(|id| (id, id, Some("why".to_owned()))).collect();
    assert_eq!(seen.join().unwrap(), expected);
    assert_eq!((snapshot.len(), catalogue.len(), catalogue.reasons()), (2000, 1001, 0));
}

/// The expected state of a message.
#[derive(Debug, Clone, Default, PartialEq)]
struct Model {
    recipients: u32,
    done: Vec<u32>,
    reasons: BTreeMap<u32, String>,
    attempts: u32,
    segment: u64,
}

proptest! {
    #[test]
    fn random_histories_match_a_plain_table(
        steps in proptest::collection::vec((0u64..30, 0u8..7, 0u32..130, 0u8..4), 1..150),
    ) {
        let mut catalogue = Catalogue::default();
        let mut model: BTreeMap<u64, Model> = BTreeMap::new();
        for (id, what, index, text) in steps {
            let slot = catalogue.slot(QueueId(id));
            prop_assert_eq!(slot.is_some(), model.contains_key(&id));
            let Some(slot) = slot else {
                let recipients = if index % 2 == 0 { 1 } else { index };
                catalogue.insert(QueueId(id), at(u64::from(text), id), recipients);
                model.insert(id, Model { recipients, segment: u64::from(text), ..Model::default() });
                continue;
            };
            let known = model.get_mut(&id).unwrap();
            match what {
                0 => {
                    catalogue.remove(slot);
                    model.remove(&id);
                }
                1 | 2 => {
                    let news = index < known.recipients && !known.done.contains(&index);
                    prop_assert_eq!(catalogue.done(slot, index), news);
                    if news {
                        known.done.push(index);
                    }
                }
                3 | 4 => {
                    let waiting = [0, index].into_iter().filter(|index| *index < known.recipients);
                    known.reasons = waiting.map(|index| (index, format!("{text} {index}"))).collect();
                    known.attempts += 1;
                    let reasons: Vec<_> = known.reasons.iter().map(|(index, text)| (*index, status(text))).collect();
                    prop_assert_eq!(catalogue.tried(slot, &reasons, 5), known.attempts);
                }
                5 => {
                    catalogue.forget_reasons(slot);
                    known.reasons.clear();
                }
                _ => {
                    catalogue.moved(slot, at(u64::from(text) + 10, id));
                    known.segment = u64::from(text) + 10;
                }
            }
        }
        prop_assert_eq!(catalogue.len(), model.len());
        prop_assert_eq!(catalogue.live_octets(), 10 * model.len() as u64);
        for entry in catalogue.iter() {
            let known = &model[&entry.id().0];
            prop_assert_eq!(entry.open(), known.recipients - known.done.len() as u32);
            prop_assert!((0..known.recipients).all(|index| entry.is_done(index) == known.done.contains(&index)));
            for index in 0..known.recipients {
                prop_assert_eq!(entry.reason(index).map(|status| &*status.text), known.reasons.get(&index).map(|text| &**text));
            }
            prop_assert_eq!((entry.attempts(), entry.at().segment.0), (known.attempts, known.segment));
        }
        let ids: Vec<u64> = model.keys().copied().collect();
        for id in ids {
            catalogue.remove(catalogue.slot(QueueId(id)).unwrap());
        }
        prop_assert_eq!((catalogue.reasons(), catalogue.live_octets()), (0, 0));
    }
}
