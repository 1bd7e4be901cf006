"""postmulti: the list is that of Postfix, other modes are refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from postillion.commands import postmulti
from support import peers


@pytest.fixture
def instances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A first instance and two others; the first one's directory is the default."""
    places = [tmp_path / name for name in ("first", "out", "in")]
    settings = [
        f"multi_instance_directories = {places[1]}, {places[2]}",
        "multi_instance_name = postfix-out\nmulti_instance_group = mta\nmulti_instance_enable = yes",
        "multi_instance_group = mta",
    ]
    for place, text in zip(places, settings, strict=True):
        place.mkdir()
        (place / "main.cf").write_text(f"compatibility_level = 3.6\nmyhostname = mx.example.org\n{text}\n")
    monkeypatch.setattr(postmulti, "DEFAULT_DIRECTORY", str(places[0]))
    monkeypatch.delenv("MAIL_CONFIG", raising=False)
    return places


def listed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return the lines of a listing."""
    assert postmulti.main(["-l", *words]) == 0
    return capsys.readouterr().out.splitlines()


def test_list_is_that_of_postfix(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MAIL_CONFIG", raising=False)
    theirs = subprocess.run([peers.peer("postmulti"), "-l"], capture_output=True, text=True, check=True)
    assert listed(capsys) == theirs.stdout.splitlines()


def test_instances_are_listed_with_name_group_state_and_directory(
    instances: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    first, out, inner = (
        f"-               -               y         {instances[0]}",
        f"postfix-out     mta             y         {instances[1]}",
        f"-               mta             n         {instances[2]}",
    )
    assert listed(capsys) == listed(capsys, "-a") == [first, out, inner]
    assert listed(capsys, "-R") == [inner, out, first]
    assert listed(capsys, "-g", "mta") == [out, inner]
    assert listed(capsys, "-i", "-") == [first]
    assert listed(capsys, "-i", "postfix-out") == [out]
    assert listed(capsys, "-i", str(instances[2])) == [inner]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-e", "init"], "-e is not implemented: edit multi_instance_directories"),
        (["-p", "status"], "-p is not implemented: run postfix -c config_directory command"),
        (["-x", "true"], "-x is not implemented: "),
        (["-l", "-i", "nosuch"], "no matching instance: nosuch"),
        (["-l", "more"], "usage: "),
        ([], "usage: "),
        (["-z"], "option -z not recognized; usage: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_modes_are_refused_in_one_line(
    instances: list[Path], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert postmulti.main(words) == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith(f"postmulti: fatal: {said}")
    assert stderr.count("\n") == 1


def test_another_configuration_directory_is_not_the_first_instance(
    instances: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAIL_CONFIG", "/elsewhere")
    assert postmulti.main(["-l"]) == 1
    assert "non-default configuration directory: /elsewhere" in capsys.readouterr().err
