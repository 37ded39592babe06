"""The models of a profile file and of a policy file, and their published JSON Schemas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from runner.model.limits import LIMIT_KEYS, LimitOverrides, Unlimited
from runner.model.profile import CgroupMode, Isolation, NetworkMode, WorkspaceMode
from runner.model.protection import (
    ALWAYS_IN_PROCESS_TIER,
    LANDLOCK_NEWEST,
    Protection,
)
from runner.schema.base import (
    VARIABLE_NAME,
    AbsolutePath,
    Identifier,
    JsonSchema,
    NonEmpty,
    Strict,
    SyscallName,
    VariableName,
    published,
)
from runner.schema.budgets import BudgetFile
from runner.schema.grants import GrantFile
from runner.schema.loop_guards import LoopGuardFile
from runner.schema.problems import Path, Problem
from runner.schema.quantities import parse_count, parse_duration, parse_number, parse_size
from runner.schema.rules import RulesFile
from runner.schema.yaml import Document

_UNIT_SCHEMA = {
    "duration": r"^(unlimited|[0-9]+(\.[0-9]+)? ?(ms|s|m|h|d)?)$",
    "size": r"^(unlimited|[0-9]+(\.[0-9]+)? ?(B|[KMGT]iB|[KMGT]B?|kB?)?)$",
    "plain": r"^(unlimited|[0-9]+(\.[0-9]+)?)$",
}


def _schema(form: str, number: str = "number") -> WithJsonSchema:
    """A number above zero, or text of one of the forms in `schema.quantities`."""
    return WithJsonSchema(
        {
            "anyOf": [
                {"type": number, "exclusiveMinimum": 0},
                {"type": "string", "pattern": _UNIT_SCHEMA[form]},
            ]
        }
    )


Duration = Annotated[float | Unlimited, PlainValidator(parse_duration), _schema("duration")]
Size = Annotated[int | Unlimited, PlainValidator(parse_size), _schema("size")]
Count = Annotated[int | Unlimited, PlainValidator(parse_count), _schema("plain", "integer")]
Number = Annotated[float | Unlimited, PlainValidator(parse_number), _schema("plain")]
Variables = Annotated[
    dict[VariableName, str],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": f"^(?:{VARIABLE_NAME.pattern})$"},
            "additionalProperties": {"type": "string"},
        }
    ),
]


class LimitsFile(Strict):
    """`limits:`; each bound a quantity or `unlimited`."""

    wall: Duration | None = Field(default=None, description="Time from start to end.")
    cpu_time: Duration | None = Field(
        default=None, description="CPU time of all processes together."
    )
    cpus: Number | None = Field(default=None, description="Processors' worth of time used at once.")
    memory: Size | None = Field(default=None, description="Memory of all processes together.")
    processes: Count | None = Field(default=None, description="Processes and threads at once.")
    output: Size | None = Field(default=None, description="Bytes on stdout and stderr together.")
    workspace: Size | None = Field(default=None, description="Bytes in everything writable.")
    inodes: Count | None = Field(
        default=None, description="Files and folders in everything writable."
    )
    open_files: Count | None = Field(default=None, description="Descriptors of one process.")

    def to_model(self) -> LimitOverrides:
        """As bounds; what is not stated stays so."""
        return LimitOverrides(**{field: getattr(self, key) for key, field in LIMIT_KEYS.items()})


class EnvironmentFile(Strict):
    """`environment:` of a profile."""

    set: Variables = Field(default={}, description="Variables that every run gets.")
    inherit: tuple[VariableName, ...] = Field(default=(), description="Names copied from the host.")
    deny: tuple[NonEmpty, ...] = Field(default=(), description="Globs of names no request may set.")


class SyscallsFile(Strict):
    """`syscalls:` of a profile: changes to the built-in deny-list."""

    deny: tuple[SyscallName, ...] = ()
    allow: tuple[SyscallName, ...] = ()


class ApplyFile(Strict):
    """`apply:` of a profile."""

    allow: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Globs from the workspace: paths that are applied although something executes "
        "them without being asked (.git/hooks, .envrc, ...).",
    )


class LandlockFile(Strict):
    """`landlock:`."""

    minimum: int = Field(
        ge=1,
        le=LANDLOCK_NEWEST,
        strict=True,
        description="The least Landlock ABI; with less no run starts.",
    )


class LayerRulesFile(RulesFile):
    """`rules:` of a policy file, which may leave out rules of what it includes."""

    without: tuple[NonEmpty, ...] = Field(
        default=(),
        description="Ids of rules of the extended profile or of included sets that are left out.",
    )


class ProfileRulesFile(LayerRulesFile):
    """`rules:` of a profile, which may also be only observed."""

    mode: Literal["enforce", "observe"] | None = Field(
        default=None, description="observe: decided and recorded, not enforced."
    )


class ProfileFile(Strict):
    """One profile file, before `extends` is followed."""

    name: Identifier | None = Field(
        default=None, description="By default the file's name without .yaml."
    )
    extends: NonEmpty | None = Field(
        default=None, description="A shipped profile's name, or a file's path relative to this one."
    )
    description: NonEmpty | None = Field(default=None, description="One line for lists.")
    threat_model: NonEmpty | None = Field(
        default=None, description="What it stops and what it does not, for people."
    )
    workspace: WorkspaceMode | None = Field(
        default=None, description="What a run sees of its folder."
    )
    network: NetworkMode | None = Field(default=None, description="What a run can reach.")
    cgroup: CgroupMode | None = Field(default=None, description="How limits over the run are held.")
    isolation: Isolation | None = Field(
        default=None, description="full: in namespaces; process: the lesser tier without."
    )
    landlock: LandlockFile | None = Field(
        default=None, description="What is asked of Landlock; it is then required."
    )
    limits: LimitsFile = LimitsFile()
    requires: tuple[Protection, ...] = Field(
        default=(),
        description="Protections that the extended profile made optional and this one needs.",
    )
    optional: tuple[Protection, ...] = Field(
        default=(), description="Protections that may be missing; the outcome then says degraded."
    )
    environment: EnvironmentFile = EnvironmentFile()
    syscalls: SyscallsFile = SyscallsFile()
    read: tuple[AbsolutePath, ...] = Field(default=(), description="Host paths shown read-only.")
    image: NonEmpty | None = Field(default=None, description="Image for backends that need one.")
    apply: ApplyFile = ApplyFile()
    budgets: tuple[BudgetFile, ...] = Field(
        default=(), description="How much may be used within which time; all of them hold."
    )
    loop_guard: LoopGuardFile | None = Field(
        default=None, description="Pauses for commands that are tried again and again."
    )
    rules: ProfileRulesFile = ProfileRulesFile()


def _plain_glob(value: object) -> object:
    if not isinstance(value, str):
        return value
    # `/x/**` says what `/x` says here.
    value = (value.removesuffix("/**") or "/") if value.endswith("/**") else value
    if "**" in value:
        raise ValueError("holds '**' before its end; name the parts of the path one by one")
    return value


class PolicyEnvironmentFile(Strict):
    """`environment:` of a policy file."""

    deny: tuple[NonEmpty, ...] = Field(
        default=(), description="Globs of names that no request and no profile may set or inherit."
    )


class PolicySyscallsFile(Strict):
    """`syscalls:` of a policy file."""

    deny: tuple[SyscallName, ...] = ()


class PolicyFile(Strict):
    """One policy file; all that it states tightens every profile."""

    description: NonEmpty | None = None
    observe: bool = Field(
        default=False,
        description="true: what its rules would decide is recorded, and has no effect.",
    )
    rules: LayerRulesFile = LayerRulesFile()
    limits: LimitsFile = LimitsFile()
    requires: tuple[Protection, ...] = ()
    cgroup: Literal[CgroupMode.REQUIRED] | None = Field(
        default=None, description="required: no run without a cgroup, whatever its profile says."
    )
    isolation: Literal[Isolation.FULL] | None = Field(
        default=None, description="full: no profile with less isolation may be used."
    )
    landlock: LandlockFile | None = Field(
        default=None, description="The least Landlock ABI of every run, whatever its profile says."
    )
    environment: PolicyEnvironmentFile = PolicyEnvironmentFile()
    syscalls: PolicySyscallsFile = PolicySyscallsFile()
    read_deny: tuple[Annotated[AbsolutePath, BeforeValidator(_plain_glob)], ...] = Field(
        default=(), description="Host paths (globs) that no profile may show, and all below them."
    )
    workspace_modes: tuple[WorkspaceMode, ...] | None = Field(
        default=None, description="What a profile's workspace may be; others are refused."
    )
    apply_deny: tuple[NonEmpty, ...] = Field(
        default=(), description="Globs from the workspace: paths of changes that nobody applies."
    )
    profiles: tuple[NonEmpty, ...] | None = Field(
        default=None,
        description="Globs: names of shipped and system profiles, or paths, that may be used.",
    )
    grants: tuple[GrantFile, ...] | None = Field(
        default=None,
        description="Who may use which profiles; whoever no grant covers may use none.",
    )
    budgets: tuple[BudgetFile, ...] = Field(
        default=(), description="How much may be used within which time; all of them hold."
    )
    loop_guard: LoopGuardFile | None = Field(
        default=None, description="Pauses for commands that are tried again and again."
    )


def check_policy(document: Document) -> Iterator[Problem]:
    """What a policy must hold beyond its fields' types; reads the plain data."""
    data = document.data
    if isinstance(data, dict) and data.get("observe") is True:
        for key in data:
            if key in PolicyFile.model_fields and key not in {"description", "observe", "rules"}:
                message = "is enforced or not there, and this file only observes"
                yield document.problem((key,), f"{message}; put it into a file of its own")


def check_profile(document: Document) -> Iterator[Problem]:
    """What a profile must hold beyond its fields' types; reads the plain data."""
    data = document.data
    yield from _both(document, ("optional",), ("requires",), "is required and optional")
    yield from _both(document, ("syscalls", "allow"), ("syscalls", "deny"), "is allowed and denied")
    optional = _words(data, ("optional",))
    if Protection.LANDLOCK.value in optional and _at(data, ("landlock",)) is not None:
        message = "asks for an ABI, so 'landlock' can't be optional; choose one"
        yield document.problem(("landlock",), message)
    if _at(data, ("isolation",)) == Isolation.PROCESS.value:
        for word in sorted(ALWAYS_IN_PROCESS_TIER):
            if word.value in optional:
                message = f"process stands on {word.value!r}; leave it out of optional"
                yield document.problem(("isolation",), message)
    cgroup = _at(data, ("cgroup",))
    named = {
        key: Protection.CGROUP.value in _words(data, (key,)) for key in ("requires", "optional")
    }
    if cgroup == CgroupMode.SAMPLED.value and named["requires"]:
        message = "requires the protection 'cgroup', so say 'required' here"
        yield document.problem(("cgroup",), message)
    if named["optional"]:
        message = "'cgroup' is made optional by cgroup: sampled; leave it out here"
        yield document.problem(("optional",), message)


def _both(document: Document, one: Path, other: Path, message: str) -> Iterator[Problem]:
    seen = _words(document.data, other)
    for index, word in enumerate(_words(document.data, one)):
        if word in seen:
            yield document.problem((*one, index), f"{word!r} {message}; choose one")


def _words(data: object, path: Path) -> list[object]:
    value = _at(data, path)
    return value if isinstance(value, list) else []


def _at(data: object, path: Path) -> object:
    for step in path:
        data = data.get(step) if isinstance(data, dict) else None
    return data


def profile_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a profile file."""
    return published(ProfileFile, "profile.json", "A runner profile")


def policy_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a policy file."""
    return published(PolicyFile, "policy.json", "A runner policy layer")
