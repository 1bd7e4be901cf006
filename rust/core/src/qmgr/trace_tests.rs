//! Probes and the report of a first attempt, in the scheduler.

use super::settings::{Settings, TransportSettings};
use super::tests::{deferred, sent};
use super::world::{World, status};
use crate::clock::SECOND_US;
use crate::delivery::job::{self, Handover, JobSettings};
use crate::ipc::frame::{self, JobKind, JobResult};
use crate::log::{Log, LogTarget};
use crate::mail::status::Outcome;
use crate::mail::trace::{Action, Trace, Traced};

const JOB_SETTINGS: JobSettings = JobSettings { resolution_digits: 6, long_queue_ids: false, soft_bounce: false };

fn world() -> World {
    World::new(Settings::default(), TransportSettings::default())
}

/// Return what a report says: address, action and relay of each line.
fn told(job: &frame::Job) -> Vec<(String, &'static str, String)> {
    job.traced.iter().map(|one| (one.address.to_string(), one.action.word(), one.relay.to_string())).collect()
}

fn line(index: u32, address: &str, action: Action, relay: &str) -> Traced {
    let status = status(if action == Action::Deliverable { Outcome::Sent } else { Outcome::Deferred }, "text");
    Traced { index, address: address.into(), action, relay: relay.into(), status }
}

#[test]
fn a_probe_ends_with_a_report_of_all_and_no_bounce() {
    let mut world = world();
    world.join("smtp", 10);
    world.join("bounce", 1);
    // A filter would hold mail up.
    let filter = [("content_filter", "scan:dummy")];
    let id = world.arrive_traced("s@example.org", &["a@x.example", "b@x.example", "c@"], &filter, Trace::Probe);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Probe);
    let job = world.deliveries[0].1.job;
    let (target, relay) = (line(0, "t@y.example", Action::Deliverable, "local"), "mx[192.0.2.1]:25");
    let strange = line(9, "z@y.example", Action::Deliverable, "local");
    world.scheduler.to_trace(job, vec![target, line(1, "b@x.example", Action::Undeliverable, relay), strange]);
    world.answer(0, &|_| Some(status(Outcome::Deferred, "later")), None);
    assert_eq!(world.deliveries.len(), 1, "no bounce, no warning");
    let report = &world.deliveries[0].1;
    assert_eq!((report.kind, report.recipients.len()), (JobKind::Report, 3));
    let mut lines = told(report);
    lines.sort();
    assert_eq!(
        lines,
        [
            ("b@x.example".into(), "undeliverable", relay.into()),
            ("c@".into(), "undeliverable", "none".into()),
            ("t@y.example".into(), "deliverable", "local".into()),
        ]
    );
    assert!(world.lines.iter().any(|line| line.contains("status=undeliverable (bad address syntax)")));
    assert!(world.known[&id].kept.done.is_empty(), "not before the report is queued");
    world.answer(0, &sent, None);
    assert!(world.lines.last().unwrap().ends_with(": removed"));
    assert!(world.known[&id].sent.is_empty());
}

#[test]
fn a_probe_without_its_report_is_tried_again() {
    let mut world = world();
    world.join("smtp", 10);
    world.join("bounce", 1);
    let id = world.arrive_traced("s@example.org", &["a@x.example"], &[], Trace::Probe);
    // An agent that says nothing, as it would of mail.
    world.answer(0, &sent, None);
    assert_eq!(told(&world.deliveries[0].1), [("a@x.example".into(), "undeliverable", "none".into())]);
    world.answer(0, &deferred, None);
    assert!(world.deliveries.is_empty() && !world.known[&id].removed);
    world.restart();
    world.join("smtp", 10);
    world.join("bounce", 1);
    world.advance(4000);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Probe, "it is still a probe");
    world.answer(0, &deferred, None);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Report);
    world.answer(0, &sent, None);
    assert!(world.known[&id].removed);
}

#[test]
fn a_result_for_an_earlier_queue_manager_ends_no_probe() {
    let mut world = world();
    world.join("smtp", 10);
    world.join("bounce", 1);
    let id = world.arrive_traced("s@example.org", &["a@x.example"], &[], Trace::Probe);
    let mut delivery = job::Delivery::new(world.deliveries[0].1.clone(), JOB_SETTINGS, 0);
    let log = Log::new("mx", "postfix", "smtp", 1, 0, LogTarget::Memory);
    let handover = Handover { relay: "mx", conn_use: 1, setup_us: 0, transmission_us: None, wall_now_us: 1 };
    delivery.finish(0, status(Outcome::Sent, "250 ok"), &handover, &log);
    let result = JobResult { job: 7, ..delivery.result() };
    world.scheduler.result(result, world.now);
    world.run_events();
    assert!(world.known[&id].kept.done.is_empty() && !world.known[&id].removed);
    assert_eq!(world.deliveries.len(), 1);
}

#[test]
fn the_first_attempt_of_a_recorded_message_is_reported_once() {
    let mut world = world();
    world.join("smtp", 10);
    world.join("bounce", 1);
    let id = world.arrive_traced("s@example.org", &["a@x.example", "b@x.example"], &[], Trace::Record);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Deliver);
    let outcome = |index| Some(status(if index == 0 { Outcome::Sent } else { Outcome::Deferred }, "text"));
    world.scheduler.to_confirm(world.deliveries[0].1.job, &[0]);
    world.answer(0, &outcome, None);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Report, "one report, also of success");
    let lines = told(&world.deliveries[0].1).into_iter().map(|(address, action, _)| (address, action));
    assert_eq!(lines.collect::<Vec<_>>(), [("a@x.example".into(), "delivered"), ("b@x.example".into(), "delayed")]);
    world.answer(0, &sent, None);
    assert!(world.deliveries.is_empty() && !world.known[&id].removed);
    world.advance(4000);
    assert_eq!(world.deliveries[0].1.kind, JobKind::Deliver);
    world.answer(0, &sent, None);
    assert!(world.deliveries.is_empty() && world.known[&id].removed, "the second attempt is not reported");
}

#[test]
fn a_report_for_an_earlier_queue_manager_finishes_no_recipient() {
    let mut settings = Settings::default();
    settings.lifetimes.delay_warning_us = SECOND_US;
    for trace in [Trace::Off, Trace::Record, Trace::Probe] {
        let mut world = World::new(settings.clone(), TransportSettings::default());
        world.join("smtp", 10);
        world.join("bounce", 1);
        let id = world.arrive_traced("s@example.org", &["a@x.example"], &[], trace);
        world.advance(2);
        world.answer(0, &deferred, None);
        let report = world.deliveries[0].1.clone();
        assert!(matches!(report.kind, JobKind::Warn | JobKind::Report), "{:?}", report.kind);
        world.restart();
        // The agent has queued the report, and its result comes to the next queue manager.
        let recipients = vec![(0, status(Outcome::Sent, "reported"))];
        world.scheduler.told(JobResult { job: report.job, id, site: None, recipients }, world.now);
        world.run_events();
        assert!(world.known[&id].kept.done.is_empty() && !world.known[&id].removed, "{trace:?}");
    }
}
