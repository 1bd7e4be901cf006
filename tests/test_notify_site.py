"""Notifications to senders and postmaster, and mail that waits: one site, run by Postillion and by Postfix."""

from collections.abc import Iterator

import pytest

from support.either import PROGRAMS, Server, program
from support.mta import Site, local_user, running, wait_for
from support.sink import Sink

REFUSED = {"bad@next.example": "550 5.1.1 no such user"}


@pytest.fixture(scope="module", params=PROGRAMS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Run a server with short retry times and all notifications."""
    mta = program(request)
    settings = {
        "notify_classes": "2bounce",
        "2bounce_notice_recipient": f"{local_user()}@example.org",
        "confirm_delay_cleared": "yes",
        "delay_warning_time": "1s",
        "minimal_backoff_time": "1s",
        "maximal_backoff_time": "2s",
        "queue_run_delay": "1s",
        "transport_retry_time": "1s",
        "defer_transports": "later",
    }
    later = "later     unix  -       -       n       -       -       smtp\n"
    site = Site(tmp_path_factory.mktemp(mta), main_cf=settings, master_cf=later)
    with (site.etc / "main.cf").open("a") as main_cf:
        hop = f"[127.0.0.1]:{site.next_port}"
        main_cf.write(
            f"transport_maps = inline:{{{{ next.example = smtp:{hop} }}, {{ later.example = later:{hop} }}}}\n"
        )
    with running(site, mta):
        yield Server(site, mta)


@pytest.mark.parametrize(
    ("recipient", "action"), [("{user}", "delivered"), ("good@next.example", "relayed")], ids=["local", "next hop"]
)
def test_sender_with_notify_success_gets_delivery_report(server: Server, recipient: str, action: str) -> None:
    recipient = recipient.format(user=server.user)
    with Sink(server.site.next_port):
        server.send(server.user, recipient, "tell me", "NOTIFY=SUCCESS")
        report = server.mail("Successful Mail Delivery Report", f"\nAction: {action}\n")
    assert f"\nFinal-Recipient: rfc822; {recipient}\n" in report
    assert "\nReturn-Path: <>\n" in "\n" + report
    assert "\nStatus: 2." in report
    assert "\nSubject: tell me\n" in report
    assert "\n\nbody\n" not in report
    server.log(r": sender delivery status notification: \w+")


def test_double_bounce_goes_to_postmaster_and_then_stops(server: Server) -> None:
    with Sink(server.site.next_port, refuse=REFUSED):
        queue_id = server.send("", "bad@next.example", "a notification")
        copy = server.mail("Postmaster Copy: Undelivered Mail", "\nSubject: a notification\n")
        assert copy.startswith("Return-Path: <double-bounce@example.org>\n") or "double-bounce@" in copy.splitlines()[0]
        server.log(rf"{queue_id}: postmaster non-delivery notification: \w+")
        queue_id = server.send("double-bounce@mx.example.org", "bad@next.example", "the copy")
        server.log(rf"warning: {queue_id}: undeliverable postmaster notification discarded")
        server.log(rf"{queue_id}: removed")


def test_delay_and_its_end_are_reported(server: Server) -> None:
    queue_id = server.send(server.user, "late@next.example", "it takes time")
    warning = server.mail("Delayed Mail (still being retried)", "rfc822; late@next.example")
    assert "\nAction: delayed\n" in warning
    with Sink(server.site.next_port):
        server.command("postqueue", "-f")
        server.log(rf"{queue_id}: to=<late@next.example>.*status=sent")
        report = server.mail("Successful Mail Delivery Report", "rfc822; late@next.example")
    assert "\nAction: relayed\n" in report


def test_mail_for_deferred_transports_waits(server: Server) -> None:
    queue_id = server.send(server.user, "x@later.example", "no hurry", "NOTIFY=NEVER")
    server.log(rf"{queue_id}: to=<x@later.example>.*status=deferred \(deferred transport\)")
    server.command("postsuper", "-d", queue_id)


def test_mail_on_hold_waits_and_expired_mail_bounces(server: Server) -> None:
    queue_id = server.send(server.user, "x@later.example", "hold and expire", "NOTIFY=FAILURE")
    server.log(rf"{queue_id}: to=<x@later.example>.*status=deferred")
    server.command("postsuper", "-h", queue_id)
    wait_for(
        "the hold queue", lambda: f'"queue_name": "hold", "queue_id": "{queue_id}"' in server.command("postqueue", "-j")
    )
    server.command("postsuper", "-H", queue_id)
    server.command("postsuper", "-f", queue_id)
    server.command("postqueue", "-f")
    server.log(rf"{queue_id}: from=<{server.user}>, status=force-expired, returned to sender")
    report = server.mail("Undelivered Mail Returned to Sender", "rfc822; x@later.example")
    assert "\nAction: failed\n" in report
    server.log(rf"{queue_id}: removed")
