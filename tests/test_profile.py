"""benches/cpu.py and benches/flame.py: read, classify and draw samples."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benches"))

import cpu
import flame
import harness

PRINTED = """\
smtpd 11/11 
\tffffffff82203877 _raw_spin_lock ([kernel.kallsyms])
\tffffffff82010ddb tcp_sendmsg ([kernel.kallsyms])
\t          15ff24 postillion_core::net::Connection<D>::flush (/x/_core.cpython-311-x86_64-linux-gnu.so)
\t    559f7db229d0 [unknown] ([unknown])
\t          200000 outer (/usr/bin/python3.11)

state log 12/13 
\t          24c478 core::fmt::write (/x/_core.cpython-311-x86_64-linux-gnu.so)

smtp-sink -1/-1 
"""
CORE = "/x/_core.cpython-311-x86_64-linux-gnu.so"
KERNEL = "[kernel.kallsyms]"


def test_perf_output_is_read() -> None:
    first, second, third = cpu.read_samples(PRINTED.splitlines())
    assert (first.pid, first.thread, len(first.frames)) == (11, "smtpd", 5)
    assert first.frames[2] == ("postillion_core::net::Connection<D>::flush", CORE)
    assert (second.pid, second.thread, second.kind, second.innermost) == (12, "state log", "Rust", "core::fmt::write")
    assert (third.pid, third.frames) == (-1, ())
    # The callers of a frame without a name are a guess of perf.
    assert list(first.stack()) == ["postillion_core::net::Connection<D>::flush", "tcp_sendmsg", "_raw_spin_lock"]


@pytest.mark.parametrize(
    ("kind", "frames"),
    [
        ("sockets", [("_raw_spin_lock", KERNEL), ("tcp_sendmsg", KERNEL), ("x", CORE)]),
        ("waits", [("finish_task_switch", KERNEL), ("schedule", KERNEL), ("do_epoll_wait", KERNEL)]),
        ("fsync", [("schedule", KERNEL), ("io_schedule", KERNEL), ("ext4_sync_file", KERNEL), ("do_fsync", KERNEL)]),
        ("files", [("ext4_file_write_iter", KERNEL), ("vfs_write", KERNEL)]),
        ("kernel", [("clear_page_erms", KERNEL), ("do_user_addr_fault", KERNEL), ("x", CORE)]),
        ("Rust", [("x", CORE), ("y", "/usr/bin/python3.11")]),
        ("Python", [("_PyEval_EvalFrameDefault", "/usr/local/lib/libpython3.11.so.1.0")]),
        ("Python", [("_PyEval_EvalFrameDefault", "/usr/bin/python3.11")]),
        ("libraries", [("uv_run", "/x/python3.11/site-packages/uvloop/loop.cpython-311-x86_64-linux-gnu.so")]),
        ("libraries", [("malloc", "/usr/lib/x86_64-linux-gnu/libc.so.6")]),
    ],
)
def test_samples_are_classified(kind: str, frames: list[tuple[str, str]]) -> None:
    assert cpu.Sample(1, "python", tuple(frames)).kind == kind


def test_summary_has_shares_of_all_samples() -> None:
    samples = list(cpu.read_samples(PRINTED.splitlines()))[:2]
    profiled = cpu.Profile(samples, {11: "smtpd", 12: "qmgr"}, messages=10, cpu_ms=0.5, correct=True)
    options = harness.parser("").parse_args([])
    options.load, options.frequency, options.down = "new", 999, False
    rows = {(row[0], row[1]): row[2:] for row in cpu.summary(profiled, options).rows}
    shares = dict(zip(("ms", "all", *cpu.KINDS), rows["smtpd", "loop"], strict=True))
    assert (shares["ms"], shares["all"], shares["sockets"], shares["Rust"]) == ("0.250", "50.0", "50.0", "0.0")
    assert rows["all", ""][:2] == ["0.500", "100.0"]
    assert rows["qmgr", "state log"][1] == "50.0"
    assert cpu.top(samples)[2] == "| `_raw_spin_lock` | sockets | 50.0 |"


def test_boxes_of_graph_are_as_wide_as_their_samples() -> None:
    stacks = [(["a", "b<c>"], 3), (["a"], 1), (["z"], 4)]
    drawn = flame.draw("a & b", stacks, lambda name: "#123456" if name == "z" else "#ffffff")
    tree = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    boxes = {}
    for group in tree.iter(f"{space}g"):
        title, box = group.find(f"{space}title"), group.find(f"{space}rect")
        assert title is not None
        assert box is not None
        boxes[title.text] = (float(box.get("x", "")), float(box.get("width", "")), box.get("fill"))
    assert boxes == {
        "all: 100.0%": (0, 1200, "#ffffff"),
        "a: 50.0%": (0, 600, "#ffffff"),
        "b<c>: 37.5%": (0, 450, "#ffffff"),
        "z: 50.0%": (600, 600, "#123456"),
    }
    deep = flame.draw("deep", [(["x"] * 1000, 1)], lambda name: "#fff")
    assert len(re.findall("<rect", deep)) == flame.DEPTH_MAX + 2
