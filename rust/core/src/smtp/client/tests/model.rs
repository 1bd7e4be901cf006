//! The client against a server with random replies: every recipient gets its own verdict.

use super::*;
use proptest::prelude::*;

/// A server that refuses at random, and otherwise behaves like a correct one. It keeps its verdicts for comparison.
struct Model {
    dice: Vec<u8>,
    at: usize,
    line: String,
    in_data: bool,
    mail_ok: bool,
    taken: Vec<usize>,
    meant: Vec<(usize, Outcome)>,
    /// The number of verdicts before each transaction.
    begins: Vec<usize>,
    /// The number of recipients of each.
    all: Vec<usize>,
}

impl Model {
    fn new(dice: Vec<u8>, all: &[usize]) -> Self {
        Self {
            dice,
            at: 0,
            line: String::new(),
            in_data: false,
            mail_ok: false,
            taken: vec![],
            meant: vec![],
            begins: vec![],
            all: all.to_vec(),
        }
    }

    fn throw(&mut self) -> u8 {
        self.at += 1;
        self.dice[(self.at - 1) % self.dice.len()]
    }

    fn reply(&mut self, good: &str) -> (String, Option<Outcome>) {
        match self.throw() {
            0 => ("450 4.2.0 later\r\n".into(), Some(Outcome::Deferred)),
            1 => ("550-never\r\n550 5.1.1 ever\r\n".into(), Some(Outcome::Bounced)),
            _ => (format!("{good}\r\n"), None),
        }
    }

    fn hear(&mut self, text: &str) -> String {
        let mut answers = String::new();
        for c in text.chars() {
            self.line.push(c);
            if !self.line.ends_with("\r\n") {
                continue;
            }
            let line = std::mem::take(&mut self.line);
            if self.in_data {
                if line == ".\r\n" {
                    self.in_data = false;
                    let (reply, refused) = self.reply("250 taken");
                    let outcome = refused.unwrap_or(Outcome::Sent);
                    let taken = std::mem::take(&mut self.taken);
                    self.meant.extend(taken.into_iter().map(|position| (position, outcome)));
                    answers.push_str(&reply);
                }
            } else if line.starts_with("MAIL") {
                let (reply, refused) = self.reply("250 ok");
                self.mail_ok = refused.is_none();
                self.begins.push(self.meant.len());
                if let Some(outcome) = refused {
                    self.meant.extend((0..self.all[self.begins.len() - 1]).map(|position| (position, outcome)));
                }
                answers.push_str(&reply);
            } else if let Some(rest) = line.strip_prefix("RCPT TO:<r") {
                let position = rest.split('@').next().unwrap().parse().unwrap();
                let (reply, refused) = self.reply("250 ok");
                match refused {
                    _ if !self.mail_ok => answers.push_str("503 5.5.1 MAIL first\r\n"),
                    None => {
                        self.taken.push(position);
                        answers.push_str(&reply);
                    }
                    Some(outcome) => {
                        self.meant.push((position, outcome));
                        answers.push_str(&reply);
                    }
                }
            } else if line.starts_with("DATA") {
                if self.taken.is_empty() {
                    // Both are allowed (RFC 2920 §3.1).
                    self.in_data = self.throw().is_multiple_of(2);
                    answers.push_str(if self.in_data { "354 go\r\n" } else { "554 5.5.1 nobody\r\n" });
                } else {
                    let (reply, refused) = self.reply("354 go");
                    self.in_data = refused.is_none();
                    if let Some(outcome) = refused {
                        let taken = std::mem::take(&mut self.taken);
                        self.meant.extend(taken.into_iter().map(|position| (position, outcome)));
                    }
                    answers.push_str(&reply);
                }
            } else if line.starts_with("RSET") {
                self.taken.clear();
                answers.push_str("250 ok\r\n");
            }
        }
        answers
    }
}

proptest! {
    #[test]
    fn every_recipient_gets_the_verdict_that_the_server_meant(
        dice in prop::collection::vec(0u8..8, 1..60),
        mails in prop::collection::vec(1usize..12, 1..4),
        pipelining in any::<bool>(),
        step in 1usize..40,
    ) {
        let mut dialogue = Dialogue::new(settings(), &[]);
        dialogue.hear(b"220 mx\r\n");
        dialogue.hear(if pipelining { b"250-mx\r\n250 PIPELINING\r\n" } else { b"250 mx\r\n" });
        let mut model = Model::new(dice, &mails);
        for count in mails {
            prop_assert!(dialogue.client.is_idle());
            model.meant.clear();
            dialogue.verdicts.clear();
            dialogue.said.clear();
            let recipients = dialogue.recipients[..count].iter().enumerate();
            dialogue.client.begin(&dialogue.envelope, recipients, false, 1.0);
            dialogue.act();
            let mut rounds = 0;
            while !dialogue.client.is_idle() && !dialogue.over {
                rounds += 1;
                prop_assert!(rounds < 100, "no progress");
                let said = std::mem::take(&mut dialogue.said).replace('|', "");
                let answers = model.hear(&said);
                for piece in answers.as_bytes().chunks(step) {
                    dialogue.hear(piece);
                }
            }
            let mut got = dialogue.verdicts.clone();
            got.sort_by_key(|(position, _)| *position);
            model.meant.sort_by_key(|(position, _)| *position);
            prop_assert_eq!(&got, &model.meant);
            prop_assert_eq!(got.len(), count);
        }
    }

    #[test]
    fn every_message_begun_ahead_gets_the_verdict_that_the_server_meant_or_none(
        dice in prop::collection::vec(0u8..12, 1..60),
        mails in prop::collection::vec(1usize..6, 2..6),
        step in 1usize..40,
    ) {
        let mut dialogue = Dialogue::new(settings(), &mails);
        dialogue.ahead = true;
        let mut model = Model::new(dice, &mails);
        dialogue.hear(b"220 mx\r\n");
        dialogue.said.clear();
        dialogue.hear(b"250-mx\r\n250 PIPELINING\r\n");
        let mut rounds = 0;
        while !dialogue.said.is_empty() {
            rounds += 1;
            prop_assert!(rounds < 200, "no progress");
            let said = std::mem::take(&mut dialogue.said).replace('|', "");
            for piece in model.hear(&said).as_bytes().chunks(step) {
                dialogue.hear(piece);
            }
        }
        model.begins.push(model.meant.len());
        let mut start = 0;
        for (number, end) in dialogue.ends.iter().enumerate() {
            let mut got = dialogue.verdicts[start..*end].to_vec();
            let mut meant = model.meant[model.begins[number]..model.begins[number + 1]].to_vec();
            got.sort_by_key(|(position, _)| *position);
            meant.sort_by_key(|(position, _)| *position);
            prop_assert_eq!(&got, &meant, "{}", number);
            prop_assert_eq!(got.len(), mails[number]);
            start = *end;
        }
        // After an early end, the next message has no verdict, and another connection may carry it.
        prop_assert_eq!(dialogue.verdicts.len(), start);
        if dialogue.over {
            prop_assert!(dialogue.events.last().is_some_and(|event| event.starts_with("stale ")));
        } else {
            prop_assert_eq!(dialogue.ends.len(), mails.len());
        }
    }

    #[test]
    fn hostile_bytes_never_panic_and_never_send_anything(
        pieces in prop::collection::vec(
            prop_oneof![
                Just(b"250 ok\r\n".to_vec()), Just(b"354 go\r\n".to_vec()), Just(b"421 bye\r\n".to_vec()),
                Just(b"550 no\r\n".to_vec()), Just(b"250-".to_vec()), Just(b"\r\n".to_vec()), Just(b"999 \n".to_vec()),
                Just(b"220 mx ESMTP\r\n".to_vec()), Just(b"250-mx\r\n250 PIPELINING\r\n".to_vec()),
                prop::collection::vec(any::<u8>(), 0..5),
            ],
            0..30,
        ),
        ahead in any::<bool>(),
    ) {
        let mut dialogue = Dialogue::new(settings(), &[2, 1]);
        dialogue.ahead = ahead;
        for piece in &pieces {
            dialogue.hear(piece);
        }
        dialogue.client.lost();
        dialogue.act();
        prop_assert!(dialogue.said.matches("DATA").count() <= 2);
        let sent = dialogue.verdicts.iter().filter(|(_, outcome)| *outcome == Outcome::Sent).count();
        prop_assert!(sent == 0 || dialogue.said.contains("body\r\n.\r\n"));
    }
}
