"""What a run changed: looked at, applied, thrown away; each step recorded.

Nothing that is kept is believed: the list must have the digest that the run's last event names,
and each content the digest that the list names. What may be written is asked of the policy as it
stands now, path by path; whether it still can be is asked of the folder.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner import records
from runner.audit.canonical import canonical
from runner.changes.diff import FileDiff
from runner.changes.manifest import Manifest, has_content
from runner.changes.plan import Fate, Result, leads_out, ordered, unsupported
from runner.changes.protected import names, protected
from runner.changes.results import Applied, RunChanges
from runner.deciding import Policy, decide_path
from runner.errors import RequestError, StateError
from runner.metering.keeping import to_drop
from runner.model.action import Facts
from runner.model.event import EventDraft, EventKind
from runner.model.intent import Access
from runner.model.keeping import KeepBounds, Kept
from runner.model.limits import UNLIMITED
from runner.model.outcome import Change, ChangeKind
from runner.model.principal import Principal
from runner.model.profile import Profile
from runner.model.request import ExecRequest
from runner.ports import ChangeArchive, Clock, HeldChanges, Store
from runner.recalled import chosen_of, from_log, kept, left_of, manifest_of, recorded
from runner.showing import diff_of
from runner.workspaces.applier import Applier
from runner.workspaces.folder import WorkspaceFolder

SWEEP_EVERY_S = 60.0
"""A sweep looks at each run of which something is kept; a pipeline starts many runners."""
_MOST_TARGET_BYTES = 4096
"""PATH_MAX (limits.h): no link's target is longer."""

Rules = Callable[[ExecRequest], tuple[Policy, Facts]]
"""The policy that a request is held against now."""


@dataclass(frozen=True, slots=True)
class _By:
    """Who applies what, and under which policy."""

    run_id: str
    principal: Principal
    policy_digest: str


class ChangesOfRuns:
    """The changes of all runs of one state folder."""

    def __init__(self, store: Store, archive: ChangeArchive, clock: Clock, rules: Rules) -> None:
        """`rules`: what is asked whether a path may be written."""
        self._store = store
        self._archive = archive
        self._clock = clock
        self._rules = rules

    def latest(self) -> str:
        """The run whose changes were kept last. RequestError: nothing is kept of any."""
        whole = [run for run in self._archive.runs() if run.whole]
        if not whole:
            raise RequestError("nothing is kept of the changes of any run; name a run by its id")
        return whole[-1].run_id

    def view(self, run_id: str) -> RunChanges:
        """What the run changed. RequestError: no such run; StateError: what is kept is damaged."""
        told = recorded(self._store, run_id)
        with self._archive.held(run_id) as held:
            if held is not None and (manifest := manifest_of(held, told)) is not None:
                left = left_of(manifest, held)
                return RunChanges(
                    run_id, manifest.directory, manifest.changes, left, manifest.truncated, None
                )
        return from_log(run_id, told)

    def diff(self, run_id: str, paths: Sequence[str] = ()) -> tuple[FileDiff, ...]:
        """What is left of the changes at these paths (all), against the originals, by path."""
        told = recorded(self._store, run_id)
        with self._archive.held(run_id) as found:
            held, manifest = kept(run_id, found, told)
            numbers = chosen_of(manifest, held, paths)
            with WorkspaceFolder(manifest.directory, manifest.device, manifest.inode) as folder:
                return tuple(diff_of(manifest.changes[number], folder, held) for number in numbers)

    def apply(
        self,
        run_id: str,
        paths: Sequence[str] = (),
        *,
        dry_run: bool = False,
        agent: str | None = None,
    ) -> Applied:
        """Apply what is left of the changes at these paths (all). Nothing is recorded of a dry run.

        What can't be applied is told in the result. RequestError: a path names no change, the
        folder is not the run's any more, nothing is kept. RecordError: it could not be recorded;
        before that nothing is written.
        """
        told = recorded(self._store, run_id)
        principal = Principal(uid=os.getuid(), agent=agent or "default")
        with self._archive.held(run_id) as found:
            held, manifest = kept(run_id, found, told)
            numbers = chosen_of(manifest, held, paths)
            policy, facts = self._rules(told.request)
            with WorkspaceFolder(manifest.directory, manifest.device, manifest.inode) as folder:
                applier = Applier(folder, run_id, held.open)
                refused, ready = _judged(
                    manifest, numbers, held, _Against(told.request, policy, facts)
                )
                if dry_run:
                    results = _sorted({**refused, **_would(applier, ready)})
                    left = len(left_of(manifest, held))
                    return Applied(run_id, manifest.directory, True, results, left)
                by = _By(run_id, principal, policy.digest)
                done = self._write(applier, ready, refused, by)
            left = _settle(manifest, held, done)
            return Applied(run_id, manifest.directory, False, _sorted(done), left)

    def discard(self, run_id: str, agent: str | None = None) -> bool:
        """Throw away what is kept of a run's changes; False: nothing was."""
        recorded(self._store, run_id)
        principal = Principal(uid=os.getuid(), agent=agent or "default")
        with self._archive.held(run_id) as held:
            if held is None:
                return False
            self._record_discarded(run_id, "asked", principal)
            held.remove()
        return True

    def sweep(self, bounds: KeepBounds) -> list[str]:
        """Discard what is older, and the oldest of what is more; a line for each run."""
        runs, now_s = list(self._archive.runs()), self._clock.now()
        whole = [Kept(run.run_id, run.kept_s, run.size_bytes) for run in runs if run.whole]
        expired = {each.run_id for each in to_drop(whole, now_s, bounds.days, UNLIMITED)}
        due = [(run.run_id, "unfinished") for run in runs if not run.whole]
        due += [
            (each.run_id, "expired" if each.run_id in expired else "total")
            for each in to_drop(whole, now_s, bounds.days, bounds.total_bytes)
        ]
        return [
            f"changes of {run_id} ({why})" for run_id, why in due if self._sweep_one(run_id, why)
        ]

    def _sweep_one(self, run_id: str, why: str) -> bool:
        try:
            with self._archive.held(run_id) as held:
                if held is not None:
                    self._record_discarded(run_id, why, None)
        except StateError:
            return False  # somebody is at work on it
        return self._archive.discard(run_id)

    def sweep_if_due(self, bounds: KeepBounds) -> None:
        """`sweep`, unless it was done a moment ago."""
        if self._archive.sweep_is_due(SWEEP_EVERY_S):
            self.sweep(bounds)

    def _record_discarded(self, run_id: str, why: str, principal: Principal | None) -> None:
        with self._store.transaction() as tx:
            tx.append(EventDraft(EventKind.CHANGES_DISCARDED, {"why": why}, principal, run_id))

    def _write(
        self,
        applier: Applier,
        ready: Sequence[tuple[int, Change]],
        refused: Mapping[int, Result],
        by: _By,
    ) -> dict[int, Result]:
        found = dict(refused)
        if ready:
            data = {**_listed(change for _, change in ready), "policy_digest": by.policy_digest}
            self._record(EventKind.CHANGES_APPLYING, data, by)
        interrupted = True
        try:
            for number, change in ready:
                found[number] = applier.apply(change)
            interrupted = False
        finally:
            data = _applied_data(_sorted(found), by.policy_digest, interrupted=interrupted)
            self._record(EventKind.CHANGES_APPLIED, data, by)
        return found

    def _record(self, kind: EventKind, data: Mapping[str, object], by: _By) -> None:
        with self._store.transaction() as tx:
            tx.append(EventDraft(kind, data, by.principal, by.run_id))


@dataclass(frozen=True, slots=True)
class _Against:
    """What a change is held against."""

    request: ExecRequest
    policy: Policy
    facts: Facts


def _judged(
    manifest: Manifest, numbers: Iterable[int], held: HeldChanges, against: _Against
) -> tuple[dict[int, Result], list[tuple[int, Change]]]:
    """What is refused already, and what is left to apply, in its order."""
    refused: dict[int, Result] = {}
    ready: list[tuple[int, Change]] = []
    for number in numbers:
        change = manifest.changes[number]
        said = _refused(change, held, against)
        if said is not None:
            refused[number] = said
        else:
            ready.append((number, change))
    return refused, ordered(ready)


def _refused(change: Change, held: HeldChanges, against: _Against) -> Result | None:
    """What stands against a change whatever its folder looks like."""
    why = unsupported(change)
    if why is not None:
        return Result(change, Fate.UNSUPPORTED, why)
    profile = against.policy.profile
    if names(change.path, profile.apply_deny):
        return Result(change, Fate.DENIED, "a policy layer's `apply_deny` names it")
    if has_content(change) and (change.withheld is not None or change.sha256 is None):
        return Result(change, Fate.WITHHELD, change.withheld or "its content is not known")
    path = f"{against.request.directory}/{change.path}"
    try:
        reason = _protection(change, path, held, profile)
    except StateError as error:
        return Result(change, Fate.WITHHELD, str(error))
    if reason is not None:
        return Result(change, Fate.PROTECTED, reason)
    decision = decide_path(against.request, path, Access.WRITE, against.policy, against.facts)
    return None if decision.permits else Result(change, Fate.DENIED, decision.reason)


def _protection(change: Change, path: str, held: HeldChanges, profile: Profile) -> str | None:
    """Why a change is protected and not opened by the profile, in a clause; None: it may be."""
    if _is_file(path, profile.source):
        return "it is the profile that the run is held against"
    reason = protected(change.path) or _leads_out(change, held)
    if reason is None or names(change.path, profile.apply_allow):
        return None
    return f"{reason}; a profile's `apply: {{allow: [...]}}` would have to name it"


def _is_file(path: str, source: str) -> bool:
    """Whether it is this file, or a link by which that is named."""
    try:
        return os.path.realpath(path) == source
    except OSError:  # whoever swaps folders meanwhile could as well write the link itself
        return path == source


def _leads_out(change: Change, held: HeldChanges) -> str | None:
    """Why a link is protected: what is written through it later lands somewhere else."""
    if change.type != "symlink" or not has_content(change):
        return None
    fd = held.open(change.sha256 or "")
    try:
        target = os.fsdecode(os.read(fd, _MOST_TARGET_BYTES))
    finally:
        os.close(fd)
    return "it is a link that leads out of the workspace" if leads_out(change, target) else None


def _would(applier: Applier, ready: Iterable[tuple[int, Change]]) -> dict[int, Result]:
    """What would become of each, with the folders in place that would be made before it."""
    found: dict[int, Result] = {}
    made: set[str] = set()
    for number, change in ready:
        if change.kind is ChangeKind.CREATED and posixpath.dirname(change.path) in made:
            said = None
        else:
            said = applier.look(change)
        found[number] = said or Result(change, Fate.APPLIED)
        if said is None and change.type == "directory":
            made.add(change.path)
    return found


def _settle(manifest: Manifest, held: HeldChanges, results: Mapping[int, Result]) -> int:
    """Forget what is applied; how many changes are left."""
    applied = {n for n, r in results.items() if r.fate in (Fate.APPLIED, Fate.ALREADY)}
    done = held.done() | applied
    left = [n for n in range(len(manifest.changes)) if n not in done]
    open_ = [
        change
        for n in left
        if (change := manifest.changes[n]).withheld is None and unsupported(change) is None
    ]
    if not open_:
        held.remove()
    elif applied:
        needed = {each.sha256 for each in open_ if has_content(each) and each.sha256 is not None}
        held.settle(frozenset(done), frozenset(needed))
    return len(left)


def _sorted(results: Mapping[int, Result]) -> tuple[Result, ...]:
    return tuple(results[number] for number in sorted(results))


def _listed(changes: Iterable[Change]) -> dict[str, Any]:
    """Paths and digests as an event has them: the first written out, a digest over all."""
    told = [{"path": each.path, "kind": each.kind.value, "sha256": each.sha256} for each in changes]
    return {
        "count": len(told),
        "sha256": hashlib.sha256(canonical(told)).hexdigest(),
        "first": told[: records.CHANGES_LISTED],
    }


def _applied_data(
    results: Sequence[Result], policy_digest: str, *, interrupted: bool
) -> dict[str, Any]:
    refused = [
        {"path": r.change.path, "fate": r.fate.value, "why": r.why}
        for r in results
        if r.fate is not Fate.APPLIED
    ]
    return {
        "applied": _listed(r.change for r in results if r.fate is Fate.APPLIED),
        "not_applied": {"count": len(refused), "first": refused[: records.CHANGES_LISTED]},
        "interrupted": interrupted,
        "policy_digest": policy_digest,
    }
