"""postillion bench: its reports are correct, and it refuses bad options with a clear message."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from postillion.bench import server, tls
from postillion.bench.options import BadOption, parse
from support import mta, peers
from support.ports import free_port


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "postillion.commands.postillion", "bench", "--quiet", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def both_ends() -> tuple[str, ...]:
    """Return the arguments for a load into the bench's own sink."""
    port = free_port()
    return (f"127.0.0.1:{port}", "--sink", f"127.0.0.1:{port}")


def test_source_and_sink_count_the_same_load(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    load = ("--messages", "300", "--sessions", "7", "--recipients", "3", "--domain", "a.example:5", "--octets", "2000")
    done = bench(*both_ends(), *load, "--json", str(report))
    assert done.returncode == 0, done.stderr
    run = json.loads(report.read_text())
    assert run["correct"] is True
    for end in ("source", "sink"):
        assert (run[end]["messages"], run[end]["recipients"], run[end]["octets"]) == (300, 900, 600_000)
    assert run["source"]["connections"] == 300
    assert run["source"]["replies"]["end of data"]["count"] == 300
    assert run["source"]["replies"]["RCPT"]["count"] == 900
    assert 0 < run["source"]["replies"]["end of data"]["p50"] <= run["source"]["replies"]["end of data"]["longest"]
    assert run["sink"]["delivery"]["count"] == 300
    assert run["points"][-1]["accepted"] == 300
    assert "correct: True" in done.stdout
    assert "end of data" in done.stdout


def test_connections_are_reused_with_ramp_and_pauses() -> None:
    words = (
        "--messages",
        "60",
        "--sessions",
        "3",
        "--reuse",
        "0",
        "--pipelining",
        "--think",
        "0.001",
        "--ramp",
        "0.01",
    )
    done = bench(*both_ends(), *words)
    assert done.returncode == 0, done.stderr
    assert "all messages per connection" in done.stdout


@pytest.mark.parametrize(
    ("words", "reuse", "handshakes"),
    [
        (("--tls", "full", "--sink-tls"), "1", 40),
        (("--tls", "resumed", "--sink-tls"), "1", 40),
        (("--tls", "resumed", "--sink-tls", "--rate", "1000"), "1", 40),
        (("--tls", "full", "--tls-wrapper", "--sink-tls", "wrapper"), "1", 40),
        (("--tls", "resumed", "--tls-wrapper", "--sink-tls", "wrapper"), "1", 40),
        (("--tls", "resumed", "--sink-tls", "--pipelining"), "0", 4),
    ],
)
def test_each_connection_has_the_wanted_handshake(
    tmp_path: Path, words: tuple[str, ...], reuse: str, handshakes: int
) -> None:
    report = tmp_path / "run.json"
    load = ("--messages", "40", "--sessions", "4", "--reuse", reuse, "--json", str(report))
    done = bench(*both_ends(), *words, *load)
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(report.read_text())
    resumed = handshakes if "resumed" in words else 0
    source, sink = run["source"], run["sink"]
    assert (source["messages"], sink["messages"], source["broken"]) == (40, 40, 0)
    assert (source["connections"], source["handshakes"], source["resumed"]) == (handshakes, handshakes, resumed)
    # The sink has also seen the connection that obtained the first session.
    first = int("resumed" in words)
    assert (sink["handshakes"], sink["resumed"]) == (handshakes + first, resumed)
    assert source["mismatched"] == 0
    assert source["replies"]["TLS handshake"]["count"] == handshakes
    assert f"TLS 1.3 with {words[1]} handshakes" in done.stdout
    assert f"TLS of the source: {handshakes} handshakes, {resumed} resumed" in done.stdout


def test_server_that_resumes_no_session_makes_the_run_incorrect(tmp_path: Path) -> None:
    peers.root()
    chain = tmp_path / "chain.pem"
    tls.write_chain(chain, "mx.example.org")
    parameters = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": str(chain)}
    site = mta.Site(tmp_path / "site", main_cf=parameters | {"tls_ssl_options": "NO_TICKET"})
    report = tmp_path / "run.json"
    with mta.running(site):
        words = ("--messages", "10", "--sessions", "2", "--domain", "example.org", "--json", str(report))
        done = bench(f"127.0.0.1:{site.port}", "--tls", "resumed", *words)
    source = json.loads(report.read_text())["source"]
    assert (source["handshakes"], source["resumed"], source["mismatched"]) == (10, 0, 10)
    assert done.returncode == 1
    assert "TLS: a session was not resumed" in done.stdout


def test_server_without_tls_is_one_line_and_status_2() -> None:
    done = bench(*both_ends(), "--tls", "full")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "postillion bench: fatal: TLS: STARTTLS is not offered\n"


def test_rate_is_kept_and_sizes_alternate(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    words = ("--rate", "200", "--messages", "100", "--octets", "1000,5000", "--reuse", "0", "--json", str(report))
    done = bench(*both_ends(), *words)
    assert done.returncode == 0, done.stderr
    run = json.loads(report.read_text())
    assert run["load_s"] >= 99 / 200
    assert run["sink"]["octets"] == 50 * 1000 + 50 * 5000
    assert run["source"]["message"]["count"] == 100
    assert run["source"]["message"]["p50"] >= run["source"]["replies"]["end of data"]["p50"]
    assert "200 messages per second by the clock, 1000, 5000 octets" in done.stdout


def test_source_counts_the_sinks_refusals(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    domains = ("--domain", "good.example", "--domain", "no.example", "--domain", "late.example")
    faults = ("--fault", "no.example=550", "--fault", "late.example=451@dot")
    done = bench(*both_ends(), "--messages", "90", *domains, *faults, "--json", str(report))
    assert done.returncode == 1, "some messages were refused"
    run = json.loads(report.read_text())
    assert (run["source"]["messages"], run["source"]["refused"], run["source"]["refusals"]) == (30, 60, 60)
    assert run["sink"]["messages"] == 30
    assert "RCPT: 550 5.0.0 as the sink was told" in done.stdout


def test_plot_is_written(tmp_path: Path) -> None:
    picture = tmp_path / "run.svg"
    done = bench(*both_ends(), "--messages", "50", "--plot", str(picture))
    assert done.returncode == 0, done.stderr
    assert "<svg" in picture.read_text()


def test_missing_server_is_one_line_and_status_2() -> None:
    done = bench(f"127.0.0.1:{free_port()}", "--messages", "500", "--sessions", "200")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "postillion bench: fatal: Connection refused (os error 111)\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["localhost"], "write HOST:PORT"),
        (["127.0.0.1:99999"], "write HOST:PORT"),
        (["127.0.0.1:25", "--sessions", "0"], "give 1 to"),
        (["127.0.0.1:25", "--think", "-1"], "give a time in seconds"),
        (["127.0.0.1:25", "--messages", "0"], "give at least 1"),
        (["127.0.0.1:25", "--reuse", "-1"], "0 for no limit"),
        (["127.0.0.1:25", "--domain", "a:x"], "write NAME or NAME:N"),
        (["127.0.0.1:25", "--fault", "a=450"], "needs --sink"),
        (["127.0.0.1:25", "--rate", "0"], "messages a second"),
        (["127.0.0.1:25", "--rate", "nan"], "messages a second"),
        (["127.0.0.1:25", "--rate", "5", "--think", "1"], "clients do not pause"),
        (["127.0.0.1:25", "--tls-wrapper"], "needs --tls"),
        (["127.0.0.1:25", "--sink-tls"], "needs --sink"),
        (["127.0.0.1:25", "--octets", "0"], "give 1 to"),
        (["127.0.0.1:25", "--octets", "4096,"], "sizes with commas"),
    ],
)
def test_bad_options_are_refused(words: list[str], why: str) -> None:
    with pytest.raises(BadOption, match=why):
        parse(words)


def test_bad_fault_or_port_in_use_is_one_line() -> None:
    done = bench("127.0.0.1:25", "--sink", "127.0.0.1:0", "--fault", "a.example=250")
    assert done.returncode == 2
    assert "neither a code of 400 to 599" in done.stderr
    assert done.stderr.count("\n") == 1
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = bench("127.0.0.1:25", "--sink", f"127.0.0.1:{port}")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "Address already in use" in done.stderr


def test_listening_process_and_its_cpu_time_are_found() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert server.listener_pid(listener.getsockname()[1]) == os.getpid()
    assert server.cpu_seconds(os.getpid()) > 0
    assert server.cpu_seconds(2**22) == 0


def test_durability_is_derived_from_number_of_syncs() -> None:
    assert server.durability(0, 100).startswith("no syncs")
    assert server.durability(25, 100) == "synced, 4.0 messages per sync (group commit)"
    assert server.durability(200, 100) == "synced, 2.0 syncs per message"


def test_local_relay_reports_cpu_time_and_syncs(tmp_path: Path) -> None:
    peers.root()
    peers.peer("strace")
    site = mta.Site(tmp_path)
    report = tmp_path / "run.json"
    with mta.running(site, "postillion"):
        words = ("--sink", f"127.0.0.1:{site.next_port}", "--domain", "next.example", "--messages", "100")
        done = bench(f"127.0.0.1:{site.port}", *words, "--syncs", "--json", str(report))
    assert done.returncode == 0, done.stdout + done.stderr
    run = json.loads(report.read_text())
    assert run["cpu_ms"] > 0
    assert sum(run["syncs"].values()) > 0
    assert run["durability"].startswith("synced")
    assert run["sink"]["duplicates"] == 0
