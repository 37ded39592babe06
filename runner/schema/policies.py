"""Reading the policy layers above a profile: `/etc/runner/policy.d` and the user's."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Literal

from runner.errors import PolicyError
from runner.model.profile import Restrictions
from runner.schema.base import validate
from runner.schema.profile_file import PolicyFile
from runner.schema.rules import check_rules
from runner.schema.yaml import parse, read_descriptor

PolicyKind = Literal["organisation", "user"]

_SUFFIXES = (".yaml", ".yml")


def load_policy_dir(
    path: str | Path, kind: PolicyKind, *, owner_uid: int | None = None
) -> list[Restrictions]:
    """The layers in a folder's `*.yaml` and `*.yml` files, sorted by name; none: no such folder.

    An organisation's folder and files must belong to root (a user's: to that user or root) and
    be writable by nobody else, and may not be symbolic links: whoever can write there decides.
    `owner_uid` names another owner. PolicyError with a line for each problem in a file.
    """
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
        names = sorted(filter(_is_policy, os.listdir(folder)))  # noqa: PTH208  (by descriptor)
        return [_load(folder, Path(path) / name, kind, allowed) for name in names]
    finally:
        os.close(folder)


def load_policy_file(path: str | Path, kind: PolicyKind = "user") -> Restrictions:
    """One layer from a file anywhere, whoever owns it (for `runner policy` tools and tests)."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as problem:
        raise PolicyError(f"{path} can't be read: {_why(problem)}") from None
    return _restrictions(descriptor, str(path), kind)


def _load(folder: int, path: Path, kind: PolicyKind, allowed: set[int]) -> Restrictions:
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
    return _restrictions(descriptor, str(path), kind)


def _restrictions(descriptor: int, source: str, kind: PolicyKind) -> Restrictions:
    text = read_descriptor(descriptor, source, PolicyError)
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
        grants=None if file.grants is None else tuple(each.to_model() for each in file.grants),
    )


def _is_policy(name: str) -> bool:
    return name.endswith(_SUFFIXES) and not name.startswith(".")


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
