"""`runner audit archive`, `restore` and `repair`: what becomes of old events, and damaged ones."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RequestError, RunnerError
from runner.surfaces.cli.progress import progress

if TYPE_CHECKING:
    from runner.audit.beginning import Beginning
    from runner.audit.verify import Verification
    from runner.stores.against import Against
    from runner.stores.archiving import Archived
    from runner.stores.reader import LogReader
    from runner.stores.repairing import Checkpoint, Repaired
    from runner.stores.sqlite import SqliteStore

_AGE = re.compile(r"([0-9]{1,6})(s|m|h|d|w)")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}

Place = Annotated[str, typer.Argument(metavar="DIR|FILE", help="An archive, or a segment of one.")]


def register(audit_app: typer.Typer) -> None:
    """Add the commands."""
    audit_app.command("archive")(archive)
    audit_app.command("restore")(restore)
    audit_app.command("repair")(repair)


def archive(
    to: Annotated[str, typer.Option("--to", metavar="DIR", help="The archive's folder.")],
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", help="Events of that age: 90d (default), 12h."),
    ] = None,
    before: Annotated[
        int | None, typer.Option("--before", metavar="SEQ", min=0, help="Events before this one.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Then remove them from the log, which goes on.")
    ] = False,
) -> None:
    """Write old events to sealed files, which can be verified and put back.

    A file is on the disk and was read back before anything is removed. What is left of the log
    still proves itself. Events of runs that have not ended, or whose changes are kept, stay.
    """
    from runner.clock import SystemClock  # noqa: PLC0415
    from runner.stores import archiving  # noqa: PLC0415
    from runner.stores.against import covering  # noqa: PLC0415

    if older_than is not None and before is not None:
        raise RequestError("--older-than and --before both say which events: give one")
    age_s = _age_s(older_than or "90d")
    store = writable_log()
    try:
        end = before
        if end is None:
            end = archiving.before_time(store.reader, SystemClock().now() - age_s)

        def checkpoint(after: Beginning) -> str | None:
            with store.reader.reading() as connection:
                return covering(connection, after.size)

        told = archiving.archive(store, Path(to), end, prune_too=prune, checkpoint=checkpoint)
    finally:
        store.close()
    _tell(told, to)


def restore(
    place: Place,
    into: Annotated[
        str | None,
        typer.Option("--into", metavar="DIR", help="Make a new state folder of it, to be read."),
    ] = None,
) -> None:
    """Put archived events back into the log, those that were removed last first."""
    from runner.stores import restoring  # noqa: PLC0415

    if into is not None:
        told = restoring.restore_into(Path(into), Path(place))
        print(f"events {told.start} to {told.end - 1} are in {into}: RUNNER_HOME={into} reads it")
        return
    store = writable_log()
    try:
        told = restoring.restore(store, Path(place))
    finally:
        store.close()
    print(f"events {told.start} to {told.end - 1} are in the log again")


def repair(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be recovered; change nothing.")
    ] = False,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against", metavar="FILE", help="A checkpoint of the log that was kept elsewhere."
        ),
    ] = None,
) -> None:
    """Recover a damaged log up to the last event that can be proved, and say what is missing.

    The damaged files are moved aside and never deleted; events that were found behind the last
    proved one go to a file of their own. The log goes on with an event that says all this.
    """
    from runner.clock import SystemClock  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores import repairing  # noqa: PLC0415

    home = Path(load_settings().home.value)
    kept = [_kept(file) for file in against or ()]
    told = repairing.repair(home, SystemClock(), dry_run=dry_run, against=kept)
    if isinstance(told, str):
        print(f"a repair that was interrupted is finished; the damaged log is {home / told}")
        return
    _tell_repaired(told)


def verify(log: LogReader, archive: str | None, against: Against) -> Verification:
    """Check the log, with an archive's events before its own where one is given."""
    told = progress("checking the log")
    if archive is None:
        return log.verify(against=against, progress=told)
    from runner.stores.restoring import archived_rows  # noqa: PLC0415

    return log.verify(archived_rows(log, Path(archive)), against, told)


def verify_segment_file(file: str) -> Verification | None:
    """Check a file if it is a segment; None: it is none. OSError: it can't be read."""
    from runner.audit.segment import verify_segment  # noqa: PLC0415
    from runner.stores import segments  # noqa: PLC0415

    try:
        if not segments.is_segment(Path(file)):
            return None
    except OSError as error:
        raise RequestError(f"{file!r} can't be read: {error.strerror}") from error
    with segments.opened(Path(file)) as (segment, _):
        print(f"events {segment.header.start} to {segment.header.end - 1}")
        return verify_segment(segment)


def _tell(told: Archived, to: str) -> None:
    if told.files:
        count = len(told.files)
        files = "a segment" if count == 1 else f"{count} segments"
        print(f"events {told.start} to {told.end - 1} are in {files} in {to}")
    else:
        print("no event is to be archived")
    if told.held is not None:
        print(f"event {told.end} and those behind it stay: {told.held}")
    if told.pruned:
        print(f"{told.pruned} events were removed from the log")


def _tell_repaired(told: Repaired) -> None:
    would = "would be" if told.damaged is None else "are"
    print(f"{told.recovered} events {would} in the log again, each proved by the one behind it")
    if told.missing_to is not None:
        print(
            f"events {told.recovered} to {told.missing_to - 1} are missing from it, as the "
            f"{_SOURCES.get(told.known_from or '', 'log')} tells"
        )
    if told.unlinked:
        where = f"in {told.unlinked_file}" if told.unlinked_file else "to be put aside"
        print(f"{told.unlinked} events behind them, which nothing links to the log, are {where}")
    if told.ledger_left_out:
        print(f"{told.ledger_left_out} events say nothing that the ledger could be charged with")
    if told.damaged is not None:
        print(f"the damaged log is {told.damaged}")


_SOURCES = {
    "checkpoint": "checkpoint that was kept",
    "tree": "tree over the events",
    "events": "last event that was found",
}


def _kept(file: str) -> Checkpoint:
    """The size and root of a note (C2SP tlog-checkpoint). Its signatures are not looked at."""
    from runner.stores.repairing import Checkpoint  # noqa: PLC0415

    try:
        lines = Path(file).read_text("utf-8").split("\n")
        size, root = lines[1], base64.b64decode(lines[2], validate=True)
        if not re.fullmatch("0|[1-9][0-9]{0,15}", size) or len(root) != 32:
            raise ValueError("no size and root")
    except OSError as error:
        raise RequestError(f"{file!r} can't be read: {error.strerror}") from error
    except (ValueError, IndexError):
        raise RequestError(
            f"{file!r} is no checkpoint: the second line is the number of events, the third the "
            "root in base64"
        ) from None
    return Checkpoint(int(size), root)


def _age_s(text: str) -> int:
    found = _AGE.fullmatch(text)
    if found is None:
        raise RequestError(f"--older-than {text!r} is no age; it is like 90d, 12h or 2w")
    return int(found[1]) * _UNIT_S[found[2]]


def writable_log() -> SqliteStore:
    """This user's log, to be written; runs of supervisors that died are closed first."""
    from runner.clock import SystemClock  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores import sqlite  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    settings = load_settings()
    home = Path(settings.home.value)
    open_log(home).close()
    store = sqlite.create(home, SystemClock(), settings.checkpoint_rules)
    try:
        store.recover()
    except RunnerError:
        store.close()
        raise
    return store
