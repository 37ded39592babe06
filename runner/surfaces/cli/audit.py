"""`runner audit`, `runner logs` and `runner usage`: what was recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RequestError
from runner.surfaces.cli import (
    audit_proofs,
    checkpoints,
    event_lines,
    redacting,
    retention,
    searching,
    story,
)

if TYPE_CHECKING:
    from runner.audit.verify import Verification
    from runner.ports import Store
    from runner.stores.against import Against
    from runner.stores.reader import LogReader

audit_app = typer.Typer(
    help="The log: show, search, verify, prove and export it.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only this run's events.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    searching.register(audit_app)
    redacting.register(audit_app)
    retention.register(audit_app)
    checkpoints.register(audit_app)
    audit_proofs.register(audit_app)
    app.add_typer(audit_app, name="audit")
    app.command("logs")(logs)
    app.command("usage")(usage)


@audit_app.command()
def show(
    story_of: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Tell the story of this run.")
    ] = None,
    run: RunId = None,
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=0, help="Only the last N; 0: all.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="One canonical JSON object a line.")
    ] = False,
) -> None:
    """Events, oldest first; or the story of one run.

    The story says in order who asked for what, how it was read and decided and by which rules,
    under which protections it ran, what it used and changed, and how it ended. With --json it is
    the run's events, as with --run.
    """
    if story_of is not None and run is not None:
        raise RequestError("name the run once: `runner audit show RUN` tells it, --run lists it")
    event_lines.take_any_text()
    log = _log()
    if story_of is not None:
        _check_run(log, story_of)
        events = [*log.events(story_of)]
        if not as_json:
            print("\n".join(story.story(events)))
            return
        run, last = story_of, 0
    elif run is not None:
        _check_run(log, run)
    start = max(0, log.head().size - last) if last and run is None else 0
    events = list(log.events(run, start))
    for event in events[-last:] if last else events:
        if as_json:
            sys.stdout.buffer.write(event.body + b"\n")
        else:
            print(event_lines.line(event))


@audit_app.command()
def verify(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="An export or an archive's segment instead of this user's log."
        ),
    ] = None,
    *,
    archive: Annotated[
        str | None,
        typer.Option("--archive", metavar="DIR", help="Check archived events too, from event 0."),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--since",
            metavar="N|FILE",
            help="Believe a checkpoint over the first N events, or one in a file, and only hash "
            "what is before it.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Checkpoints that somebody else kept: finds what was cut or rewritten since.",
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="VKEY|FILE", help="The log's key, if you know it."),
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness",
            metavar="VKEY|FILE",
            help="A witness's key: it must have cosigned a checkpoint of --against.",
        ),
    ] = None,
) -> None:
    """Check every event, the chain, the tree and every checkpoint.

    Exit code 1 names the first event that does not hold. What lies beside the log can be rewritten
    with it by whoever has this user's rights: `--against` with a checkpoint that was kept elsewhere
    shows that it was not.
    """
    given = checkpoints.against(since, against, key, witness or ())
    found: Verification
    if file is None:
        found = retention.verify(_log(), archive, given)
    elif archive is not None or since is not None:
        raise RequestError("--archive and --since are for the log itself: leave out the file")
    elif (told := retention.verify_segment_file(file)) is not None:
        if against is not None or key is not None:
            raise RequestError(
                "a segment holds no checkpoints: restore it, or leave out the options"
            )
        found = told
    else:
        found = _verify_export(file, given)
    if found.failure is not None:
        print(f"event {found.failure.seq}: {found.failure.why}", file=sys.stderr)
        if file is None and archive is None and not witness:
            print("`runner audit repair` recovers what can be proved", file=sys.stderr)
        raise typer.Exit(1)
    print(f"{found.size} events, head {found.head}")
    if found.archived:
        print(f"the first {found.archived} of them are archived and were not read")
    if found.root is not None:
        print(f"tree root {found.root}")
    if found.vouched is not None:
        checkpoints.tell(found.vouched, found.size)
    if file is None:
        checkpoints.tell_not_sent()


def logs(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    stderr: Annotated[bool, typer.Option("--stderr", help="Only what it wrote there.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only what it wrote there.")] = False,
) -> None:
    """What was kept of a run's output; stdout to stdout, stderr to stderr."""
    from runner.app import Runner  # noqa: PLC0415

    with Runner() as runner:
        _check_run(runner.store, run)
        kept = {name: runner.store.kept_output(run, name) or b"" for name in ("stdout", "stderr")}
    both = stdout == stderr
    if both or stdout:
        sys.stdout.buffer.write(kept["stdout"])
        sys.stdout.buffer.flush()
    if both or stderr:
        target = sys.stderr if both else sys.stdout
        target.buffer.write(kept["stderr"])


def usage(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Calls and wall time so far, for each agent and each user."""
    totals = _log().totals()
    if as_json:
        rows = [
            {"scope": t.scope, "key": t.key, "calls": t.calls, "wall_s": t.wall_s} for t in totals
        ]
        print(json.dumps(rows, indent=2))
        return
    print(f"{'scope':6} {'name':32} {'calls':>8} {'wall':>12}")
    for total in totals:
        print(f"{total.scope:6} {total.key:32} {total.calls:>8} {total.wall_s:>10.2f} s")


def _verify_export(file: str, given: Against) -> Verification:
    from runner.audit.verify import verify_jsonl  # noqa: PLC0415
    from runner.audit.vouching import Vouching  # noqa: PLC0415

    try:
        with open(file, "rb") as lines:
            start = _first_seq(lines.readline())
            if start and (given.kept or given.trusted):
                raise RequestError(f"{file!r} begins with event {start}: export the whole log")
            lines.seek(0)
            vouching = (
                None
                if start
                else Vouching((), given.kept, trusted=given.trusted, witnesses=given.witnesses)
            )
            return verify_jsonl(lines, start=start, vouching=vouching)
    except OSError as error:
        raise RequestError(f"export {file!r} can't be read: {error.strerror}") from error


def _first_seq(line: bytes) -> int:
    """Where an export begins (`--from`); what is no export is for the verification to say."""
    try:
        seq = json.loads(line)["seq"]
    except (ValueError, TypeError, KeyError):
        return 0
    return seq if isinstance(seq, int) and seq >= 0 else 0


def _log() -> LogReader:
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    return open_log(Path(load_settings().home.value))


def _check_run(log: LogReader | Store, run: str) -> None:
    """RequestError if the log has no such run; an id is ASCII, and SQLite takes only UTF-8."""
    if not run.isascii() or next(iter(log.events(run)), None) is None:
        raise RequestError(f"there is no run {run!r} in the log; `runner audit show` lists them")
