"""How the page calls the service: queues, and errors in plain words."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from app.words import sentence
from codec.errors import BitstreamError, CodecError, MediaError, ModelError

log = logging.getLogger("app")

# Options of Gradio's events: for what takes a while, and for what is done at once. What is asked
# for meanwhile is done afterwards, once, with the inputs that are there by then.
JOBS: dict[str, Any] = {
    "concurrency_limit": 2,
    "concurrency_id": "jobs",
    "api_visibility": "private",
    "trigger_mode": "always_last",
}
# Jobs that end those before them, see app.turns: one that waited its turn could not be cancelled.
LONG_JOBS = JOBS | {"trigger_mode": "multiple"}
QUICK: dict[str, Any] = {
    "queue": True,
    "concurrency_limit": 16,
    "concurrency_id": "quick",
    "api_visibility": "private",
    "show_progress": "hidden",
    "trigger_mode": "always_last",
}
# Events that say what was chosen: each counts, as Gradio would repeat the first one's data.
CHOICES = QUICK | {"trigger_mode": "multiple"}
# Answers: a second press of a button that has not answered yet is no second answer.
ANSWERS = QUICK | {"trigger_mode": "once"}
SECONDS = 20  # that a message stays
TITLES: dict[type[CodecError], str] = {
    MediaError: "This input cannot be used",
    BitstreamError: "This .bin cannot be decoded",
    ModelError: "A model is missing",
}


def explain(error: Exception) -> tuple[str, str]:
    """Returns a title and a sentence for the user.

    An error that was not foreseen goes to the log under a number, which the sentence names.
    """
    if isinstance(error, CodecError):
        title = next(
            (t for kind, t in TITLES.items() if isinstance(error, kind)), "This did not work"
        )
        text = str(error)
        return title, sentence(text) + ("" if text.endswith(".") else ".")
    if isinstance(error, FileNotFoundError):
        return "Gone", "The files of this session were deleted after a while. Please start again."
    if isinstance(error, MemoryError):
        return (
            "Too large",
            "There is not enough memory for this here. Take a shorter or smaller input.",
        )
    ticket = secrets.token_hex(4)
    log.error("unforeseen, number %s", ticket, exc_info=error)
    return (
        "Something went wrong",
        f"This is our fault, not yours. The server's log has it under {ticket}.",
    )


class Stopped(Exception):  # noqa: N818  it is no error
    """A job's result is not wanted any more."""


def _told(title: str, text: str) -> Any:
    """Shows a message; what the page shows stays, without Gradio's "Error" over it."""
    gr.Warning(text, duration=SECONDS, title=title)
    return gr.skip()


def _raised(title: str, text: str) -> Any:
    raise gr.Error(text, duration=SECONDS, title=title, print_exception=False) from None


def plainly(
    function: Callable[..., Any], refused: Callable[[str, str], Any] = _told
) -> Callable[..., Any]:
    """Turns every error of a handler into a message of the page; the server lives on.

    A job that was stopped changes nothing.

    Args:
        function: The handler.
        refused: What is done with the title and the sentence of an input that cannot be used.
    """

    @wraps(function)
    def handler(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Stopped:
            return gr.skip()
        except CodecError as error:
            log.info("refused: %s", error)
            return refused(*explain(error))
        except Exception as error:
            return _raised(*explain(error))

    return handler


def raising(function: Callable[..., Any]) -> Callable[..., Any]:
    """`plainly`, for callers who wait for an answer: what cannot be used raises, too."""
    return plainly(function, _raised)


# Gradio counts a job no more that it gave up, but the job goes on until it next reports.
_rooms = threading.BoundedSemaphore(JOBS["concurrency_limit"])


def working(function: Callable[..., Any]) -> Callable[..., Any]:
    """`plainly`, of a job: no more run at once than `JOBS` says, whatever was cancelled."""

    @wraps(function)
    def job(*arguments: Any, **options: Any) -> Any:
        with _rooms:
            return function(*arguments, **options)

    return plainly(job)


def idle(seconds: float) -> bool:
    """Waits for the jobs that run, at most so long; returns whether none is left."""
    end = time.monotonic() + seconds
    rooms = range(JOBS["concurrency_limit"])
    return all(_rooms.acquire(timeout=max(end - time.monotonic(), 0)) for _ in rooms)
