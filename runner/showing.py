"""Both sides of a change, for a diff: the original from its folder, the new from what is kept."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

from runner.changes.diff import MOST_BYTES, FileDiff, Side, file_diff
from runner.changes.manifest import has_content
from runner.errors import RunnerError
from runner.model.outcome import Change
from runner.ports import HeldChanges
from runner.workspaces.folder import ConflictError, WorkspaceFolder


def diff_of(change: Change, folder: WorkspaceFolder, held: HeldChanges) -> FileDiff:
    """One change against its original, as far as either can be shown."""
    new, note = _new_side(change, held)
    old, old_note = _old_side(change, folder)
    return file_diff(change, old, new, note or old_note)


def _new_side(change: Change, held: HeldChanges) -> tuple[Side | None, str | None]:
    if not has_content(change):
        kinds = ("file", "symlink", "directory")
        return None, None if change.type in kinds else f"a {change.type}: never applied"
    side = Side(change.type, change.executable, None)
    if change.withheld is not None or change.sha256 is None:
        return side, f"not kept: {change.withheld}"
    fd = held.open(change.sha256)
    with os.fdopen(fd, "rb") as file:
        content = file.read(MOST_BYTES + 1)
    return replace(side, content=content), None


def _old_side(change: Change, folder: WorkspaceFolder) -> tuple[Side | None, str | None]:
    original = change.original
    if original is None or original.type not in ("file", "symlink"):
        return None, None
    side = Side(original.type, original.executable, None)
    changed = "the original was changed meanwhile, so it can't be shown"
    try:
        with folder.as_owner():
            now = folder.standing(change.path)
            if now is None or now.is_ != original or original.sha256 is None:
                return side, changed
            content = folder.content(change.path, MOST_BYTES)
    except ConflictError:
        return side, changed
    except OSError as error:
        raise RunnerError(f"{change.path!r} can't be read: {error.strerror}") from error
    if content is not None and hashlib.sha256(content).hexdigest() != original.sha256:
        return side, changed
    return replace(side, content=content), None
