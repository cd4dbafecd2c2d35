"""The few requests that are made at the start: is it ready, and what a bed begins with."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .places import BedError, Place

#: How long anything may take to become ready, seconds: a busy machine is slow, and nothing waits in vain.
READY_SECONDS = 180
#: How long one answer may take: a kind of KubeRay is a megabyte of schema.
ANSWER_SECONDS = 60


class Rest:
    """Requests of the administrator.

    Parameters
    ----------
    place : Place
        The bed.
    """

    def __init__(self, place: Place) -> None:
        pki = place.folder / "pki"
        self._api = place.api
        self._context = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._context.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def get(self, path: str) -> Any:
        """Give an object."""
        return json.loads(self._request("GET", self._api + path))

    def create(self, path: str, content: bytes | dict[str, Any]) -> None:
        """Create an object.

        Parameters
        ----------
        path : str
            Of its kind.
        content : bytes or dict
            The object; as bytes it is YAML.
        """
        kind = "application/yaml" if isinstance(content, bytes) else "application/json"
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self._request("POST", self._api + path, body, kind)

    def answers(self, url: str) -> bool:
        """Give whether an address answers 200."""
        self._request("GET", url)
        return True

    def _request(self, method: str, url: str, body: bytes | None = None, kind: str = "") -> bytes:
        headers = {"Content-Type": kind} if kind else {}
        request = urllib.request.Request(url, body, headers, method=method)
        context = self._context if url.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=context) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            raise BedError(f"{method} {url}: {error.code} {error.read()[:500].decode()}") from None


def until(look: Callable[[], Any], what: str, watch: Callable[[], None] = lambda: None) -> None:
    """Wait until something is true.

    Parameters
    ----------
    look : callable
        Tells whether it is; while it cannot be told, this may raise.
    what : str
        What is waited for.
    watch : callable
        Raises if there is no sense in waiting.
    """
    deadline, error = time.monotonic() + READY_SECONDS, "it is not so"
    while time.monotonic() < deadline:
        watch()
        try:
            if look():
                return
        except (OSError, BedError, KeyError) as raised:
            error = str(raised)
        time.sleep(0.05)
    raise BedError(f"{what}: not within {READY_SECONDS} s ({error})")


def tail(log: Path, lines: int = 15) -> str:
    """Give the end of a log."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
