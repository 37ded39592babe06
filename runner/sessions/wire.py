"""The words that a session's keeper and whoever uses the session exchange.

Over a unix socket (SOCK_SEQPACKET) in the state folder, one connection for each thing that is
asked. A document may be larger than a packet, so it travels in a memfd, with blobs behind it; the
streams of a command are descriptors beside it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from runner.backends.native.launcher.protocol import (
    PeerGoneError,
    read_plan,
    receive,
    send,
    write_plan,
)
from runner.errors import AnswerError, StateError, UnreachableError
from runner.model.limits import UNLIMITED, LimitOverrides, Unlimited
from runner.model.request import Argv, Command, Script, ShellText

FOLDER = "sessions"
"""In the state folder: a socket for each session."""
MOST_FDS = 6
"""The document, three streams, a terminal."""

Document = dict[str, Any]


def place(home: Path, session_id: str) -> Path:
    """Where its keeper listens."""
    return home / FOLDER / session_id


def opened_folder(home: Path) -> int:
    """The folder of the sockets, made if it is missing. StateError: it is not ours alone."""
    folder = home / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StateError(f"{folder} can't be used: {error.strerror}") from error
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(fd)
        raise StateError(f"{folder} is to be yours alone: chmod 700 {folder}")
    return fd


def connect(home: Path, session_id: str) -> socket.socket:
    """To a session's keeper. UnreachableError: nobody keeps one of that id."""
    gone = UnreachableError(
        f"there is no session {session_id!r} any more; `runner session list` tells which there are"
    )
    if not session_id.isprintable() or "/" in session_id or session_id in {"", ".", ".."}:
        raise gone
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = opened_folder(home)
    try:
        # Not by its own path, which may be longer than an address can be (unix(7)).
        made.connect(f"/proc/self/fd/{fd}/{session_id}")
    except OSError as error:
        made.close()
        raise gone from error
    finally:
        os.close(fd)
    return made


def say(channel: socket.socket, what: str, document: Document, fds: Sequence[int] = ()) -> None:
    """One message; `document` may be large. UnreachableError: nobody hears."""
    blobs = document.pop("blobs", [])
    held = write_plan({"document": document}, blobs)
    try:
        send(channel, {"say": what}, (held, *fds))
    except (PeerGoneError, OSError) as error:
        raise UnreachableError("the session's keeper is gone") from error
    finally:
        os.close(held)


def hear(channel: socket.socket) -> tuple[str, Document, list[int]]:
    """The next message: what is said, the document (with its `blobs`, if any), other descriptors.

    UnreachableError: the other side is gone, or said nothing within the socket's time.
    AnswerError: that was none.
    """
    try:
        message, fds = receive(channel, MOST_FDS)
    except TimeoutError as error:
        raise UnreachableError(
            "the session's keeper does not answer: it is stopped, or the machine is very busy; "
            "`runner kill` with the session's id ends it"
        ) from error
    except (PeerGoneError, OSError) as error:
        raise UnreachableError("the session's keeper is gone") from error
    if not fds:
        raise AnswerError("a message came without its document")
    try:
        header, blobs = read_plan(fds[0])
    except (OSError, ValueError, KeyError) as error:
        for fd in fds[1:]:
            os.close(fd)
        raise AnswerError("a message came with no document") from error
    finally:
        os.close(fds[0])
    document = {**header["document"], **({"blobs": blobs} if blobs else {})}
    return str(message.get("say")), document, fds[1:]


def program_document(program: Command) -> Document:
    """A program; a script's content is the first blob."""
    match program:
        case Argv(words):
            return {"kind": "argv", "words": list(words)}
        case ShellText(text, language):
            return {"kind": "shell", "text": text, "language": language}
        case Script():
            return {
                "kind": "script",
                "language": program.language,
                "interpreter": list(program.interpreter),
                "name": program.name,
                "path": program.path,
                "args": list(program.args),
            }


def program_of(document: Mapping[str, Any], blobs: Sequence[bytes]) -> Command:
    """The other way round. KeyError, TypeError, IndexError: it is none."""
    if document["kind"] == "argv":
        return Argv(tuple(document["words"]))
    if document["kind"] == "shell":
        return ShellText(document["text"], document["language"])
    return Script(
        blobs[0],
        document["language"],
        tuple(document["interpreter"]),
        document["name"],
        document["path"],
        tuple(document["args"]),
    )


def limits_document(limits: LimitOverrides) -> Document:
    """Those that are stated."""
    stated = ((field.name, getattr(limits, field.name)) for field in fields(limits))
    return {
        name: bound.value if isinstance(bound, Unlimited) else bound
        for name, bound in stated
        if bound is not None
    }


def limits_of(document: Mapping[str, Any]) -> LimitOverrides:
    """The other way round. TypeError: a bound of a name that there is not."""
    return LimitOverrides(
        **{
            name: UNLIMITED if bound == UNLIMITED.value else bound
            for name, bound in document.items()
        }
    )
