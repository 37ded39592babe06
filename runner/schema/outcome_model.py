"""The models of an outcome's JSON, which strangers may rely on."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from runner.model.budget import Resource
from runner.model.decision import Effect
from runner.model.kill import KillScope
from runner.model.limits import LimitName
from runner.model.outcome import ChangeKind, Termination
from runner.model.profile import WorkspaceMode
from runner.model.protection import Protection
from runner.schema.base import Strict


class RuleDocument(Strict):
    """A rule that matched."""

    id: str
    layer: str = Field(description="The source of rules that it stands in.")
    effect: Effect
    message: str = Field(description="What to do instead.")
    matched: str = Field(description="The command or path that it matched, as read.")


class AskDocument(Strict):
    """Who may answer, and for how long the question stands."""

    approvers: tuple[tuple[str, ...], ...] = Field(
        description="Groups of patterns on identities, one of each must match; empty: anyone who "
        "may approve at all."
    )
    expires_s: float = Field(description="Seconds; unanswered by then it is denied.")


class ApprovedDocument(Strict):
    """Somebody's yes to what a rule asked."""

    id: str = Field(description="Of the question.")
    by: str = Field(description="Who answered, uid:1000.")
    reason: str


class DecisionDocument(Strict):
    """What the policy said, and why."""

    effect: Effect
    rules: tuple[RuleDocument, ...] = Field(description="Those that matched, strictest first.")
    observed: tuple[RuleDocument, ...] = Field(
        description="Those that are only observed and would have refused; they had no say."
    )
    reason: str
    policy_digest: str
    enforced: bool = Field(description="false: only observed.")
    rewrite: tuple[str, ...] | None = Field(
        description="With 'rewrite': the words of the command to run in its place; null: the text "
        "holds more than that one command, and nothing is run."
    )
    ask: AskDocument | None = Field(description="With 'ask'.")
    approved: ApprovedDocument | None = Field(
        description="With 'ask': the yes that the run began by; null: nobody said it."
    )


class ErrorDocument(Strict):
    """What went wrong on runner's side, or that there was no such program."""

    code: str
    message: str


class UsageDocument(Strict):
    """What it cost; null: not measured."""

    wall_s: float | None
    cpu_user_s: float | None
    cpu_system_s: float | None
    memory_peak_bytes: int | None
    processes: int | None = Field(description="Most processes and threads at once.")
    execs: int | None
    connections: int | None
    requests: int | None
    bytes_in: int | None
    bytes_out: int | None
    tokens: int | None
    cost_usd: float | None


class ChangeDocument(Strict):
    """A path of the workspace that the run changed."""

    path: str = Field(description="Relative; bytes that are not UTF-8 as \\xNN.")
    kind: ChangeKind
    type: str
    sha256: str | None
    size_bytes: int | None
    executable: bool = Field(description="Of a file: whether its owner may execute it.")
    withheld: str | None = Field(
        description="Of a file or a link: why its content was not kept; null: it was."
    )


class WorkspaceDocument(Strict):
    """What the run changed in its workspace."""

    mode: WorkspaceMode | None = Field(
        description="What it saw of its folder; with 'bind' changes are there and not listed."
    )
    changes: tuple[ChangeDocument, ...]
    truncated: bool


class BudgetDocument(Strict):
    """A budget that ended a run."""

    id: str
    layer: str = Field(description="The source that states it.")
    scope: str = Field(description="Whose counter: agent:NAME, session:NAME, all, ...")
    resource: Resource
    amount: int = Field(
        description="What is stated: microseconds, bytes, microdollars or a number."
    )
    used: int | None = Field(description="Used or held within its window, in the same unit.")
    window: str | None = Field(
        default=None,
        description="'sliding SECONDS', 'calendar PERIOD ZONE' or 'run'; null: it has none, or the "
        "log alone tells of it.",
    )
    free_at: str | None = Field(
        description="When something of it is free again, RFC 3339; null: with the end of a run."
    )


class KillDocument(Strict):
    """An operator's kill that ended a run."""

    scope: KillScope
    name: str = Field(description="Which run, agent, session or tenant; empty with 'all'.")
    by: str = Field(description="Who ordered it, uid:1000.")
    reason: str


class AuditDocument(Strict):
    """Where the run stands in the log."""

    first_seq: int
    last_seq: int
    head: str = Field(description="Hash of the run's last event, hex.")


class OutcomeDocument(Strict):
    """The whole result of one run."""

    run_id: str
    decision: DecisionDocument
    termination: Termination
    limit: LimitName | None = Field(description="The limit that ended it, with 'limit'.")
    exit_code: int | None = Field(description="The program's own, with 'exited'.")
    signal: int | None = Field(description="The signal that ended it, with 'signaled'.")
    error: ErrorDocument | None
    usage: UsageDocument
    backend: str
    profile: str
    protections: tuple[Protection, ...] = Field(description="Those in force.")
    degraded: tuple[str, ...] = Field(description="What was weaker than the full tier.")
    stdout: str | None = Field(default=None, description="What was kept, when it was asked for.")
    stdout_encoding: Literal["utf-8", "base64"] | None = None
    stdout_bytes: int = Field(description="Bytes that came, kept or not.")
    stdout_truncated: bool = Field(description="Whether less was kept than came.")
    stdout_sha256: str | None = Field(description="Of all bytes passed on; null: nothing ran.")
    stderr: str | None = None
    stderr_encoding: Literal["utf-8", "base64"] | None = None
    stderr_bytes: int
    stderr_truncated: bool
    stderr_sha256: str | None
    workspace: WorkspaceDocument
    budget: BudgetDocument | None = Field(description="With limit 'budget': which one.")
    killed: KillDocument | None = Field(
        description="With 'cancelled': the kill that ended it; null: who started it cancelled it."
    )
    left: tuple[str, ...] = Field(
        description="What could not be removed after it: why, and what to do."
    )
    audit: AuditDocument
