"""`runner audit prove`, `verify-proof`, `consistency` and `witness`: what strangers can check."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RequestError
from runner.surfaces.cli import retention
from runner.surfaces.cli.checkpoints import notes_of, text_of, vkey_of

if TYPE_CHECKING:
    from runner.stores.reader import LogReader

_MOST_BYTES = 4 << 20  # a note has at most a million characters

Output = Annotated[
    str | None, typer.Option("--output", metavar="FILE", help="Write it there, not to stdout.")
]


def register(audit_app: typer.Typer) -> None:
    """Add the commands."""
    audit_app.command("prove")(prove)
    audit_app.command("verify-proof")(verify_proof)
    audit_app.command("consistency")(consistency)
    audit_app.command("witness")(witness)


def prove(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run that has ended.")
    ] = None,
    index: Annotated[
        int | None,
        typer.Option("--index", metavar="N", min=0, help="One event instead, by its number."),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--event", metavar="HASH", help="One event instead, by its leaf hash."),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", metavar="FILE", help="Under this one, which somebody kept or cosigned."
        ),
    ] = None,
    output: Output = None,
) -> None:
    """Prove that a run, or an event, is in the log.

    For somebody who does not have the log. One line of JSON: the events in their exact bytes, how
    each leads to the root of the log's tree, and the oldest signed checkpoint over them; one is
    made if there is none yet. Nothing is told of other runs. `runner audit verify-proof` checks it,
    or the file verify_proof.py alone.
    """
    from runner.stores import proving  # noqa: PLC0415

    if (run is not None) + (index is not None) + (event is not None) != 1:
        raise RequestError("name what is to be proved: a run, or an event by --index or --event")
    log = _log()
    if run is not None:
        events = proving.run_events(log, run)
    elif index is not None:
        events = [proving.event_at(log, index)]
    else:
        if not re.fullmatch("[0-9a-f]{64}", str(event)):
            raise RequestError(f"--event {event!r} is no leaf hash: 64 hexadecimal digits")
        events = [proving.event_of(log, bytes.fromhex(str(event)))]
    kept = checkpoint is not None
    note = _covering(log, events[-1].seq, checkpoint)
    if run is not None:
        _write(proving.prove_run(log, events, note, kept=kept), output)
    else:
        _write(proving.prove_event(log, events[0], note, kept=kept), output)


def verify_proof(
    proof: Annotated[
        str, typer.Argument(metavar="PROOF", help="A file by `prove` or `consistency`.")
    ],
    key: Annotated[
        list[str],
        typer.Option(
            "--key",
            metavar="VKEY|FILE",
            help="The log's key, from `runner audit key show` there; once more for a former one.",
        ),
    ],
    witness: Annotated[
        list[str] | None,
        typer.Option("--witness", metavar="VKEY|FILE", help="Who must have cosigned it, by key."),
    ] = None,
) -> None:
    """Check a proof, and tell what it shows.

    Needs no log and no state folder. Exit code 1: it does not hold; 2: it could not be checked. The
    same check is one file for auditors, runner/audit/verify_proof.py, which needs Python and the
    package `cryptography`, and nothing of runner.
    """
    from runner.audit import verify_proof as checker  # noqa: PLC0415

    # Behind `--`, or what a file's name begins with could be an option.
    options = [f"--key={each}" for each in key] + [f"--witness={each}" for each in witness or ()]
    code = checker.main([*options, "--", proof])
    if code:
        raise typer.Exit(code)


def consistency(
    old: Annotated[
        str,
        typer.Option(
            "--from", metavar="FILE|N", help="The old checkpoint: a kept one, or a stored one's N."
        ),
    ],
    new: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="The new one; otherwise the newest stored one."),
    ] = None,
    request: Annotated[
        bool,
        typer.Option("--request", help="Write what a witness is asked instead; N may be 0."),
    ] = False,
    output: Output = None,
) -> None:
    """Prove that the log was only added to since a checkpoint.

    It tells nothing of any event. `runner audit verify-proof` checks it. With --request it is a
    C2SP tlog-witness request, for `runner audit witness`, or for any other witness by HTTP POST to
    its `add-checkpoint`.
    """
    from runner.stores import proving  # noqa: PLC0415

    log = _log()
    digits = old.isascii() and old.isdigit() and len(old) < 16
    begin = int(old) if digits else notes_of(old)[-1]
    end = None if new is None else notes_of(new)[-1]
    if request:
        _write(proving.consistency_request(log, begin, end).encode(), output)
    else:
        _write(proving.prove_consistency(log, begin, end), output)


def witness(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="A request by `consistency --request`; otherwise from stdin."
        ),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option("--key", metavar="VKEY|FILE", help="The other log's key, got from its owner."),
    ] = None,
    show_key: Annotated[
        bool, typer.Option("--show-key", help="Print this witness's own public key instead.")
    ] = False,
) -> None:
    """Cosign another log's checkpoint if it follows the last.

    The last one, that is, that this witness cosigned. Prints the checkpoint with a cosignature
    (C2SP cosignature/v1). A log's first checkpoint is taken on trust. Exit code 1: refused, because
    the log was rolled back or has forked, the key has not signed it, or the proof begins elsewhere;
    nothing was remembered.

    A witness is worth something where the log's owner can't write: as another user, on another
    machine. Its key and its memory are in `witness/` in the state folder.
    """
    from runner.audit.checkpoint import parse_checkpoint  # noqa: PLC0415
    from runner.audit.witnessing import RefusedError, parse_request  # noqa: PLC0415
    from runner.clock import SystemClock  # noqa: PLC0415
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.witness import Witness  # noqa: PLC0415

    if show_key == (key is not None) or (show_key and file is not None):
        raise RequestError("name the log's key with --key, or ask for the witness's: --show-key")
    mine = Witness(Path(load_settings().home.value), SystemClock())
    if key is None:
        print(mine.vkey())
        return
    vkey = vkey_of(key)
    try:
        request = parse_request(_stdin() if file is None else text_of(file))
        origin = parse_checkpoint(request.note).origin
    except ValueError as error:
        raise RequestError(f"{file or 'stdin'!r} is no request for a witness: {error}") from None
    try:
        note = mine.cosign(request, vkey)
    except RefusedError as refused:
        print(f"refused: {refused}", file=sys.stderr)
        raise typer.Exit(1) from None
    sys.stdout.write(note)
    if request.old == 0:
        told = ascii(origin)[1:-1]
        print(f"runner: the first checkpoint of {told} was taken on trust", file=sys.stderr)


def _covering(log: LogReader, seq: int, file: str | None) -> str:
    """The checkpoint that a proof of event `seq` leads to; made now if there is none."""
    from runner.audit.checkpoint import parse_checkpoint  # noqa: PLC0415
    from runner.stores.proving import covering_note  # noqa: PLC0415

    if file is not None:
        notes = notes_of(file)
        return next((each for each in notes if parse_checkpoint(each).size > seq), notes[-1])
    if (note := covering_note(log, seq)) is not None:
        return note
    store = retention.writable_log()
    try:
        return store.checkpoint()
    finally:
        store.close()


def _write(data: bytes, output: str | None) -> None:
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(output).write_bytes(data)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"the proof can't be written to {output!r}: {why}") from error


def _stdin() -> str:
    return sys.stdin.buffer.read(_MOST_BYTES).decode()


def _log() -> LogReader:
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    return open_log(Path(load_settings().home.value))
