"""What the log and the archive have of a run's changes, held against each other."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from runner.audit.canonical import unescape
from runner.changes import manifest as manifests
from runner.changes.manifest import Manifest
from runner.changes.plan import chosen
from runner.changes.results import RunChanges
from runner.errors import RequestError, StateError
from runner.model.event import EventKind
from runner.model.outcome import Change, ChangeKind, Original
from runner.model.principal import Principal
from runner.model.request import Argv, ExecRequest
from runner.ports import HeldChanges, Store


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the log says of a run."""

    request: ExecRequest
    ended: Mapping[str, Any] | None
    """`changes` of its last event."""
    last: Mapping[str, Any] | None
    """Data of the last event about its changes, and under `kind` which."""


def recorded(store: Store, run_id: str) -> Recorded:
    """What the log has of a run. RequestError: there is no such run."""
    request: ExecRequest | None = None
    ended = last = None
    # An id is ASCII, and SQLite takes only UTF-8.
    for event in store.events(run_id) if run_id.isascii() else ():
        told = json.loads(event.body)
        data = told["data"]
        match event.kind:
            case EventKind.RUN_DECIDED:
                request = _request(data, told["principal"])
            case EventKind.RUN_ENDED:
                ended = data["changes"]
            case EventKind.CHANGES_APPLIED | EventKind.CHANGES_DISCARDED:
                last = {**data, "kind": event.kind}
    if request is None:
        raise RequestError(f"there is no run {run_id!r} in the log; `runner audit show` lists them")
    return Recorded(request, ended, last)


def _request(data: Mapping[str, Any], principal: Mapping[str, Any]) -> ExecRequest:
    """Who wanted the run and where; applying is asked for in their name, by whoever does it."""

    def name(key: str) -> str | None:
        value = principal.get(key)
        return None if value is None else unescape(value)

    return ExecRequest(
        principal=Principal(
            os.getuid(), name("agent") or "default", name("parent"), name("session"),
            name("tenant"),
        ),
        program=Argv(("runner", "apply")),
        directory=unescape(data["directory"]),
        profile=unescape(data["profile"]),
        labels=tuple((unescape(k), unescape(v)) for k, v in data["labels"].items()),
    )  # fmt: skip


def kept(run_id: str, held: HeldChanges | None, told: Recorded) -> tuple[HeldChanges, Manifest]:
    """What is kept of a run, and its list. RequestError: nothing is, and why."""
    manifest = manifest_of(held, told) if held is not None else None
    if held is None or manifest is None:
        gone = from_log(run_id, told).gone
        raise RequestError(f"there is nothing to look at or apply of {run_id}: {gone}")
    return held, manifest


def manifest_of(held: HeldChanges, told: Recorded) -> Manifest | None:
    """The list; None: the run's last event names none. StateError: it is not the one it names."""
    named = told.ended.get("kept") if told.ended is not None else None
    if named is None:
        return None
    data = held.manifest()
    if manifests.digest(data) != named["manifest_sha256"]:
        raise StateError(
            "the list of kept changes is not the one that the log names; somebody changed it, so "
            "nothing of it is applied: discard it with `runner discard`"
        )
    return manifests.decode(data)


def from_log(run_id: str, told: Recorded) -> RunChanges:
    """What a run changed, as far as the log alone has it."""
    ended = told.ended or {"first": [], "count": 0, "truncated": False}
    changes = tuple(_change(each) for each in ended["first"])
    truncated = ended["truncated"] or ended["count"] > len(changes)
    gone = "nothing was kept of its changes"
    if told.ended is None:
        gone = "it has not ended, or its supervisor died"
    elif ended["count"] == 0:
        gone = "it changed nothing"
    elif told.last is not None and told.last["kind"] == EventKind.CHANGES_APPLIED:
        gone = "its changes were applied"
    elif told.last is not None:
        gone = f"its changes were discarded ({told.last['why']})"
    return RunChanges(run_id, told.request.directory, changes, (), truncated, gone)


def _change(told: Mapping[str, Any]) -> Change:
    """From an event; older ones say less."""
    original = told.get("original")
    return Change(
        path=unescape(told["path"]),
        kind=ChangeKind(told["kind"]),
        type=told["type"],
        sha256=told["sha256"],
        size_bytes=told["size_bytes"],
        executable=told.get("executable", False),
        original=Original(**original) if original else None,
        withheld=told.get("withheld"),
    )


def left_of(manifest: Manifest, held: HeldChanges) -> tuple[int, ...]:
    """Numbers of the changes that are not applied yet."""
    done = held.done()
    return tuple(number for number in range(len(manifest.changes)) if number not in done)


def chosen_of(manifest: Manifest, held: HeldChanges, paths: Sequence[str]) -> list[int]:
    """Numbers of those that the paths name. RequestError: one names none."""
    left = left_of(manifest, held)
    changes = [manifest.changes[number] for number in left]
    return [left[index] for index in chosen(changes, paths, manifest.directory)]
