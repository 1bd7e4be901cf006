//! The effect of the reply to each command: verdicts, the next step, or the end of the connection.

use super::capability::Capabilities;
use super::expect::Expect;
use super::response::Response;
use super::{Client, END_OF_DATA, Event, Phase, Protocol, RSET};
use crate::mail::reply::Enhanced;
use crate::mail::status::{Status, outcome_of};

impl Client {
    pub(super) fn answer(&mut self, response: &Response, now: f64) {
        self.answered = true;
        let Some(expect) = self.pipeline.answered() else {
            return self.answered_early(response);
        };
        match expect {
            Expect::Greeting => self.greeted(response),
            Expect::Ehlo if response.class() != 2 && response.code != 421 => self.send(Expect::Helo),
            Expect::Ehlo | Expect::Helo | Expect::Lhlo => self.welcomed(expect, response),
            Expect::StartTls => return self.starttls_answered(response, now),
            Expect::Auth => self.auth_answered(response),
            Expect::Rset if response.class() != 2 => return self.spent(expect, response),
            Expect::Rset => {}
            Expect::Abort => return self.aborted(response),
            _ if response.code == 421 => return self.closing(expect, response),
            _ if self.begun_ahead && self.is_out_of_step(expect, response) => return self.spent(expect, response),
            Expect::Mail => {
                if response.class() != 2 {
                    self.mail_refused = true;
                    let open = self.open_recipients();
                    self.refuse(&open, expect, response);
                }
            }
            Expect::Rcpt(_) if self.mail_refused => {}
            Expect::Rcpt(position) if response.class() == 2 => {
                self.accepted.push(position);
                if self.probes {
                    // Nothing follows that could change it.
                    self.verdict(&[position], expect, response);
                }
            }
            Expect::Rcpt(position) => self.refuse(&[position], expect, response),
            Expect::Data => {
                if !self.begun_ahead {
                    self.pace.commands_took(now - self.sent_at);
                }
                self.data_answered(response);
            }
            Expect::Dot => {
                self.needs_reset = response.class() != 2;
                let accepted = std::mem::take(&mut self.accepted);
                self.verdict(&accepted, expect, response);
            }
            Expect::DotFor(position) => {
                self.needs_reset = false;
                self.verdict(&[position], expect, response);
            }
            Expect::Quit => {}
        }
        self.go_on(now);
    }

    /// Take the next step after a reply.
    fn go_on(&mut self, now: f64) {
        if self.phase == Phase::Envelope {
            let nobody = self.mail_refused || (self.accepted.is_empty() && !self.pipeline.awaits_recipients());
            if nobody {
                // The rest of the commands is not needed. The replies to sent commands must be read.
                self.pipeline.forget_planned();
                if self.pipeline.awaited() == 0 {
                    return self.end_envelope(now);
                }
            }
            self.send_commands();
        } else if self.phase == Phase::EndOfData
            && !matches!(self.pipeline.next(), Some(Expect::Dot | Expect::DotFor(_)))
        {
            self.pace.verdict_took(now - self.sent_at);
            self.finish();
            if !self.ahead || self.phase == Phase::Closed {
                return;
            }
            self.ahead = false;
            self.enter_transaction();
            self.begun_ahead = true;
            self.phase = Phase::Envelope;
            self.needs_reset = true;
            self.send_commands();
        }
        self.set_deadline(now);
    }

    /// End a transaction whose message the server does not want. As in Postfix, RSET comes before QUIT; on a connection that
    /// carries another message it comes with that one's commands.
    fn end_envelope(&mut self, now: f64) {
        if !self.last_transaction || !self.reusable {
            return self.finish();
        }
        self.events.extend(self.held.drain(..));
        self.output.extend_from_slice(RSET);
        self.pipeline.expect(Expect::Abort);
        self.set_deadline(now);
    }

    /// Return whether a reply to a transaction begun ahead may answer another command. After a refused message, a
    /// server may accept no other one. After two replies to one message, all further replies are one command late, so
    /// DATA does not get its 354. The job then needs a connection without commands sent ahead.
    fn is_out_of_step(&self, expect: Expect, response: &Response) -> bool {
        match expect {
            Expect::Mail => response.class() != 2,
            Expect::Rcpt(_) => !matches!(response.class(), 2 | 4 | 5),
            Expect::Data => match response.class() {
                3 => false,
                4 | 5 => !self.accepted.is_empty(),
                _ => true,
            },
            _ => false,
        }
    }

    fn greeted(&mut self, response: &Response) {
        if response.class() != 2 {
            let soften = response.class() != 5 || self.settings.skip_5xx_greeting;
            return self.unwelcome(response, soften);
        }
        let mut words = response.text.split([' ', '-', '\t', '\n']).skip(1);
        let esmtp = words.any(|word| word.eq_ignore_ascii_case("ESMTP"));
        self.send(match self.settings.protocol {
            Protocol::Lmtp => Expect::Lhlo,
            Protocol::Smtp if self.settings.never_send_ehlo => Expect::Helo,
            Protocol::Smtp if esmtp || self.settings.always_send_ehlo => Expect::Ehlo,
            Protocol::Smtp => Expect::Helo,
        });
    }

    fn welcomed(&mut self, expect: Expect, response: &Response) {
        if response.class() != 2 {
            return self.unwelcome(response, response.class() != 5);
        }
        let first = response.text.split('\n').next().unwrap_or("");
        let name = first.get(4..).unwrap_or("").split_ascii_whitespace().next().unwrap_or("");
        if self.peer.loop_detect && name.eq_ignore_ascii_case(&self.settings.myhostname) {
            let name = &self.peer.name_address_port;
            let warning = format!("host {name} replied to HELO/EHLO with my own hostname {}", self.settings.myhostname);
            self.events.push_back(Event::Warning(warning));
            let class = if self.peer.best { 5 } else { 4 };
            let text = format!("mail for {} loops back to myself", self.peer.nexthop);
            return self.fail(Enhanced { class, subject: 4, detail: 6 }, text);
        }
        if expect != Expect::Helo {
            self.offered = Capabilities::parse(response, &self.settings.discard_ehlo_keywords);
        }
        let is_over = self.ask_for_tls() || self.is_secure() && self.leaves_for_support();
        if !is_over {
            self.welcome_done();
        }
    }

    /// The server is known: log in, or end the handshake.
    pub(super) fn welcome_done(&mut self) {
        if !self.log_in() {
            self.ready();
        }
    }

    /// End the handshake: a transaction may begin.
    pub(super) fn ready(&mut self) {
        self.phase = Phase::Idle;
        self.events.push_back(Event::Ready);
    }

    fn unwelcome(&mut self, response: &Response, soften: bool) {
        let mut dsn = response.dsn();
        if soften {
            dsn.class = 4;
        }
        let text = format!("host {} refused to talk to me: {}", self.peer.name_address, response.one_line());
        self.fail(dsn, text);
    }

    fn data_answered(&mut self, response: &Response) {
        self.begun_ahead = false;
        self.events.extend(self.held.drain(..));
        if response.class() != 3 {
            let accepted = std::mem::take(&mut self.accepted);
            return self.refuse(&accepted, Expect::Data, response);
        }
        if self.accepted.is_empty() {
            // The server expects a message although it accepted no recipient: send an empty one (RFC 2920 §3.1).
            self.output.extend_from_slice(END_OF_DATA);
            self.phase = Phase::EndOfData;
            if self.settings.protocol == Protocol::Smtp {
                self.pipeline.expect(Expect::Dot);
            } else {
                self.reusable = false;
            }
            return;
        }
        self.phase = Phase::Body;
        self.events.push_back(Event::Body);
    }

    /// End a probe: the server has dropped its transaction, or the connection is of no use for another one.
    fn aborted(&mut self, response: &Response) {
        self.needs_reset = false;
        self.reusable &= response.class() == 2;
        self.finish();
    }

    /// Handle 421: the server closes the connection (RFC 5321 §3.8), and no awaited reply will arrive.
    fn closing(&mut self, expect: Expect, response: &Response) {
        self.reusable = false;
        if expect == Expect::Mail && self.transactions > 1 {
            return self.spent(expect, response);
        }
        if self.probes {
            self.accepted.clear();
        }
        if !self.mail_refused {
            let mut open = match expect {
                Expect::DotFor(position) => vec![position],
                Expect::Rcpt(position) => [std::mem::take(&mut self.accepted), vec![position]].concat(),
                _ => std::mem::take(&mut self.accepted),
            };
            open.extend(self.open_recipients());
            self.refuse(&open, expect, response);
        }
        self.finish();
    }

    /// End a connection that completed an earlier transaction. A new connection may work.
    fn spent(&mut self, expect: Expect, response: &Response) {
        let status = self.said(expect, response);
        self.close();
        self.events.push_back(Event::Failed { status, stale: true, elsewhere: false, clear: false });
    }

    /// Handle a reply before the end of the message.
    fn answered_early(&mut self, response: &Response) {
        if matches!(response.class(), 4 | 5) {
            self.reusable = false;
            let accepted = std::mem::take(&mut self.accepted);
            self.refuse(&accepted, Expect::Dot, response);
            self.finish();
        } else {
            self.violated(&format!("{} before the end of the message", response.one_line()));
        }
    }

    /// Return the recipients of the transaction without a reply, sent or not.
    fn open_recipients(&self) -> Vec<usize> {
        self.pipeline.recipients(self.phase == Phase::EndOfData)
    }

    fn verdict(&mut self, positions: &[usize], expect: Expect, response: &Response) {
        if response.class() != 2 {
            return self.refuse(positions, expect, response);
        }
        let dsn = response.dsn();
        let remote = Some(self.peer.name_address_port.as_str().into());
        let status = Status { outcome: outcome_of(dsn), dsn, text: response.one_line().into(), remote };
        self.tell(positions, &status);
    }

    fn refuse(&mut self, positions: &[usize], expect: Expect, response: &Response) {
        // After a syntax error, the state of the dialogue is uncertain.
        if !(400..600).contains(&response.code) || response.code == 555 || (500..510).contains(&response.code) {
            self.reusable = false;
        }
        let status = self.said(expect, response);
        self.tell(positions, &status);
    }

    fn tell(&mut self, positions: &[usize], status: &Status) {
        let recipient = |position: &usize| Event::Recipient { position: *position, status: status.clone() };
        let events = if self.begun_ahead { &mut self.held } else { &mut self.events };
        events.extend(positions.iter().map(recipient));
    }

    fn said(&self, expect: Expect, response: &Response) -> Status {
        let refuses = matches!(response.class(), 4 | 5);
        let dsn = if refuses { response.dsn() } else { Enhanced { class: 5, subject: 5, detail: 0 } };
        let prefix = if refuses { "" } else { "Protocol error: " };
        let (name, said, command) = (&self.peer.name_address, response.one_line(), expect.command());
        let text = format!("{prefix}host {name} said: {said} (in reply to {command})").into();
        let remote = Some(self.peer.name_address_port.as_str().into());
        Status { outcome: outcome_of(dsn), dsn, text, remote }
    }
}
