//! Frames between the programs: any split gives the same frames or the same error, and a frame is read back after it
//! was written.
//!
//! Input: the seed of the split (bit 7: the rest is one frame's kind and payload, to which length and version are
//! added), a stream of frames.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postillion_core::ipc::frame::{FRAME_VERSION, Frame, FrameError, FrameReader};
use postillion_fuzz::{Choices, bit, splits};

fn read(pieces: &[&[u8]]) -> (Vec<Frame>, Option<FrameError>) {
    let (mut reader, mut frames) = (FrameReader::default(), Vec::new());
    for piece in pieces {
        reader.receive(piece);
        loop {
            match reader.next_frame() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

fuzz_target!(|input: &[u8]| {
    let mut choices = Choices::new(input);
    let seed = choices.byte();
    let rest = choices.rest();
    let mut stream = rest.to_vec();
    if bit(seed, 7) {
        stream = (rest.len() as u32 + 1).to_le_bytes().to_vec();
        stream.push(FRAME_VERSION);
        stream.extend_from_slice(rest);
    }
    let (frames, error) = read(&[&stream]);
    for pieces in splits(&stream, seed) {
        assert_eq!(read(&pieces), (frames.clone(), error.clone()), "in another split");
    }
    let mut again = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut again));
    assert!(again.len() <= stream.len(), "a frame grows when it is written again");
    assert_eq!(read(&[&again]), (frames, None), "written and read again");
});
