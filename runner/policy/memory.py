"""Decisions that were made before: the same action under the same rules gets the same answer.

A decision is found again by all that it depends on: the intent, where and with which variables it
runs, and of the principal and the circumstances whatever some rule states. The intent must be the
same object: the reader gives it again for the same program, and it need not be compared.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from weakref import ref

from runner.analysis.recent import Recent
from runner.model.action import Exec
from runner.model.decision import Decision
from runner.model.intent import Intent
from runner.policy.cel import When
from runner.policy.circumstances import Often, Within
from runner.policy.layer import Layer
from runner.policy.matching import Leaf, Node

_LIMIT_BYTES = 2 << 20
"""About what the decisions of a generation may take."""
_DECISION_BYTES = 1024
"""About what one takes beside its reason and its variables."""
_VARIABLE_BYTES = 64


class Memory:
    """The last decisions of one decision point."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        leaves = [*_leaves(rule.tree for layer in layers for rule in layer.rules)]
        names = {name for leaf in leaves if isinstance(leaf, When) for name in leaf.names}
        keys = {leaf.key for leaf in leaves}
        self._hours = [leaf for leaf in leaves if isinstance(leaf, Within)]
        self._often = [leaf for leaf in leaves if isinstance(leaf, Often)]
        self.paths = bool((keys | names) & {"paths", "reads", "writes"}) or any(
            node.states("paths", "reads", "writes")
            for layer in layers
            for node in (rule.tree for rule in layer.rules)
        )
        """Whether some rule states paths."""
        self._principal = bool(keys & {"agents", "sessions", "tenants", "uids"}) or (
            "principal" in names
        )
        self._labels = "labels" in keys or "labels" in names
        self._profile = "profile" in names
        self._now = "now" in names
        self._plain = not (
            self._hours
            or self._often
            or self._principal
            or self._labels
            or self._profile
            or self._now
        )
        self._decisions: Recent[Hashable, tuple[ref[Intent], Decision]] = Recent(_LIMIT_BYTES)

    def key(self, action: Exec) -> Hashable:
        """What its decision depends on."""
        told = id(action.intent)
        if self._plain:
            return told, action.workspace, action.environment, _links(action)
        facts = action.facts
        return (
            told,
            action.workspace,
            action.environment,
            _links(action),
            action.principal if self._principal else None,
            action.labels if self._labels else None,
            action.profile if self._profile else None,
            facts.now_s if self._now else None,
            tuple([leaf.contains(facts.now_s) for leaf in self._hours]),
            tuple([leaf.reached(facts.runs) for leaf in self._often]),
        )

    def recall(self, key: Hashable, action: Exec) -> Decision | None:
        """The decision about the same action, if it is still known."""
        found = self._decisions.get(key)
        # An identity means nothing once its object is gone: another may have it then.
        return found[1] if found is not None and found[0]() is action.intent else None

    def keep(self, key: Hashable, action: Exec, decision: Decision) -> None:
        """Remember it, for as long as the intent lives."""
        weight = _DECISION_BYTES + len(decision.reason) + _VARIABLE_BYTES * len(action.environment)
        self._decisions.put(key, (ref(action.intent), decision), weight)


def _links(action: Exec) -> Hashable:
    links = action.facts.links
    return tuple(links.items()) if links else ()


def _leaves(nodes: Iterator[Node]) -> Iterator[Leaf]:
    for node in nodes:
        yield from node.plain
        yield from _leaves(iter((*node.any_of, *node.all_of, *node.none_of)))
