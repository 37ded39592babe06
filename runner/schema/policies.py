"""Reading the policy layers above a profile: `/etc/runner/policy.d` and the user's."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from runner.errors import PolicyError
from runner.model.profile import Restrictions
from runner.schema.base import validate
from runner.schema.include import merged_rules
from runner.schema.library import LIBRARY, Library
from runner.schema.owned import Ownership, owned_folder
from runner.schema.profile_file import PolicyFile
from runner.schema.rules import check_rules
from runner.schema.yaml import parse, read_file

PolicyKind = Literal["organisation", "user"]


def load_policy_dir(
    path: str | Path,
    kind: PolicyKind,
    *,
    owner_uid: int | None = None,
    library: Library = LIBRARY,
) -> list[Restrictions]:
    """The layers in a folder's `*.yaml` and `*.yml` files, sorted by name; none: no such folder.

    An organisation's folder and files must belong to root (a user's: to that user or root) and
    be writable by nobody else, and may not be symbolic links: whoever can write there decides.
    `owner_uid` names another owner, `library` where `rules.include` is looked up. PolicyError with
    a line for each problem in a file.
    """
    uids = {0} if kind == "organisation" else {0, os.geteuid()}
    if owner_uid is not None:
        uids = {owner_uid}
    ownership = Ownership(
        f"the {kind}'s policy", frozenset(uids), kind != "organisation", PolicyError
    )
    found = []
    with owned_folder(path, ownership) as folder:
        for name in folder.names() if folder is not None else ():
            text = folder.read(name) if folder is not None else None
            if text is None:
                raise PolicyError(f"{path}/{name} can't be read: no such file or directory")
            found.append(_restrictions(text, f"{path}/{name}", kind, library))
    return found


def load_policy_file(
    path: str | Path, kind: PolicyKind = "user", library: Library = LIBRARY
) -> Restrictions:
    """One layer from a file anywhere, whoever owns it (for `runner policy` tools and tests)."""
    return _restrictions(read_file(path, PolicyError), str(path), kind, library)


def _restrictions(text: str, source: str, kind: PolicyKind, library: Library) -> Restrictions:
    document = parse(text, source, PolicyError)
    file = validate(document, PolicyFile, PolicyError, (check_rules,))
    name = f"{kind}:{source}"
    rules = merged_rules([(document, file.rules)], library, PolicyError)
    return Restrictions(
        policy=replace(file.rules.to_layer(name), rules=rules),
        limits=file.limits.to_model(),
        requires=frozenset(file.requires),
        cgroup=file.cgroup,
        environment_deny=file.environment.deny,
        syscalls_deny=file.syscalls.deny,
        read_deny=file.read_deny,
        profiles=file.profiles,
        grants=None if file.grants is None else tuple(each.to_model() for each in file.grants),
    )
