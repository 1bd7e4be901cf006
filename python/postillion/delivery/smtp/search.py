"""The search for a server that takes a job: its next hops in order, and the hosts of each that are left to try."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from postillion.delivery.smtp.nexthop import NextHop
from postillion.delivery.smtp.refused import Account
from postillion.delivery.smtp.targets import Target
from postillion.delivery.smtp.tls.level import Request
from postillion.delivery.smtp.tls.policy import Policy

Tried = tuple[str, str, int]
"""A server whose connection was reused: its host, address and port."""


class Search:
    """The hosts of a job that are left to try."""

    __slots__ = (
        *("_number", "account", "hosts", "nexthop", "remaining", "request"),
        *("servers", "site", "sites", "tls", "tried"),
    )

    def __init__(self, nexthop: str, sites: list[NextHop], request: Request) -> None:
        self.nexthop = nexthop
        self.request = request
        """The sender's request about TLS."""
        self.sites = sites
        """The next hops of the list, and the fallbacks."""
        self.remaining: deque[Target] = deque()
        self.servers = 0
        """The number of servers at this next hop that have seen the job."""
        self.tried: Tried | None = None
        """The server of a reused connection that left recipients open; it is not tried again."""
        self.site: NextHop
        """The next hop whose hosts are tried."""
        self.tls: tuple[Policy, Target] | None = None
        """The policy of the connection in progress, and its host; None in the clear."""
        self.account: Account | None = None
        """The account of the connection in progress, if its refusal is to be noted."""
        self.hosts = 1
        """The number of hosts at the last lookup."""
        self._number = 0

    def take(self) -> Target | None:
        """Return the next host at this next hop; None when none is left."""
        while self.remaining:
            target = self.remaining.popleft()
            if (target.host, target.address, target.port) != self.tried:
                return target
        return None

    def next_site(self) -> NextHop | None:
        """Return the next next hop, whose hosts are to be found; None when none is left."""
        if self._number == len(self.sites):
            return None
        site = self.site = self.sites[self._number]
        self._number += 1
        if self._number > 1 or self.tried is None:
            self.servers = 0
        return site

    def found(self, targets: Iterable[Target]) -> None:
        """Take the hosts of the next hop."""
        self.remaining = deque(targets)
        self.hosts = max(len(self.remaining), len(self.sites))

    @property
    def is_last_site(self) -> bool:
        """Whether no other next hop is left."""
        return self._number == len(self.sites)
