"""Clients whose headers are completed as for local mail because of their TLS certificate.

local_header_rewrite_clients names them with permit_tls_clientcerts or permit_tls_all_clientcerts. The other clients in
it are known before the dialogue (`smtpd.clients`).
"""

from __future__ import annotations

from typing import Final

from postillion.checks.check import ACCEPT, Answer, Check, Client, CompleteHeaders, Dialogue, Stage, Verdict
from postillion.checks.reply import Reply
from postillion.config import Config
from postillion.restrictions.known_certificates import KnownCertificates
from postillion.tables import TableError
from postillion.tables.deferred import decide

REWRITERS: Final = "local_header_rewrite_clients"
LISTED: Final = "permit_tls_clientcerts"
TRUSTED: Final = "permit_tls_all_clientcerts"


class Rewriters(Check):
    """The clients of one site. `stages` is empty when the site names none."""

    def __init__(self, config: Config, certificates: KnownCertificates) -> None:
        words = {word.lower() for word in config.items(REWRITERS)}
        self._has = certificates.trusts if TRUSTED in words else certificates.lists
        self._stages: frozenset[Stage] = frozenset({"mail"} if words & {LISTED, TRUSTED} else ())

    @property
    def stages(self) -> frozenset[Stage]:
        """MAIL, if the site names such clients."""
        return self._stages

    @property
    def remembers(self) -> bool:
        """Yes: it accepts every recipient."""
        return True

    def mail(self, client: Client, dialogue: Dialogue) -> Answer:
        """Have the headers of this client completed. A table that cannot answer is a 451, as in Postfix."""
        return decide(lambda: self._about(dialogue))

    def _about(self, dialogue: Dialogue) -> Verdict:
        try:
            return Verdict(actions=(CompleteHeaders(),)) if self._has(dialogue) else ACCEPT
        except TableError:
            return Verdict(Reply(451, "4.3.0", f"<{dialogue.sender or ''}>: Temporary lookup failure"))
