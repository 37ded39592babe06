"""Decisions that were made before: the same action under the same rules gets the same answer.

A decision is found again by all that it depends on: the intent, where and with which variables it
runs, and of the principal and the circumstances whatever some rule states.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

from runner.model.action import Exec
from runner.model.decision import Decision
from runner.model.intent import Intent
from runner.policy.cel import When
from runner.policy.circumstances import Often, Within
from runner.policy.layer import Layer
from runner.policy.matching import Leaf, Node

_ENTRIES_LIMIT = 1024
_COMMANDS_LIMIT = 64
"""A text with more is decided anew: keeping it would take more memory than deciding takes time."""
_WORDS_LIMIT = 16
"""Words of a single command up to which an intent is compared by its value; a larger one must be
the same object, which the reader gives again for the same text."""


class Memory:
    """The last decisions of one decision point."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        leaves = [*_leaves(rule.tree for layer in layers for rule in layer.rules)]
        names = {name for leaf in leaves if isinstance(leaf, When) for name in leaf.names}
        keys = {leaf.key for leaf in leaves}
        self._hours = [leaf for leaf in leaves if isinstance(leaf, Within)]
        self._often = [leaf for leaf in leaves if isinstance(leaf, Often)]
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
        self._entries: dict[Hashable, tuple[Intent, Decision]] = {}

    def key(self, action: Exec) -> Hashable:
        """What its decision depends on."""
        intent = action.intent
        told: Hashable = intent if _is_small(intent) else id(intent)
        if self._plain:
            return told, action.workspace, action.environment
        facts = action.facts
        return (
            told,
            action.workspace,
            action.environment,
            action.principal if self._principal else None,
            action.labels if self._labels else None,
            action.profile if self._profile else None,
            facts.now_s if self._now else None,
            tuple([leaf.contains(facts.now_s) for leaf in self._hours]),
            tuple([leaf.reached(facts.runs) for leaf in self._often]),
        )

    def recall(self, key: Hashable, action: Exec) -> Decision | None:
        """The decision about the same action, if it is still known."""
        found = self._entries.get(key)
        if found is None:
            return None
        # An identity means nothing but while its object lives, which is kept with it.
        same = found[0] is action.intent or _is_small(action.intent)
        return found[1] if same else None

    def keep(self, key: Hashable, action: Exec, decision: Decision) -> None:
        """Remember it."""
        if len(action.intent.commands) > _COMMANDS_LIMIT:
            return
        if len(self._entries) >= _ENTRIES_LIMIT:
            self._entries.clear()
        self._entries[key] = (action.intent, decision)


def _is_small(intent: Intent) -> bool:
    commands = intent.commands
    if len(commands) != 1 or intent.paths or intent.hosts or intent.constructs:
        return False
    return len(commands[0].words) <= _WORDS_LIMIT and not commands[0].redirects


def _leaves(nodes: Iterator[Node]) -> Iterator[Leaf]:
    for node in nodes:
        yield from node.plain
        yield from _leaves(iter((*node.any_of, *node.all_of, *node.none_of)))
