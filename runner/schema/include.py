"""The rules of files that include, leave out and add rules, merged into those of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.errors import BadInputError, PolicyError
from runner.model.rule import Rule
from runner.schema.library import Library
from runner.schema.problems import Problem, nearest, raise_problems
from runner.schema.profile_file import LayerRulesFile
from runner.schema.yaml import Document

Link = tuple[Document, LayerRulesFile]
"""A file, and what it states about rules."""


def merged_rules(
    chain: Sequence[Link], library: Library, error: type[BadInputError]
) -> tuple[Rule, ...]:
    """The rules of a chain of files, outermost first.

    Each file adds the sets that it includes, takes out what it names in `without`, then adds its
    own. A set that was included further out adds only those of its rules that are not there. Two
    rules of one id are an error, but a file may leave one out and have its own in its place.
    `error`: a line for each problem, those of a broken set too.
    """
    merging = _Merging(library)
    for document, rules in chain:
        merging.include(document, rules)
        merging.leave_out(document, rules)
        merging.add(document, rules)
    raise_problems(merging.problems, error)
    return tuple(merging.rules.values())


@dataclass(slots=True)
class _Merging:
    library: Library
    rules: dict[str, Rule] = field(default_factory=dict)
    homes: dict[str, str] = field(default_factory=dict)
    """The set that a rule came from, by the rule's id; not of rules that a file states itself."""
    problems: list[Problem] = field(default_factory=list)

    def include(self, document: Document, file: LayerRulesFile) -> None:
        for index, name in enumerate(file.include):
            path = ("rules", "include", index)
            try:
                found = self.library.load(name)
            except PolicyError as problem:
                self.problems.append(document.problem(path, str(problem)))
                continue
            for each in found.rules:
                identity = each.rule.id
                if identity in self.rules and self.homes.get(identity) != name:
                    self.problems.append(
                        document.problem(
                            path,
                            f"{identity!r} of the rule set {name!r} is a rule of "
                            f"{self._home(identity)} already; rules have ids of their own",
                        )
                    )
                    continue
                self.rules[identity] = each.rule
                self.homes[identity] = name

    def leave_out(self, document: Document, file: LayerRulesFile) -> None:
        for index, identity in enumerate(file.without):
            if self.rules.pop(identity, None) is None:
                known = tuple(self.rules)
                guess = nearest(identity, known)
                guess = guess or "; name a rule of the extended profile or of an included set"
                message = f"there is no rule {identity!r} to leave out{guess}"
                self.problems.append(document.problem(("rules", "without", index), message))
            self.homes.pop(identity, None)

    def add(self, document: Document, file: LayerRulesFile) -> None:
        for index, rule in enumerate(file.list):
            if rule.id in self.rules:
                path = ("rules", "list", index, "id")
                message = f"{rule.id!r} is a rule of {self._home(rule.id)}; choose another id, or "
                message += "name it in rules.without"
                self.problems.append(document.problem(path, message))
            self.rules[rule.id] = rule.to_model()
            self.homes.pop(rule.id, None)

    def _home(self, identity: str) -> str:
        home = self.homes.get(identity)
        return f"the rule set {home!r}" if home is not None else "what this extends"
