"""Permissions of Claude Code (`settings.json`) as rules.

Source of their meaning: https://code.claude.com/docs/en/permissions. Deny beats ask beats allow,
as here. A rule is `Tool` or `Tool(specifier)`; what no rule matches gets what `defaultMode` says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runner.errors import PolicyError
from runner.schema.foreign.commands import EVERYTHING, allowed, refused
from runner.schema.foreign.draft import Carried, Draft, Fate, homes, shown
from runner.schema.problems import unknown
from runner.schema.yaml import read_file

KIND = "the permissions of Claude Code"
_EFFECTS = ("deny", "ask", "allow")
_RULE = re.compile(r"([A-Za-z_][^()]*)(?:\((.*)\))?", re.DOTALL)
_NO_WORD = re.compile("[\0\ud800-\udfff]")
_READERS = frozenset({"Read", "Glob", "Grep", "LS", "NotebookRead"})
_WRITERS = frozenset({"Edit", "Write", "MultiEdit", "NotebookEdit"})
_MODES: Mapping[str, tuple[str, str, str]] = {
    "default": ("ask", "ask", ""),
    "manual": ("ask", "ask", ""),
    "acceptEdits": ("ask", "ask", "commands that change files are asked about too"),
    "auto": ("ask", "ask", "nobody but a person or a service answers in place of a classifier"),
    "plan": ("deny", "deny", ""),
    "dontAsk": ("deny", "deny", ""),
    "bypassPermissions": ("allow", "ask", "what can't be read is asked about"),
}
"""`rules.default`, what can't be told gets, and in what that is stricter."""
_HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?|\*|\[?[0-9A-Fa-f:.]+\]?")


@dataclass(frozen=True, slots=True)
class _Rule:
    """`tool(specifier)`, as it stands in the file."""

    place: str
    text: str
    tool: str
    specifier: str | None
    """None: all that the tool does."""


def import_settings(path: str) -> Draft:
    """The draft of a policy from a settings file; PolicyError: one sentence on what is wrong."""
    permissions = _permissions(path)
    draft = Draft(path, KIND)
    mode = permissions.get("defaultMode", "default")
    if not isinstance(mode, str) or mode not in _MODES:
        raise PolicyError(
            f"{path}: permissions.defaultMode {unknown('mode', str(mode), tuple(_MODES))}"
        )
    draft.default, draft.on_unknown, why = _MODES[mode]
    if why:
        draft.note(f"permissions.defaultMode {mode}", "", Fate.STRICTER, why)
    listed = {effect: _rules(path, permissions, effect) for effect in _EFFECTS}
    if any(rule.tool == "Bash" and _is_all(rule.specifier) for rule in listed["deny"]):
        draft.default = draft.on_unknown = "deny"
    for effect in _EFFECTS:
        for rule in listed[effect]:
            draft.told += 1
            if effect == "allow":
                _allow(draft, rule)
            else:
                _refuse(draft, rule, effect)
    for key in permissions:
        if key not in (*_EFFECTS, "defaultMode"):
            draft.note(
                f"permissions.{shown(key)}", "", Fate.LEFT_OUT, "a profile says what a run sees"
            )
    return draft


def _permissions(path: str) -> Mapping[str, Any]:
    text = read_file(path, PolicyError)
    try:
        data = json.loads(text.removeprefix("\ufeff"), object_pairs_hook=_unique)
    except RecursionError:
        raise PolicyError(f"{path} nests too deep for settings") from None
    except ValueError as error:
        raise PolicyError(f"{path} is no settings file in JSON: {error}") from None
    permissions = data.get("permissions") if isinstance(data, dict) else None
    if not isinstance(permissions, dict):
        raise PolicyError(
            f"{path} holds no permissions; give a settings.json with "
            '{"permissions": {"allow": […], "ask": […], "deny": […]}}'
        )
    return permissions


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)} is there twice")
    return found


def _rules(path: str, permissions: Mapping[str, Any], effect: str) -> list[_Rule]:
    rules = permissions.get(effect, [])
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise PolicyError(f"{path}: permissions.{effect} must be a list of texts")
    found = []
    for index, rule in enumerate(rules):
        place = f"permissions.{effect}[{index}]"
        parts = _RULE.fullmatch(rule.strip())
        if _NO_WORD.search(rule):
            raise PolicyError(
                f"{path}: {place} {shown(rule)} holds a NUL or half a surrogate pair, which no "
                "path or word can"
            )
        if parts is None:
            raise PolicyError(
                f"{path}: {place} {shown(rule)} is no rule; write Tool or Tool(specifier), such "
                "as Bash(git status)"
            )
        found.append(_Rule(place, rule, parts[1], (parts[2] or "").strip() or None))
    return found


def _is_all(specifier: str | None) -> bool:
    return specifier is None or _unified(specifier).strip(" *") == ""


def _allow(draft: Draft, rule: _Rule) -> None:
    if rule.tool == "Bash":
        text = rule.specifier
        carried = Carried(EVERYTHING) if text is None else allowed(_unified(text))
        if carried.match is None:
            draft.note(rule.place, rule.text, Fate.LEFT_OUT, carried.why)
            return
        if carried.why:
            draft.note(rule.place, rule.text, Fate.STRICTER, carried.why)
        draft.add(f"{rule.place} {shown(rule.text)}", rule.text, "allow", carried.match)
        return
    if rule.tool in _READERS | _WRITERS:
        why = "no command is allowed for the files that it names; a profile says what a run sees"
    elif rule.tool == "WebFetch":
        why = "no command is allowed for the hosts that it names; a profile grants the network"
    else:
        why = _no_tool(rule.tool)
    draft.note(rule.place, rule.text, Fate.LEFT_OUT, why)


def _refuse(draft: Draft, rule: _Rule, effect: str) -> None:
    verb = "deny" if effect == "deny" else "ask about"
    message = f"The imported permissions {verb} {shown(rule.text)}; do without, or have it changed."
    if rule.tool == "Bash":
        text = rule.specifier
        carried = Carried(EVERYTHING) if text is None else refused(_unified(text))
    elif rule.tool in _READERS and rule.specifier is None:
        carried = Carried(None, "there is no such tool here, and commands that read are no tool")
    elif rule.tool in _READERS | _WRITERS:
        key = "reads" if rule.tool in _READERS else "writes"
        carried = _files(key, rule.specifier or "//**")
    elif rule.tool == "WebFetch":
        carried = _hosts(rule.specifier)
    else:
        carried = Carried(None, _no_tool(rule.tool))
    draft.refuse(rule.place, rule.text, effect, carried, message)


def _no_tool(tool: str) -> str:
    what = "a tool of an MCP server" if tool.startswith("mcp__") else f"the tool {tool}"
    return f"rules here speak of commands, and {what} is none"


def _unified(specifier: str) -> str:
    """With `:*` at the end, the older spelling of ` *`, as that."""
    specifier = specifier.strip()
    return specifier[:-2] + " *" if specifier.endswith(":*") else specifier


def _files(key: str, specifier: str) -> Carried:
    """Files by a pattern in the syntax of gitignore, anchored as Claude Code says."""
    pattern, why = specifier.strip(), "it counts for any command that names the file"
    if pattern.startswith("!"):
        return Carried(None, "a pattern that takes back others can't be said")
    folder = pattern.endswith("/")
    pattern = pattern.rstrip("/") or "/"
    if pattern.startswith("//"):
        bases: tuple[str, ...] = ("/" + pattern.lstrip("/"),)
    elif pattern == "~" or pattern.startswith("~/"):
        bases = homes(pattern)
        why += ", below anybody's home"
    else:
        inner = re.sub(r"^(?:\.?/)+", "", pattern)
        bases = (inner if inner.startswith("**/") else f"**/{inner}",)
        why += ", wherever it lies"
    bases = tuple("/**" if base.strip("/*.") == "" else base for base in bases)
    if any(part in (".", "..") for base in bases for part in base.split("/")):
        return Carried(None, "its path holds . or .. within")
    ends_open = any(base.endswith("*") for base in bases)
    below = () if all(base.endswith("/**") for base in bases) else tuple(f"{b}/**" for b in bases)
    patterns = [*below] if folder and below else [*bases, *below]
    match: dict[str, Any] = {key: patterns}
    if key == "writes" and "/**" in bases:
        match["not"] = [{"writes": "/dev/null"}]
    return Carried(match, why, doubtful=True, doubt=match if ends_open else {key: [*bases]})


def _hosts(specifier: str | None) -> Carried:
    why = "it counts for any command that names the host"
    if specifier is None:
        return Carried({"hosts": "*"}, why)
    kind, colon, host = specifier.strip().partition(":")
    if kind != "domain" or not colon or not _HOST.fullmatch(host):
        return Carried(None, "it names no domain")
    return Carried({"hosts": host.lower()}, why, doubtful=True)
