"""`runner changes`, `runner diff`, `runner apply` and `runner discard`."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from runner.app import Runner
    from runner.changes.diff import FileDiff
    from runner.changes.results import Applied
    from runner.model.outcome import Change

Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN", show_default=False, help="A run's id, or 'latest': the last that is kept."
    ),
]
Paths = Annotated[
    list[str] | None, typer.Argument(metavar="[PATH]...", show_default=False, help="Only these.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Agent = Annotated[str | None, typer.Option(metavar="ID", help="Who does it, for the log.")]

_MARKS = {"created": "A", "modified": "M", "deleted": "D"}
"""As `git status` has it."""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("changes")(changes)
    app.command("diff")(diff)
    app.command("apply")(apply)
    app.command("discard")(discard)


def changes(run: Run, as_json: AsJson = False) -> None:
    """What a run changed in its workspace, and what is left of it to apply."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        found = runner.changes(_named(runner, run))
    if as_json:
        from runner.surfaces.changed import changes_document  # noqa: PLC0415

        print(json.dumps(changes_document(found), indent=2))
        return
    left = set(found.left)
    for number, change in enumerate(found.changes):
        done = "" if found.gone or number in left else "  (applied)"
        withheld = f"  (not kept: {change.withheld})" if change.withheld else ""
        print(f"{_MARKS[change.kind]} {change.type:9} {_size(change):>12}  "
              f"{shown(change.path)}{withheld}{done}")  # fmt: skip
    if found.truncated:
        _note("runner: the run changed more than is listed")
    if found.gone is not None:
        _note(f"runner: nothing is left to apply: {found.gone}")


def diff(
    run: Run,
    paths: Paths = None,
    stat: Annotated[bool, typer.Option("--stat", help="Only how many lines, by path.")] = False,
    as_json: AsJson = False,
) -> None:
    """What is left of a run's changes as a unified diff against the originals."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        run = _named(runner, run)
        found = runner.diff(run, paths or ())
    if as_json:
        from runner.surfaces.changed import diff_row  # noqa: PLC0415

        print(json.dumps({"run_id": run, "files": [diff_row(each) for each in found]}, indent=2))
        return
    if stat:
        for each in found:
            print(f" {shown(each.change.path)} | {_stat(each)}")
        return
    terminal = sys.stdout.isatty()
    for each in found:
        # What a program wrote must not move the reader's cursor; a file gets the bytes.
        text = _visible(each.text) if terminal else each.text
        sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
    for each in found:
        if each.note is not None:
            _note(f"runner: {shown(each.change.path)}: {each.note}")


def apply(
    run: Run,
    paths: Paths = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would become of each.")
    ] = False,
    agent: Agent = None,
    as_json: AsJson = False,
) -> None:
    """Write what a run changed into its workspace folder.

    Exit code 0: all of it; 126: some is refused by the policy; 1: some can't be applied, the
    original was changed meanwhile; 125: some could not be written.
    """
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        found = runner.apply(_named(runner, run), paths or (), dry_run=dry_run, agent=agent)
    if as_json:
        from runner.surfaces.changed import applied_document  # noqa: PLC0415

        print(json.dumps(applied_document(found), indent=2))
    else:
        _print_applied(found)
    raise typer.Exit(found.status)


def discard(run: Run, agent: Agent = None) -> None:
    """Throw away what is kept of a run's changes."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        run = _named(runner, run)
        was_kept = runner.discard(run, agent=agent)
    print(f"discarded: {run}" if was_kept else f"nothing is kept of {run}")


def _named(runner: Runner, run: str) -> str:
    """The run's id; `latest` is told, for another run may have ended a moment ago."""
    if run != "latest":
        return run
    found = runner.latest_changes()
    _note(f"runner: the latest is {found}")
    return found


def _note(text: str) -> None:
    """On stderr, behind what stdout was told: a reader of both finds them in order."""
    sys.stdout.flush()
    print(text, file=sys.stderr)


def shown(path: str) -> str:
    """A path on one line, whatever is in it."""
    return path if path.isprintable() and "\\" not in path else ascii(path)[1:-1]


def _visible(text: bytes) -> bytes:
    """With control characters but line feed and tab, and what is not UTF-8, written out."""
    decoded = text.decode("utf-8", "backslashreplace")
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in decoded
    ).encode()


def _print_applied(found: Applied) -> None:
    from runner.changes.plan import Fate  # noqa: PLC0415

    verb = "would be applied" if found.dry_run else "applied"
    for result in found.results:
        fate = verb if result.fate is Fate.APPLIED else result.fate.value
        why = f": {result.why}" if result.why else ""
        done = result.fate in (Fate.APPLIED, Fate.ALREADY)
        line = f"{fate:9} {_MARKS[result.change.kind]} {shown(result.change.path)}{why}"
        (print if done else _note)(line)
    if found.left and not found.dry_run:
        _note(f"runner: {found.left} changes are not applied")


def _size(change: Change) -> str:
    return "" if change.size_bytes is None else f"{change.size_bytes} B"


def _stat(each: FileDiff) -> str:
    if each.added is None or each.removed is None:
        if not each.text:
            return each.change.kind.value
        return f"Bin {each.change.size_bytes or 0} bytes"
    return f"{each.added + each.removed} (+{each.added} -{each.removed})"
