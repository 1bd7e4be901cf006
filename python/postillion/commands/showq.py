"""The queue as postqueue, mailq and sendmail -bp print it, from rows as `postqueue -j` has them.

    -Queue ID-  --Size-- ----Arrival Time---- -Sender/Recipient-------
    8045F2AB23*     1234 Sun Nov 22 17:02:03  sender@example.org
                                                   (why recipients wait)
                                             recipient@example.net

    -- 1 Kbytes in 1 Request.

Behind the ID stands `*` for an active message, `!` for one on hold, `#` for one that is to be returned to its sender.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from postillion.commands.records import printable

EMPTY: Final = "Mail queue is empty\n"
SHORT: Final = ("{:<11} {:>7} {:<20} {}\n", "{:<11} {:>7} {:>20.20} {}\n")
LONG: Final = ("{:<17} {:>8} {:<19} {}\n", "{:<17} {:>8} {:>19.19} {}\n")
"""Columns of the heading and the recipients, and of a message, for short and for long queue IDs."""
SHORT_HEADING: Final = ("-Queue ID-", "--Size--", "----Arrival Time----", "-Sender/Recipient-------")
LONG_HEADING: Final = ("----Queue ID-----", "--Size--", "---Arrival Time----", "--Sender/Recipient------")
REASON_COLUMNS: Final = 76
"""A reason ends here, or begins at the left margin when it is longer."""
KBYTE: Final = 1024


def text(rows: Iterable[dict[str, Any]], *, long_queue_ids: bool) -> Iterator[str]:
    """Yield the listing, piece by piece."""
    columns, message_columns = LONG if long_queue_ids else SHORT
    heading = LONG_HEADING if long_queue_ids else SHORT_HEADING
    requests = octets = 0
    for row in rows:
        if not requests:
            yield columns.format(*heading)
        requests += 1
        octets += row["message_size"]
        yield message_columns.format(
            row["queue_id"] + _mark(row), row["message_size"], time.ctime(row["arrival_time"]), printable(row["sender"])
        )
        reason = ""
        for recipient in row["recipients"]:
            why = recipient.get("delay_reason") or recipient.get("bounce_reason") or ""
            if why and why != reason:
                reason = why
                shown = printable(why)
                yield f"{'':{max(0, REASON_COLUMNS - len(shown))}}({shown})\n"
            yield columns.format("", "", "", printable(recipient["address"]))
        yield "\n"
    if requests:
        yield f"-- {octets // KBYTE} Kbytes in {requests} Request{'' if requests == 1 else 's'}.\n"
    else:
        yield EMPTY


def _mark(row: dict[str, Any]) -> str:
    if row["forced_expire"]:
        return "#"
    return {"active": "*", "hold": "!"}.get(row["queue_name"], "")
