"""What people who write rules try them with: loads what is under test, and decides by it.

Nothing here runs anything, and nothing of this machine's own policy has a say, so that a test says
the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from runner.adapters import decision_points
from runner.analysis.wrappers.table import Table, load
from runner.compile import budgets, grants, policy_layers
from runner.deciding import Policy, decide
from runner.errors import BadInputError, PolicyError
from runner.intake import build_request
from runner.looping import guarding
from runner.model.action import Facts
from runner.model.decision import Decision, Effect
from runner.model.place import Place
from runner.model.policy_text import PolicyTexts
from runner.model.principal import Principal
from runner.model.profile import Environment, Profile, Restrictions
from runner.model.request import ExecRequest
from runner.model.rule import CountOf, PolicyLayer
from runner.policy.cases import EXAMPLES_WORKSPACE, Case, Expected, Result, shown, try_case
from runner.policy.cases import try_examples as try_layer_examples
from runner.policy.combined import combine
from runner.policy.engine import RulesDecisionPoint
from runner.policy.lint import Check, Finding, Linted, Severity, lint
from runner.ports import DecisionPoint
from runner.schema.cases import CaseFile, LoadedCases, counted_key, is_cases, load_cases, refused
from runner.schema.policies import LANGUAGES, policy_texts
from runner.schema.profiles import is_path, load_profile
from runner.schema.rulesets import RuleSource, load_source, rule_files, yaml_files
from runner.schema.wrappers import is_wrappers, load_wrapper_file
from runner.settings import Settings

FOREIGN = tuple(f".{language}" for language in LANGUAGES)
"""How files of policies in other languages end."""
NOBODY_UID = 1000
"""Whose request a case is that does not say: the first ordinary user of most machines."""


@dataclass(frozen=True, slots=True)
class UnderTest:
    """A profile and the layers above it, ready to decide."""

    policy: Policy

    def decide(self, request: ExecRequest, facts: Facts) -> Decision:
        """What a run of this request would be told."""
        return decide(request, self.policy, facts).decision


@dataclass(frozen=True, slots=True)
class Found:
    """What `runner policy test` was pointed at."""

    cases: tuple[LoadedCases, ...]
    sources: tuple[RuleSource, ...]
    wrappers: Table
    """The shipped table, with the rows of the files of wrappers among what was named."""


def under_test(
    sources: Sequence[RuleSource],
    *,
    above: Sequence[Restrictions] = (),
    profile: Profile | None = None,
    wrappers: Table | None = None,
    points: Sequence[DecisionPoint] = (),
) -> UnderTest:
    """At most one profile and any number of policies, together.

    `above`: more layers. `profile`: the one to take where `sources` has none; without it one stands
    in that allows what the policies say nothing about. `wrappers`: the table that requests are
    read by; the shipped one else. `points`: what is asked beside the rules. PolicyError: two
    profiles.
    """
    profiles = [each.profile for each in sources if each.profile is not None]
    if len(profiles) > 1:
        names = " and ".join(each.source for each in profiles)
        raise PolicyError(f"{names} are two profiles, and a run has one; name one of them")
    chosen = profiles[0] if profiles else profile or _stand_in()
    policies = [*above, *(each.restrictions for each in sources if each.restrictions is not None)]
    denied = tuple(name for each in policies for name in each.environment_deny)
    environment = replace(chosen.environment, deny=(*chosen.environment.deny, *denied))
    rules = RulesDecisionPoint(policy_layers(chosen, policies))
    chosen = replace(chosen, environment=environment)
    table = wrappers if wrappers is not None else load()
    return UnderTest(
        Policy(
            chosen,
            combine((rules, *points)),
            grants(policies),
            table,
            budgets(chosen, policies),
            guarding(chosen, policies),
        )
    )


def in_force(settings: Settings) -> list[str]:
    """The files of every policy layer of this machine, and the profile that is the default."""
    return [*(str(path) for _, path in _layers_in_force(settings)), settings.profile.value]


def _layers_in_force(settings: Settings) -> Iterator[tuple[str, Path]]:
    """Each policy layer's name and file; those below a folder of policies hold nothing."""
    for folder in settings.policy_dirs.value:
        for path in rule_files(folder.path) if folder.path.is_dir() else ():
            if path.parent == folder.path:
                yield f"{folder.kind}:{path}", path


def load_sources(targets: Sequence[str], search: Sequence[Path] = ()) -> list[RuleSource]:
    """The rules in files, in folders and of profiles by name; each file once."""
    found: dict[str, RuleSource] = {}
    for target in targets:
        for name in _sources_of(target):
            source = load_source(name, search)
            found.setdefault(str(Path(source.path).resolve()), source)
    return [*found.values()]


def find(targets: Sequence[str], search: Sequence[Path] = ()) -> Found:
    """Cases and rules that are named: files, folders, profiles by name.

    With a file of rules go its cases, `NAME.cases.yaml` beside it. PolicyError, ProfileError: what
    is wrong in a file, or that nothing is there.
    """
    cases: dict[Path, LoadedCases] = {}
    for target in targets:
        for path in _cases_of(target):
            cases.setdefault(path.resolve(), load_cases(path))
    sources = tuple(load_sources(targets, search))
    return Found(tuple(cases.values()), sources, load_wrappers(targets))


def load_wrappers(targets: Sequence[str], onto: Table | None = None) -> Table:
    """The shipped table, or `onto`, with the rows of all files of wrappers that are named.

    PolicyError: what is wrong in a file.
    """
    table = onto if onto is not None else load()
    files: dict[Path, Path] = {}
    for target in targets:
        for path in _wrappers_of(target):
            files.setdefault(path.resolve(), path)
    for path in files.values():
        table = load_wrapper_file(path, table)
    return table


def try_cases(
    loaded: LoadedCases, search: Sequence[Path] = (), wrappers: Table | None = None
) -> Iterator[Result]:
    """Decide each case of a file under the policy that it names.

    `wrappers`: the table that they are read by, unless the file names its own.
    """
    named = [str(loaded.path.parent / name) for name in loaded.file.wrappers or ()]
    for name in named:
        if not _wrappers_of(name):
            raise PolicyError(f"{loaded.path}:1: wrappers names {name}, which holds no wrappers")
    sources, texts = _policy_of(loaded, search)
    tested = under_test(
        sources,
        wrappers=load_wrappers(named) if named else wrappers,
        points=decision_points(texts),
    )

    def answer(case: Case, facts: Facts) -> Decision:
        return tested.decide(_request(case, tested.policy.profile.name), facts)

    for case in _cases(loaded):
        yield try_case(case, tested.policy.counted, answer)


def foreign_policies(targets: Sequence[str]) -> list[str]:
    """Files of policies in other languages among what is named, as they would be typed."""
    files = (name for target in targets for each in policy_texts(target) for name, _ in each.files)
    return [name.partition(":")[2] for name in dict.fromkeys(files)]


def try_examples(source: RuleSource, wrappers: Table | None = None) -> Iterator[Result]:
    """Hold the rules of a file against their examples."""
    yield from try_layer_examples(source.layer, source.examples, wrappers)


def rule_places(
    settings: Settings, profile: str
) -> tuple[dict[tuple[str, str], Place], dict[str, Place]]:
    """Where each rule of a profile and of the layers in force stands, by layer and id; and `rules`.

    Of a file that can't be read any more nothing is told.
    """
    rules: dict[tuple[str, str], Place] = {}
    files: dict[str, Place] = {}
    named = [(layer, str(path)) for layer, path in _layers_in_force(settings)]
    for layer, name in [*named, ("", profile)]:
        try:
            source = load_source(name, settings.profile_dirs.value)
        except BadInputError:
            continue
        key = layer or source.layer.name
        files[key] = source.rules_place
        rules |= {(key, identity): place for identity, place in source.places.items()}
    return rules, files


@dataclass(frozen=True, slots=True)
class Told:
    """A finding and where it stands."""

    place: Place
    finding: Finding


def lint_sources(sources: Sequence[RuleSource], wrappers: Table | None = None) -> list[Told]:
    """What is wrong with rules, by themselves and with the others, in the order of the files.

    Policies hold together, and above each of the profiles; what a profile extends is its own file's
    business. Rules are held against their examples too, which are read by `wrappers`.
    """
    linted = [Linted(each.layer, each.own) for each in sources]
    policies = [one for one, source in zip(linted, sources, strict=True) if source.profile is None]
    told = []
    for one, source in zip(linted, sources, strict=True):
        above = [other for other in policies if other is not one]
        told += [_told(source, finding) for finding in lint(one, above)]
        failed = [result for result in try_examples(source, wrappers) if not result.holds]
        told += [Told(each.place, _failed(source, each)) for each in failed]
    return sorted(told, key=lambda each: each.place)


def _told(source: RuleSource, finding: Finding) -> Told:
    place = source.places.get(finding.rule) if finding.rule is not None else None
    return Told(place or source.rules_place, finding)


def _failed(source: RuleSource, result: Result) -> Finding:
    what, _, todo = result.failures[0].partition("; ")
    todo = todo or "change its match, or the example"
    return Finding(source.layer.name, None, Check.EXAMPLE, Severity.ERROR, what, todo)


def _stand_in() -> Profile:
    """Allows what no policy speaks about, so that it is the policies' own word that is tried."""
    policy = PolicyLayer("profile:any", default=Effect.ALLOW)
    return replace(load_profile("agent"), name="any", policy=policy, environment=Environment())


def _cases_of(target: str) -> list[Path]:
    path = Path(target)
    if path.is_dir():
        return [each for each in yaml_files(path) if is_cases(each)]
    if is_cases(path):
        return [path]
    beside = [path.with_name(f"{path.stem}.cases{suffix}") for suffix in (".yaml", ".yml")]
    return [each for each in beside if _is_file(target) and each.is_file()]


def _sources_of(target: str) -> Iterable[str]:
    path = Path(target)
    if path.is_dir():
        return [str(each) for each in rule_files(path)]
    if _is_file(target) and path.is_file() and (path.suffix in FOREIGN or is_wrappers(path)):
        return []
    return [] if is_cases(path) else [target]


def _is_file(target: str) -> bool:
    """Whether it names a file, and no profile."""
    return is_path(target) or target.endswith(FOREIGN)


def _wrappers_of(target: str) -> list[Path]:
    path = Path(target)
    if path.is_dir():
        return [each for each in yaml_files(path) if is_wrappers(each)]
    return [path] if is_path(target) and path.is_file() and is_wrappers(path) else []


def _policy_of(
    loaded: LoadedCases, search: Sequence[Path]
) -> tuple[list[RuleSource], list[PolicyTexts]]:
    """The rules, and the policies in other languages, that a file of cases names or has beside."""
    file, folder = loaded.file, loaded.path.parent
    if file.profile is None and file.policy is None:
        name = loaded.path.name.rpartition(".cases.")[0]
        beside = [folder / f"{name}{suffix}" for suffix in (".yaml", ".yml", *FOREIGN)]
        found = [each for each in beside if each.is_file()]
        if not found:
            raise PolicyError(
                f"{loaded.path}:1: there is no {beside[0]} to test; write one, or name it under "
                "profile or policy"
            )
        if found[0].suffix in FOREIGN:
            return [], policy_texts(found[0])
        return [load_source(str(found[0]), search)], []
    sources: list[RuleSource] = []
    texts: list[PolicyTexts] = []
    for name in file.policy or ():
        path = folder / name
        other = policy_texts(path)
        texts += other
        files = rule_files(path) if path.is_dir() else [] if other else [path]
        sources += [load_source(str(each), search) for each in files]
    if any(each.profile is not None for each in sources):
        raise PolicyError(f"{loaded.path}:1: policy names a profile; name it under profile")
    if file.profile is not None:
        text = str(folder / file.profile) if is_path(file.profile) else file.profile
        source = load_source(text, search)
        if source.profile is None:
            raise PolicyError(f"{loaded.path}:1: {text} is a policy; name it under policy")
        sources.append(source)
    return sources, texts


def _cases(loaded: LoadedCases) -> Iterator[Case]:
    for case, place in zip(loaded.file.cases, loaded.places, strict=True):
        try:
            checked = _checked(loaded, case)
        except BadInputError as error:
            raise refused(place, error) from None
        at = loaded.given(case, "at")
        calls: Mapping[str, int] = loaded.given(case, "calls") or {}
        yield Case(
            name=case.name or _spelled(case),
            place=place,
            program=checked.program,
            expected=Expected(case.expect, case.rule, case.reason, case.rewrite),
            principal=_principal(checked, loaded.given(case, "uid")),
            workspace=loaded.given(case, "workspace") or EXAMPLES_WORKSPACE,
            environment=tuple(name for name, _ in checked.environment),
            labels=checked.labels,
            at_s=datetime.fromisoformat(at).timestamp() if at is not None else None,
            calls=_counted(calls),
            links=loaded.given(case, "links") or {},
        )


def _checked(loaded: LoadedCases, case: CaseFile) -> ExecRequest:
    """The case as a request of this process, which knows what names and programs can be."""
    given = {
        key: loaded.given(case, key) for key in ("agent", "parent", "session", "tenant", "labels")
    }
    return build_request(
        shell=case.run,
        argv=case.argv,
        code=case.code,
        language=case.language,
        env=dict.fromkeys(loaded.given(case, "environment") or (), ""),
        **given,
    )


def _principal(checked: ExecRequest, uid: int | None) -> Principal:
    return replace(checked.principal, uid=uid if uid is not None else NOBODY_UID)


def _counted(calls: Mapping[str, int]) -> dict[tuple[CountOf, float], int]:
    return {counted_key(key): number for key, number in calls.items()}


def _spelled(case: CaseFile) -> str:
    text = case.run or " ".join(case.argv or ()) or case.code or ""
    return shown(text.strip())


def _request(case: Case, profile: str) -> ExecRequest:
    return ExecRequest(
        principal=case.principal,
        program=case.program,
        directory=case.workspace,
        profile=profile,
        environment=tuple((name, "") for name in case.environment),
        labels=case.labels,
    )
