"""What passes through the API server as it is: requests to a service, and connections to a pod's port."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ...transport import Body, send_on
from .api import PODS, SERVICES, KubeApi, read_status
from .refusals import passage_refusal, unreachable

if TYPE_CHECKING:
    import aiohttp

    from ...errors import ClusterError

__all__ = ["Passage", "ServiceProxy", "hang_up"]

#: Of Kubernetes' websocket protocols the one that every version speaks for port-forwards:
#: https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/kubelet/pkg/cri/streaming/portforward/websocket.go
PROTOCOL = "v4.channel.k8s.io"
#: Seconds: for the way to be made, between two signs of life of a connection that has nothing to say, and
#: for the other side to agree to its end.
_QUICK, _HEARTBEAT, _GOODBYE = 15.0, 30.0, 1.0


class Passage:
    """Ways through the API server, with the credential of one account.

    Parameters
    ----------
    api : KubeApi
    """

    def __init__(self, api: KubeApi) -> None:
        self.api = api
        self._client: Any = None
        self._sessions: list[aiohttp.ClientSession] = []

    async def aclose(self) -> None:
        """Close the connections."""
        sessions, self._sessions, self._client = self._sessions, [], None
        for session in sessions:
            await session.close()

    async def request(
        self, method: str, path: str, headers: Mapping[str, str], body: Body, place: str, **options: Any
    ) -> aiohttp.ClientResponse:
        """Send one request, and give the answer of what is behind the API server.

        Parameters
        ----------
        method, path : str
            The path is one of the API server, encoded, and may have a query.
        headers : Mapping
        body : bytes or Path, optional
        place : str
            Where it leads, in words.
        **options
            As for aiohttp's ``request``.

        Raises
        ------
        ClusterUnreachable, ClusterRefused, ClusterError
            The API server does not answer, or does not let it through.
        aiohttp.ClientError, OSError, asyncio.TimeoutError
            What is behind it does not answer.
        """
        import aiohttp

        renewed = False
        while True:
            client, url, own = await self._address(path)
            session, extras = self._session(client), _extras(client)
            try:
                answer = await send_on(
                    session, method, url, body, headers={**own, **headers}, **extras, **options
                )
            except aiohttp.ClientConnectorError as error:
                raise unreachable(error) from None
            said = await _refusal(answer)
            if said is None:
                return answer
            if answer.status != 401 or renewed:
                raise passage_refusal(answer.status, said, place)
            renewed = True
            await self.api.renew(client)

    async def connect(self, namespace: str, pod: str, port: int) -> aiohttp.ClientWebSocketResponse:
        """Open a connection to a port of a pod.

        Its messages begin with a byte that says what follows: 0 for data, 1 for the error that ends it. The
        first of each has two more bytes, the port.

        Raises
        ------
        ClusterUnreachable, ClusterRefused, ClusterError
        """
        import aiohttp

        path, place = f"{PODS.path(namespace, pod)}/portforward?ports={port}", f"port {port} of the pod {pod}"
        renewed = False
        while True:
            client, url, headers = await self._address(path)
            session, extras = self._session(client), _extras(client)
            try:
                opened: Any = await session.ws_connect(
                    url,
                    protocols=(PROTOCOL,),
                    headers=headers,
                    heartbeat=_HEARTBEAT,
                    timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE),
                    **extras,
                )
                return cast("aiohttp.ClientWebSocketResponse", opened)
            except aiohttp.WSServerHandshakeError as error:
                if error.status != 401 or renewed:
                    raise await self._why(error.status, path, place) from None
            except (aiohttp.ClientError, OSError, asyncio.TimeoutError) as error:
                raise unreachable(error) from None
            renewed = True
            await self.api.renew(client)

    async def _why(self, status: int, path: str, place: str) -> ClusterError:
        """Ask once more, for the words of a refusal: aiohttp keeps nothing of it but the status."""
        import aiohttp

        # As a websocket: rights to it are not asked for otherwise.
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Protocol": PROTOCOL,
        }
        try:
            client, url, own = await self._address(path)
            answer = await send_on(
                self._session(client), "GET", url, None, headers={**own, **headers}, **_extras(client)
            )
            async with answer:
                if answer.status == status:
                    return passage_refusal(status, await read_status(answer), place)
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
            pass  # the status alone says something
        return passage_refusal(status, {}, place)

    async def _address(self, path: str) -> tuple[Any, str, dict[str, str]]:
        """Give the library's client, the URL of a path, and the headers that are the credential."""
        client = await self.api.client()
        _, url, headers, *_ = await client.param_serialize("GET", path, auth_settings=["BearerToken"])
        return client, url, headers

    def _session(self, client: Any) -> aiohttp.ClientSession:
        """Give a session of our own: the library's has few places, and keeps cookies."""
        import aiohttp

        if client is not self._client:
            made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=client.rest_client.ssl_context, limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=_QUICK),  # of a websocket: for its handshake alone
                trust_env=True,
            )
            # Connections that an expired credential has opened go on: earlier sessions stay until the end.
            self._sessions.append(made)
            self._client = client
        return self._sessions[-1]


class ServiceProxy:
    """A service as the API server lets us ask it; a :class:`.Transport`.

    Parameters
    ----------
    passage : Passage
    namespace, name : str
        Of the service.
    port : int
    """

    def __init__(self, passage: Passage, namespace: str, name: str, port: int) -> None:
        self._passage, self._place = passage, f"the service {name} in the namespace {namespace}"
        self._path = f"{SERVICES.path(namespace)}/http:{name}:{port}/proxy"

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
        """See :class:`.Transport`."""
        options: dict[str, Any] = {"timeout": timeout, "auto_decompress": not raw}
        return await self._passage.request(method, self._path + path, headers, body, self._place, **options)

    async def aclose(self) -> None:
        """Nothing is open: the passage is shared."""


async def hang_up(connection: aiohttp.ClientWebSocketResponse) -> None:
    """End a connection to a pod."""
    try:
        await connection.close()
    finally:
        connection._response.close()  # aiohttp 3.14 leaves it open where the connection was lost


def _extras(client: Any) -> Any:
    """Give what the kubeconfig says of the way to the API server itself."""
    settings, extras = client.configuration, dict[str, Any]()
    if settings.tls_server_name:
        extras["server_hostname"] = settings.tls_server_name
    if settings.proxy:
        extras["proxy"] = settings.proxy
    if settings.proxy_headers:
        extras["proxy_headers"] = settings.proxy_headers
    return extras


async def _refusal(answer: aiohttp.ClientResponse) -> Mapping[str, Any] | None:
    """Give the Status object of an answer that is the API server's own; None if it comes from behind it."""
    if answer.status < 400 or "json" not in answer.headers.get("Content-Type", ""):
        return None
    try:
        said = json.loads(await answer.read())
    except ValueError:
        return None
    return said if isinstance(said, dict) and said.get("kind") == "Status" else None
