"""Finding, reading and merging profiles."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from importlib import resources
from pathlib import Path
from typing import NoReturn, TypeVar

from runner.bound import UNHELD, unheld
from runner.errors import ProfileError
from runner.looping import strictest
from runner.model.budget import Budget
from runner.model.limits import LIMIT_KEYS, UNLIMITED, Limits
from runner.model.profile import (
    CgroupMode,
    Environment,
    Isolation,
    NetworkMode,
    Profile,
    ProfileOrigin,
    Syscalls,
    WorkspaceMode,
)
from runner.model.protection import (
    ALWAYS_IN_PROCESS_TIER,
    NOT_IN_PROCESS_TIER,
    Protection,
)
from runner.model.rule import OnDoubt, OnUnknown, PolicyLayer
from runner.schema.base import IDENTIFIER, validate
from runner.schema.budgets import check_budgets
from runner.schema.include import merged_rules
from runner.schema.library import LIBRARY, Library
from runner.schema.problems import nearest, raise_problems
from runner.schema.profile_file import ProfileFile, check_profile
from runner.schema.rules import check_rules
from runner.schema.yaml import Document, parse, read_file

SYSTEM_PROFILES = Path("/etc/runner/profiles")
"""The organisation's profiles: their names, like the shipped ones', a policy can permit."""

# People extend a profile once, sometimes twice; more is a riddle.
MAX_EXTENDS = 8
_SUFFIX = ".yaml"
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ProfileEntry:
    """A line of `runner profile list`."""

    name: str
    path: Path
    origin: ProfileOrigin
    description: str
    error: str | None = None
    """Why it can't be used; None for a profile that can."""


@dataclass(frozen=True, slots=True)
class _Link:
    """One file of a chain of `extends`."""

    document: Document
    file: ProfileFile
    real: str
    """Where it was read, links followed; the document's errors name it as it was typed."""


def shipped_profiles() -> list[Path]:
    """The files of the profiles that come with runner, sorted by name.

    In an installed wheel they stand in `runner/_data/profiles`, in a source checkout in
    `profiles/` beside the package.
    """
    package = Path(str(resources.files("runner")))
    for folder in (package / "_data" / "profiles", package.parent / "profiles"):
        found = sorted(folder.glob("*" + _SUFFIX), key=lambda path: path.stem)
        if found:
            return found
    return []


def load_profile(
    name_or_path: str | os.PathLike[str], search: Sequence[Path] = (), library: Library = LIBRARY
) -> Profile:
    """The profile of that name, or in that file, with `extends` and `rules.include` resolved.

    `search`: folders of profiles, looked through in order, then the shipped ones; `library`: where
    rule sets are looked up. A text with a `/` or that ends in `.yaml` is a path. ProfileError with
    a line for each problem found.
    """
    path, origin = _find(os.fspath(name_or_path), search)
    return _build(path, origin, library)


def profile_documents(
    name_or_path: str | os.PathLike[str], search: Sequence[Path] = ()
) -> list[Document]:
    """The files that `load_profile` merges, outermost first, with the place of every value."""
    path, _ = _find(os.fspath(name_or_path), search)
    return [link.document for link in _chain(path)]


def list_profiles(search: Sequence[Path] = (), library: Library = LIBRARY) -> list[ProfileEntry]:
    """All profiles that a name would find, sorted by name; broken ones with their `error`."""
    entries: dict[str, ProfileEntry] = {}
    for path, origin in _candidates(search):
        if path.stem not in entries:
            entries[path.stem] = _entry(path, origin, library)
    return [entries[name] for name in sorted(entries)]


def _entry(path: Path, origin: ProfileOrigin, library: Library) -> ProfileEntry:
    try:
        profile = _build(path, origin, library)
    except ProfileError as problem:
        return ProfileEntry(path.stem, path, origin, "", str(problem))
    return ProfileEntry(profile.name, path, origin, profile.description)


def _candidates(search: Sequence[Path]) -> list[tuple[Path, ProfileOrigin]]:
    found = []
    for folder in search:
        system = folder == SYSTEM_PROFILES
        origin = ProfileOrigin.SYSTEM if system else ProfileOrigin.USER
        found += [(path, origin) for path in sorted(folder.glob("*" + _SUFFIX))]
    return found + [(path, ProfileOrigin.SHIPPED) for path in shipped_profiles()]


def _find(text: str, search: Sequence[Path]) -> tuple[Path, ProfileOrigin]:
    if is_path(text):
        return Path(text), ProfileOrigin.FILE
    candidates = _candidates(search)
    for path, origin in candidates:
        if path.stem == text:
            return path, origin
    names = sorted({path.stem for path, _ in candidates})
    raise ProfileError(
        f"there is no profile {text!r}{nearest(text, names) or ';'} "
        f"there are: {', '.join(names) or 'none'} (or give a file's path, like ./mine.yaml)"
    )


def is_path(text: str) -> bool:
    """Whether a text is a profile's path and not its name."""
    return "/" in text or text.endswith((_SUFFIX, ".yml"))


def _build(path: Path, origin: ProfileOrigin, library: Library) -> Profile:
    chain = _chain(path)
    name = chain[-1].file.name or path.name.removesuffix(_SUFFIX).removesuffix(".yml")
    tip = chain[-1].document
    if not IDENTIFIER.fullmatch(name):
        message = f"the file's name {name!r} can't be a profile's; add name: with small letters"
        raise_problems([tip.problem(("name",), message)], ProfileError)
    if origin is not ProfileOrigin.FILE and name != path.stem:
        message = f"{name!r} is found as {path.stem!r} in its folder; make both the same"
        raise_problems([tip.problem(("name",), message)], ProfileError)
    return _merged(chain, name, chain[-1].real, origin, library)


def _chain(path: Path) -> list[_Link]:
    """The files from the outermost base to `path`.

    Each is read where links lead, and what it extends is looked for there: a policy permits, and
    budgets count, a profile by its place, however somebody came to it.
    """
    links: list[_Link] = []
    seen: list[str] = []
    current: Path | None = path
    while current is not None:
        real = os.path.realpath(current)
        document, file = _parsed(read_file(real, ProfileError, str(current)), str(current))
        link = _Link(document, file, real)
        if links and real in seen:
            _refuse_extends(links[-1], f"{current} extends this one in turn; break the circle")
        if len(links) > MAX_EXTENDS:
            _refuse_extends(links[-1], f"more than {MAX_EXTENDS} files deep; extend fewer")
        seen.append(real)
        links.append(link)
        current = _base(link)
    return links[::-1]


@lru_cache(maxsize=64)
def _parsed(text: str, source: str) -> tuple[Document, ProfileFile]:
    """A file's text; remembered by the text itself, for parsing it takes milliseconds."""
    document = parse(text, source, ProfileError)
    file = validate(
        document, ProfileFile, ProfileError, (check_profile, check_rules, check_budgets)
    )
    return document, file


def _base(link: _Link) -> Path | None:
    extends = link.file.extends
    if extends is None:
        return None
    if is_path(extends):
        base = Path(link.real).parent / extends
        if not base.exists():
            _refuse_extends(link, f"{base} does not exist; give a path relative to this file")
        return base
    shipped = {p.stem: p for p in shipped_profiles()}
    if extends not in shipped:
        guess = nearest(extends, tuple(shipped)) or ";"
        _refuse_extends(
            link,
            f"there is no shipped profile {extends!r}{guess} there are: {', '.join(shipped)} "
            "(or give a file's path, like ./base.yaml)",
        )
    return shipped[extends]


def _refuse_extends(link: _Link, message: str) -> NoReturn:
    raise ProfileError(str(link.document.problem(("extends",), message)))


def _merged(
    chain: list[_Link], name: str, source: str, origin: ProfileOrigin, library: Library
) -> Profile:
    files = [link.file for link in chain]
    bounds = _limits(files)
    _check_complete(chain, bounds)
    cgroup = _last((f.cgroup for f in files), CgroupMode.REQUIRED)
    workspace = _last((f.workspace for f in files), WorkspaceMode.COPY_ON_WRITE)
    isolation = _last((f.isolation for f in files), Isolation.FULL)
    landlock = _last((f.landlock for f in files), None)
    required = _required(files, cgroup)
    if landlock is not None:
        required |= {Protection.LANDLOCK}
    if isolation is Isolation.PROCESS:
        required |= ALWAYS_IN_PROCESS_TIER
        _check_process_tier(chain[-1].document, required, workspace)
    return Profile(
        name=name,
        source=source,
        description=_last((f.description for f in files), "").strip(),
        threat_model=_last((f.threat_model for f in files), "").strip(),
        workspace=workspace,
        network=_last((f.network for f in files), NetworkMode.NONE),
        cgroup=cgroup,
        limits=Limits(**bounds),  # type: ignore[arg-type]  # each is its field's type
        requires=required,
        policy=_policy(chain, f"profile:{name}", library),
        environment=Environment(
            set=tuple(reduce(_joined, (f.environment.set for f in files)).items()),
            inherit=_union(*(f.environment.inherit for f in files)),
            deny=_union(*(f.environment.deny for f in files)),
        ),
        syscalls=_syscalls(files),
        read=_union(*(f.read for f in files)),
        image=_last((f.image for f in files), None),
        origin=origin,
        apply_allow=_union(*(f.apply.allow for f in files)),
        isolation=isolation,
        landlock_minimum=landlock.minimum if landlock is not None else 0,
        budgets=_budgets(chain),
        # What extends a profile can only tighten it.
        loop_guard=strictest([f.loop_guard.to_model() for f in files if f.loop_guard is not None]),
    )


def _check_process_tier(
    tip: Document, required: frozenset[Protection], workspace: WorkspaceMode
) -> None:
    problems = []
    if workspace is WorkspaceMode.BIND:
        # Without mounts nothing in it can be guarded.
        message = "bind is not there with isolation: process; use cow, or isolation: full"
        problems.append(tip.problem(("workspace",), message))
    lacking = sorted(required & NOT_IN_PROCESS_TIER)
    if lacking:
        message = (
            f"process has no {', '.join(lacking)}; list what is given up under optional, or "
            "extend agent-process"
        )
        problems.append(tip.problem(("isolation",), message))
    raise_problems(problems, ProfileError)


def _budgets(chain: Sequence[_Link]) -> tuple[Budget, ...]:
    """Those of all files: what extends a profile can only add to them."""
    found: dict[str, Budget] = {}
    for link in chain:
        for index, stated in enumerate(link.file.budgets):
            if stated.id in found:
                message = f"the extended profile has a budget {stated.id!r}; give this another id"
                raise_problems(
                    [link.document.problem(("budgets", index, "id"), message)], ProfileError
                )
            found[stated.id] = stated.to_model()
    return tuple(found.values())


def _last(stated: Iterable[Value | None], default: Value) -> Value:
    """What the nearest file says that says anything."""
    return next((value for value in reversed([*stated]) if value is not None), default)


def _joined(base: Mapping[str, str], child: Mapping[str, str]) -> dict[str, str]:
    return {**base, **child}


def _union(*parts: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(word for part in parts for word in part))


def _limits(files: Sequence[ProfileFile]) -> dict[str, object]:
    """The chain's limits by field, the nearest file's first."""
    bounds: dict[str, object] = {}
    for file in files:
        stated = file.limits.to_model()
        bounds |= {
            field: bound
            for field in LIMIT_KEYS.values()
            if (bound := getattr(stated, field)) is not None
        }
    return bounds


def _check_complete(chain: Sequence[_Link], bounds: Mapping[str, object]) -> None:
    """What has no safe default must be stated somewhere in the chain."""
    tip = chain[-1].document
    problems = []
    missing = [key for key, field in LIMIT_KEYS.items() if field not in bounds]
    if missing:
        message = f"{', '.join(missing)} not stated; give each a value or 'unlimited'"
        problems.append(tip.problem(("limits",), f"{message}, or extend a shipped profile"))
    mode = _last((link.file.workspace for link in chain), WorkspaceMode.COPY_ON_WRITE)
    if mode is WorkspaceMode.BIND:
        # By name: whoever binds a folder says that nothing bounds what is written there.
        held = [key for key in UNHELD if bounds.get(LIMIT_KEYS[key], UNLIMITED) != UNLIMITED]
        problems += [tip.problem(("limits", key), unheld([key])) for key in held]
    if all(link.file.rules.default is None for link in chain):
        message = "is missing; say allow, ask or deny, or extend a shipped profile"
        problems.append(tip.problem(("rules", "default"), message))
    raise_problems(problems, ProfileError)


def _required(files: list[ProfileFile], cgroup: CgroupMode) -> frozenset[Protection]:
    """All protections but those made optional by name: nothing is lost without a word."""
    optional: frozenset[Protection] = frozenset()
    for file in files:
        optional = (optional - frozenset(file.requires)) | frozenset(file.optional)
    required = frozenset(Protection) - optional
    return required if cgroup is CgroupMode.REQUIRED else required - {Protection.CGROUP}


def _syscalls(files: list[ProfileFile]) -> Syscalls:
    """The union of each list; a later file's word on a call beats an earlier one's."""
    verdicts: dict[str, bool] = {}
    for file in files:
        for name in file.syscalls.deny:
            verdicts.pop(name, None)
            verdicts[name] = False
        for name in file.syscalls.allow:
            verdicts.pop(name, None)
            verdicts[name] = True
    return Syscalls(
        deny=tuple(name for name, allowed in verdicts.items() if not allowed),
        allow=tuple(name for name, allowed in verdicts.items() if allowed),
    )


def _policy(chain: Sequence[_Link], name: str, library: Library) -> PolicyLayer:
    stated = [link.file.rules for link in chain]
    files = [(link.document, link.file.rules) for link in chain]
    return PolicyLayer(
        name=name,
        rules=merged_rules(files, library, ProfileError),
        default=_last((r.default for r in stated), None),
        on_dynamic=_last((r.on_dynamic for r in stated), OnUnknown.DENY),
        on_unreadable=_last((r.on_unreadable for r in stated), OnUnknown.DENY),
        on_doubt=_last((r.on_doubt for r in stated), OnDoubt.MATCHES),
        observe=_last((r.mode for r in stated), None) == "observe",
    )
