//! The promises of the scheduler, and random histories against a simple model (`world.rs`).

use super::feedback::WindowRules;
use super::scheduler::waits::Waits;
use super::settings::{RefillRules, Settings, SlotRules, TransportSettings};
use super::world::{START_US, World, status};
use crate::address::local_part::Extensions;
use crate::clock::{Now, SECOND_US};
use crate::ipc::frame::{JobKind, JobResult};
use crate::mail::envelope::FILTER;
use crate::mail::id::QueueId;
use crate::mail::status::{Outcome, Status};
use proptest::prelude::*;
use std::sync::Arc;

fn world() -> World {
    World::new(Settings::default(), TransportSettings::default())
}

pub(super) fn sent(_: u32) -> Option<Status> {
    Some(status(Outcome::Sent, "ok"))
}

pub(super) fn deferred(_: u32) -> Option<Status> {
    Some(status(Outcome::Deferred, "later"))
}

fn bounced(_: u32) -> Option<Status> {
    Some(status(Outcome::Bounced, "never"))
}

#[test]
fn a_destination_gets_one_delivery_with_all_its_recipients() {
    let mut world = world();
    world.join("smtp", 10);
    world.arrive("s@example.org", &["a@x.example", "b@y.example", "c@X.EXAMPLE", "d@y.example"]);
    let mut deliveries: Vec<_> = world
        .deliveries
        .iter()
        .map(|(_, delivery)| delivery.recipients.iter().map(|r| r.index).collect::<Vec<_>>())
        .collect();
    deliveries.sort();
    assert_eq!(deliveries, [vec![0, 2], vec![1, 3]]);
    while world.answer(0, &sent, None) {}
    assert!(world.lines.last().unwrap().ends_with(": removed"));
}

#[test]
fn a_message_with_a_content_filter_is_never_delivered_past_it() {
    let mut world = world();
    world.join("smtp", 10);
    let id = world.arrive_with("s@example.org", &["a@x.example", "b@y.example"], &[(FILTER, "scan:[127.0.0.1]:10024")]);
    for _ in 0..3 {
        assert!(world.deliveries.is_empty());
        let why = "status=deferred (content filter scan:[127.0.0.1]:10024 is not supported yet)";
        let lines = world.lines.drain(..).filter(|line| line.contains("dsn=4.3.5, ") && line.ends_with(why));
        assert!(lines.count() >= 2, "one line for each recipient and attempt");
        assert!(world.scheduler.catalogue().get(id).is_some());
        world.advance(5000);
    }
}

#[test]
fn a_list_of_many_does_not_delay_a_single_mail() {
    let mut world = world();
    world.join("smtp", 1);
    let many: Vec<String> = (0..2000).map(|n| format!("r{n}@d{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    world.arrive("list@example.org", &many);
    let single = world.arrive("s@example.org", &["one@single.example"]);
    world.answer(0, &sent, None);
    assert_eq!(world.deliveries[0].1.envelope.id, single, "it preempts the list after its first delivery");
}

#[test]
fn a_congested_destination_does_not_delay_another() {
    let mut world = world();
    world.join("smtp", 1);
    for n in 0..500 {
        world.arrive("s@example.org", &[&format!("r{n}@congested.example")]);
    }
    world.arrive("s@example.org", &["r@quiet.example"]);
    world.answer(0, &sent, None);
    assert_eq!(&*world.deliveries[0].1.nexthop, "quiet.example", "destinations take turns");
}

#[test]
fn a_long_list_to_one_destination_shares_it_with_others() {
    let mut world = world();
    world.join("smtp", 1);
    let many: Vec<String> = (0..1000).map(|n| format!("r{n}@x.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let list = world.arrive("list@example.org", &many);
    let single = world.arrive("s@example.org", &["one@x.example"]);
    assert_eq!(world.deliveries[0].1.recipients.len(), 50);
    world.answer(0, &sent, None);
    let second = world.deliveries[0].1.envelope.id;
    world.answer(0, &sent, None);
    let third = world.deliveries[0].1.envelope.id;
    assert!([second, third].contains(&single) && [second, third].contains(&list));
}

#[test]
fn fresh_mail_goes_before_retries_and_retries_still_go() {
    let mut world = world();
    world.join("smtp", 100);
    let old: Vec<QueueId> = (0..50).map(|n| world.arrive("s@example.org", &[&format!("r{n}@x.example")])).collect();
    while world.answer(0, &deferred, None) {}
    let agents: Vec<u32> = world.agents.keys().copied().collect();
    agents.into_iter().for_each(|agent| world.leave(agent));
    world.advance(300);
    let new: Vec<QueueId> = (0..50).map(|n| world.arrive("s@example.org", &[&format!("n{n}@x.example")])).collect();
    world.join("smtp", 1);
    let mut order = Vec::new();
    while let Some((_, delivery)) = world.deliveries.first() {
        order.push(new.contains(&delivery.envelope.id));
        world.answer(0, &sent, None);
    }
    assert_eq!(order.len(), old.len() + new.len());
    let fresh_first = order[..50].iter().filter(|fresh| **fresh).count();
    assert!((38..=46).contains(&fresh_first), "{fresh_first} of the first 50 are fresh");
}

#[test]
fn waits_grow_with_age_until_the_message_is_returned() {
    let mut world = world();
    world.join("smtp", 1);
    world.join("bounce", 1);
    let id = world.arrive("s@example.org", &["a@x.example"]);
    let mut attempts = Vec::new();
    let start_us = world.now.wall_us;
    while !world.known[&id].removed {
        if let Some((_, delivery)) = world.deliveries.first() {
            if delivery.kind == JobKind::Deliver {
                attempts.push((world.now.wall_us - start_us) / SECOND_US);
                world.answer(0, &deferred, None);
            } else {
                assert_eq!(delivery.recipients[0].status.as_ref().map(|s| &*s.text), Some("later"));
                world.answer(0, &sent, None);
            }
        }
        world.advance(1);
    }
    assert_eq!(attempts[..6], [0, 300, 600, 1200, 2400, 4800]);
    assert_eq!(attempts[6], 8800);
    assert!((432_000..436_000).contains(attempts.last().unwrap()), "{attempts:?}");
    assert!(world.lines.iter().any(|line| line.ends_with("from=<s@example.org>, status=expired, returned to sender")));
}

#[test]
fn a_bounce_is_done_only_when_its_report_is_queued() {
    let mut world = world();
    world.join("smtp", 1);
    let bounce = world.join("bounce", 1);
    let id = world.arrive("s@example.org", &["a@x.example", "b@x.example"]);
    let one_each = |index| Some(status(if index == 0 { Outcome::Sent } else { Outcome::Bounced }, "so"));
    world.answer(0, &one_each, None);
    assert_eq!(world.known[&id].kept.done, [0]);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Bounce);
    world.answer(0, &deferred, None);
    assert_eq!(world.known[&id].kept.done, [0], "the report could not be queued");
    assert_eq!(world.known[&id].kept.reasons[0].1.outcome, Outcome::Bounced);
    world.restart();
    world.leave(bounce);
    world.join("bounce", 1);
    world.join("smtp", 1);
    world.advance(300);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Bounce, "the recipient is not tried again, only the report");
    world.answer(0, &sent, None);
    assert!(world.known[&id].removed);
}

#[test]
fn failures_of_the_null_sender_go_to_the_bounce_agent() {
    let mut world = world();
    world.join("smtp", 1);
    world.join("bounce", 1);
    let id = world.arrive("", &["a@x.example"]);
    world.answer(0, &bounced, None);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Bounce, "the postmaster may want to know");
    assert!(!world.known[&id].removed);
    world.answer(0, &sent, None);
    assert!(world.known[&id].removed && world.deliveries.is_empty());
}

#[test]
fn a_sender_is_warned_once() {
    let mut settings = Settings::default();
    settings.lifetimes.delay_warning_us = 1000 * SECOND_US;
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 1);
    world.join("bounce", 1);
    let id = world.arrive("s@example.org", &["a@x.example"]);
    let mut warned = Vec::new();
    for minute in 0..300 {
        if let Some((_, delivery)) = world.deliveries.first() {
            match delivery.kind {
                JobKind::Warn => {
                    warned.push(minute);
                    world.answer(0, &sent, None);
                }
                _ => {
                    world.answer(0, &deferred, None);
                }
            }
        }
        world.advance(60);
    }
    assert_eq!(warned.len(), 1);
    assert!(world.known[&id].kept.warned);
}

#[test]
fn a_dead_destination_is_left_alone_and_tried_again() {
    let mut world = world();
    world.join("smtp", 100);
    for n in 0..30 {
        world.arrive("s@example.org", &[&format!("r{n}@dead.example")]);
    }
    assert_eq!(world.deliveries.len(), 5, "the initial concurrency");
    let site = status(Outcome::Deferred, "connect to dead.example[192.0.2.1]:25: Connection timed out");
    for _ in 0..5 {
        world.answer(0, &deferred, Some(site.clone()));
    }
    assert!(world.deliveries.is_empty());
    let suspended = "status=deferred (delivery temporarily suspended: connect to dead.example[192.0.2.1]:25: \
                     Connection timed out)";
    assert_eq!(world.lines.iter().filter(|line| line.ends_with(suspended)).count(), 25);
    world.arrive("s@example.org", &["more@dead.example"]);
    assert!(world.deliveries.is_empty(), "it is dead for new mail, too");
    world.advance(300);
    assert_eq!(world.deliveries.len(), 5, "after minimal_backoff_time it is tried again");
    world.finish();
}

#[test]
fn a_window_opens_with_success() {
    let mut world = world();
    world.join("smtp", 100);
    for n in 0..200 {
        world.arrive("s@example.org", &[&format!("r{n}@x.example")]);
    }
    let mut widest = 0;
    while world.answer(0, &sent, None) {
        widest = widest.max(world.deliveries.len());
    }
    assert_eq!(widest, 20, "default_destination_concurrency_limit");
}

#[test]
fn mail_without_an_agent_waits_a_minute_and_is_deferred() {
    let mut world = world();
    let id = world.arrive("s@example.org", &["a@x.example"]);
    assert_eq!(world.wanted, ["smtp"]);
    world.advance(59);
    assert_eq!(world.known[&id].attempts_seen, 0);
    world.advance(6);
    assert_eq!(world.known[&id].attempts_seen, 1);
    assert!(world.lines.iter().any(|line| line.ends_with("dsn=4.3.0, status=deferred (mail transport unavailable)")));
    world.finish();
}

#[test]
fn results_for_an_earlier_queue_manager_count() {
    let mut world = world();
    world.join("smtp", 1);
    let id = world.arrive("s@example.org", &["a@x.example", "b@x.example"]);
    let (_, old) = world.deliveries[0].clone();
    world.restart();
    let recipients = vec![(0, status(Outcome::Sent, "ok")), (1, status(Outcome::Deferred, "later"))];
    world.scheduler.result(JobResult { job: old.job, id, site: None, recipients }, world.now);
    world.known.get_mut(&id).unwrap().sent.insert(0);
    world.run_events();
    assert_eq!(world.known[&id].kept.done, [0]);
    world.join("smtp", 1);
    assert_eq!(world.deliveries[0].1.recipients.iter().map(|r| r.index).collect::<Vec<_>>(), [1]);
    world.finish();
}

#[test]
fn a_message_that_kills_agents_is_deferred() {
    let mut world = world();
    let id = world.arrive("s@example.org", &["a@x.example"]);
    for _ in 0..4 {
        assert_eq!(world.known[&id].attempts_seen, 0);
        let agent = world.join("smtp", 1);
        assert_eq!(world.deliveries.len(), 1);
        world.leave(agent);
    }
    assert_eq!(world.known[&id].attempts_seen, 1);
    assert!(world.lines.iter().any(|line| line.ends_with("(unknown mail transport error)")));
}

#[test]
fn a_message_is_held_deleted_and_released_in_any_state() {
    let mut world = world();
    world.join("smtp", 1);
    let [flying, waiting] = ["a@x.example", "b@x.example"].map(|to| world.arrive("s@example.org", &[to]));
    assert!(world.scheduler.hold(flying, world.now) && world.scheduler.hold(waiting, world.now));
    assert!(!world.scheduler.hold(waiting, world.now), "once is enough");
    world.run_events();
    assert!(world.known[&waiting].kept.held && !world.known[&flying].kept.held, "what an agent has is waited for");
    world.answer(0, &deferred, None);
    assert!(world.known[&flying].kept.held && world.deliveries.is_empty());
    world.advance(10_000);
    assert!(world.deliveries.is_empty());
    assert!(world.scheduler.release(waiting, world.now) && !world.scheduler.release(waiting, world.now));
    world.run_events();
    assert_eq!(world.deliveries.len(), 1);
    world.known.get_mut(&waiting).unwrap().deleted = true;
    assert!(world.scheduler.delete(waiting, world.now));
    world.run_events();
    assert!(!world.known[&waiting].removed);
    world.answer(0, &deferred, None);
    assert!(world.known[&waiting].removed);
    world.known.get_mut(&flying).unwrap().deleted = true;
    assert!(world.scheduler.delete(flying, world.now) && !world.scheduler.delete(flying, world.now));
    world.run_events();
    assert!(world.scheduler.catalogue().is_empty());
}

#[test]
fn a_list_longer_than_memory_is_read_in_parts() {
    let settings = Settings { message_recipient_limit: 40, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 100);
    let many: Vec<String> = (0..95).map(|n| format!("r{n}@d{}.example", n % 7)).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let id = world.arrive("list@example.org", &many);
    let mut most = 0;
    while !world.deliveries.is_empty() {
        most = most.max(world.deliveries.iter().map(|(_, delivery)| delivery.recipients.len()).sum());
        world.answer(0, &sent, None);
    }
    assert!(world.known[&id].removed && most <= 10, "{most} at a time");
}

#[test]
fn a_rate_delay_spaces_deliveries() {
    let transport = TransportSettings { destination_rate_delay_us: 10 * SECOND_US, ..TransportSettings::default() };
    let mut world = World::new(Settings::default(), transport);
    world.join("smtp", 100);
    for n in 0..3 {
        world.arrive("s@example.org", &[&format!("r{n}@x.example")]);
    }
    for _ in 0..2 {
        assert_eq!(world.deliveries.len(), 1);
        world.answer(0, &sent, None);
        assert!(world.deliveries.is_empty());
        world.advance(9);
        assert!(world.deliveries.is_empty());
        world.advance(2);
    }
    assert_eq!(world.deliveries.len(), 1);
}

#[test]
fn recipients_have_their_own_windows_with_one_recipient_per_delivery() {
    let window = WindowRules { limit: 2, ..WindowRules::default() };
    let transport = TransportSettings { recipient_limit: 1, window, ..TransportSettings::default() };
    let extensions = Extensions { delimiters: "+".into(), ..Extensions::default() };
    let settings = Settings { extensions, ..Settings::default() };
    let mut world = World::new(settings, transport);
    world.join("smtp", 100);
    let to = ["a@x.example", "a+1@x.example", "a+2@x.example", "b@x.example", "+c@x.example"];
    world.arrive("s@example.org", &to);
    let mut who: Vec<String> =
        world.deliveries.iter().map(|(_, delivery)| delivery.recipients[0].recipient.address.to_string()).collect();
    who.sort();
    assert_eq!(who, ["+c@x.example", "a+1@x.example", "a@x.example", "b@x.example"]);
    world.finish();
}

#[test]
fn many_retries_leave_room_for_fresh_mail() {
    let settings = Settings { message_active_limit: 10, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 100);
    for n in 0..100 {
        world.arrive("s@example.org", &[&format!("r{n}@d{n}.example")]);
    }
    while world.answer(0, &deferred, None) {}
    world.advance(4000);
    assert_eq!(world.deliveries.len(), 8, "retries take four fifths of the room");
    let fresh = world.arrive("s@example.org", &["new@x.example"]);
    assert!(world.deliveries.iter().any(|(_, delivery)| delivery.envelope.id == fresh));
    world.finish();
}

#[test]
fn a_withdrawn_message_may_still_have_a_peer() {
    let settings = Settings { message_recipient_limit: 4, message_recipient_minimum: 2, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    let agent = world.join("other", 1);
    let id = world.arrive("s@example.org", &["a@x.example", "b@other.example", "c@x.example"]);
    assert!(world.scheduler.hold(id, world.now) && world.scheduler.expire(id, world.now));
    assert!(world.scheduler.release(id, world.now));
    world.leave(agent);
    world.scheduler.trigger_failed("smtp", "Connection refused", world.now);
    world.finish();
}

#[test]
fn a_message_says_why_it_waits() {
    let settings = Settings { message_active_limit: 3, ..Settings::default() };
    let window = WindowRules { limit: 1, ..WindowRules::default() };
    let mut world = World::new(settings, TransportSettings { window, ..TransportSettings::default() });
    let [one, two] = ["a@x.example", "b@x.example"].map(|to| world.arrive("s@example.org", &[to]));
    let lost = world.arrive("s@example.org", &["c@other.example"]);
    let late = world.arrive("s@example.org", &["d@x.example"]);
    let (smtp, nexthop): (Arc<str>, Arc<str>) = ("smtp".into(), "x.example".into());
    assert_eq!(world.waits(one), Waits::NoAgent { transport: Arc::clone(&smtp) });
    assert_eq!(world.waits(late), Waits::NoRoom);
    world.scheduler.trigger_failed("other", "Connection refused", world.now);
    world.run_events();
    assert_eq!(world.waits(lost), Waits::Deferred { until_us: START_US + 300 * SECOND_US, attempts: 1 });
    assert!(world.scheduler.hold(lost, world.now));
    assert_eq!(world.waits(lost), Waits::Held);
    let agent = world.join("smtp", 1);
    let since_us = world.now.wall_us;
    world.advance(3);
    let (transport, nexthop) = (Arc::clone(&smtp), Arc::clone(&nexthop));
    let busy = Waits::WithAgent { transport: Arc::clone(&transport), nexthop: Arc::clone(&nexthop), since_us };
    assert_eq!(world.waits(one), busy);
    assert_eq!(world.waits(two), Waits::Concurrency { transport, nexthop, limit: 1 });
    let quiet = world.arrive("s@example.org", &["d@y.example"]);
    world.answer(0, &sent, None);
    assert_eq!(world.waits(quiet), Waits::AgentsBusy { transport: smtp });
    world.leave(agent);
    world.finish();
}

/// The order in which a list to `list` places and 20 single mails leave, with one agent: `L` and `s`.
fn order(list: usize, slots: SlotRules) -> String {
    let mut world = World::new(Settings::default(), TransportSettings { slots, ..TransportSettings::default() });
    world.join("smtp", 1);
    let many: Vec<String> = (0..list).map(|n| format!("r@d{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let list = world.arrive("list@example.org", &many);
    for n in 0..20 {
        world.arrive("s@example.org", &[&format!("r@s{n}.example")]);
    }
    let mut order = String::new();
    while let Some((_, delivery)) = world.deliveries.first() {
        order.push(if delivery.envelope.id == list { 'L' } else { 's' });
        world.answer(0, &sent, None);
    }
    order
}

#[test]
fn slots_allow_preemption_as_in_postfix() {
    let rules = SlotRules::default();
    let all = "s".repeat(20);
    for (list, slots, expected) in [
        (100, rules, "LsLLLLLsLLLLLsLLLLLs".to_owned()),
        (100, SlotRules { cost: 2, ..rules }, "LsLLsLLsLLsLLsLLs".to_owned()),
        (100, SlotRules { loan: 0, discount_percent: 0, ..rules }, "LLLLLsLLLLLsLLLLLs".to_owned()),
        (100, SlotRules { loan: 0, discount_percent: 0, cost: 10, ..rules }, "LLLLLLLLLLsLLLLLLLLLLs".to_owned()),
        (100, SlotRules { cost: 0, ..rules }, format!("{}{all}", "L".repeat(100))),
        (100, SlotRules { cost: 1, ..rules }, format!("{}{all}", "L".repeat(100))),
        (14, rules, format!("{}{all}", "L".repeat(14))),
        (15, rules, "LsLLLLLsLLLLLsLLLL".to_owned()),
        (15, SlotRules { minimum: 4, ..rules }, format!("{}{all}", "L".repeat(15))),
    ] {
        let order = order(list, slots);
        assert!(order.starts_with(&expected), "{list} {slots:?}: {order}");
        assert_eq!(order.len(), list + 20);
    }
}

#[test]
fn a_slow_destination_gets_only_its_share_of_the_active_queue() {
    let settings = Settings { message_active_limit: 100, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 50);
    let slow: Vec<QueueId> = (0..300).map(|n| world.arrive("s@x.org", &[&format!("r{n}@slow.example")])).collect();
    let active = |world: &World| {
        let counts: std::collections::HashMap<_, _> = world.scheduler.counts().into();
        counts["active"]
    };
    assert_eq!(active(&world), 25, "a fifth waits, and five are with agents");
    let overflow = Waits::Overflow { transport: "smtp".into(), nexthop: "slow.example".into() };
    assert_eq!(world.waits(slow[299]), overflow);
    let quiet = world.arrive("s@x.org", &["r@quiet.example"]);
    assert!(world.deliveries.iter().any(|(_, delivery)| delivery.envelope.id == quiet), "there is room for others");
    assert!(world.lines.contains(&"mail for slow.example is using up 20 of 25 active queue entries".into()));
    assert!(world.scheduler.hold(slow[100], world.now) && world.scheduler.expire(slow[200], world.now));
    world.run_events();
    // It answers, once a minute: in the order in which the mail came, and never with much more than its share.
    let mut order = Vec::new();
    for _ in 0..150 {
        world.advance(60);
        order.push(world.deliveries[0].1.envelope.id);
        world.answer(0, &sent, None);
        assert!(active(&world) <= 50, "{}", active(&world));
    }
    order.retain(|id| *id != quiet && *id != slow[200]);
    assert!(order.is_sorted() && !order.contains(&slow[100]), "{order:?}");
    assert!(world.scheduler.release(slow[100], world.now));
    world.run_events();
    world.finish();
}

#[test]
fn a_destination_that_becomes_slow_leaves_room_again() {
    let settings = Settings { message_active_limit: 100, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 50);
    for n in 0..50 {
        world.arrive("s@x.org", &[&format!("r{n}@slow.example")]);
        world.answer(0, &sent, None);
    }
    for n in 0..200 {
        world.arrive("s@x.org", &[&format!("r{n}@slow.example")]);
    }
    let quiet = world.arrive("s@x.org", &["r@quiet.example"]);
    assert_eq!(world.waits(quiet), Waits::NoRoom, "it was quick up to now");
    world.advance(60);
    assert!(matches!(world.waits(quiet), Waits::WithAgent { .. }), "{:?}", world.waits(quiet));
    world.finish();
}

#[test]
fn a_list_is_read_while_a_part_of_it_is_delivered() {
    let settings = Settings { message_recipient_limit: 40, ..Settings::default() };
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 100);
    let many: Vec<String> = (0..95).map(|n| format!("r{n}@d{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let id = world.arrive("list@example.org", &many);
    // The first one never answers.
    while world.deliveries.len() > 1 {
        assert!(world.deliveries.len() <= 10);
        world.answer(1, &sent, None);
    }
    assert_eq!(world.known[&id].kept.done.len(), 94, "one recipient does not stop the others");
    world.finish();
}

#[test]
fn retries_leave_a_fifth_of_the_agents_to_fresh_mail() {
    let window = WindowRules { initial: 100, limit: 0, ..WindowRules::default() };
    let mut world = World::new(Settings::default(), TransportSettings { window, ..TransportSettings::default() });
    let agent = world.join("smtp", 10);
    for n in 0..50 {
        world.arrive("s@x.org", &[&format!("r{n}@x.example")]);
    }
    while world.answer(0, &deferred, None) {}
    world.advance(300);
    assert_eq!(world.deliveries.len(), 8, "two are kept");
    world.arrive("s@x.org", &["new@x.example"]);
    assert_eq!(world.deliveries.len(), 9, "fresh mail has an agent at once");
    world.leave(agent);
    world.join("smtp", 1);
    assert_eq!(world.deliveries.len(), 1);
    world.finish();
}

#[test]
fn maxproc_limits_the_deliveries_of_a_transport() {
    let transport = TransportSettings { process_limit: 3, ..TransportSettings::default() };
    let mut world = World::new(Settings::default(), transport);
    world.join("smtp", 2);
    world.join("smtp", 20);
    for n in 0..10 {
        world.arrive("s@x.org", &[&format!("r@d{n}.example")]);
    }
    assert_eq!(world.deliveries.len(), 3);
    world.answer(0, &sent, None);
    assert_eq!(world.deliveries.len(), 3);
    world.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Among lists and retries, a single mail waits for a limited number of deliveries. (None of these lists is small
    /// enough to preempt another one, which would have to earn the slots first.)
    #[test]
    fn a_single_mail_never_starves(
        lists in prop::collection::vec(40usize..150, 1..4),
        retries in 0usize..60,
        capacity in 1u32..5,
        answers in 0usize..120,
    ) {
        let mut world = world();
        let agent = world.join("smtp", 100);
        for n in 0..retries {
            world.arrive("s@x.org", &[&format!("r@old{n}.example")]);
        }
        while world.answer(0, &deferred, None) {}
        world.leave(agent);
        world.advance(300);
        world.join("smtp", capacity);
        for (list, places) in lists.iter().enumerate() {
            let to: Vec<String> = (0..*places).map(|n| format!("r@l{list}d{n}.example")).collect();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            world.arrive("list@x.org", &to);
        }
        for _ in 0..answers {
            world.answer(0, &sent, None);
        }
        let single = world.arrive("s@x.org", &["one@single.example"]);
        let mut decisions = 0;
        while !world.deliveries.iter().any(|(_, delivery)| delivery.envelope.id == single) {
            decisions += 1;
            prop_assert!(decisions <= 4, "{decisions} deliveries before the single mail");
            prop_assert!(world.answer(0, &sent, None));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Arrive { null_sender: bool, to: Vec<(u8, u8)> },
    Join { transport: u8, capacity: u32 },
    Leave(usize),
    Answer { nth: usize, fates: Vec<u8>, site: bool },
    Advance(u64),
    SetWallClock(i64),
    Control { verb: u8, nth: usize },
    TriggerFails(u8),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let transport = 0u8..3;
    prop_oneof![
        5 => (prop::bool::weighted(0.1), prop::collection::vec((0u8..4, 0u8..5), 1..25))
            .prop_map(|(null_sender, to)| Step::Arrive { null_sender, to }),
        2 => (transport.clone(), 0u32..6).prop_map(|(transport, capacity)| Step::Join { transport, capacity }),
        1 => (0usize..8).prop_map(Step::Leave),
        12 => (0usize..20, prop::collection::vec(0u8..4, 1..6), prop::bool::weighted(0.2))
            .prop_map(|(nth, fates, site)| Step::Answer { nth, fates, site }),
        4 => prop_oneof![Just(1), Just(61), Just(300), Just(4000), Just(90_000)].prop_map(Step::Advance),
        1 => (-100_000i64..100_000).prop_map(Step::SetWallClock),
        3 => (0u8..7, 0usize..30).prop_map(|(verb, nth)| Step::Control { verb, nth }),
        1 => transport.prop_map(Step::TriggerFails),
        1 => Just(Step::Restart),
    ]
}

const TRANSPORTS: [&str; 3] = ["smtp", "other", "bounce"];
const DOMAINS: [&str; 5] = ["x.example", "y.example", "other.example", "z.example", "unknown.example"];

fn take(world: &mut World, step: Step) {
    match step {
        Step::Arrive { null_sender, to } => {
            let to: Vec<String> = to.iter().map(|(who, at)| format!("r{who}@{}", DOMAINS[*at as usize])).collect();
            let to: Vec<&str> = to.iter().map(String::as_str).collect();
            world.arrive(if null_sender { "" } else { "s@example.org" }, &to);
        }
        Step::Join { transport, capacity } => {
            world.join(TRANSPORTS[transport as usize], capacity);
        }
        Step::Leave(nth) => {
            let mut agents: Vec<u32> = world.agents.keys().copied().collect();
            agents.sort_unstable();
            if !agents.is_empty() {
                world.leave(agents[nth % agents.len()]);
            }
        }
        Step::Answer { nth, fates, site } => {
            let fate = |index: u32| match fates[index as usize % fates.len()] {
                0 => sent(index),
                1 => deferred(index),
                2 => bounced(index),
                _ => None,
            };
            world.answer(nth, &fate, site.then(|| status(Outcome::Deferred, "no route to host")));
        }
        Step::Advance(seconds) => world.advance(seconds),
        Step::SetWallClock(seconds) => {
            let wall_us = world.now.wall_us.saturating_add_signed(seconds * SECOND_US as i64);
            world.now = Now { wall_us, ..world.now };
        }
        Step::Control { verb, nth } => {
            let ids: Vec<QueueId> = world.known.iter().filter(|(_, known)| !known.removed).map(|(id, _)| *id).collect();
            let Some(id) = ids.get(nth % ids.len().max(1)).copied() else {
                return;
            };
            match verb {
                0 => world.scheduler.flush(world.now),
                1 => drop(world.scheduler.hold(id, world.now)),
                2 => drop(world.scheduler.release(id, world.now)),
                3 => {
                    if world.scheduler.delete(id, world.now) {
                        world.known.get_mut(&id).unwrap().deleted = true;
                    }
                }
                4 => {
                    let batch = world.scheduler.requeue(1, Some(vec![id]), &[], QueueId(0));
                    if nth % 2 == 0 && !world.scheduler.requeued(1, &[id]).is_empty() {
                        world.known.get_mut(&id).unwrap().deleted = true;
                    }
                    assert_eq!(batch.messages.len() + batch.busy.len(), 1);
                    world.scheduler.cancel_requeue(1, world.now);
                }
                5 => drop(world.scheduler.expire(id, world.now)),
                _ => {
                    world.scheduler.expire(id, world.now);
                    world.scheduler.release(id, world.now);
                }
            }
            world.run_events();
        }
        Step::TriggerFails(transport) => {
            world.scheduler.trigger_failed(TRANSPORTS[transport as usize], "Connection refused", world.now);
            world.run_events();
        }
        Step::Restart => world.restart(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_recipient_is_lost_and_no_limit_is_exceeded(
        steps in prop::collection::vec(step(), 1..120),
        active_limit in 1usize..24,
        recipient_limit in 4usize..200,
        delivery_limit in 0u32..4,
        concurrency in 0u32..4,
        rate in prop::bool::weighted(0.1),
        process_limit in 0u32..6,
        cost in 0u32..4,
        refill in (1u32..20, 0u32..20, 1u32..10),
    ) {
        let settings = Settings {
            message_active_limit: active_limit,
            message_recipient_limit: recipient_limit,
            message_recipient_minimum: 2,
            ..Settings::default()
        };
        let transport = TransportSettings {
            window: WindowRules { limit: concurrency, ..WindowRules::default() },
            recipient_limit: delivery_limit,
            destination_rate_delay_us: if rate { SECOND_US } else { 0 },
            ..TransportSettings::default()
        };
        let mut world = World::new(settings, transport);
        let slots = SlotRules { cost, minimum: cost, loan: 1, discount_percent: 20 };
        let (recipient_limit, extra_limit, least) = refill;
        let refill = RefillRules { recipient_limit, extra_limit, least, ..RefillRules::default() };
        let window = WindowRules { limit: 2, ..WindowRules::default() };
        world.configure_other(TransportSettings { window, recipient_limit: 1, slots, refill, ..transport });
        world.configure_all(TransportSettings { process_limit, slots, refill, ..transport });
        for step in steps {
            take(&mut world, step);
        }
        world.finish();
    }
}

#[test]
fn success_is_confirmed_on_request_and_after_a_warning() {
    let mut settings = Settings { confirm_delay_cleared: true, ..Settings::default() };
    settings.lifetimes.delay_warning_us = SECOND_US;
    let mut world = World::new(settings, TransportSettings::default());
    world.join("smtp", 10);
    world.join("bounce", 1);
    let kinds = |world: &World| world.deliveries.iter().map(|(_, delivery)| delivery.kind).collect::<Vec<_>>();

    world.arrive("s@example.org", &["a@x.example", "b@x.example"]);
    let delivery = world.deliveries[0].1.job;
    world.scheduler.to_confirm(delivery, &[1, 9]);
    world.scheduler.to_confirm(delivery + 1, &[0]);
    world.answer(0, &sent, None);
    assert_eq!(kinds(&world), [JobKind::Confirm]);
    let confirmed: Vec<_> = world.deliveries[0].1.recipients.iter().map(|recipient| recipient.index).collect();
    assert_eq!(confirmed, [1]);
    world.answer(0, &sent, None);
    assert!(world.lines.last().unwrap().ends_with(": removed"));

    world.arrive("s@example.org", &["a@y.example"]);
    world.advance(2);
    world.answer(0, &deferred, None);
    assert_eq!(kinds(&world), [JobKind::Warn]);
    world.answer(0, &sent, None);
    world.advance(400);
    assert_eq!(kinds(&world), [JobKind::Deliver]);
    world.answer(0, &sent, None);
    assert_eq!(kinds(&world), [JobKind::Confirm]);
    world.answer(0, &deferred, None);
    assert!(world.lines.last().unwrap().ends_with(": removed"), "a report that cannot be made holds nothing up");

    world.arrive("", &["a@z.example"]);
    world.scheduler.to_confirm(world.deliveries[0].1.job, &[0]);
    world.answer(0, &sent, None);
    assert_eq!(kinds(&world), [], "nobody is told of what came from nobody");
}

#[test]
fn an_expired_message_is_returned_after_a_crash() {
    let mut world = world();
    let agents = ["smtp", "bounce"].map(|transport| world.join(transport, 1));
    let deferred = world.arrive("s@example.org", &["a@x.example"]);
    world.answer(0, &|_| Some(status(Outcome::Deferred, "later")), None);
    let held = world.arrive("s@example.org", &["b@y.example"]);
    world.scheduler.hold(held, world.now);
    agents.into_iter().for_each(|agent| world.leave(agent));
    world.run_events();
    for id in [deferred, held] {
        assert!(world.scheduler.expire(id, world.now));
    }
    world.run_events();
    world.restart();
    assert!([deferred, held].iter().all(|id| world.scheduler.catalogue().get(*id).unwrap().forced_expire()));
    for transport in ["smtp", "bounce"] {
        world.join(transport, 1);
    }
    assert_eq!(world.deliveries.len(), 1, "the held one waits for its release");
    assert_eq!((world.deliveries[0].1.kind, world.deliveries[0].1.envelope.id), (JobKind::Bounce, deferred));
    world.scheduler.release(held, world.now);
    world.answer(0, &sent, None);
    world.run_events();
    assert_eq!((world.deliveries[0].1.kind, world.deliveries[0].1.envelope.id), (JobKind::Bounce, held));
}
