//! Envelopes in the queue: an envelope that decodes is encoded to the same octets, and no prefix of it decodes.
//!
//! Input: an encoded envelope.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::codec::Take;
use postillion_core::mail::envelope::{Envelope, decode_recipient, encode_recipient};

fuzz_target!(|input: &[u8]| {
    let mut take = Take::new(input);
    if let Ok(envelope) = Envelope::decode(&mut take) {
        let used = &input[..input.len() - take.rest().len()];
        let mut again = Vec::new();
        envelope.encode(&mut again);
        assert_eq!(again, used, "{envelope:?}");
        for end in 0..used.len() {
            assert!(Envelope::decode(&mut Take::new(&used[..end])).is_err(), "cut at {end}");
        }
    }
    let mut take = Take::new(input);
    if let Ok(recipient) = decode_recipient(&mut take) {
        let mut again = Vec::new();
        encode_recipient(&recipient, &mut again);
        assert_eq!(again, input[..input.len() - take.rest().len()]);
    }
});
