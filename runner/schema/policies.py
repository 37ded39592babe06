"""Reading the policy layers above a profile: `/etc/runner/policy.d` and the user's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from runner.errors import PolicyError
from runner.model.policy_text import PolicyTexts
from runner.model.profile import Restrictions
from runner.schema.base import validate
from runner.schema.budgets import check_budgets
from runner.schema.include import merged_rules
from runner.schema.library import LIBRARY, Library
from runner.schema.owned import SUFFIXES, owned_texts
from runner.schema.profile_file import PolicyFile, check_policy
from runner.schema.rules import check_rules
from runner.schema.yaml import parse, read_file

PolicyKind = Literal["organisation", "user"]

LANGUAGES = ("cedar", "rego")
"""Of policies that are not in runner's own; also their files' suffixes and their entry points."""


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
    return [
        _restrictions(text, source, kind, library)
        for source, text in owned_texts(path, kind, SUFFIXES, owner_uid)
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
            for source, text in owned_texts(path, kind, (f".{language}",), owner_uid)
        )
        if files:
            found.append(PolicyTexts(language, f"{kind}:{path}", files))
    return found


def policy_texts(path: str | Path) -> list[PolicyTexts]:
    """A file's policy in another language, or those of a folder, whoever owns them (for tools).

    Empty: there is none. PolicyError: a file can't be read.
    """
    target = Path(path)
    found = []
    for language in LANGUAGES:
        suffix = f".{language}"
        if target.is_dir():
            files = sorted(each for each in target.iterdir() if _is_text(each, suffix))
        else:
            files = [target] if _is_text(target, suffix) else []
        texts = tuple((f"user:{each}", read_file(each, PolicyError)) for each in files)
        if texts:
            found.append(PolicyTexts(language, f"user:{path}", texts))
    return found


def _is_text(path: Path, suffix: str) -> bool:
    return path.name.endswith(suffix) and not path.name.startswith(".") and path.is_file()


def load_policy_file(
    path: str | Path, kind: PolicyKind = "user", library: Library = LIBRARY
) -> Restrictions:
    """One layer from a file anywhere, whoever owns it (for `runner policy` tools and tests)."""
    return _restrictions(read_file(path, PolicyError), str(path), kind, library)


def _restrictions(text: str, source: str, kind: PolicyKind, library: Library) -> Restrictions:
    document = parse(text, source, PolicyError)
    file = validate(document, PolicyFile, PolicyError, (check_rules, check_policy, check_budgets))
    name = f"{kind}:{source}"
    rules = merged_rules([(document, file.rules)], library, PolicyError)
    return Restrictions(
        policy=replace(file.rules.to_layer(name), rules=rules, on_trial=file.observe or None),
        limits=file.limits.to_model(),
        requires=frozenset(file.requires),
        cgroup=file.cgroup,
        environment_deny=file.environment.deny,
        syscalls_deny=file.syscalls.deny,
        isolation=file.isolation,
        landlock_minimum=file.landlock.minimum if file.landlock is not None else 0,
        read_deny=file.read_deny,
        apply_deny=file.apply_deny,
        profiles=file.profiles,
        workspace_modes=file.workspace_modes,
        budgets=tuple(each.to_model() for each in file.budgets),
        loop_guard=None if file.loop_guard is None else file.loop_guard.to_model(),
        grants=None if file.grants is None else tuple(each.to_model() for each in file.grants),
    )
