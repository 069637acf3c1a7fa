"""The last word on what the server answers: what the page and programs need, and nothing else.

Of files, those in the app's own temporary folder leave the server. What comes in is bounded, too:
Gradio bounds each file of an upload alone, and keeps whatever else it is sent in memory.

Gradio has more routes, some of which ask other sites with the server's own account or run programs
on what is sent, and rules of its own for files; this stands before them all.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from starlette.requests import ClientDisconnect

API = "/gradio_api/"
FILES = f"{API}file="
UPLOAD = f"{API}upload"
# What is answered, by the first name of its path: beside the page, and below API.
PAGE = {"assets", "config", "favicon.ico", "robots.txt", "static", "theme.css"}
CALLS = {
    "app_id",
    "call",
    "cancel",
    "heartbeat",
    "info",
    "openapi.json",
    "queue",
    "reset",
    "run",
    "startup-events",
    "theme.css",
    "upload",
    "upload_progress",
}

MAX_CALL_BYTES = 1 << 20  # of what is no upload; a call of the page has some kB

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class Guard:
    """ASGI middleware that answers 403 to everything else, and 413 to what is too large.

    Args:
        app: What it stands before.
        root: The folder whose files may leave.
        max_upload_bytes: The largest file that may come in.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        root: Path,
        max_upload_bytes: int,
    ) -> None:
        self._app = app
        self._root = root
        # Gradio says in its own words what is wrong with a file that is a little too large.
        self._max_upload_bytes = 2 * max_upload_bytes + MAX_CALL_BYTES

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        route = _route(scope)
        if not self.allows(route):
            await _refuse(send, 403, b"not a part of this app")
            return
        most = self._max_upload_bytes if route == UPLOAD else MAX_CALL_BYTES
        if _told_length(scope) > most:
            await _refuse(send, 413, b"more than this app takes at once")
            return
        with suppress(ClientDisconnect):  # it broke off an upload: there is nobody to answer
            await self._app(scope, _Bounded(receive, most).receive, send)

    def allows(self, path: str) -> bool:
        """Whether a path, percent signs decoded, is needed, or is of a file below the root."""
        if path.startswith(FILES):
            target = path.removeprefix(FILES)
            real = Path(os.path.realpath(target))  # links and dots resolved
            return target.startswith("/") and real.is_relative_to(self._root)
        if path.startswith(API):
            return path.removeprefix(API).split("/")[0] in CALLS
        return path == "/" or path[1:].split("/")[0] in PAGE


class _Bounded:
    """The body of a request; it breaks off where it is longer than it may be."""

    def __init__(self, receive: Receive, most: int) -> None:
        self._receive, self._left = receive, most

    async def receive(self) -> Scope:
        """Returns the next message, as ASGI says."""
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        return message if self._left >= 0 else {"type": "http.disconnect"}


def _told_length(scope: Scope) -> int:
    """Returns how long a request says that its body is; 0 where it does not say."""
    told = dict(scope["headers"]).get(b"content-length", b"")
    return int(told) if told.isdigit() else 0


async def _refuse(send: Send, status: int, why: bytes) -> None:
    head = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": why})


def _route(scope: Scope) -> str:
    """Returns a request's path without the part of a proxy that stands in front, as routes do."""
    path: str = scope["path"]
    front = scope.get("root_path", "") + "/"
    return path[len(front) - 1 :] if path.startswith(front) else path
