"""How requests get to Ray's dashboard: straight there, unless the cluster's back end knows another way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import aiohttp

__all__ = ["Body", "Direct", "Transport", "send_on"]

#: What goes with a request: bytes, or a file, which is read as it is sent.
Body = bytes | Path | None


class Transport(Protocol):
    """A way to the dashboard of one cluster."""

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        timeout: aiohttp.ClientTimeout,
        raw: bool = False,
    ) -> aiohttp.ClientResponse:
        """Send one request, and give the answer of Ray, unread; no redirect is followed.

        Parameters
        ----------
        method, path : str
            The path begins with a slash, is encoded, and may have a query.
        headers : Mapping
            The token of Ray is in one of them.
        body : bytes or Path, optional
        timeout : aiohttp.ClientTimeout
        raw : bool
            Whether a compressed answer stays so.

        Raises
        ------
        aiohttp.ClientError, OSError, asyncio.TimeoutError
            Ray has not answered.
        OffloadError
            Somebody on the way there refuses.
        """

    async def aclose(self) -> None:
        """Close what this has opened."""


class Direct:
    """Straight to an address.

    Parameters
    ----------
    address : str
        ``http://HOST:8265``.
    """

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")
        self._session: aiohttp.ClientSession | None = None

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Body = None,
        *,
        timeout: aiohttp.ClientTimeout,
        raw: bool = False,
    ) -> aiohttp.ClientResponse:
        """See :class:`Transport`."""
        import aiohttp

        if self._session is None:
            jar = aiohttp.DummyCookieJar()
            self._session = aiohttp.ClientSession(cookie_jar=jar, trust_env=False)
        options = {"headers": headers, "timeout": timeout, "auto_decompress": not raw}
        return await send_on(self._session, method, self._address + path, body, **options)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def send_on(
    session: aiohttp.ClientSession, method: str, url: str, body: Body, **options: Any
) -> aiohttp.ClientResponse:
    """Send one request; redirects, which would carry the token to another host, are not followed.

    Parameters
    ----------
    session : aiohttp.ClientSession
    method, url : str
        The URL is encoded.
    body : bytes or Path, optional
    **options
        As for ``session.request``.
    """
    from yarl import URL

    options |= {"allow_redirects": False}
    if not isinstance(body, Path):
        return await session.request(method, URL(url, encoded=True), data=body, **options)
    with open(body, "rb") as stream:  # noqa: ASYNC230 - aiohttp reads it in a thread
        return await session.request(method, URL(url, encoded=True), data=stream, **options)
