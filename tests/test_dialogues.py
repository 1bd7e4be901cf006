"""Play every transcript in tests/dialogues/ whole, and with the client's octets in small pieces."""

from pathlib import Path

import pytest

from support.dialogue import DIRECTORY, play, read

TRANSCRIPTS = sorted(DIRECTORY.glob("*.smtp"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=[path.stem for path in TRANSCRIPTS])
@pytest.mark.parametrize("step_octets", [None, 1, 5])
async def test_transcript_matches_server(path: Path, step_octets: int | None, tmp_path: Path) -> None:
    dialogue = read(path)
    if dialogue.whole_only and step_octets is not None:
        pytest.skip("changes its meaning in pieces")
    await play(dialogue, tmp_path, step_octets)


def test_transcripts_exist() -> None:
    assert len(TRANSCRIPTS) >= 20
