"""Folders whose files decide: who owns them, who may write them, and reading them for sure."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from runner.errors import BadInputError, PolicyError
from runner.schema.yaml import read_descriptor

SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Ownership:
    """Whose a folder and its files must be, and what they are called in an error."""

    what: str
    """Ends the sentence "it can't be …": `the organisation's policy`."""
    uids: frozenset[int]
    follow: bool
    """Whether symbolic links are followed."""
    error: type[BadInputError]


@dataclass(frozen=True, slots=True)
class OwnedFolder:
    """A folder that was looked at, open; its files are looked up in it and not by its path."""

    path: Path
    ownership: Ownership
    descriptor: int

    def names(self, suffixes: tuple[str, ...] = SUFFIXES) -> list[str]:
        """The files that end so, sorted; hidden ones are left out."""
        found = os.listdir(self.descriptor)  # noqa: PTH208  (by descriptor)
        return sorted(n for n in found if n.endswith(suffixes) and not n.startswith("."))

    def read(self, name: str) -> str | None:
        """A file's text; None: there is none. The ownership's error tells what is wrong with it."""
        path = f"{self.path}/{name}"
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | _follow(self.ownership)
        try:
            descriptor = os.open(name, flags, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        except OSError as problem:
            raise self.ownership.error(f"{path} can't be read: {why(problem)}") from None
        try:
            # What is checked is what is read: both through this descriptor.
            _check(os.fstat(descriptor), path, self.ownership)
        except BadInputError:
            os.close(descriptor)
            raise
        return read_descriptor(descriptor, path, self.ownership.error)


@contextmanager
def owned_folder(path: str | Path, ownership: Ownership) -> Iterator[OwnedFolder | None]:
    """The folder, open and looked at; None: there is none. Else the ownership's error."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | _follow(ownership)
    try:
        descriptor = os.open(path, flags)
    except FileNotFoundError:
        yield None
        return
    except OSError as problem:
        message = f"the folder {path} of {ownership.what} can't be read: {why(problem)}"
        raise ownership.error(message) from None
    try:
        _check(os.fstat(descriptor), str(path), ownership)
        yield OwnedFolder(Path(path), ownership, descriptor)
    finally:
        os.close(descriptor)


def owned_texts(
    path: str | Path,
    kind: str,
    suffixes: tuple[str, ...],
    owner_uid: int | None = None,
    *,
    what: str | None = None,
) -> list[tuple[str, str]]:
    """Path and text of a folder's files that end so, sorted by name; none: no such folder.

    `kind`: `organisation`, whose folder and files belong to root and are no symbolic links, or
    `user`. `owner_uid` names another owner, `what` the files in an error. PolicyError: one that
    can't be used.
    """
    uids = {0} if kind == "organisation" else {0, os.geteuid()}
    if owner_uid is not None:
        uids = {owner_uid}
    what = what or f"the {kind}'s policy"
    ownership = Ownership(what, frozenset(uids), kind != "organisation", PolicyError)
    found = []
    with owned_folder(path, ownership) as folder:
        for name in folder.names(suffixes) if folder is not None else ():
            text = folder.read(name) if folder is not None else None
            if text is None:
                raise PolicyError(f"{path}/{name} can't be read: no such file or directory")
            found.append((f"{path}/{name}", text))
    return found


def why(error: Exception) -> str:
    """The system's word for it, in small letters."""
    return (getattr(error, "strerror", None) or str(error)).lower()


def _follow(ownership: Ownership) -> int:
    return 0 if ownership.follow else os.O_NOFOLLOW


def _check(found: os.stat_result, path: str, ownership: Ownership) -> None:
    if found.st_uid not in ownership.uids:
        owners = " or ".join(f"uid {uid}" for uid in sorted(ownership.uids))
        raise ownership.error(
            f"{path} belongs to uid {found.st_uid}, so it can't be {ownership.what}; "
            f"give it to {owners}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ownership.error(f"{path} can be written by its group or by all; run chmod go-w on it")
