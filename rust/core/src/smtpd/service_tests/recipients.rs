//! Recipients of remembered domains, by local and remote tables.

use super::*;
use crate::table::testing::local;

/// A known client of a site with these aliases, whose mail to `@next.example` is accepted for aliases alone, before RCPT.
fn before_rcpt(aliases: Maps) -> (Fixture, UnixStream, Key) {
    let mut fixture = Fixture::with(0, with_aliases(aliases));
    fixture.service.know(known(1), 1e6, false);
    fixture.service.remember(1, "@next.example", Listing::Aliases, 1e6, false);
    let (mut client, key) = fixture.client(1, 0.0);
    fixture.say(&mut client, DIALOGUE[0], 0.0);
    fixture.say(&mut client, DIALOGUE[1], 0.0);
    assert_eq!(fixture.requests(), [Request::Sweep]);
    (fixture, client, key)
}

fn of_next(key: &str) -> Answer {
    if key == "b@next.example" { Answer::Found(b"c@d.example"[..].into()) } else { Answer::NotFound }
}

#[test]
fn a_listed_recipient_of_a_remembered_domain_needs_no_request_and_another_is_a_question() {
    let (mut fixture, mut client, key) = before_rcpt(local(&[("b@next.example", "c@d.example")]));
    assert!(fixture.say(&mut client, DIALOGUE[2], 0.0).starts_with("250 "));
    assert!(fixture.say(&mut client, "RCPT TO:<B@next.example>\r\n", 0.0).starts_with("250 "));
    assert_eq!(fixture.requests(), []);
    assert_eq!(fixture.say(&mut client, "RCPT TO:<unknown@next.example>\r\n", 0.0), "");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Rcpt)]);
}

#[test]
fn a_table_that_fails_makes_its_recipient_a_question() {
    let (mut fixture, mut client, key) = before_rcpt(local(&[("b@next.example", "!")]));
    assert_eq!(fixture.say(&mut client, DIALOGUE[2], 0.0), "");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Rcpt)]);
}

#[test]
fn the_message_does_not_repeat_the_lookups_for_its_recipients() {
    let (mut fixture, mut client, key) = before_rcpt(remote(5));
    assert_eq!(fixture.say(&mut client, DIALOGUE[2], 0.0), "");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Lookup)]);
    assert_eq!(fixture.say(&mut client, DIALOGUE[3], 0.0), "", "input behind it waits");
    assert_eq!(answer_all(&mut fixture, key, 1.0, of_next), ["b@next.example"]);
    let answers = heard(&mut client);
    assert!(answers.starts_with("250 2.1.5 Ok\r\n354 "), "{answers}");
    assert_eq!(fixture.say(&mut client, DIALOGUE[4], 0.0), "");
    assert_eq!(fixture.requests(), [Request::Decide(key, Next::Lookup)]);
    assert_eq!(answer_all(&mut fixture, key, 1.0, of_next), ["c@d.example", "@d.example"]);
    fixture.service.collect();
    fixture.service.finish(1.0);
    assert!(heard(&mut client).starts_with("250 2.0.0 Ok: queued as "));
    // The next message asks anew.
    fixture.say(&mut client, DIALOGUE[1], 1.0);
    fixture.say(&mut client, DIALOGUE[2], 1.0);
    assert_eq!(answer_all(&mut fixture, key, 1.0, of_next), ["b@next.example"]);
    fixture.say(&mut client, "RSET\r\n", 1.0);
    fixture.say(&mut client, DIALOGUE[1], 1.0);
    fixture.say(&mut client, DIALOGUE[2], 1.0);
    assert_eq!(answer_all(&mut fixture, key, 1.0, of_next), ["b@next.example"]);
}

#[test]
fn the_owner_decides_about_an_unlisted_recipient_and_after_a_failure_and_the_message_asks_anew() {
    for (answer, keys, unlisted) in [
        (Answer::NotFound, &["b@next.example", "@next.example"][..], Some(Listing::Aliases)),
        (Answer::Failed("down".into()), &["b@next.example"], None),
    ] {
        let (mut fixture, mut client, key) = before_rcpt(remote(5));
        fixture.say(&mut client, DIALOGUE[2], 0.0);
        assert_eq!(answer_all(&mut fixture, key, 1.0, |_| answer.clone()), keys);
        assert_eq!(fixture.requests().last(), Some(&Request::Decide(key, Next::Rcpt)));
        let session = fixture.service.session(key).unwrap();
        assert_eq!(session.lock().unwrap().unlisted(), unlisted);
        let next = session.lock().unwrap().accept(1.0).unwrap();
        assert_eq!(session.lock().unwrap().unlisted(), None);
        fixture.service.proceed(key, next, 1.0);
        fixture.say(&mut client, DIALOGUE[3], 1.0);
        fixture.say(&mut client, DIALOGUE[4], 1.0);
        let asked = answer_all(&mut fixture, key, 1.0, of_next);
        assert_eq!(asked, ["b@next.example", "c@d.example", "@d.example"]);
        fixture.service.collect();
        fixture.service.finish(1.0);
        assert_eq!(fixture.memory.records(), 1);
    }
}

#[test]
fn recipients_that_come_together_are_asked_one_after_the_other() {
    let (mut fixture, mut client, key) = before_rcpt(remote(5));
    let both = format!("{}{}", DIALOGUE[2], DIALOGUE[2].replace("<b@", "<e@"));
    assert_eq!(fixture.say(&mut client, &both, 0.0), "");
    let session = fixture.service.session(key).unwrap();
    for (asked, next) in [("b@next.example", Next::Lookup), ("e@next.example", Next::Idle)] {
        assert_eq!(session.lock().unwrap().server().recipient(), Some(asked));
        let lookups = session.lock().unwrap().lookups();
        let found = Answer::Found(b"c@d.example"[..].into());
        let answers = lookups.into_iter().map(|lookup| (lookup, found.clone())).collect();
        assert_eq!(session.lock().unwrap().answer_lookups(answers, 1.0), Some(next));
        fixture.service.proceed(key, next, 1.0);
        // The owner sends the first reply while it makes the second lookup.
        fixture.service.proceed(key, Next::Idle, 1.0);
        assert_eq!(heard(&mut client), "250 2.1.5 Ok\r\n");
    }
}

#[test]
fn a_client_that_leaves_during_the_lookups_for_its_recipient_leaves_nothing() {
    let (mut fixture, mut client, key) = before_rcpt(remote(5));
    fixture.say(&mut client, DIALOGUE[2], 0.0);
    let session = fixture.service.session(key).unwrap();
    let lookups = session.lock().unwrap().lookups();
    fixture.service.abort(key, 1.0);
    let answers = lookups.into_iter().map(|lookup| (lookup, Answer::NotFound)).collect();
    assert_eq!(session.lock().unwrap().answer_lookups(answers, 1.0), Some(Next::Close));
    assert_eq!(session.lock().unwrap().lookups(), []);
    assert!(fixture.service.is_empty());
}
