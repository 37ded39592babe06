"""What a run changed, as JSON: the same on the command line and over the API."""

from __future__ import annotations

import os
from typing import Any

from runner.changes.diff import FileDiff
from runner.changes.results import Applied, RunChanges
from runner.model.outcome import Change


def change_row(change: Change) -> dict[str, Any]:
    """A change as JSON; bytes that are not UTF-8 as \\xNN."""
    original = change.original
    return {
        "path": plain(change.path),
        "kind": change.kind.value,
        "type": change.type,
        "sha256": change.sha256,
        "size_bytes": change.size_bytes,
        "executable": change.executable,
        "original": None
        if original is None
        else {
            "type": original.type,
            "sha256": original.sha256,
            "executable": original.executable,
        },
        "withheld": change.withheld,
    }


def plain(path: str) -> str:
    """A path as JSON has it."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def changes_document(found: RunChanges) -> dict[str, Any]:
    """What it changed, and what is left of it to apply."""
    left = set(found.left)
    return {
        "run_id": found.run_id,
        "directory": plain(found.directory),
        "changes": [
            {**change_row(change), "left": number in left}
            for number, change in enumerate(found.changes)
        ],
        "truncated": found.truncated,
        "gone": found.gone,
    }


def diff_row(each: FileDiff) -> dict[str, Any]:
    """A change as a unified diff."""
    return {
        **change_row(each.change),
        "added": each.added,
        "removed": each.removed,
        "note": each.note,
        "diff": each.text.decode("utf-8", "backslashreplace"),
    }


def applied_document(found: Applied) -> dict[str, Any]:
    """What became of each change that was to be applied."""
    return {
        "run_id": found.run_id,
        "directory": plain(found.directory),
        "dry_run": found.dry_run,
        "results": [
            {
                **change_row(r.change),
                "fate": r.fate.value,
                "why": r.why,
            }
            for r in found.results
        ],
        "left": found.left,
    }
