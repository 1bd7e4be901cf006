//! Dialogues with BDAT (RFC 3030).

use super::{EHLO, Talk, config, replies};
use crate::smtp::server::Ending;
use crate::smtp::server::config::{BareNewline, ServerConfig};

#[test]
fn chunks_are_accepted_and_refused_in_postfix_words() {
    let begin = "MAIL FROM:<>\r\nRCPT TO:<a>\r\n";
    let begun = "250 2.1.0 Ok\n250 2.1.5 Ok\n";
    let forgotten = "250 2.1.0 Ok\n250 2.1.5 Ok";
    for (input, expected) in [
        (
            format!("{begin}BDAT 3\r\nabcbdat 0 last\r\n"),
            format!("{begun}250 2.0.0 Ok: 3 bytes\n250 2.0.0 Ok: 5 bytes queued as X"),
        ),
        (
            format!("{begin}BDAT 7 LAST\r\nNOOP\r\n\nQUIT\r\n"),
            format!("{begun}250 2.0.0 Ok: 8 bytes queued as X\n221 2.0.0 Bye"),
        ),
        (format!("{begin}BDAT 0 LAST\r\n{begin}"), format!("{begun}250 2.0.0 Ok: 0 bytes queued as X\n{forgotten}")),
        // A chunk of zero octets; later chunks are dropped up to LAST.
        (
            format!("{begin}BDAT 0\r\nBDAT 3\r\nabcBDAT 3 LAST\r\nabc{begin}"),
            format!(
                "{begun}551 5.7.1 Null BDAT request\n551 5.0.0 Discarded 3 bytes after earlier error\n\
                     551 5.0.0 Discarded 3 bytes after earlier error\n{forgotten}"
            ),
        ),
        (
            format!("{begin}BDAT 3\r\nabcBDAT 0\r\nMAIL FROM:<>\r\nRSET\r\n{begin}"),
            format!(
                "{begun}250 2.0.0 Ok: 3 bytes\n551 5.7.1 Null BDAT request\n503 5.5.1 Error: nested MAIL command\n\
                     250 2.0.0 Ok\n{forgotten}"
            ),
        ),
        (
            format!("{begin}BDAT 3\r\nabcMAIL FROM:<>\r\nRCPT TO:<b>\r\nDATA\r\nBDAT 2 LAST\r\n\r\n"),
            format!(
                "{begun}250 2.0.0 Ok: 3 bytes\n503 5.5.1 Error: nested MAIL command\n\
                     503 5.5.1 Error: RCPT after BDAT\n503 5.5.1 Error: DATA after BDAT\n\
                     250 2.0.0 Ok: 5 bytes queued as X"
            ),
        ),
        (
            format!("{begin}BDAT 1 LAST\r\naBDAT 1 LAST\r\na{begin}"),
            format!("{begun}250 2.0.0 Ok: 3 bytes queued as X\n503 5.5.1 Error: need RCPT command\n{forgotten}"),
        ),
        (
            "BDAT 3\r\nabcMAIL FROM:<>\r\nEHLO x\r\n".into(),
            format!(
                "503 5.5.1 Error: need RCPT command\n503 5.5.1 Error: MAIL after BDAT\n{}",
                EHLO.replace("\r\n", "\n").trim_end()
            ),
        ),
        (
            "MAIL FROM:<>\r\nBDAT 6 LAST\r\nQUIT\r\nRCPT TO:<a>\r\n".into(),
            "250 2.1.0 Ok\n554 5.5.1 Error: no valid recipients\n503 5.5.1 Error: need MAIL command".into(),
        ),
        (
            format!("{begin}BDAT 1001\r\n{}BDAT 3 LAST\r\nabc{begin}", "QUIT\r\n    \r\n".repeat(83) + "NOOP\n"),
            format!(
                "{begun}552 5.3.4 Chunk exceeds message size limit\n\
                     551 5.0.0 Discarded 3 bytes after earlier error\n{forgotten}"
            ),
        ),
        (
            format!("{begin}BDAT 600\r\n{0}BDAT 600 LAST\r\n{0}{begin}", "a".repeat(600)),
            format!("{begun}250 2.0.0 Ok: 600 bytes\n552 5.3.4 Chunk exceeds message size limit\n{forgotten}"),
        ),
        (
            format!("{begin}BDAT 1000 LAST\r\n{}", "a".repeat(1000)),
            format!("{begun}250 2.0.0 Ok: 1002 bytes queued as X"),
        ),
        (format!("{begin}BDAT 9 LAST\r\nab"), begun.trim_end().into()),
    ] {
        let got = replies(&config(), input.as_bytes());
        assert_eq!(got.trim_end().replace("\r\n", "\n"), expected, "{input:?}");
    }
    for arguments in
        ["", "x", "-1", "+1", "1.0", "0x5", "3 FIRST", "3 LAST x", "9223372036854775808", "99999999999999999999999"]
    {
        let got = replies(&config(), format!("{begin}BDAT {arguments}\r\nQUIT\r\n").as_bytes());
        assert_eq!(got, "250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n521 5.5.4 Syntax: BDAT count [LAST]\r\n", "{arguments:?}");
    }
    let silent = ServerConfig { discard_ehlo_keywords: vec!["CHUNKING".into()], ..config() };
    let got = replies(&silent, b"EHLO x\r\nBDAT 4\r\nQUIT");
    assert_eq!(
        got,
        EHLO.replace("250-SMTPUTF8\r\n250 CHUNKING", "250 SMTPUTF8") + "521 5.5.1 Error: command not implemented\r\n"
    );
}

#[test]
fn chunks_are_stored_like_data() {
    let input = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 4\r\n.\r\n.BDAT 10\r\n\n\r\n.\r\nx\ry\rBDAT 1 LAST\r\n\nQUIT\r\n";
    assert!(replies(&config(), input).ends_with("250 2.0.0 Ok: 16 bytes queued as X\r\n221 2.0.0 Bye\r\n"));
    let talk = Talk::play(config(), input, 3);
    assert_eq!(talk.content, b"..\r\n..\r\n\r\n..\r\nx\ry\r\n");
    assert_eq!(talk.server.counts(), " mail=1 rcpt=1 bdat=3 quit=1 commands=6");
}

#[test]
fn a_message_with_a_lost_chunk_is_not_stored() {
    let input =
        b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 3\r\noldRSET\r\nMAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 3 LAST\r\nnew";
    for step in [1, 5, input.len()] {
        assert_eq!(Talk::play(config(), input, step).content, b"new\r\n");
    }
    let talk = Talk::play(config(), b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 3\r\nabcBDAT 9 LAST\r\nxyz", 4);
    assert_eq!((&talk.content[..], talk.server.place().as_str()), (&b""[..], "BDAT (6 bytes)"));
    assert_eq!(talk.server.ended(), Some(Ending::Lost));
}

#[test]
fn bare_newlines_in_chunks_are_noted_or_refused() {
    let input = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 4\r\nx\ny\nBDAT 3 LAST\r\nz\r\n";
    let note = ServerConfig { bare_newline: BareNewline::Note, ..config() };
    let talk = Talk::play(note, input, 4);
    assert_eq!(talk.content, b"x\r\ny\r\nz\r\n");
    assert_eq!(talk.log, ["bare <LF> received after BDAT (4 bytes) from client.example.org[192.0.2.1]"]);
    let reject = || ServerConfig { bare_newline: BareNewline::Reject, ..config() };
    assert!(replies(&reject(), input).ends_with(
        "550 5.5.2 mx.example.org Error: bare <LF> received\r\n551 5.0.0 Discarded 3 bytes after earlier error\r\n"
    ));
    let talk = Talk::play(reject(), input, 4);
    assert_eq!(talk.content, b"");
    assert_eq!(
        talk.log,
        ["NOQUEUE: reject: BDAT content from client.example.org[192.0.2.1]: \
          550 5.5.2 mx.example.org Error: bare <LF> received; from=<> proto=SMTP"]
    );
    let last = b"MAIL FROM:<>\r\nRCPT TO:<a>\r\nBDAT 2 LAST\r\nx\nQUIT\r\n";
    assert!(
        replies(&reject(), last).ends_with("550 5.5.2 mx.example.org Error: bare <LF> received\r\n221 2.0.0 Bye\r\n")
    );
}

#[test]
fn a_slow_chunk_ends_with_its_deadline() {
    let slow = ServerConfig { timeout_s: 10.0, per_request_deadline: true, min_data_rate: 100, ..config() };
    let mut talk = Talk::new(slow);
    talk.say(b"MAIL FROM:<>\r\nRCPT TO:<a>\r\n");
    talk.now = 5.0;
    talk.say(b"BDAT 500 LAST\r\n");
    assert_eq!(talk.server.deadline(), 15.0);
    talk.now = 14.0;
    talk.say(&[b'x'; 200]);
    assert_eq!(talk.server.deadline(), 17.0);
    talk.now = 17.0;
    talk.server.timeout(17.0);
    talk.run();
    assert!(talk.output.ends_with("421 4.4.2 mx.example.org Error: timeout exceeded\r\n"));
}
