"""The rule library: sets of rules that profiles and policy files take by name.

What ships stands in `profiles/rules`, one file a set; an organisation adds its own in
`/etc/runner/rules.d`. A name means one set: one that stands in both places is an error, for
either could be less than what whoever wrote the name relied on. A user has no folder of sets:
rules of one's own stand in a profile or a policy file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

from pydantic import Field

from runner.errors import PolicyError
from runner.model.rule import Rule
from runner.schema.base import IDENTIFIER, JsonSchema, NonEmpty, Strict, published, validate
from runner.schema.owned import SUFFIXES, Ownership, owned_folder
from runner.schema.problems import nearest
from runner.schema.rules import RuleFile, check_rules
from runner.schema.yaml import parse, read_file

SYSTEM_RULES = Path("/etc/runner/rules.d")
"""The organisation's rule sets."""


class RuleListFile(Strict):
    """`rules:` of a rule set; defaults are for whoever includes it to say."""

    list: tuple[RuleFile, ...] = Field(default=(), description="The rules of the set.")


class RuleSetFile(Strict):
    """One file of a rule library."""

    description: NonEmpty = Field(description="One line for lists.")
    rules: RuleListFile


@dataclass(frozen=True, slots=True)
class LibraryRule:
    """A rule of the library, with what tells people about it."""

    rule: Rule
    reason: str
    """Why it exists; empty where an organisation's set does not say."""
    catches: tuple[str, ...]
    """Shell texts that it speaks about."""
    passes: tuple[str, ...]
    """Shell texts that it lets be."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A set of rules that can be included by its name, its file's without `.yaml`."""

    name: str
    source: str
    """The file's path."""
    shipped: bool
    """It came with runner; else it is the organisation's."""
    description: str
    rules: tuple[LibraryRule, ...]


@dataclass(frozen=True, slots=True)
class RuleSetEntry:
    """A line of a list of sets."""

    name: str
    sources: tuple[str, ...]
    description: str
    rules: int
    error: str | None = None
    """Why it can't be included; None for a set that can."""


@dataclass(frozen=True)
class Library:
    """Where rule sets are looked up."""

    system: Path = SYSTEM_RULES
    """The organisation's folder: root's, writable by nobody else, and no symbolic link."""
    owner_uids: frozenset[int] = field(default=frozenset({0}))

    def names(self) -> tuple[str, ...]:
        """Every name that stands in either place, sorted. PolicyError: the folder is not root's."""
        return tuple(sorted({*shipped_rule_sets(), *self._system_names()}))

    def load(self, name: str) -> RuleSet:
        """The set of that name.

        PolicyError: there is none (it lists those there are), it stands in both places, its file
        is wrong (a line for each problem), or the organisation's folder is not root's.
        """
        shipped = shipped_rule_sets().get(name)
        own = self._system_text(name)
        if shipped is not None and own is not None:
            raise PolicyError(
                f"the rule set {name!r} is shipped and stands in {own[1]} too; give the "
                "organisation's another name, such as one with its own in front"
            )
        if own is not None:
            return _rule_set(*own, name, shipped=False)
        if shipped is not None:
            return _shipped(name)
        known = self.names()
        raise PolicyError(
            f"there is no rule set {name!r}{nearest(name, known) or ';'} "
            f"there are: {', '.join(known) or 'none'}"
        )

    def entries(self) -> list[RuleSetEntry]:
        """Every set, sorted by name; those that can't be included with their `error`."""
        return [self._entry(name) for name in self.names()]

    def _entry(self, name: str) -> RuleSetEntry:
        try:
            found = self.load(name)
        except PolicyError as problem:
            return RuleSetEntry(name, (), "", 0, str(problem))
        return RuleSetEntry(name, (found.source,), found.description, len(found.rules))

    @property
    def _ownership(self) -> Ownership:
        return Ownership("the organisation's rules", self.owner_uids, False, PolicyError)

    def _system_names(self) -> Iterator[str]:
        with owned_folder(self.system, self._ownership) as folder:
            for name in folder.names() if folder is not None else ():
                yield name.rpartition(".")[0]

    def _system_text(self, name: str) -> tuple[str, str] | None:
        """Text and path of the organisation's set, if there is one."""
        # What is no identifier could be a path; no file of a library has such a name.
        if not IDENTIFIER.fullmatch(name):
            return None
        with owned_folder(self.system, self._ownership) as folder:
            if folder is None:
                return None
            found = [
                (text, f"{self.system}/{name}{suffix}")
                for suffix in SUFFIXES
                if (text := folder.read(name + suffix)) is not None
            ]
        if len(found) > 1:
            raise PolicyError(f"{found[0][1]} and {found[1][1]} are one name; remove one of them")
        return found[0] if found else None


LIBRARY = Library()
"""What ships, and this machine's organisation's."""


@cache
def shipped_rule_sets() -> Mapping[str, Path]:
    """The files of the sets that come with runner, by name, sorted.

    In an installed wheel they stand in `runner/_data/profiles/rules`, in a source checkout in
    `profiles/rules` beside the package.
    """
    package = Path(str(resources.files("runner")))
    for folder in (package / "_data" / "profiles", package.parent / "profiles"):
        found = sorted((folder / "rules").glob("*.yaml"))
        if found:
            return {path.stem: path for path in found}
    return {}


@cache
def _shipped(name: str) -> RuleSet:
    """What ships is as constant as the code: read once."""
    path = shipped_rule_sets()[name]
    return _rule_set(read_file(path, PolicyError), str(path), name, shipped=True)


@lru_cache(maxsize=64)
def _rule_set(text: str, source: str, name: str, *, shipped: bool) -> RuleSet:
    """Remembered by the text itself, for reading it takes milliseconds."""
    document = parse(text, source, PolicyError)
    file = validate(document, RuleSetFile, PolicyError, (check_rules,))
    rules = tuple(_library_rule(rule) for rule in file.rules.list)
    return RuleSet(name, source, shipped, file.description.strip(), rules)


def _library_rule(rule: RuleFile) -> LibraryRule:
    examples = rule.examples
    return LibraryRule(
        rule.to_model(),
        (rule.reason or "").strip(),
        examples.catches or (),
        examples.passes or (),
    )


def rule_set_json_schema() -> JsonSchema:
    """The JSON Schema (draft 2020-12) of a file of a rule library."""
    return published(RuleSetFile, "rule-set.json", "A set of rules for runner")
