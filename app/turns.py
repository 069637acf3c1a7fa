"""Whose turn it is among the long jobs of a tab: the newest counts, and its user can end it.

Gradio's own way to cancel drops what a job returns, and takes it out of the queue, but lets a
function that runs go on to its end. A `Turn` ends that, too, where the job next reports.
"""

from __future__ import annotations

import gradio as gr

from app.comparison import Report
from app.handlers import Stopped


class Turn:
    """Whose turn it is in one tab of one session. Several threads may ask."""

    def __init__(self) -> None:
        self._now: object = None
        self._over = 0  # presses up to this one are not wanted any more

    def begin(self, progress: gr.Progress, ticket: int | None = None) -> Report:
        """Begins a job, and ends those before it.

        Args:
            progress: Where the page shows what is reported.
            ticket: The number of the press that asked for the job, where it can be cancelled.

        Returns:
            What the job reports to. It raises `Stopped` once the turn is over.

        Raises:
            Stopped: While the job was waiting, the press was cancelled, or a later one began.
        """
        if ticket is not None:
            if ticket <= self._over:
                raise Stopped
            self._over = ticket - 1
        self._now = object()
        return self.join(progress)

    def join(self, progress: gr.Progress) -> Report:
        """Begins a job that is to end with the present turn; otherwise like `begin`."""
        mine = self._now

        def report(share: float, what: str) -> None:
            if self._now is not mine:
                raise Stopped
            progress(share, desc=what)

        return report

    def end(self) -> None:
        """Ends the turn: what was begun in it, or joined it, is not wanted any more."""
        self._now = None

    def cancel(self, ticket: int) -> None:
        """Ends the turn, and what waits to begin: the presses up to a number."""
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
        """Ends all that a session began; the page was closed, or loaded anew."""
        for turn in self._turns.pop(request.session_hash, []):
            turn.end()
