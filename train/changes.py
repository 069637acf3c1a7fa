"""What is other in a run that goes on than it was before, told in a line each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def differing(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """Names the keys in which two recipes differ, as tables: "data.batch" and the like."""
    keys = []
    for key in dict.fromkeys([*before, *now]):
        ours, theirs = before.get(key), now.get(key)
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            keys += differing(ours, theirs, f"{path}{key}.")
        elif ours != theirs:
            keys.append(f"{path}{key}")
    return keys


def told(
    folder: Path, before: Mapping[str, Any], now: Mapping[str, Any], stage: str, due: str
) -> list[str]:
    """Says what is other than the checkpoint has it.

    Args:
        folder: Of the run.
        before: The checkpoint's recipe, as plain data.
        now: The recipe that holds from now on.
        stage: The stage that the run is in.
        due: The stage that its recipe has now; the same where the budget is spent.
    """
    lines = []
    if keys := differing(before, now):
        lines.append(f"other than in {folder} so far, and in force now: {', '.join(keys)}")
    if stage > due:
        kept = (
            "encoder and codebook stay frozen, and only the decoder trains on"
            if stage == "C"
            else "it does not go back from it"
        )
        lines.append(
            f"the run in {folder} is in stage {stage} already: {kept}; for a longer "
            f"training of all its weights, begin another run with --init {folder}"
        )
    return lines
