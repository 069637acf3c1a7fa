"""Whose turn it is among the long jobs of a tab: the newest counts, and its user can end it.

Gradio's own way to cancel drops what a job returns, and takes it out of the queue, but lets a
function that runs go on to its end. A `Turn` ends that, too, where the job next reports.
"""

from __future__ import annotations

import threading

import gradio as gr

from app.handlers import Stopped

# For all turns: Gradio copies the value of a State, and a lock cannot be copied.
_lock = threading.Lock()


class Job:
    """A long job, which reports to it; that raises `Stopped` once the job's turn is over."""

    def __init__(self, turn: Turn, now: object, progress: gr.Progress) -> None:
        self._turn, self._now, self._progress = turn, now, progress
        self._told: tuple[float, str] | None = None

    def __call__(self, share: float, what: str) -> None:
        """Shows the share that is done, and what is being done; what is shown already stays."""
        if not self._turn.is_now(self._now):
            raise Stopped
        if self._told != (share, what):
            self._told = share, what
            self._progress(share, desc=what)

    def finish(self) -> None:
        """Ends the turn: what joined it is not wanted any more.

        Raises:
            Stopped: It is over already, and what this job made is not wanted.
        """
        with _lock:
            if not self._turn.is_now(self._now):
                raise Stopped
            self._turn.end()


class Turn:
    """Whose turn it is in one tab of one session. Several threads may ask."""

    def __init__(self) -> None:
        self._now = object()
        self._over = 0  # presses up to this one are not wanted any more

    def is_now(self, now: object) -> bool:
        """Whether a turn still lasts."""
        return self._now is now

    def begin(self, progress: gr.Progress, ticket: int | None = None) -> Job:
        """Begins a job, and ends those before it.

        Args:
            progress: Where the page shows what is reported.
            ticket: The number of the press that asked for the job, where it can be cancelled.

        Raises:
            Stopped: While the job was waiting, the press was cancelled, or a later one began.
        """
        with _lock:
            if ticket is not None:
                if ticket <= self._over:
                    raise Stopped
                self._over = ticket - 1
            self.end()
            return self.join(progress)

    def join(self, progress: gr.Progress) -> Job:
        """Begins a job that is to end with the present turn."""
        return Job(self, self._now, progress)

    def end(self) -> None:
        """Ends the turn: what was begun in it, or joined it, is not wanted any more."""
        self._now = object()

    def cancel(self, ticket: int) -> None:
        """Ends the turn, and what waits to begin: the presses up to a number."""
        with _lock:
            self._over = max(self._over, ticket)
            self.end()


class Sessions:
    """The turns that are taken in each session; nobody waits for those of a page that was left."""

    def __init__(self) -> None:
        self._turns: dict[str | None, list[Turn]] = {}

    def add(self, request: gr.Request, turn: Turn) -> None:
        """Notes a turn that a session takes."""
        turns = self._turns.setdefault(request.session_hash, [])
        if turn not in turns:
            turns.append(turn)

    def leave(self, request: gr.Request) -> None:
        """Ends all that a session began; the page was closed, or loaded anew.

        A job that Gradio is just about to begin goes on: a session whose connection was lost for a
        moment must be able to go on, too.
        """
        for turn in self._turns.pop(request.session_hash, []):
            turn.end()

    def close(self) -> None:
        """Ends all that any session began; the server stops."""
        for turns in list(self._turns.values()):
            for turn in turns:
                turn.end()
