"""`runner serve`: the exec API."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.errors import BackendUnavailableError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

    from runner.app import Runner
    from runner.surfaces.http.listening import Listen
    from runner.surfaces.http.server import Serving

_MOST_SESSIONS = 1000  # the setting's own bound; that module is imported late
_MOST_AT_ONCE = 256  # each takes a thread, a sandbox and some ten descriptors


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("serve")(serve)


def serve(  # noqa: PLR0917  (options are keywords to whoever types them)
    listen: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="unix:PATH, HOST:PORT, [ADDRESS]:PORT. [default: serve.sock in the state folder]",
        ),
    ] = None,
    tls_cert: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="The server's certificate and those behind it, PEM; for a port."
        ),
    ] = None,
    tls_key: Annotated[
        str | None, typer.Option(metavar="FILE", help="Its private key, without a passphrase.")
    ] = None,
    tls_client_ca: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Who connects needs a certificate of this authority."),
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, max=_MOST_AT_ONCE, help="Runs at once. [default: 2 a processor]"
        ),
    ] = None,
    queue: Annotated[
        int, typer.Option(metavar="N", min=0, max=10_000, help="Runs that may wait for that.")
    ] = 64,
    sessions: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=_MOST_SESSIONS,
            help="Sessions that may go on when another begins. [default: the setting "
            "server_sessions, 32]",
        ),
    ] = None,
    grace: Annotated[
        str, typer.Option(metavar="TIME", help="What runs have to end when the server ends.")
    ] = "30s",
    body: Annotated[
        str, typer.Option(metavar="SIZE", help="The largest request that is taken.")
    ] = "16MiB",
    folder: Annotated[
        list[str] | None,
        typer.Option(
            metavar="DIR",
            help="Requests may name folders there as cwd. [default: the same user's anywhere, of "
            "others nowhere]",
        ),
    ] = None,
) -> None:
    """Serve the exec API, until SIGTERM or Ctrl-C.

    On a unix socket to processes of the same user, and of whom the setting server_peers names; on a
    port to who has a key (runner keys) or a token. Beyond this machine only with TLS. At the end no
    run begins any more, those that run have --grace, and then they are cancelled; all of it is
    recorded.
    """
    from runner.app import Runner  # noqa: PLC0415

    serving = _server()
    from runner.settings import load_settings, notify_socket, passed_sockets  # noqa: PLC0415
    from runner.surfaces.http.meant import Basis  # noqa: PLC0415

    settings = load_settings()
    basis = Basis.of(settings)
    with Runner(settings=settings) as runner:
        from runner.surfaces.http.jobs import Room  # noqa: PLC0415
        from runner.surfaces.http.listening import tls_files  # noqa: PLC0415
        from runner.surfaces.http.server import Serving  # noqa: PLC0415

        sockets = passed_sockets()
        how = Serving(
            listen=_listen(listen, Path(runner.settings.home.value), sockets),
            sockets=sockets,
            tls=tls_files(tls_cert, tls_key, tls_client_ca),
            room=Room(
                at_once or 2 * (os.cpu_count() or 1),
                queue,
                settings.server_sessions.value if sessions is None else sessions,
            ),
            folders=tuple(_folder(each) for each in folder or ()),
            grace_s=_grace(grace),
            body_bytes=_size(body),
            basis=basis,
            notify=notify_socket(),
        )

        def ready(where: Listen | None) -> None:
            where_told = "the socket that was passed" if where is None else where
            print(f"runner: listening at {where_told}", file=sys.stderr, flush=True)

        serving(runner, how, ready)


def _server() -> Callable[[Runner, Serving, Callable[[Listen | None], None]], None]:
    try:
        from runner.surfaces.http.server import serve as serving  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "runner":
            raise
        raise BackendUnavailableError(
            f"the server needs the package {error.name!r}, which is not installed: "
            "pip install 'runner-sandbox[server]'"
        ) from None
    return serving


def _listen(text: str | None, home: Path, sockets: int) -> Listen | None:
    """None: it was passed; who says where to listen means that, whatever was passed."""
    from runner.surfaces.http.listening import UnixSocket, parse_listen  # noqa: PLC0415

    if text is None:
        return None if sockets else UnixSocket(home / "serve.sock")
    return parse_listen(text)


def _folder(text: str) -> Path:
    try:
        found = Path(text).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(f"--folder {text!r} can't be used: {why}") from error
    if not found.is_dir():
        raise RequestError(f"--folder {text!r} is not a folder")
    return found


def _grace(text: str) -> float:
    from runner.schema.quantities import parse_bounded_duration  # noqa: PLC0415

    try:
        return 0.0 if text in ("0", "0s") else parse_bounded_duration(text)
    except ValueError as error:
        raise RequestError(f"--grace {text!r}: {error}") from None


def _size(text: str) -> int:
    from runner.model.limits import Unlimited  # noqa: PLC0415
    from runner.schema.quantities import parse_size  # noqa: PLC0415

    try:
        size = parse_size(text)
    except ValueError as error:
        raise RequestError(f"--body {text!r}: {error}") from None
    if isinstance(size, Unlimited):
        raise RequestError("--body 'unlimited' would let a request take all memory; give a size")
    return size
