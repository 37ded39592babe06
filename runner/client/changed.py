"""What runs changed, from the API's answers (`runner.surfaces.changed`), as the library has it."""

from __future__ import annotations

from runner.changes.diff import FileDiff
from runner.changes.plan import Fate, Result
from runner.changes.results import Applied, RunChanges
from runner.client.outcomes import change_of
from runner.client.parsing import Fields
from runner.model.outcome import Change


def changes_of(value: object) -> RunChanges:
    """A `ChangesAnswer`."""
    f = Fields(value, "the changes")
    listed = f.each("changes", _listed)
    found = RunChanges(
        run_id=f.text("run_id"),
        directory=f.text("directory"),
        changes=tuple(change for change, _ in listed),
        left=tuple(number for number, (_, left) in enumerate(listed) if left),
        truncated=f.flag("truncated"),
        gone=f.maybe("gone", f.text),
    )
    f.done()
    return found


def diffs_of(value: object) -> tuple[FileDiff, ...]:
    """A `DiffAnswer`."""
    f = Fields(value, "the diff")
    f.text("run_id")
    found = f.each("files", _diff)
    f.done()
    return found


def applied_of(value: object) -> Applied:
    """An `AppliedAnswer`."""
    f = Fields(value, "the answer")
    found = Applied(
        run_id=f.text("run_id"),
        directory=f.text("directory"),
        dry_run=f.flag("dry_run"),
        results=f.each("results", _result),
        left=f.integer("left"),
    )
    f.done()
    return found


def _listed(value: object, where: str) -> tuple[Change, bool]:
    f = Fields(value, where)
    found = change_of(f), f.flag("left")
    f.done()
    return found


def _diff(value: object, where: str) -> FileDiff:
    f = Fields(value, where)
    found = FileDiff(
        change=change_of(f),
        text=f.text("diff").encode(),
        added=f.maybe("added", f.integer),
        removed=f.maybe("removed", f.integer),
        note=f.maybe("note", f.text),
    )
    f.done()
    return found


def _result(value: object, where: str) -> Result:
    f = Fields(value, where)
    fate, why = f.member("fate", Fate), f.maybe("why", f.text) or ""
    found = Result(change_of(f), fate, why)
    f.done()
    return found
