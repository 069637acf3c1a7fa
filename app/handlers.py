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


def plainly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Turns every error of a handler into a message of the page; the server lives on.

    A job that was stopped changes nothing.
    """

    @wraps(function)
    def handler(*arguments: Any, **options: Any) -> Any:
        try:
            return function(*arguments, **options)
        except Stopped:
            return gr.skip()
        except Exception as error:
            title, text = explain(error)
            if isinstance(error, CodecError):
                log.info("refused: %s", error)
            raise gr.Error(text, duration=20, title=title, print_exception=False) from None

    return handler


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
