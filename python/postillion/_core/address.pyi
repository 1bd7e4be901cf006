"""Addresses: their syntax, extensions, routing local parts and search keys, by one site's rules."""

from typing import final

from postillion.config import Config

__all__ = ["AddressRules", "canonical", "may_route", "quote"]

@final
class AddressRules:
    """A site's rules for addresses. Raises `ConfigError` for a bad parameter."""

    def __new__(cls, config: Config) -> AddressRules: ...
    def allows(self, address: str) -> bool:
        """Return whether mail may have this address: `local@domain` or a bare local part."""

    def split(self, address: str) -> tuple[str, str]:
        """Return the local part without quotes, and the domain in lower case, empty without one.

        The last `@` outside quotes separates them.
        """

    def complete(self, address: str, *, remote: bool = False) -> str:
        """Return an address in its complete form: `user` with this site's domain, `far!user` as `user@far`.

        `remote`: as in a header of a remote client, with remote_header_rewrite_domain.
        """

    def completing(self, address: str) -> list[str]:
        """Return the names of the parameters that `complete` follows for an address."""

    def parts(self, address: str) -> tuple[str, str | None]:
        """Return the local part without quotes, and the domain without a dot at its end; None without a domain.

        An IPv4 address becomes a literal under `resolve_numeric_domain`.
        """

    def extension(self, local: str) -> tuple[str, str, str] | None:
        """Return user, delimiter and extension of a local part without quotes; None without an extension.

        The extension of `user+` is empty. `owner-list`, `list-request`, mailer-daemon, postmaster and the double
        bounce sender are not split.
        """

    def onward(self, local: str) -> tuple[str, str | None] | None:
        """Return the parts to which a local part without quotes at a domain of ours routes; None when it ends here.

        `user@far`, `far!user` and `user%far` route on (RFC 5321 appendix C).
        """

    def recipient_keys(self, local: str, domain: str, *, is_local: bool) -> list[str]:
        """Return the search keys of tables that list recipients, in lower case and in order."""

    def sender_keys(self, local: str, domain: str | None, *, is_local: bool) -> list[str]:
        """Return the search keys of tables that list senders, in lower case and in order."""

    def transport_keys(self, local: str, domain: str, *, bare_parents: bool) -> list[str]:
        """Return the search keys of transport(5), in lower case and in order.

        `bare_parents`: a domain above has no dot before it (parent_domain_matches_subdomains).
        """

def canonical(address: str) -> str | None:
    """Return the one written form of an address; None for a text that is no address (RFC 5321 §4.1.2)."""

def may_route(local: str) -> bool:
    """Return whether the next system may take a local part for an address: `user%far`, `far!user`, `user@far`."""

def quote(local: str) -> str:
    """Return a local part with quotes if it needs them (RFC 5321 §4.1.2)."""
