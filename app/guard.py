"""The last word on what the server answers: what the page and programs need, and nothing else.

Of files, those in the app's own temporary folder leave the server.

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

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class Guard:
    """ASGI middleware that answers 403 to everything else.

    Args:
        app: What it stands before.
        root: The folder whose files may leave.
    """

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], root: Path) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.allows(_route(scope)):
            await send(
                {
                    "type": "http.response.start",
                    "status": 403,
                    "headers": [(b"content-type", b"text/plain")],
                }
            )
            await send({"type": "http.response.body", "body": b"not a part of this app"})
            return
        with suppress(ClientDisconnect):  # it broke off an upload: there is nobody to answer
            await self._app(scope, receive, send)

    def allows(self, path: str) -> bool:
        """Whether a path, percent signs decoded, is needed, or is of a file below the root."""
        if path.startswith(FILES):
            target = path.removeprefix(FILES)
            real = Path(os.path.realpath(target))  # links and dots resolved
            return target.startswith("/") and real.is_relative_to(self._root)
        if path.startswith(API):
            return path.removeprefix(API).split("/")[0] in CALLS
        return path == "/" or path[1:].split("/")[0] in PAGE


def _route(scope: Scope) -> str:
    """Returns a request's path without the part of a proxy that stands in front, as routes do."""
    path: str = scope["path"]
    front = scope.get("root_path", "") + "/"
    return path[len(front) - 1 :] if path.startswith(front) else path
