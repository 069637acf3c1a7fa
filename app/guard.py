"""The last word on which files leave the server.

Those in the app's own temporary folder do, and nothing else.

Gradio's file route has rules of its own; this stands before it, and also closes its way of fetching
other sites.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

ROUTES = ("/file=", "/file/", "/proxy=")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]


class OwnFilesOnly:
    """ASGI middleware that answers 403 for any other file."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], root: Path) -> None:
        self._app = app
        self._root = root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self.allows(scope["path"]):
            await send(
                {
                    "type": "http.response.start",
                    "status": 403,
                    "headers": [(b"content-type", b"text/plain")],
                }
            )
            await send({"type": "http.response.body", "body": b"not a file of this app"})
            return
        await self._app(scope, receive, send)

    def allows(self, path: str) -> bool:
        """Whether a request's path, percent signs decoded, is no file or one below the root."""
        for route in ROUTES:
            before, found, target = path.partition(route)
            if found and before in ("", "/gradio_api"):
                real = Path(os.path.realpath(target))  # links and dots resolved
                return (
                    route != "/proxy="
                    and target.startswith("/")
                    and real.is_relative_to(self._root)
                )
        return True
