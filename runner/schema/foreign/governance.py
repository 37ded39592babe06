"""Policies of Microsoft's Agent Governance Toolkit (`governance.toolkit/v1`) as rules.

Their meaning is that of `agentmesh.governance.policy` in agent-governance-toolkit-core 5.0.0, with
its default strategy: of the rules that match, the one with the highest priority wins; whatever it
says but `allow` refuses, or waits for an approval. Here the strictest wins, which refuses no less.

Conditions compare what an application tells of a call. Rules here know commands, so only keys that
can be read as one of a command's parts are carried over.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from runner.errors import PolicyError
from runner.schema.base import NonEmpty, Strict, validate
from runner.schema.foreign.commands import allowed, refused
from runner.schema.foreign.draft import Carried, Draft, Fate, escaped, shown
from runner.schema.yaml import parse, read_file

KIND = "a policy of the Agent Governance Toolkit"
_PERIODS = {"second": "1s", "minute": "1m", "hour": "1h", "day": "1d"}
_STRENGTH = {"allow": 0, "require_approval": 1, "deny": 2, "warn": 2, "log": 2}
_COMMANDS = frozenset({"command", "action.command", "params.command", "args.command"})
_TOOLS = frozenset({"tool_name", "tool", "tool.name", "action.tool", "action.tool_name"})
_HOSTS = frozenset({"host", "domain", "action.host", "params.host", "params.domain"})
_PATHS = frozenset({"path", "file_path", "action.path", "params.path", "params.file_path"})
_EQUAL = re.compile(r"(\w+(?:\.\w+)*)\s*(==|!=)\s*(?:'([^'\"]+)'|\"([^'\"]+)\")")
_AMONG = re.compile(r"(\w+(?:\.\w+)*)\s+in\s+\[([^\]]*)\]")
_TERMS_LIMIT = 50
"""Alternatives in a condition; more is a riddle."""
_TEXT_LIMIT = 2_000
"""Characters of a condition that the toolkit reads."""
_PLAIN_PATH = re.compile(r"/|/(?!\.{1,2}(?:/|$))[^/]+(?:/(?!\.{1,2}(?:/|$))[^/]+)*")


class _RuleFile(Strict):
    name: NonEmpty
    description: str | None = None
    stage: Literal["pre_input", "pre_tool", "post_tool", "pre_output"] = "pre_tool"
    condition: str
    action: Literal["allow", "deny", "warn", "require_approval", "log"] = "deny"
    limit: (
        Annotated[
            str, StringConstraints(pattern=r"^\s*[0-9]{1,9}\s*/\s*(second|minute|hour|day)\s*$")
        ]
        | None
    ) = None
    approvers: tuple[NonEmpty, ...] = ()
    priority: int = 0
    enabled: bool = True


class _PolicyFile(Strict):
    api_version: Literal["governance.toolkit/v1", "1.0"] = Field(
        default="governance.toolkit/v1", alias="apiVersion"
    )
    version: object = None
    name: NonEmpty
    description: str | None = None
    extends: str | tuple[str, ...] | None = None
    agent: str | None = None
    agents: tuple[NonEmpty, ...] = ()
    scope: str = "global"
    rules: tuple[_RuleFile, ...] = ()
    default_action: Literal["allow", "deny"] = "deny"
    created_at: object = None
    updated_at: object = None


@dataclass(frozen=True, slots=True)
class _Source:
    """One rule, and where it stands."""

    place: str
    rule: _RuleFile
    agents: tuple[str, ...]
    """Globs; empty: every agent."""

    @property
    def text(self) -> str:
        return self.rule.name


def import_policy(path: str) -> Draft:
    """The draft of a policy from a file; PolicyError: a line for each thing that is wrong."""
    document = parse(read_file(path, PolicyError), path, PolicyError)
    if not isinstance(document.data, dict):
        raise PolicyError(f"{path} is no policy; give one with apiVersion: governance.toolkit/v1")
    file = validate(document, _PolicyFile, PolicyError)
    if file.extends:
        raise PolicyError(
            f"{path} extends other policies, whose rules would be missing; import each of them "
            "by itself, and this one without extends"
        )
    names = [name for name in (file.agent, *file.agents) if name]
    if not names:
        raise PolicyError(f'{path} names no agent and applies to none; say agents: ["*"]')
    agents = () if "*" in file.agents else tuple(dict.fromkeys(escaped(name) for name in names))
    draft = Draft(path, KIND)
    # Of an agent that no policy names the toolkit denies all.
    draft.default = "allow" if file.default_action == "allow" and not agents else "deny"
    draft.on_unknown = "ask" if draft.default == "allow" else "deny"
    if file.default_action == "allow" and agents:
        draft.add(f"default_action: allow, for {shown(', '.join(names))}", "default", "allow",
                  {"command": "*", "agents": [*agents]})  # fmt: skip
    elif draft.default == "allow":
        why = "what can't be read is asked about"
        draft.note("default_action allow", "", Fate.STRICTER, why)
    for index, rule in enumerate(file.rules):
        draft.told += 1
        source = _Source(f"rules[{index}]", rule, agents)
        if rule.enabled and rule.stage == "pre_tool":
            _rule(draft, source)
            _outranked(draft, source, file.rules[:index], file.rules[index + 1 :])
        else:
            why = "it is not enabled" if not rule.enabled else f"there is no stage {rule.stage}"
            draft.note(source.place, source.text, _missing(rule), why)
    return draft


def _missing(rule: _RuleFile) -> Fate:
    return Fate.LEFT_OUT if rule.action == "allow" or not rule.enabled else Fate.LOOSER


def _rule(draft: Draft, source: _Source) -> None:
    rule = source.rule
    allows = rule.action == "allow"
    carried, gone = _condition(rule.condition, allows=allows)
    if carried.match is None:
        draft.note(source.place, source.text, _missing(rule), carried.why)
        return
    if gone:
        draft.note(source.place, source.text, _missing(rule), gone)
    match = dict(carried.match)
    if source.agents:
        match["agents"] = [*source.agents]
    told = (rule.description or "").strip().rstrip(".") or f"The policy's action is {rule.action}"
    message = f"{told} (imported rule {shown(rule.name)})."
    if allows:
        if carried.why:
            draft.note(source.place, source.text, Fate.STRICTER, carried.why)
        draft.add(f"{source.place} {shown(source.text)}", source.text, "allow", match)
    elif rule.action == "require_approval":
        carried = Carried(match, carried.why, carried.doubtful)
        other = {"ask": {"approvers": [escaped(who) for who in rule.approvers]}}
        draft.refuse(source.place, source.text, "ask", carried, message,
                     **(other if rule.approvers else {}))  # fmt: skip
    else:
        carried = Carried(match, carried.why, carried.doubtful)
        draft.refuse(source.place, source.text, "deny", carried, message)
    if rule.limit is not None and _STRENGTH[rule.action] < _STRENGTH["deny"]:
        _limit(draft, source, rule.limit, match)


def _limit(draft: Draft, source: _Source, limit: str, match: Mapping[str, Any]) -> None:
    count, _, period = limit.partition("/")
    least, window = int(count), _PERIODS[period.strip()]
    calls = {"calls": {"of": "agent", "window": window, "at_least": least}} if least else {}
    why = "its limit counts the agent's runs, all of them, and several commands of a run once"
    draft.note(source.place, source.text, Fate.LOOSER, why)
    draft.add(f"{source.place} {shown(source.text)}, limit {shown(limit)}", source.text, "deny",
              {**match, **calls}, on_doubt="passes",
              message=f"The imported policy's limit is {limit.strip()}; wait.")  # fmt: skip


def _outranked(
    draft: Draft, source: _Source, before: Sequence[_RuleFile], after: Sequence[_RuleFile]
) -> None:
    """Say so where a stricter rule with less priority wins now."""
    mine = source.rule
    loses = [rule for rule in before if rule.priority < mine.priority]
    loses += [rule for rule in after if rule.priority <= mine.priority]
    wins = [
        rule.name
        for rule in loses
        if rule.enabled
        and rule.stage == mine.stage
        and _STRENGTH[rule.action] > _STRENGTH[mine.action]
    ]
    if wins:
        why = f"where {shown(wins[0])} matches too, that wins, whatever its priority"
        draft.note(source.place, source.text, Fate.STRICTER, why)


def _condition(text: str, *, allows: bool) -> tuple[Carried, str]:
    """The condition as a match, and why some of its alternatives are gone."""
    if len(text) > _TEXT_LIMIT:
        return Carried(None, f"the toolkit takes more than {_TEXT_LIMIT} characters for false"), ""
    terms = text.split(" or ")
    if len(terms) > _TERMS_LIMIT:
        return Carried(None, f"it holds more than {_TERMS_LIMIT} alternatives"), ""
    found: list[Mapping[str, Any]] = []
    whys: list[str] = []
    gone = ""
    doubtful = False
    for term in terms:
        atoms = [(atom.strip(), _atom(atom.strip(), allows=allows)) for atom in term.split(" and ")]
        unknown = [shown(atom) for atom, carried in atoms if carried.match is None]
        known = [carried for _, carried in atoms if carried.match is not None]
        if not known or (unknown and allows):
            gone = f"{unknown[0]} is nothing that rules know of a command"
            continue
        if unknown:
            whys.append(f"{unknown[0]} counts as true")
        whys += [carried.why for carried in known if carried.why]
        doubtful = doubtful or any(carried.doubtful for carried in known)
        matches = [carried.match for carried in known if carried.match is not None]
        found.append(matches[0] if len(matches) == 1 else {"all": matches})
    if not found:
        return Carried(None, gone), ""
    match = found[0] if len(found) == 1 else {"any": found}
    return Carried(match, "; ".join(dict.fromkeys(whys)), doubtful), gone


def _atom(text: str, *, allows: bool) -> Carried:
    key, values, other = _compared(text)
    if not values or not all(values):
        return Carried(None)
    if key in _TOOLS:
        return _other_tool(values[0]) if other else Carried({"command": [*map(escaped, values)]})
    if other:
        return Carried(None)
    if key in _COMMANDS:
        return _commands(values, allows=allows)
    # No command is allowed for what it names.
    for keys, name in () if allows else ((_HOSTS, "hosts"), (_PATHS, "paths")):
        if key in keys and (name == "hosts" or all(map(_PLAIN_PATH.fullmatch, values))):
            return Carried({name: [*map(escaped, values)]}, doubtful=True)
    return Carried(None)


def _compared(text: str) -> tuple[str, list[str], bool]:
    """A key, what it is compared with, and whether it must be another; no values: not read."""
    if equal := _EQUAL.fullmatch(text):
        return equal[1], [equal[3] or equal[4]], equal[2] == "!="
    if among := _AMONG.fullmatch(text):
        items = [item.strip() for item in among[2].split(",")]
        return among[1], [item.strip("'\"") for item in items if item], False
    return "", [], False


def _other_tool(name: str) -> Carried:
    return Carried({"command": "*", "not": [{"command": escaped(name)}]})


def _commands(values: Sequence[str], *, allows: bool) -> Carried:
    if allows and any("*" in value for value in values):
        return Carried(None)  # there a * is a *
    each = [allowed(value) if allows else refused(value) for value in values]
    matches = [carried.match for carried in each if carried.match is not None]
    if len(matches) < len(each):
        return Carried(None)
    whys = dict.fromkeys(carried.why for carried in each if carried.why)
    return Carried(
        matches[0] if len(matches) == 1 else {"any": matches},
        "; ".join(whys),
        any(carried.doubtful for carried in each),
    )
