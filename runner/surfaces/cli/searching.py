"""`runner audit search`, `tail` and `export`: events of the log that are asked for."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import EXIT_CANCELLED, RequestError
from runner.surfaces.cli import event_lines
from runner.surfaces.cli.filters import Filters, filtered
from runner.surfaces.cli.progress import progress

if TYPE_CHECKING:
    from runner.audit.query import Query
    from runner.model.event import AuditEvent
    from runner.stores.reader import LogReader

AsJson = Annotated[bool, typer.Option("--json", help="The exact bytes of each event, one a line.")]
NoIndex = Annotated[
    bool, typer.Option("--no-index", help="Read the whole log; slower, and nothing can be hidden.")
]

_LOOK_S = 0.2  # how often whoever follows looks for new events
_PROGRESS_S = 0.5  # before that nobody wonders


def register(audit_app: typer.Typer) -> None:
    """Add the commands."""
    audit_app.command("search")(search)
    audit_app.command("tail")(tail)
    audit_app.command("export")(export)


@filtered
def search(
    given: Filters,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="No more than N.")
    ] = None,
    newest_first: Annotated[
        bool, typer.Option("--newest-first", help="Begin with the latest event.")
    ] = False,
    no_index: NoIndex = False,
    as_json: AsJson = False,
) -> None:
    """Find events, oldest first.

    An event is found if each option that is given fits it; of an option that is given several times
    one has to. Texts may have `*`, `?` and `[…]`: --command 'pip*' --host '*.example.org'. What is
    asked for is what one event says: who is about a run's outcome asks for --kind run.ended or
    --termination, and `runner audit show RUN` tells the rest of the story.

    A search index, search.db in the state folder, is brought up to date first and says where to
    look; what is found is read from the log. The index can be deleted at any time.
    """
    event_lines.take_any_text()
    with _log() as (log, home), _found(log, home, given, no_index, newest_first) as events:
        for event in islice(events, limit):
            _put(event, as_json)


@filtered
def tail(
    given: Filters,
    last: Annotated[
        int, typer.Option("-n", "--lines", metavar="N", min=0, help="The last N events.")
    ] = 10,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Then each event as it is written.")
    ] = False,
    no_index: NoIndex = False,
    as_json: AsJson = False,
) -> None:
    """The latest events that fit, oldest first, and with -f those to come.

    The log may be archived, repaired or replaced meanwhile: that is said on stderr, and it goes
    on. It ends with Ctrl-C, or when nobody reads what it prints.
    """
    event_lines.take_any_text()
    try:
        _tail(given, last, follow, no_index, as_json)
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_CANCELLED) from None
    except BrokenPipeError:
        # What is still buffered must not fail once more when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), 1)


@filtered
def export(
    given: Filters,
    form: Annotated[str, typer.Option("--format", metavar="jsonl|csv", help="How.")] = "jsonl",
    start: Annotated[
        int, typer.Option("--from", metavar="SEQ", min=0, help="Begin with this event.")
    ] = 0,
    no_index: NoIndex = False,
) -> None:
    """Write the log, or what fits of it, to stdout.

    `jsonl` has each event in its exact bytes; of a whole log, or of its end (--from),
    `runner audit verify FILE` checks it anywhere. `csv` has a row for each event, for tables: what
    a spreadsheet would take for a formula gets a ' in front.
    """
    from runner.audit.csv_rows import csv_row, header  # noqa: PLC0415
    from runner.audit.verify import export_line  # noqa: PLC0415

    if form not in ("jsonl", "csv"):
        raise RequestError(f"--format {form!r} is not known; there are jsonl and csv")
    out = sys.stdout.buffer
    with _log() as (log, home):
        if form == "jsonl" and not given.any:
            log.export(out, start)
            return
        if form == "csv":
            out.write(header())
        with _found(log, home, given, no_index, False, start) as events:
            for event in events:
                if form == "csv":
                    out.write(csv_row(event))
                else:
                    out.write(export_line(event.seq, event.leaf_hash, event.body))


def _tail(given: Filters, last: int, follow: bool, no_index: bool, as_json: bool) -> None:
    from runner.stores.following import Follower  # noqa: PLC0415
    from runner.stores.searching import parsed  # noqa: PLC0415

    with _log() as (log, home):
        query = _query(given)
        with closing(Follower(home, _say)) as follower:
            if last:
                with _found(log, home, given, no_index, True) as events:
                    # What is written meanwhile is the follower's.
                    found = (event for event in events if event.seq < follower.next)
                    for event in reversed([*islice(found, last)]):
                        _put(event, as_json)
            sys.stdout.flush()
            if not follow:
                return
            for event in follower.follow(_wait):
                if query.matches(parsed(event)):
                    _put(event, as_json)
                    sys.stdout.flush()


def _wait() -> bool:
    """Wait a little; True: nobody reads stdout any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # only errors are told then (poll(2))
    return bool(poll.poll(_LOOK_S * 1000))


def _put(event: AuditEvent, as_json: bool) -> None:
    if as_json:
        sys.stdout.buffer.write(event.body + b"\n")
    else:
        print(event_lines.line(event))


@contextmanager
def _log() -> Iterator[tuple[LogReader, Path]]:
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    home = Path(load_settings().home.value)
    with closing(open_log(home)) as log:
        yield log, home


@contextmanager
def _found(  # noqa: PLR0917
    log: LogReader,
    home: Path,
    given: Filters,
    no_index: bool,
    newest_first: bool,
    start: int = 0,
) -> Iterator[Iterator[AuditEvent]]:
    """The events that fit; the index is brought up to date where it helps."""
    from runner.stores.indexing import caught_up  # noqa: PLC0415
    from runner.stores.searching import search as searched  # noqa: PLC0415

    query = _query(given)
    if no_index or not given.narrow:
        yield searched(log, query, None, _say, newest_first=newest_first, start=start)
        return
    with caught_up(home, log, _say, progress("indexing the log")) as index:
        yield searched(log, query, index, _say, newest_first=newest_first, start=start)


def _query(given: Filters) -> Query:
    from runner.audit.query import query  # noqa: PLC0415

    return query(
        given.texts, run_id=given.run, since=given.since, until=given.until, now_s=time.time()
    )


def _say(sentence: str) -> None:
    print(f"runner: {event_lines.shown(sentence)}", file=sys.stderr)
