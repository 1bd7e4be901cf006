"""A stub resolver: `postillion_core::net::dns`."""

from typing import Any, Literal, final

__all__ = ["Stub"]

_Kind = Literal["A", "AAAA", "MX", "PTR", "TXT", "TLSA", "SRV", "CNAME"]
_Records = tuple[Literal["records"], tuple[Any, ...], float, bool]
"""The records, the remaining time to live in seconds, and whether the name server validated them.

A record is `str` (A, AAAA, PTR, CNAME), `(preference, host)` (MX), `bytes` (TXT, its strings in one),
`(usage, selector, matching, data)` (TLSA) or `(priority, weight, port, host)` (SRV).
"""
_Negative = tuple[Literal["no data", "no name"], None, float, bool]
"""The remaining time to live in seconds."""
_BadName = tuple[Literal["bad name"], None, float, bool]
_Failed = tuple[Literal["failed"], str, float, bool]
"""The reason."""
_Answer = _Records | _Negative | _BadName | _Failed

@final
class Stub:
    """A stub resolver with its sockets, a cache and limits.

    `resolv_conf`: the path of a file like /etc/resolv.conf, read again after a change; otherwise `nameservers` (IP
    addresses) are asked at `port`. `timeout_s`: longest time of a question. `questions_max`: maximum number of
    questions on the wire; `waiting_max`: of questions that wait for one of these to end. `answers_max`, `octets_max`:
    limits of the cache. None: the default of `postillion_core::net::dns::stub`.

    Raises `ValueError` without a name server, `OSError` if the kernel has no descriptor left.
    """

    def __new__(
        cls,
        *,
        resolv_conf: str | None = None,
        nameservers: list[str] | None = None,
        port: int = 53,
        timeout_s: float | None = None,
        questions_max: int | None = None,
        waiting_max: int | None = None,
        answers_max: int | None = None,
        octets_max: int | None = None,
    ) -> Stub: ...
    def ask(self, name: str, kind: _Kind, now: float, *, defnames: bool = False, dnsrch: bool = False) -> int | _Answer:
        """Return the answer from the cache, or the number of an open question; `poll` returns its answer.

        The same question has the same number as long as it is open. `defnames`: also try a name without a dot below the
        first domain of the search list, with `dnsrch` below all of them. `dnsrch`: so is a name with a dot. Raises
        `ValueError` for an unknown kind.
        """

    def poll(self, now: float) -> list[tuple[int, _Answer]]:
        """Serve the sockets; return the questions that ended, with their answers. Never blocks."""

    def next_timeout(self) -> float | None:
        """Return when `poll` must be called at the latest; None without an open question."""

    def fileno(self) -> int:
        """Return a descriptor that is readable while `poll` has something to do before `next_timeout`."""

    @property
    def open_questions(self) -> int:
        """The number of open questions."""

    @property
    def cached_answers(self) -> int:
        """The number of answers in the cache."""

    @property
    def cached_octets(self) -> int:
        """The size of the cache in octets, as its limit counts them."""
