"""Reading the policy layers above a profile: `/etc/runner/policy.d` and the user's."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from runner.errors import PolicyError
from runner.model.policy_text import PolicyTexts
from runner.model.profile import Restrictions
from runner.schema.base import validate
from runner.schema.profile_file import PolicyFile
from runner.schema.rules import check_rules
from runner.schema.yaml import parse, read_descriptor

PolicyKind = Literal["organisation", "user"]

LANGUAGES = ("cedar", "rego")
"""Of policies that are not in runner's own; also their files' suffixes and their entry points."""
_SUFFIXES = (".yaml", ".yml")


def load_policy_dir(
    path: str | Path, kind: PolicyKind, *, owner_uid: int | None = None
) -> list[Restrictions]:
    """The layers in a folder's `*.yaml` and `*.yml` files, sorted by name; none: no such folder.

    An organisation's folder and files must belong to root (a user's: to that user or root) and
    be writable by nobody else, and may not be symbolic links: whoever can write there decides.
    `owner_uid` names another owner. PolicyError with a line for each problem in a file.
    """
    return [
        _restrictions(text, source, kind)
        for source, text in _texts(path, kind, _SUFFIXES, owner_uid)
    ]


def load_policy_texts(
    path: str | Path, kind: PolicyKind, *, owner_uid: int | None = None
) -> list[PolicyTexts]:
    """The folder's policies in other languages, `*.cedar` and `*.rego`, one for each language.

    Held to the same owners as `load_policy_dir`. PolicyError: a file that can't be used.
    """
    found = []
    for language in LANGUAGES:
        files = tuple(
            (f"{kind}:{source}", text)
            for source, text in _texts(path, kind, (f".{language}",), owner_uid)
        )
        if files:
            found.append(PolicyTexts(language, f"{kind}:{path}", files))
    return found


def load_policy_file(path: str | Path, kind: PolicyKind = "user") -> Restrictions:
    """One layer from a file anywhere, whoever owns it (for `runner policy` tools and tests)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as problem:
        raise PolicyError(f"{path} can't be read: {_why(problem)}") from None
    return _restrictions(read_descriptor(descriptor, str(path), PolicyError), str(path), kind)


def _texts(
    path: str | Path, kind: PolicyKind, suffixes: tuple[str, ...], owner_uid: int | None
) -> list[tuple[str, str]]:
    """Path and text of a folder's files that end so, sorted by name; none: no such folder."""
    allowed = {0} if kind == "organisation" else {0, os.geteuid()}
    if owner_uid is not None:
        allowed = {owner_uid}
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | _follow(kind))
    except FileNotFoundError:
        return []
    except OSError as problem:
        raise PolicyError(f"policy folder {path} can't be read: {_why(problem)}") from None
    try:
        _check_owner(os.fstat(folder), str(path), kind, allowed)
        names = sorted(
            name
            for name in os.listdir(folder)  # noqa: PTH208  (by descriptor)
            if name.endswith(suffixes) and not name.startswith(".")
        )
        return [_text(folder, Path(path) / name, kind, allowed) for name in names]
    finally:
        os.close(folder)


def _text(folder: int, path: Path, kind: PolicyKind, allowed: set[int]) -> tuple[str, str]:
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | _follow(kind)
    try:
        descriptor = os.open(path.name, flags, dir_fd=folder)
    except OSError as problem:
        raise PolicyError(f"{path} can't be read: {_why(problem)}") from None
    try:
        # What is checked is what is read: both through this descriptor.
        _check_owner(os.fstat(descriptor), str(path), kind, allowed)
    except PolicyError:
        os.close(descriptor)
        raise
    return str(path), read_descriptor(descriptor, str(path), PolicyError)


def _restrictions(text: str, source: str, kind: PolicyKind) -> Restrictions:
    document = parse(text, source, PolicyError)
    file = validate(document, PolicyFile, PolicyError, (check_rules,))
    return Restrictions(
        policy=file.rules.to_layer(f"{kind}:{source}"),
        limits=file.limits.to_model(),
        requires=frozenset(file.requires),
        cgroup=file.cgroup,
        environment_deny=file.environment.deny,
        syscalls_deny=file.syscalls.deny,
        read_deny=file.read_deny,
        profiles=file.profiles,
    )


def _follow(kind: PolicyKind) -> int:
    return os.O_NOFOLLOW if kind == "organisation" else 0


def _check_owner(found: os.stat_result, path: str, kind: PolicyKind, allowed: set[int]) -> None:
    if found.st_uid not in allowed:
        owners = " or ".join(f"uid {uid}" for uid in sorted(allowed))
        raise PolicyError(
            f"{path} belongs to uid {found.st_uid}, so it can't be the {kind}'s policy; "
            f"give it to {owners}"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PolicyError(f"{path} can be written by its group or by all; run chmod go-w on it")


def _why(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
