"""How much CPU time does a message cost in the smtp agent, with new connections and with reused ones?

    python benches/smtp_client.py [messages]

The agent runs in its own process. This process is the queue manager, and smtp-sink (Debian's postfix) receives the
mail. The cost is the agent's CPU time (user and system) a message. Build the extension with `maturin develop --release`
first.
"""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from postillion.program.daemon import Daemon
from support.agents import FakeDaemon, Hub, Mail
from support.ports import free_port

MESSAGES = 5000
SESSIONS = 20
CONTENT = b"Subject: bench\r\n\r\n" + (b"x" * 70 + b"\r\n") * 56


def agent(directory: str, reuse: str) -> None:
    """Run the agent until SIGTERM; print its CPU time."""
    import signal

    import uvloop

    from postillion._core.log import Log
    from postillion.delivery.smtp.agent import SmtpAgent

    async def work() -> None:
        daemon = FakeDaemon(Path(directory), f"smtp_connection_cache_on_demand = {reuse}\n")
        daemon.log = Log("mx", "postfix", "smtp", os.getpid(), 0, f"{directory}/log")
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, daemon.stopping.set)
        before = resource.getrusage(resource.RUSAGE_SELF)
        await SmtpAgent(cast(Daemon, daemon), "smtp", capacity=SESSIONS).serve()
        after = resource.getrusage(resource.RUSAGE_SELF)
        print(after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime)

    os.chdir(directory)
    if os.environ.get("PROFILE"):
        import cProfile

        profile = cProfile.Profile()
        profile.enable()
        uvloop.run(work())
        profile.disable()
        import pstats

        pstats.Stats(profile, stream=sys.stderr).sort_stats("tottime").print_stats(25)
    else:
        uvloop.run(work())


async def measure(directory: Path, port: int, messages: int, reuse: str) -> None:
    """Send `messages` jobs, `SESSIONS` at a time, and print the cost."""
    os.chdir(directory)
    (directory / "private").mkdir(exist_ok=True)
    hub = Hub(directory)
    server = await asyncio.start_unix_server(hub.serve, "private/qmgr")
    arguments = [sys.executable, __file__, "--agent", str(directory), reuse]
    child = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - before the measurement
    await asyncio.wait_for(hub.registered.wait(), 20)
    nexthop = f"[127.0.0.1]:{port}"
    frames = [hub.job(nexthop, Mail(0, ["rcpt@example.com"], content=CONTENT))[1] for _ in range(200)]
    correct = 0
    left = messages
    began = time.monotonic()

    async def session() -> None:
        nonlocal correct, left
        while left > 0:
            left -= 1
            data = frames[left % len(frames)]
            # The same message with a new job number: the agent reads the segment again each time.
            fresh = next(hub.numbers)
            data = data[:6] + fresh.to_bytes(8, "little") + data[14:]
            result = await hub.send((fresh, data))[0]
            correct += result.only.outcome == "sent"

    await asyncio.gather(*(session() for _ in range(SESSIONS)))
    took = time.monotonic() - began
    child.terminate()
    user, system = (float(word) for word in child.communicate()[0].split())
    server.close()
    cost = (user + system) * 1000 / messages
    print(
        f"reuse={reuse:3} {messages} messages of {len(CONTENT)} octets: {cost:.3f} ms CPU a message "
        f"(user {user * 1000 / messages:.3f}, system {system * 1000 / messages:.3f}), {messages / took:.0f}/s, "
        f"correct={correct == messages}"
    )


def main() -> None:
    """Measure without and with reuse of connections."""
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES
    sink_program = shutil.which("smtp-sink", path="/usr/sbin:/usr/bin")
    if sink_program is None:
        sys.exit("smtp-sink is missing: apt-get install postfix")
    print(f"{platform.machine()} {os.cpu_count()} CPUs, Python {platform.python_version()}, {SESSIONS} sessions")
    port = free_port()
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    sink = subprocess.Popen([sink_program, *user, f"127.0.0.1:{port}", "100"])
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        for reuse in ("no", "yes"):
            with tempfile.TemporaryDirectory() as directory:
                asyncio.run(measure(Path(directory), port, messages, reuse))
    finally:
        sink.terminate()
        sink.wait()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--agent"]:
        agent(*sys.argv[2:])
    else:
        main()
