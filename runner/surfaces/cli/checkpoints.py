"""`runner audit checkpoint` and `runner audit key`: what others keep, to hold the log against."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import RequestError
from runner.surfaces.cli import retention

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from runner.audit.vouching import StoredNote, Vouched
    from runner.model.checkpoints import Unsent
    from runner.stores.against import Against
    from runner.stores.reader import LogReader

key_app = typer.Typer(
    help="The key that signs the log's checkpoints.", no_args_is_help=True, rich_markup_mode=None
)

_MOST_BYTES = 64 << 20  # a checkpoint takes 300 bytes; nobody keeps more of them in one file


def register(audit_app: typer.Typer) -> None:
    """Add the commands."""
    audit_app.command("checkpoint")(checkpoint)
    audit_app.add_typer(key_app, name="key")


def checkpoint(
    listed: Annotated[
        bool, typer.Option("--list", help="Those that there are: events, and when it was made.")
    ] = False,
) -> None:
    """Make a checkpoint of the log now, print it, and send it where the settings say.

    It is a signed note (C2SP tlog-checkpoint) over all events. Keep it where this user can't write:
    `runner audit verify --against FILE` then finds whatever was cut or rewritten since. Exit code
    1: it was made, and could not be sent to everybody.
    """
    if listed:
        from runner.stores.against import listed as stored  # noqa: PLC0415

        with _log().reading() as connection:
            for size, time in stored(connection):
                print(f"{size:>10} events  {time}")
        return
    store = retention.writable_log()
    try:
        print(store.checkpoint(), end="")
        sys.stdout.flush()
        failed = store.send_checkpoints()
    finally:
        store.close()
    tell_unsent(failed)
    if failed:
        raise typer.Exit(1)


@key_app.command()
def show(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Print the public key (a C2SP vkey), for `runner audit verify --key`.

    Keep it elsewhere: what lies beside the log can be replaced with it.
    """
    from runner.stores.against import keys_named  # noqa: PLC0415

    with _log().reading() as connection:
        named = keys_named(connection)
    if not named:
        raise RequestError("the log has no key yet; the next run makes one")
    if as_json:
        rows = [{"seq": key.seq, "key": key.vkey} for key in named]
        print(json.dumps({"key": named[-1].vkey, "all": rows}, indent=2))
        return
    print(named[-1].vkey)


@key_app.command()
def rotate(
    lost: Annotated[
        bool,
        typer.Option("--lost", help="The old private key is gone: go on without its signature."),
    ] = False,
) -> None:
    """Let a new key sign from now on, and print it.

    The old key signs that the new one follows it, and is removed. With --lost nothing shows that
    but the log's word: who verifies has to name the new key with --key.
    """
    store = retention.writable_log()
    try:
        print(store.rotate_key(lost=lost))
    finally:
        store.close()


def against(
    since: str | None, kept: str | None, key: str | None, witnesses: Sequence[str] = ()
) -> Against:
    """What the options of `verify` bring from elsewhere. RequestError: a file is something else."""
    from runner.stores.against import Against  # noqa: PLC0415

    if witnesses and kept is None:
        raise RequestError("--witness is about a checkpoint that was kept: name it with --against")
    notes = [] if kept is None else _notes(kept)
    size = 0
    if since is not None and since.isascii() and since.isdigit() and len(since) < 16:
        size = int(since)
    elif since is not None:
        found = _notes(since)
        size = found[-1].size
        notes = sorted([*notes, *found], key=lambda each: each.size)
    return Against(
        tuple(notes),
        None if key is None else vkey_of(key),
        size,
        tuple(_cosigner_of(each) for each in witnesses),
    )


def tell(vouched: Vouched, size: int) -> None:
    """What checkpoints said about a log that holds."""
    from runner.audit.event import rfc3339  # noqa: PLC0415

    if vouched.key is None:
        print("no checkpoint: the log has no key")
        return
    if vouched.stored:
        print(
            f"{vouched.stored} checkpoints hold, the last over {vouched.covered} of {size} events"
        )
    elif not vouched.kept:
        print("no checkpoint is stored beside these events")
    if vouched.kept:
        print(f"the kept checkpoint over {vouched.kept} events holds")
    for each in vouched.cosigned:
        when = rfc3339(each.time_s)
        print(f"the witness {each.witness} cosigned the first {each.size} events at {when}")
    whose = "follows the key that you named" if vouched.trusted else "is the log's own word (--key)"
    print(f"key {vouched.key}, which {whose}")


def tell_not_sent() -> None:
    """What the log's destinations do not have, and why nothing is signed, if that is so."""
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.against import has_checkpoints  # noqa: PLC0415
    from runner.stores.checkpoints import signing_trouble  # noqa: PLC0415
    from runner.stores.sending import unsent  # noqa: PLC0415

    with _log().reading() as connection:
        if not has_checkpoints(connection):
            return
        why = signing_trouble(connection)
        failed = unsent(connection, load_settings().checkpoint_to.value)
    if why is not None:
        print(f"runner: no checkpoint is made any more: {why}", file=sys.stderr)
    tell_unsent(failed)


def tell_unsent(failed: Sequence[Unsent]) -> None:
    """Which destinations do not have what."""
    for each in failed:
        since = f" since {each.since}" if each.since else ""
        why = f", because {each.why}" if each.why else ", because it was not tried yet"
        count = (
            "a checkpoint was" if each.checkpoints == 1 else f"{each.checkpoints} checkpoints were"
        )
        print(f"runner: {count} not sent to {each.destination}{since}{why}", file=sys.stderr)


def _notes(file: str) -> list[StoredNote]:
    from runner.audit.vouching import kept_notes  # noqa: PLC0415

    try:
        return kept_notes(text_of(file))
    except ValueError as error:
        raise RequestError(f"{file!r} can't be held against a log: {error}") from None


def notes_of(file: str) -> list[str]:
    """The checkpoints in a file, in the order of their sizes; at least one. RequestError."""
    return [str(each.note) for each in _notes(file)]


def vkey_of(given: str) -> str:
    """A log's vkey, or a file that holds one. RequestError."""
    from runner.audit.note import parse_vkey  # noqa: PLC0415

    return _vkey(given, parse_vkey, "--key", "`runner audit key show`")


def _cosigner_of(given: str) -> str:
    from runner.audit.cosignature import parse_cosigner  # noqa: PLC0415

    return _vkey(given, parse_cosigner, "--witness", "`runner audit witness --show-key`")


def _vkey(given: str, parse: Callable[[str], object], option: str, shows: str) -> str:
    text = given if given.count("+") >= 2 and "\n" not in given else text_of(given).strip()
    try:
        parse(text)
    except ValueError as error:
        raise RequestError(
            f"{option} {given!r} is no key, nor a file with one: {error}; {shows} prints it"
        ) from None
    return text


def text_of(file: str) -> str:
    """What a small file holds, as text. RequestError."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(_MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise RequestError(f"{file!r} can't be read: {why}") from error
    if len(data) > _MOST_BYTES:
        raise RequestError(f"{file!r} is too large to be a file of checkpoints")
    try:
        return data.decode("utf-8")
    except ValueError:
        raise RequestError(f"{file!r} is no text") from None


def _log() -> LogReader:
    from runner.settings import load_settings  # noqa: PLC0415
    from runner.stores.reader import open_log  # noqa: PLC0415

    return open_log(Path(load_settings().home.value))
