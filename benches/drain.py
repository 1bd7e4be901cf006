"""How long does the delivery of a backlog take once its next hop is back, compared with Postfix in the same run?

    queue of deferred messages -> postqueue -f -> MTA -> smtp-sink

Both programs accept the messages while `defer_transports` defers them. Then the bench clears the parameter and starts
the same sink. The time is from the flush to the last delivery in the log. `correct`: each message was delivered once,
and the queue is empty.

Needs root and Debian's postfix package.
"""

import argparse
import subprocess
import time

import harness
from harness import Deliveries, Result, inject, sink
from postillion.bench.server import cpu_seconds
from support import mta


def drain(program: str, options: argparse.Namespace, result: Result) -> float:
    """Return messages delivered a second."""
    count = options.messages
    with harness.site(options, harness.DOWN | {"defer_transports": "smtp"}) as site, mta.running(site, program):
        inject(site.port, count, options.octets, 50, ("-d",))
        deliveries = Deliveries(site.log)
        mta.wait_for("the deferrals", lambda: deliveries.count_deferred() >= count, harness.DRAIN_MAX_S)
        harness.set_parameter(site, "defer_transports", "")
        subprocess.run([*_control(site, program), "reload"], check=True, capture_output=True)
        mta.wait_for("the reload", lambda: "reload -- " in site.log_text())
        with sink(site.next_port):
            # The delivery of one more message shows that the reload is done and an agent runs.
            inject(site.port, 1)
            mta.wait_for("the first delivery", lambda: deliveries.count() >= 1)
            master = int((site.queue / "pid" / "master.pid").read_text())
            cpu, begin = cpu_seconds(master), time.monotonic()
            subprocess.run(harness.command(site, program, "postqueue", "-f"), check=True)
            mta.wait_for("the deliveries", lambda: deliveries.count() >= count + 1, harness.DRAIN_MAX_S)
            took_s = time.monotonic() - begin
            cpu = cpu_seconds(master) - cpu
            mta.wait_for("an empty queue", lambda: deliveries.count() and deliveries.removed >= count + 1)
        correct = deliveries.sent == count + 1 and deliveries.failed == 0 and harness.queued(site, program) == 0
    result.correct &= correct
    result.row(program, took_s, count / took_s, cpu / count * 1000, correct)
    rate: float = count / took_s
    return rate


def _control(site: mta.Site, program: str) -> list[str]:
    return ["/usr/sbin/postfix", "-c", str(site.etc)] if program == "postfix" else site.command("postillion")


def main() -> None:
    """Run both programs in turn and report."""
    parser = harness.parser(__doc__, compares=True)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--octets", type=int, default=4096)
    options = parser.parse_args()
    if options.quick:
        options.messages = 200
    flags = f"{options.messages} messages of {options.octets} octets, one next hop, default concurrency"
    question = "Time to deliver a backlog once the next hop is back"
    result = Result(question, flags, ["program   ", "seconds", "delivered/s", "CPU ms a message", "correct"])
    result.begin()
    rates = {program: drain(program, options, result) for program in harness.programs(options)}
    result.aim_ratio("delivered a second to Postfix's", 6, rates)
    result.report(options)


if __name__ == "__main__":
    main()
