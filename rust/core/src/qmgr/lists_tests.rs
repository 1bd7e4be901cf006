//! Lists and retries beside the small mail of a busy site.

use super::settings::{Settings, TransportSettings};
use super::tests::{deferred, sent};
use super::world::World;
use crate::ipc::frame::JobKind;
use crate::mail::id::QueueId;

/// Capacity of the agents in these tests.
const PLACES: u32 = 20;

/// A list: two of five recipients at two large destinations, the others at one each.
fn list(world: &mut World, recipients: usize) -> QueueId {
    let to = |n: usize| if n % 5 < 2 { format!("r{n}@large{}.example", n % 5) } else { format!("r{n}@d{n}.example") };
    let to: Vec<String> = (0..recipients).map(to).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    world.arrive("list@example.org", &to)
}

/// Return the number of results until the first delivery of `id`.
fn answers_until_first_delivery(world: &mut World, id: QueueId) -> usize {
    let mut answers = 0;
    while !world.deliveries.iter().any(|(_, delivery)| delivery.envelope.id == id) {
        answers += 1;
        assert!(world.answer(0, &sent, None), "it waits for nothing");
    }
    answers
}

/// While `lists` are delivered, send a single mail for every second delivery. Return the longest wait of one in
/// deliveries, and the number of single mails.
fn longest_wait(world: &mut World, lists: &[QueueId]) -> (usize, usize) {
    let (mut singles, mut longest) = (0, 0);
    let mut waiting: Vec<(QueueId, usize)> = Vec::new();
    let mut answers = 0;
    while lists.iter().any(|list| !world.known[list].removed) {
        if answers % 2 == 0 {
            singles += 1;
            let to = match singles % 4 {
                0 | 1 => format!("s@large{}.example", singles % 4),
                // A destination of the list, and one of its own.
                2 => format!("s@d{}.example", 4 + 5 * (singles % 100)),
                _ => format!("s@single{singles}.example"),
            };
            waiting.push((world.arrive("s@example.org", &[&to]), answers));
        }
        let begun = |world: &World, id| world.deliveries.iter().any(|(_, delivery)| delivery.envelope.id == id);
        waiting.retain(|(id, since)| {
            longest = longest.max(answers - since);
            !begun(world, *id)
        });
        assert!(world.answer(0, &sent, None), "it waits for nothing");
        answers += 1;
    }
    (longest, singles)
}

fn tight() -> Settings {
    Settings { message_recipient_limit: 1000, ..Settings::default() }
}

#[test]
fn a_busy_site_does_not_wait_for_its_lists() {
    for lists in [1, 3] {
        let mut world = World::new(tight(), TransportSettings::default());
        world.join("smtp", PLACES);
        let lists: Vec<QueueId> = (0..lists).map(|_| list(&mut world, 1500)).collect();
        let (longest, singles) = longest_wait(&mut world, &lists);
        assert!(singles > 500, "{singles} single mails came while the lists were delivered");
        assert!(longest <= 4, "{} lists: a single mail waited for {longest} deliveries", lists.len());
    }
}

#[test]
fn a_list_goes_on_while_small_mail_comes() {
    let mut world = World::new(tight(), TransportSettings::default());
    world.join("smtp", PLACES);
    let list = list(&mut world, 3000);
    // More small mail than places: the list gets half of the deliveries.
    let mut of_list = 0;
    for n in 0..400 {
        for of in 0..2 {
            world.arrive("s@example.org", &[&format!("s@s{n}-{of}.example")]);
        }
        assert!(world.answer(0, &sent, None));
        of_list += usize::from(world.deliveries.last().is_some_and(|(_, delivery)| delivery.envelope.id == list));
    }
    assert!((160..=280).contains(&of_list), "{of_list} of 400 deliveries were the list's");
}

#[test]
fn places_of_retries_go_to_waiting_fresh_mail() {
    let mut world = World::new(Settings::default(), TransportSettings::default());
    let agent = world.join("smtp", 100);
    for n in 0..100 {
        world.arrive("s@example.org", &[&format!("r@old{n}.example")]);
    }
    while world.answer(0, &deferred, None) {}
    world.leave(agent);
    world.advance(300);
    world.join("smtp", PLACES);
    let of_retries = |world: &World| {
        let retry = |id| world.known[&id].kept.attempts > 0;
        world
            .deliveries
            .iter()
            .filter(|(_, delivery)| delivery.kind == JobKind::Deliver && retry(delivery.envelope.id))
            .count()
    };
    assert_eq!(of_retries(&world), 16, "a fifth is kept");
    let fresh: Vec<QueueId> = (0..40).map(|n| world.arrive("s@example.org", &[&format!("r@new{n}.example")])).collect();
    for _ in 0..6 {
        assert_eq!(world.deliveries.len(), PLACES as usize);
        world.answer(0, &sent, None);
    }
    assert_eq!(of_retries(&world), 10, "half of the places are the most that they have now");
    assert!(answers_until_first_delivery(&mut world, fresh[20]) <= 20);
}
