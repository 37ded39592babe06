"""Profile, layers and request to what a backend builds. Pure, and it only tightens.

`tighten` takes what stands above a profile into it; `compile_spec` turns the tightened profile
and a request into a `SandboxSpec`. A layer or a request never adds to what a profile grants.
"""

from __future__ import annotations

import hashlib
import math
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any

import rfc8785

from runner.bound import stated, unheld
from runner.errors import BackendError, PolicyError, RequestError
from runner.model.budget import Stated
from runner.model.grant import Grant
from runner.model.limits import LIMIT_KEYS, UNLIMITED, LimitOverrides, Limits, Unlimited, spelled
from runner.model.profile import (
    CgroupMode,
    Environment,
    Isolation,
    Profile,
    Restrictions,
    WorkspaceMode,
)
from runner.model.protection import Protection
from runner.model.request import Argv, ExecRequest, Hold, Script, ShellText
from runner.model.rule import PolicyLayer
from runner.model.spec import RUN_FOLDER, InjectedFile, SandboxSpec, Workspace
from runner.tiers import required_walls

HOME = "/home/agent"
"""Home of the sandbox's user, and where a run without a workspace starts."""
BASE_ENVIRONMENT = (
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", HOME),
    ("USER", "agent"),
    ("LOGNAME", "agent"),
    ("SHELL", "/bin/sh"),
    ("LANG", "C.UTF-8"),
    ("TMPDIR", "/tmp"),  # noqa: S108  (the sandbox's own)
)
DECIDE_AT_EXEC = "decide_at_exec"
"""The obligation to judge each program at its `execve`."""

# execve(2): one argument holds at most MAX_ARG_STRLEN = 32 pages with its NUL.
_MAX_WORD_BYTES = 32 * 4096 - 1
# The largest whole number that JSON carries exactly (RFC 8785, 3.2.2.3).
_MAX_WHOLE = 2**53 - 1
# A process before it becomes the program, and the descriptors that an exec takes.
_LEAST = {"memory_bytes": 4 << 20, "open_files": 8}
_TERM = re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,63}")
_DEFAULT_TERM, _ACCOUNT_HOMES = "xterm", "/home"
_SYSTEM_FOLDERS = (
    *("/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32"),
    *("/proc", "/run", "/sbin", "/sys", "/usr", "/var"),
)
# Folders below a system folder that people and pipelines do work in.
_WORK_FOLDERS = (
    *("/usr/src", "/usr/local/src", "/var/jenkins_home"),
    *("/var/lib", "/var/tmp", "/var/www"),  # noqa: S108
)
_SHARED_FOLDERS = ("/opt", "/tmp")  # noqa: S108
"""Fine to work below, not to work on."""


def tighten(profile: Profile, layers: Sequence[Restrictions]) -> Profile:
    """The profile with every layer's restrictions taken in; its rules stay its own.

    PolicyError, a line for each reason, when a layer does not permit the profile or its
    workspace, bounds what can't be held there, or forbids a path that it shows or a variable that
    it sets.
    """
    refusals = [line for layer in layers for line in _refusals(profile, layer)]
    if refusals:
        raise PolicyError("\n".join(refusals))
    for layer in layers:
        profile = _tightened(profile, layer)
    return profile


def grants(layers: Sequence[Restrictions]) -> tuple[tuple[str, tuple[Grant, ...]], ...]:
    """Who may use which profiles, by each layer that says so."""
    return tuple((x.policy.name, x.grants) for x in layers if x.grants is not None)


def budgets(profile: Profile, layers: Sequence[Restrictions]) -> Stated:
    """What each layer that states budgets lets be used, outermost first, the profile's last.

    A profile's are kept under a name that no other file can take: who writes a profile would else
    spend, set and reset the budgets of another one of that name.
    """
    stated = [(layer.policy.name, layer.budgets) for layer in layers]
    own = (f"profile:{profile.identity}", profile.budgets)
    return tuple(each for each in (*stated, own) if each[1])


def policy_layers(profile: Profile, layers: Sequence[Restrictions]) -> tuple[PolicyLayer, ...]:
    """The rules to ask, outermost layer first, the profile's last."""
    return (*(layer.policy for layer in layers), profile.policy)


def denied_environment(request: ExecRequest, profile: Profile) -> tuple[str, ...]:
    """Names that the request sets and the profile denies, in the request's order."""
    denied = profile.environment.deny
    return tuple(name for name, _ in request.environment if _matches(name, denied))


def inherited_names(request: ExecRequest, profile: Profile) -> tuple[str, ...]:
    """Names to read from the host's environment for `compile_spec`'s `inherited`."""
    terminal = ("TERM",) if request.terminal else ()
    return tuple(dict.fromkeys((*profile.environment.inherit, *terminal)))


def compile_spec(
    request: ExecRequest,
    profile: Profile,
    obligations: tuple[str, ...] = (),
    inherited: Mapping[str, str] | None = None,
) -> SandboxSpec:
    """What to build for this request under this (tightened) profile.

    `inherited`: the host's variables of `inherited_names`; others in it are not used.
    RequestError: a bound workspace in the tier `process`, a limit looser than the profile's, or a
    word, path or variable that can't be.
    BackendError: an obligation that no backend here meets. PolicyError: an unknown one.
    ProtectionMissingError: one is required that `isolation: process` can't give.
    """
    check_obligations(obligations)
    requires, landlock_minimum = required_walls(profile)
    limits = _limits(request.limits, profile)
    workspace = _workspace(request.directory, profile.workspace)
    hold = request.program if isinstance(request.program, Hold) else None
    argv, files = _program(request, workspace)
    if hold is not None:
        # Each command has these for itself; the rest holds for all that goes on in it together.
        limits = replace(
            limits, wall_s=hold.lifetime_s, cpu_time_s=UNLIMITED, output_bytes=UNLIMITED
        )
    return SandboxSpec(
        argv=argv,
        cwd=workspace.target,
        environment=_environment(request, profile.environment, inherited or {}),
        terminal=request.terminal,
        files=files,
        workspace=workspace,
        read=profile.read,
        image=profile.image,
        network=profile.network,
        cgroup=profile.cgroup,
        limits=limits,
        syscalls=replace(profile.syscalls, set_id_bits=profile.workspace is not WorkspaceMode.BIND),
        requires=requires,
        isolation=profile.isolation,
        hold=hold,
        landlock_minimum=landlock_minimum,
    )


def check_workspace(
    directory: str, home: str | None, state_home: str, read_deny: Sequence[str] = ()
) -> None:
    """RequestError unless a run may have this folder as its workspace.

    All are absolute paths with symbolic links resolved. Refused are `/`, homes (`home`, a direct
    child of /home, /root), system folders and what holds them, a folder that holds or lies in
    runner's state, and one that a policy layer's `read_deny` names, holds or lies under.
    """
    advice = "; use a project's own folder"
    if not directory.startswith("/") or posixpath.normpath(directory) != directory:
        raise RequestError(f"workspace {directory!r} is not a resolved absolute path{advice}")
    if directory == "/":
        raise RequestError(f"workspace '/' is the whole machine{advice}")
    if directory in {home, "/root"} or posixpath.dirname(directory) == _ACCOUNT_HOMES:
        raise RequestError(f"workspace {directory!r} is a home folder{advice}")
    for folder in (_ACCOUNT_HOMES, home, "/root"):
        if folder and _within(folder, directory):
            raise RequestError(f"workspace {directory!r} holds the home folder {folder!r}{advice}")
    if _within(state_home, directory) or _within(directory, state_home):
        relation = "holds" if _within(state_home, directory) else "lies in"
        raise RequestError(
            f"workspace {directory!r} {relation} runner's state folder {state_home!r}{advice}"
        )
    for folder in _SYSTEM_FOLDERS:
        if _within(directory, folder) and not _is_work_folder(directory):
            raise RequestError(f"workspace {directory!r} lies in the system's {folder}{advice}")
    if directory in _SHARED_FOLDERS:
        raise RequestError(f"workspace {directory!r} is shared by all users{advice}")
    for pattern in read_deny:
        if _shows(directory, pattern):
            raise RequestError(
                f"workspace {directory!r} would show {pattern!r}, which the policy denies{advice}"
            )


def spec_digest(spec: SandboxSpec) -> str:
    """`sha256:` and hex over the spec's canonical JSON (RFC 8785), file contents by digest."""
    return "sha256:" + hashlib.sha256(rfc8785.dumps(spec_document(spec))).hexdigest()


def spec_document(spec: SandboxSpec) -> dict[str, Any]:
    """The spec as JSON values, for digests, events and `--dry-run`.

    File contents are given by digest and size. Text that is not valid UTF-8 (PEP 383) is given
    as `{"bytes": hex}`, so that no two specs share a document.
    """
    document: dict[str, Any] = _jsonable(spec)
    if spec.hold is None:
        del document["hold"]
    return document


def _refusals(profile: Profile, layer: Restrictions) -> Iterable[str]:
    source = layer.policy.name
    if layer.profiles is not None and not is_named(profile, layer.profiles):
        yield (
            f"{source}: profile {profile.name!r} ({profile.source}) is not permitted; "
            f"use one of: {', '.join(layer.profiles) or 'none'}"
        )
    if layer.isolation is Isolation.FULL and profile.isolation is not Isolation.FULL:
        yield (
            f"{source}: profile {profile.name!r} says isolation: {profile.isolation.value}, and "
            "less than full is not permitted; use a profile with isolation: full"
        )
    mode = profile.workspace
    if layer.workspace_modes is not None and mode not in layer.workspace_modes:
        yield (
            f"{source}: profile {profile.name!r} says workspace: {mode}, which is not permitted; "
            f"use a profile with one of: {', '.join(layer.workspace_modes) or 'none'}"
        )
    if mode is WorkspaceMode.BIND and (keys := [*stated(layer.limits)]):
        yield f"{source}: bounds what profile {profile.name!r} can't: {unheld(keys)}"
    for path in profile.read:
        for pattern in layer.read_deny:
            if _shows(path, pattern):
                yield (
                    f"{source}: profile {profile.name!r} shows {path!r}, but {pattern!r} is "
                    "denied; take it out of the profile's read"
                )
    for part, names in (
        ("set", tuple(name for name, _ in profile.environment.set)),
        ("inherit", profile.environment.inherit),
    ):
        for name in names:
            if _matches(name, layer.environment_deny):
                yield (
                    f"{source}: the variable {name!r} is denied; take it out of the "
                    f"environment.{part} of profile {profile.name!r}"
                )


def is_named(profile: Profile, permitted: Sequence[str]) -> bool:
    """Whether a policy's globs name this profile.

    A pattern with `/` is for paths; one without only for profiles whose name can't be taken.
    """
    return any(
        fnmatchcase(profile.source, pattern)
        if "/" in pattern
        else profile.is_kept and fnmatchcase(profile.name, pattern)
        for pattern in permitted
    )


def _tightened(profile: Profile, layer: Restrictions) -> Profile:
    requires = profile.requires | layer.requires
    in_cgroup = layer.cgroup is CgroupMode.REQUIRED or Protection.CGROUP in requires
    denied = dict.fromkeys((*profile.syscalls.deny, *layer.syscalls_deny))
    return replace(
        profile,
        limits=profile.limits.tightened(layer.limits),
        landlock_minimum=max(profile.landlock_minimum, layer.landlock_minimum),
        requires=requires | {Protection.CGROUP} if in_cgroup else requires,
        cgroup=CgroupMode.REQUIRED if in_cgroup else profile.cgroup,
        environment=replace(
            profile.environment,
            deny=tuple(dict.fromkeys((*profile.environment.deny, *layer.environment_deny))),
        ),
        syscalls=replace(
            profile.syscalls,
            deny=tuple(denied),
            allow=tuple(name for name in profile.syscalls.allow if name not in layer.syscalls_deny),
        ),
        apply_deny=tuple(dict.fromkeys((*profile.apply_deny, *layer.apply_deny))),
    )


def check_obligations(obligations: Sequence[str]) -> None:
    """BackendError or PolicyError: what a decision obliges runner to is more than it can do."""
    for obligation in obligations:
        if obligation == DECIDE_AT_EXEC:
            raise BackendError(
                "the policy defers this decision to the moment a program starts, which no backend "
                "here can do yet; say on_dynamic: deny in the profile"
            )
        raise PolicyError(
            f"the policy obliges runner to {obligation!r}, which it does not know; "
            "update runner or take the rule out"
        )


def _limits(asked: LimitOverrides, profile: Profile) -> Limits:
    granted = profile.limits
    keys = {field: key for key, field in LIMIT_KEYS.items()}
    problems = [*_bad_bounds(asked)] or [
        f"limit '{keys[field]}' asks for {spelled(field, getattr(asked, field))}, but profile "
        f"{profile.name!r} grants {spelled(field, getattr(granted, field))}; ask for less, or "
        "use another profile"
        for field in granted.looser_than(asked)
    ]
    if problems:
        raise RequestError("\n".join(problems))
    limits = granted.tightened(asked)
    if profile.workspace is WorkspaceMode.BIND and (unhold := [*stated(limits)]):
        raise RequestError(f"profile {profile.name!r} binds the workspace: {unheld(unhold)}")
    for field, least in _LEAST.items():
        bound = getattr(limits, field)
        if not isinstance(bound, Unlimited) and bound < least:
            raise RequestError(
                f"limit '{keys[field]}' is {spelled(field, bound)}, but no sandbox starts with "
                f"less than {spelled(field, least)}; ask for more"
            )
    return limits


def _bad_bounds(asked: LimitOverrides) -> Iterable[str]:
    """Bounds that came in past the parsers, from a program."""
    for key, field in LIMIT_KEYS.items():
        bound = getattr(asked, field)
        if bound is None or isinstance(bound, Unlimited):
            continue
        whole = field not in {"wall_s", "cpu_time_s", "cpus"}
        if isinstance(bound, bool) or not isinstance(bound, int if whole else int | float):
            yield f"limit '{key}' is {bound!r}; give a {'whole ' if whole else ''}number"
        elif not (math.isfinite(bound) and 0 < bound <= _MAX_WHOLE):
            yield f"limit '{key}' is {bound!r}; give a number above 0, or leave it out"


def _workspace(directory: str, mode: WorkspaceMode) -> Workspace:
    if mode is WorkspaceMode.NONE:
        return Workspace(mode, None, HOME)
    if not directory.startswith("/") or not _is_passable(directory):
        raise RequestError(f"folder {directory!r} is not an absolute path; resolve it first")
    return Workspace(mode, None if mode is WorkspaceMode.TMPFS else directory, directory)


def _program(
    request: ExecRequest, workspace: Workspace
) -> tuple[tuple[str, ...], tuple[InjectedFile, ...]]:
    argv: tuple[str, ...]
    files: tuple[InjectedFile, ...] = ()
    match request.program:
        case Argv(words):
            argv = words
        case ShellText(text, language):
            argv, files = _shell(text, language)
        case Script() as script:
            argv, files = _script(script, workspace, within=request.within is not None)
        case Hold():
            return (), ()
    if not argv or not argv[0]:
        raise RequestError("there is no program to run; give a command, a script or a text")
    for position, word in enumerate(argv):
        if not _is_passable(word):
            raise RequestError(
                f"word {position} of the command holds a NUL or half a surrogate pair, "
                "which no program can be given"
            )
    return argv, files


def _is_passable(text: str) -> bool:
    """Whether the kernel can be given this text as a NUL-terminated word (execve(2))."""
    try:
        return b"\0" not in text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False


def _shell(text: str, language: str) -> tuple[tuple[str, ...], tuple[InjectedFile, ...]]:
    # What can't be encoded is refused with the other words.
    encoded = text.encode("utf-8", "surrogateescape" if _is_passable(text) else "replace")
    if len(encoded) <= _MAX_WORD_BYTES or not _is_passable(text):
        return (language, "-c", text), ()
    # Too long for one argument: the same text as a file.
    path = f"{RUN_FOLDER}/command.sh"
    return (language, path), (InjectedFile(path, encoded),)


def _script(
    script: Script, workspace: Workspace, *, within: bool
) -> tuple[tuple[str, ...], tuple[InjectedFile, ...]]:
    inside = f"{RUN_FOLDER}/{_safe_name(script.name)}"
    path = script.path
    if (
        path is not None
        and workspace.source is not None
        # In a session its place may be another thing by now.
        and not within
        # A mount on a bound folder is gone when somebody outside renames what it stands on.
        and not workspace.is_bound
        and posixpath.normpath(path) == path
        and path != workspace.source
        and _within(path, workspace.source)
    ):
        # Over itself, so that what it finds beside it is there, and what was decided is what runs.
        inside = path
    file = InjectedFile(inside, script.content, executable=True)
    return (*script.interpreter, inside, *script.args), (file,)


def _safe_name(name: str) -> str:
    """A plain file name: a script's may hold anything but `/` and NUL."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", posixpath.basename(name))[-100:].lstrip(".-")
    return safe or "script"


def _environment(
    request: ExecRequest, granted: Environment, inherited: Mapping[str, str]
) -> tuple[tuple[str, str], ...]:
    variables = dict(BASE_ENVIRONMENT)
    if request.terminal:
        term = inherited.get("TERM", "")
        variables["TERM"] = term if _TERM.fullmatch(term) else _DEFAULT_TERM
    variables |= {name: inherited[name] for name in granted.inherit if name in inherited}
    variables |= dict(granted.set)
    for name, value in request.environment:
        if not name or "=" in name or not _is_passable(name) or not _is_passable(value):
            raise RequestError(
                f"variable {name!r} can't be set; a name holds no '=', and neither name nor "
                "value a NUL or half a surrogate pair"
            )
        variables[name] = value
    return tuple(variables.items())


def _matches(name: str, globs: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in globs)


def _within(path: str, folder: str) -> bool:
    """Whether `path` is `folder` or lies under it; both normalised."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _is_work_folder(directory: str) -> bool:
    return any(directory != folder and _within(directory, folder) for folder in _WORK_FOLDERS)


def _shows(path: str, pattern: str) -> bool:
    """Whether a folder shown at `path` lies under, is, or holds something that `pattern` names."""
    parts = [part for part in path.split("/") if part]
    globs = [part for part in pattern.split("/") if part]
    return all(fnmatchcase(part, glob) for part, glob in zip(parts, globs, strict=False))


def _text(value: str) -> object:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return {"bytes": value.encode("utf-8", "surrogateescape").hex()}
    return value


def _file(file: InjectedFile) -> object:
    return {
        "path": _text(file.path),
        "sha256": hashlib.sha256(file.content).hexdigest(),
        "size_bytes": len(file.content),
        "executable": file.executable,
    }


_LEAVES: tuple[tuple[type | tuple[type, ...], Callable[..., object]], ...] = (
    (InjectedFile, _file),
    (Enum, lambda member: member.value),
    (str, _text),
    ((bool, int, float, type(None)), lambda value: value),
)


def _jsonable(value: object) -> Any:
    for kind, convert in _LEAVES:
        if isinstance(value, kind):
            return convert(value)
    if isinstance(value, frozenset):
        return sorted(str(item) for item in value)
    if isinstance(value, tuple):
        return [_jsonable(item) for item in value]
    if is_dataclass(value):
        return {f.name: _jsonable(getattr(value, f.name)) for f in fields(value)}
    raise TypeError(f"{type(value).__name__} has no place in a spec")
