"""A layer of rules as it stands in files: each rule with its place and its examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath

from runner.errors import PolicyError, ProfileError
from runner.model.place import Place
from runner.model.profile import Profile, Restrictions
from runner.model.rule import PolicyLayer
from runner.policy.cases import Example
from runner.schema.cases import is_cases
from runner.schema.library import LIBRARY
from runner.schema.policies import load_policy_file
from runner.schema.profile_file import PolicyFile, ProfileFile
from runner.schema.profiles import is_path, load_profile, profile_documents
from runner.schema.yaml import Document, parse, read_file

_SUFFIXES = (".yaml", ".yml")
_OF_PROFILES = frozenset(ProfileFile.model_fields) - frozenset(PolicyFile.model_fields)
"""Keys that a policy file can't have."""
_OF_PROFILE_RULES = frozenset({"mode"})


@dataclass(frozen=True, slots=True)
class RuleSource:
    """A profile, or a policy file."""

    source: str
    """The file's path, or the profile's name as it was given."""
    path: str
    layer: PolicyLayer
    profile: Profile | None
    """None for a policy file."""
    restrictions: Restrictions | None
    """None for a profile."""
    places: Mapping[str, Place]
    """Of each rule by its id, those of what a profile extends too."""
    own: frozenset[str]
    """Ids of the rules that stand in this very file."""
    rules_place: Place
    """Where `rules` stands in this file, or the file's first line."""
    examples: tuple[Example, ...]
    """Of its own rules."""


def is_profile(document: Document) -> bool:
    """Whether a file is a profile: it has a key that only profiles have. Else it is a policy."""
    data = document.data if isinstance(document.data, dict) else {}
    rules = data.get("rules")
    return bool(_OF_PROFILES & data.keys()) or (
        isinstance(rules, dict) and bool(_OF_PROFILE_RULES & rules.keys())
    )


def load_source(name_or_path: str, search: Sequence[FilePath] = ()) -> RuleSource:
    """The profile of that name, or the profile or policy in that file.

    `search`: folders of profiles, as `load_profile` takes them. ProfileError, PolicyError: a line
    for each problem.
    """
    if is_path(name_or_path) and not _is_profile_file(FilePath(name_or_path)):
        return _policy_source(name_or_path)
    return _profile_source(name_or_path, search)


def rule_files(folder: FilePath) -> list[FilePath]:
    """Files of rules in a folder and below it, sorted: YAML with `rules`, and no cases.

    Hidden folders are not looked into, other files of YAML are not meant.
    """
    return [path for path in yaml_files(folder) if not is_cases(path) and _has_rules(path)]


def yaml_files(folder: FilePath) -> list[FilePath]:
    """All files of YAML in a folder and below it, sorted; hidden ones are left out."""
    found: list[FilePath] = []
    left = [folder]
    while left:
        for entry in sorted(left.pop().iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir() and not entry.is_symlink():
                left.append(entry)
            elif entry.name.endswith(_SUFFIXES) and entry.is_file():
                found.append(entry)
    return sorted(found)


def _has_rules(path: FilePath) -> bool:
    try:
        data = _document(path).data
    except PolicyError:
        return False
    return isinstance(data, dict) and isinstance(data.get("rules"), dict)


def _is_profile_file(path: FilePath) -> bool:
    return is_profile(_document(path))


def _document(path: FilePath) -> Document:
    return parse(read_file(path, PolicyError), str(path), PolicyError)


def _policy_source(path: str) -> RuleSource:
    restrictions = load_policy_file(path)
    return _source(path, [_document(FilePath(path))], None, restrictions)


def _profile_source(name: str, search: Sequence[FilePath]) -> RuleSource:
    profile = load_profile(name, search)
    return _source(name, profile_documents(name, search), profile, None)


def _source(
    name: str,
    documents: Sequence[Document],
    profile: Profile | None,
    restrictions: Restrictions | None,
) -> RuleSource:
    if profile is not None:
        layer = profile.policy
    elif restrictions is not None:
        layer = restrictions.policy
    else:
        raise ProfileError(f"{name} is neither a profile nor a policy")
    *_, tip = documents
    rules = tip.marks.get(("rules",), tip.marks[()])
    return RuleSource(
        source=name,
        path=tip.source,
        layer=layer,
        profile=profile,
        restrictions=restrictions,
        places={
            identity: place
            for each in (*_included(documents), *documents)
            for identity, place in _places(each)
        },
        own=frozenset(identity for identity, _ in _places(tip)),
        rules_place=Place(tip.source, rules.line),
        examples=tuple(_examples(tip, layer.name)),
    )


def _included(documents: Sequence[Document]) -> Iterator[Document]:
    """The files of the rule sets that these take by name."""
    for document in documents:
        data = document.data if isinstance(document.data, dict) else {}
        rules = data.get("rules")
        names = rules.get("include") if isinstance(rules, dict) else None
        for name in names if isinstance(names, list) else ():
            yield _document(FilePath(LIBRARY.load(str(name)).source))


def _entries(document: Document) -> Iterator[tuple[int, str, Mapping[str, object]]]:
    data = document.data if isinstance(document.data, dict) else {}
    rules = data.get("rules")
    entries = rules.get("list") if isinstance(rules, dict) else None
    for index, rule in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(rule, dict) and isinstance(rule.get("id"), str):
            yield index, rule["id"], rule


def _places(document: Document) -> Iterator[tuple[str, Place]]:
    for index, identity, _ in _entries(document):
        yield identity, Place(document.source, document.marks["rules", "list", index].line)


def _examples(document: Document, layer: str) -> Iterator[Example]:
    for index, identity, rule in _entries(document):
        examples = rule.get("examples")
        for kind in ("catches", "passes"):
            texts = examples.get(kind) if isinstance(examples, dict) else None
            listed = [texts] if isinstance(texts, str) else texts
            for number, text in enumerate(listed if isinstance(listed, list) else ()):
                path = ("rules", "list", index, "examples", kind)
                mark = document.marks.get((*path, number)) or document.marks[path]
                place = Place(document.source, mark.line)
                yield Example(layer, identity, text, kind == "catches", place)
