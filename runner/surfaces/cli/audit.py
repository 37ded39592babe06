"""`runner audit`, `runner logs` and `runner usage`: what was recorded."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.errors import RequestError
from runner.surfaces.cli import checkpoints, redacting, retention

if TYPE_CHECKING:
    from runner.audit.verify import Verification
    from runner.ports import Store
    from runner.stores.against import Against
    from runner.stores.reader import LogReader

audit_app = typer.Typer(
    help="The log: show, verify and export it.", no_args_is_help=True, rich_markup_mode=None
)

RunId = Annotated[str | None, typer.Option("--run", metavar="RUN", help="Only this run's events.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    redacting.register(audit_app)
    retention.register(audit_app)
    checkpoints.register(audit_app)
    app.add_typer(audit_app, name="audit")
    app.command("logs")(logs)
    app.command("usage")(usage)


@audit_app.command()
def show(
    run: RunId = None,
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=0, help="Only the last N; 0: all.")
    ] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="One canonical JSON object a line.")
    ] = False,
) -> None:
    """Events, oldest first."""
    log = _log()
    if run is not None:
        _check_run(log, run)
    start = max(0, log.head().size - last) if last and run is None else 0
    events = list(log.events(run, start))
    for event in events[-last:] if last else events:
        if as_json:
            sys.stdout.buffer.write(event.body + b"\n")
        else:
            print(f"{event.seq:>6}  {event.time}  {event.run_id or '-':24}  {_summary(event.body)}")


@audit_app.command()
def verify(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="An export or an archive's segment instead of this user's log."
        ),
    ] = None,
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
) -> None:
    """Check every event, the chain, the tree and every checkpoint.

    Exit code 1 names the first event that does not hold. What lies beside the log can be rewritten
    with it by whoever has this user's rights: `--against` with a checkpoint that was kept elsewhere
    shows that it was not.
    """
    given = checkpoints.against(since, against, key)
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
        if file is None and archive is None:
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


@audit_app.command()
def export(
    form: Annotated[str, typer.Option("--format", metavar="jsonl", help="How.")] = "jsonl",
    start: Annotated[
        int, typer.Option("--from", metavar="SEQ", min=0, help="Begin with this event.")
    ] = 0,
) -> None:
    """Write the log to stdout; `runner audit verify FILE` checks it anywhere."""
    if form != "jsonl":
        raise RequestError(f"--format {form!r} is not known; there is jsonl")
    _log().export(sys.stdout.buffer, start)


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
            vouching = None if start else Vouching((), given.kept, trusted=given.trusted)
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


def _summary(body: bytes) -> str:
    event: dict[str, Any] = json.loads(body)
    data = event["data"]
    principal = event["principal"] or {}
    agent = principal.get("agent", "-")
    match event["kind"]:
        case "run.decided" | "decision.checked":
            program = data["program"]
            shown = program.get("argv") or program.get("text") or program.get("name")
            says = f"{data['decision']['effect']}: {_one_line(shown)}"
        case "run.ended":
            parts = [data["termination"], data["limit"], data["exit_code"], data["signal"]]
            says = " ".join(str(part) for part in parts if part is not None)
        case "run.started":
            says = f"degraded: {', '.join(data['degraded'])}" if data["degraded"] else ""
        case "changes.applying":
            says = f"{data['count']} changes"
        case "changes.applied":
            says = f"{data['applied']['count']} applied, {data['not_applied']['count']} not"
        case "changes.discarded":
            says = data["why"]
        case "machine.swept":
            removed, left = data["removed"]["count"], data["left"]["count"]
            says = f"removed {removed}, left {left}"
        case "log.archived" | "log.restored":
            says = f"events {data['from']} to {data['to']['size'] - 1}: {data['file']}"
        case "log.repaired":
            gap = data["missing"]
            says = f"events {gap['from']} to {gap['to'] - 1} are missing" if gap else ""
        case "output.discarded":
            says = f"of {len(data['runs'])} runs, {data['size_bytes']} bytes"
        case "request.refused" | "checkpoint.failed":
            says = _one_line(data["message"])
        case kind:
            says = _of_the_log(kind, data)
    return f"{event['kind']:17} {agent:12} {says}".rstrip()


def _of_the_log(kind: str, data: dict[str, Any]) -> str:
    """Of events about keys and checkpoints."""
    if kind.startswith("key."):
        return _one_line(data["key"])
    if kind in ("checkpoint.sent", "checkpoint.unsent"):
        return _one_line(f"{data['size']} events to {data['to']}")
    return ""


def _one_line(shown: object) -> str:
    text = " ".join(shown) if isinstance(shown, list) else str(shown)
    line = ascii(text)[1:-1]  # what an agent wrote must not move the reader's cursor
    return line if len(line) <= 80 else f"{line[:77]}..."
