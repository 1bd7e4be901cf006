"""Fetches policies of MTA-STS over HTTPS (RFC 8461 §3.3).

The server's certificate must be valid for its name by the system's authorities. Redirects are not followed, and nothing
of HTTP is cached.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final

from postillion.delivery.smtp.tls.sts_policy import POLICY_MAX_OCTETS, StsPolicy, parse
from postillion.dns import Failed, Records, Resolver

if TYPE_CHECKING:
    from postillion.config import Config

PARAMETER: Final = "smtp_mta_sts"
HTTPS_PORT: Final = 443
PATH: Final = "/.well-known/mta-sts.txt"
FETCH_MAX_S: Final = 60.0
"""Longest time of a fetch, with name lookup, handshake and body (§3.3)."""
FETCHES_MAX: Final = 50
"""Maximum number of concurrent fetches; others wait for a place."""
MEDIA_TYPE: Final = "text/plain"


class FetchFailed(Exception):
    """No policy came. `failure`: the reason in the words of reports (RFC 8460 §4.3.2); the text is for the log."""

    def __init__(self, failure: str, text: str) -> None:
        super().__init__(text)
        self.failure = failure


class StsFetcher:
    """The HTTPS client. `port` and `trusted`: the port of the servers, and a file of their authorities, for tests."""

    def __init__(self, config: Config, resolver: Resolver, *, port: int = HTTPS_PORT, trusted: str = "") -> None:
        """Load the library and the authorities. Raises `ConfigError` without the library."""
        try:
            import aiohttp
            import aiohttp.abc
        except ImportError as problem:
            text = f"{PARAMETER} = yes needs a library that cannot be loaded ({problem})"
            raise config.error(PARAMETER, text, "run pip install 'postillion[mta-sts]'") from None
        self._library = aiohttp
        self._resolver = resolver
        self._port = port
        self._tls = ssl.create_default_context(cafile=trusted or None)
        self._tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._session: Any = None

    async def fetch(self, domain: str) -> StsPolicy:
        """Return the policy of a domain. Raises `FetchFailed`, and `BadPolicy` for octets that are no policy."""
        library = self._library
        try:
            async with asyncio.timeout(FETCH_MAX_S):
                return parse(await self._octets(f"mta-sts.{domain}"))
        except TimeoutError:
            raise FetchFailed("sts-policy-fetch-error", f"no policy within {FETCH_MAX_S:g} seconds") from None
        except (library.ClientConnectorCertificateError, library.ClientSSLError, ssl.SSLError) as problem:
            raise FetchFailed("sts-webpki-invalid", str(problem)) from None
        except (library.ClientError, OSError) as problem:
            raise FetchFailed("sts-policy-fetch-error", str(problem) or type(problem).__name__) from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _octets(self, host: str) -> bytes:
        """Return the body of the answer, of which only one form is good."""
        url = f"https://{host}:{self._port}{PATH}" if self._port != HTTPS_PORT else f"https://{host}{PATH}"
        async with self._opened().get(url, allow_redirects=False) as response:
            if response.status != 200:
                raise FetchFailed("sts-policy-fetch-error", f"{url}: HTTP status {response.status}")
            if response.content_type.lower() != MEDIA_TYPE:
                raise FetchFailed("sts-policy-fetch-error", f"{url}: the media type is no {MEDIA_TYPE}")
            if response.headers.get("Content-Encoding", "identity").lower() != "identity":
                raise FetchFailed("sts-policy-fetch-error", f"{url}: the answer is compressed")
            octets = bytearray()
            async for piece in response.content.iter_any():
                octets += piece
                if len(octets) > POLICY_MAX_OCTETS:
                    raise FetchFailed("sts-policy-invalid", f"{url}: more than {POLICY_MAX_OCTETS} octets")
            return bytes(octets)

    def _opened(self) -> Any:
        """Return the client, made in the loop that uses it."""
        if self._session is None:
            library = self._library
            connector = library.TCPConnector(
                resolver=_hosts(library, self._resolver), ssl=self._tls, limit=FETCHES_MAX, force_close=True
            )
            self._session = library.ClientSession(
                connector=connector,
                timeout=library.ClientTimeout(total=FETCH_MAX_S),
                auto_decompress=False,
                cookie_jar=library.DummyCookieJar(),
                headers={"Accept": MEDIA_TYPE, "Accept-Encoding": "identity", "User-Agent": "postillion"},
                trust_env=False,
            )
        return self._session


def _hosts(library: Any, resolver: Resolver) -> Any:
    """Return our resolver in the form that the library takes."""

    class Hosts(library.abc.AbstractResolver):  # type: ignore[misc]
        """Finds the addresses of policy hosts."""

        async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
            """Return the addresses of a host. Raises `OSError` without any."""
            families = [family] if family in (socket.AF_INET, socket.AF_INET6) else [socket.AF_INET, socket.AF_INET6]
            answer = await resolver.addresses(host, [socket.AddressFamily(number) for number in families])
            if not isinstance(answer, Records):
                why = answer.why if isinstance(answer, Failed) else "no address"
                raise OSError(None, f"{host}: {why}")
            return [
                {
                    "hostname": host,
                    "host": address,
                    "port": port,
                    "family": socket.AF_INET6 if ":" in address else socket.AF_INET,
                    "proto": 0,
                    "flags": socket.AI_NUMERICHOST,
                }
                for address in answer.list
            ]

        async def close(self) -> None:
            """Do nothing."""

    return Hosts()
