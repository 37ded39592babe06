"""Finds what stands behind the ports: entry points, and the layers in force on this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast

from runner.analysis.wrappers.table import Table, load
from runner.errors import BackendUnavailableError, SettingsError
from runner.model.policy_text import PolicyTexts
from runner.model.profile import Profile, Restrictions
from runner.ports import DecisionPoint
from runner.schema.policies import load_policy_dir, load_policy_texts
from runner.schema.profiles import profile_documents
from runner.schema.wrappers import load_wrapper_dir
from runner.settings import Settings

BUILT_IN = {
    ("runner.backends", "native"): "runner.backends.native:create",
    ("runner.backends", "docker"): "runner.backends.docker:create",
    ("runner.stores", "sqlite"): "runner.stores.sqlite:create",
    ("runner.policies", "rules"): "runner.policy.engine:create",
    ("runner.policies", "cedar"): "runner.policy_points.cedar:create",
    ("runner.policies", "rego"): "runner.policy_points.rego:create",
}
"""What ships with runner, named here too: looking through all installed packages takes longer
than a run."""


def policy_in_force(settings: Settings) -> list[Restrictions]:
    """The layers above every profile on this machine, outermost first; PolicyError: a bad one."""
    return [
        layer
        for folder in settings.policy_dirs.value
        for layer in load_policy_dir(folder.path, cast("Any", folder.kind))
    ]


def points_in_force(settings: Settings) -> tuple[DecisionPoint, ...]:
    """What decides beside the rules on this machine; PolicyError: a policy that can't be used."""
    texts = [
        each
        for folder in settings.policy_dirs.value
        for each in load_policy_texts(folder.path, cast("Any", folder.kind))
    ]
    return decision_points(texts)


def decision_points(texts: Sequence[PolicyTexts]) -> tuple[DecisionPoint, ...]:
    """A decision point for each policy in another language; PolicyError: one can't be used."""
    return tuple(find_adapter("runner.policies", each.language)(each) for each in texts)


def wrappers_in_force(settings: Settings) -> Table:
    """The table of wrappers with the rows added on this machine; PolicyError: a bad file."""
    table = load()
    for folder in settings.wrapper_dirs.value:
        table = load_wrapper_dir(folder.path, folder.kind, table)
    return table


def find_adapter(group: str, name: str) -> Callable[..., Any]:
    """What an entry point names; SettingsError if there is none."""
    target = BUILT_IN.get((group, name))
    if target is not None:
        module, _, attribute = target.partition(":")
        return cast("Callable[..., Any]", getattr(import_module(module), attribute))
    for entry in entry_points(group=group, name=name):
        try:
            return cast("Callable[..., Any]", entry.load())
        except ImportError as error:
            raise BackendUnavailableError(f"{name!r} can't be loaded: {error}") from error
    known = sorted({n for g, n in BUILT_IN if g == group} | set(entry_points(group=group).names))
    kind = group.removeprefix("runner.").removesuffix("s")
    raise SettingsError(f"there is no {kind} {name!r}; known are {', '.join(known)}")


def with_own_python(profile: Profile, directory: str, denied: Sequence[str]) -> Profile:
    """Show the Python installation that runner itself runs on, where /usr does not hold it.

    A virtual environment in the workspace, `directory`, points there. It is the one folder outside
    of the profile that is known without trusting anything in the workspace. `denied`: patterns of
    folders that no profile may show.
    """
    prefix = str(Path(sys.base_prefix).resolve())
    inside = f"{directory}/".startswith(f"{prefix}/") or f"{prefix}/".startswith(f"{directory}/")
    if (
        prefix.startswith("/usr/")
        or prefix in ("/", "/usr", *profile.read)
        or inside
        or any(fnmatchcase(prefix, pattern) for pattern in denied)
    ):
        return profile
    return replace(profile, read=(*profile.read, prefix))


def decided_by(profile: str, settings: Settings) -> list[tuple[str, str]]:
    """What later runs are decided and contained by: a name and a resolved path for each."""
    search = settings.profile_dirs.value
    found = [("the profile", document.source) for document in profile_documents(profile, search)]
    found += [("profiles", str(path)) for path in search]
    found += [("policies", str(folder.path)) for folder in settings.policy_dirs.value]
    found += [("wrappers", str(folder.path)) for folder in settings.wrapper_dirs.value]
    found += [("runner itself", str(Path(__file__).parent))]
    found += [("the Python of runner", path) for path in (sys.executable, os.__file__)]
    if sys.prefix != sys.base_prefix:
        found.append(("the Python of runner", sys.prefix))
    return [(what, str(Path(path).resolve())) for what, path in found]
