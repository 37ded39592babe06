"""What a decision point in another language is asked: one authorization request a command. Pure.

A word that only running would tell is never handed on as text. Where one stands among a command's
words, the lists it belongs to (`args`, `flags`, `paths` …) are left out of the request, and what is
sure all the same stands in `certain`: so a policy that asks for the whole list gets an error, and
not an answer about a part. What was found in Python and the like is advice; there the lists hold
what is sure.
"""

from __future__ import annotations

import ipaddress
import json
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from runner.model.action import Action, Connect, Exec, Request, Tool
from runner.model.intent import Word
from runner.model.principal import Principal
from runner.policy.subject import (
    ADVICE,
    NO_WORKSPACE,
    SHELL_LANGUAGES,
    NamedPath,
    Subject,
    clean_host,
    normal,
    subjects,
)

QUESTIONS_LIMIT = 4096
"""Most requests for one action; a text of a mebibyte holds fewer commands that do anything."""
SIZE_LIMIT = 4 << 20
"""Most characters in all words and arguments of one action together."""
DEPTH_LIMIT = 32
"""Deepest nesting in a tool's arguments."""
PATH_MAX = 4096
HOST_MAX = 253
"""Longest name that the domain name system has (RFC 1035, 2.3.4)."""
_SHOWN_LIMIT = 160
_TOO_LONG = f"is longer than the {SIZE_LIMIT >> 20} MiB that are taken"


class UnaskableError(Exception):
    """The action can't be put as a request; the message ends a sentence that begins with it."""


@dataclass(frozen=True, slots=True)
class Question:
    """One authorization request."""

    action: str
    """`exec`, `connect`, `request` or `tool`."""
    principal: Principal
    kind: str
    """Of resource: `Command`, `DynamicCommand`, `Text`, `Host` or `Tool`."""
    name: str
    """The resource's: the command's base name, a text's language, a host, a tool."""
    context: Mapping[str, Any]
    """JSON values."""
    words: Sequence[Word] = ()
    """A command's, its name first."""
    shown: str = ""
    incomplete: bool = False
    """Some list was left out of `context`."""
    stated_only: bool = False
    """What no policy speaks about is no matter: a path or host outside of commands."""
    server: str = ""
    """A tool's."""


def questions(action: Action) -> list[Question]:
    """Every request that the action comes to, for the agent and for the agent that started it.

    Both must be allowed: an agent that starts agents can't hand on more than it has.
    UnaskableError: a text that is no Unicode, or more than is taken.
    """
    asked = _of_exec(action) if isinstance(action, Exec) else [_of_network(action)]
    _check(action, asked)
    parent = action.principal.parent
    if parent is None or parent == action.principal.agent:
        return asked
    behind = replace(action.principal, agent=parent, parent=None)
    return asked + [replace(each, principal=behind) for each in asked]


def _of_exec(action: Exec) -> list[Question]:
    found = subjects(action)
    if len(found) > QUESTIONS_LIMIT:
        raise UnaskableError(f"holds more than {QUESTIONS_LIMIT} commands")
    common = _common(action)
    here = normal(action.workspace or NO_WORKSPACE)
    language = action.intent.language
    commands = [each for each in found if each.name is not None or each.defaulted]
    asked = [
        _of_subject(each, action, common, here)
        for each in commands
        if not _advised_dynamic(each)
    ]
    outside = [each for each in found if each.name is None and not each.defaulted]
    if outside or not asked:
        asked.append(_of_outside(outside, action, common, here, stated_only=bool(asked)))
    return [replace(each, name=each.name or language) for each in asked]


def _advised_dynamic(subject: Subject) -> bool:
    """Whether it is a name that advice leaves open: as for rules, no matter."""
    dynamic = subject.name is not None and subject.name.dynamic
    return dynamic and (subject.advice or any(name in ADVICE for name in subject.via))


def _of_subject(
    subject: Subject, action: Exec, common: Mapping[str, Any], here: str
) -> Question:
    whole = _lists(subject, here)
    advice = subject.advice
    left_out = set() if advice else _open(subject)
    context = {
        **common,
        **{name: value for name, value in whole.items() if name not in left_out},
        "certain": whole,
        "via": list(subject.via),
        "environment": sorted(subject.environment),
        "line": subject.line,
        "advice": advice,
        "dynamic": bool(left_out),
        "doubtful": subject.doubtful,
    }
    words: tuple[Word, ...] = ()
    kind, name = "Text", ""
    if subject.name is not None:
        words = (subject.name, *subject.arguments)
        kind = "DynamicCommand" if subject.name.dynamic else "Command"
        name = subject.name.text if subject.name.dynamic else _base(subject.name.text)
        if not subject.name.dynamic:
            context["program"] = subject.name.text
    return Question(
        "exec",
        action.principal,
        kind,
        name,
        context,
        words,
        subject.shown,
        incomplete=bool(left_out),
    )


def _of_outside(
    found: Sequence[Subject],
    action: Exec,
    common: Mapping[str, Any],
    here: str,
    *,
    stated_only: bool,
) -> Question:
    """All that a text names outside of commands, in one request."""
    joined = Subject(
        None,
        paths=tuple(path for each in found for path in each.paths),
        writes=tuple(path for each in found for path in each.writes),
        hosts=tuple(host for each in found for host in each.hosts),
        environment=frozenset(action.environment),
        shown=f"what the {action.intent.language} text names outside of commands",
        advice=all(each.advice for each in found),
    )
    return replace(_of_subject(joined, action, common, here), stated_only=stated_only)


def _base(name: str) -> str:
    return posixpath.basename(name.rstrip("/")) or name


def _common(action: Exec) -> dict[str, Any]:
    intent = action.intent
    context: dict[str, Any] = {
        "language": intent.language,
        "workspace": normal(action.workspace or NO_WORKSPACE),
        "profile": action.profile,
        "constructs": sorted({each.name for each in intent.constructs}),
        "commands": sorted(
            {_base(c.words[0].text) for c in intent.commands if c.words and not c.words[0].dynamic}
        ),
        "labels": dict(action.labels),
        "shell": intent.language in SHELL_LANGUAGES,
    }
    if action.facts.now_s is not None:
        context["now_s"] = action.facts.now_s
    return context


def _lists(subject: Subject, here: str) -> dict[str, Any]:
    _check_cost(subject)
    args = [word.text for word in subject.arguments if not word.dynamic]
    paths = [place for path in subject.paths if not path.dynamic for place in path.places]
    writes = [place for path in subject.writes if not path.dynamic for place in path.places]
    hosts = [clean_host(host.text) for host in subject.hosts if not host.dynamic]
    return {
        "args": args,
        "flags": _unique(flag for word in args for flag in _flags(word)),
        "paths": _unique(paths),
        "under": _unique(folder for path in paths for folder in above(path)),
        "outside": _unique(path for path in paths if not _inside(path, here)),
        "writes": _unique(writes),
        "writes_under": _unique(folder for path in writes for folder in above(path)),
        "writes_outside": _unique(path for path in writes if not _inside(path, here)),
        "hosts": _unique(hosts),
        "domains": _unique(domain for host in hosts for domain in domains(host)),
    }


def _check_cost(subject: Subject) -> None:
    """UnaskableError where all folders above all paths would come to too much."""
    places = [place for path in subject.paths for place in path.places]
    cost = sum(len(place) * (place.count("/") + 1) for place in places if len(place) <= PATH_MAX)
    cost += sum(
        len(host.text) * (host.text.count(".") + 1)
        for host in subject.hosts
        if len(host.text) <= HOST_MAX
    )
    if cost > 2 * SIZE_LIMIT:  # they come to half of it
        raise UnaskableError(_TOO_LONG)


def _inside(path: str, folder: str) -> bool:
    return folder == "/" or path == folder or path.startswith(folder + "/")


def _open(subject: Subject) -> set[str]:
    """The lists that only running would complete."""
    found: set[str] = set()
    if subject.doubtful or any(word.dynamic for word in subject.arguments):
        found |= {"args", "flags"}
    if subject.doubtful or _any_dynamic(subject.paths):
        found |= {"paths", "under", "outside"}
    if subject.doubtful or _any_dynamic(subject.writes):
        found |= {"writes", "writes_under", "writes_outside"}
    if subject.doubtful or any(host.dynamic for host in subject.hosts):
        found |= {"hosts", "domains"}
    return found


def _any_dynamic(paths: Iterable[NamedPath]) -> bool:
    return any(path.dynamic for path in paths)


def _flags(word: str) -> list[str]:
    """`-rf` as `-r` and `-f`, `--opt=value` as `--opt`; more than were meant, never fewer."""
    if word.startswith("--"):
        return [word.partition("=")[0]] if len(word) > 2 else []
    if word.startswith("-") and len(word) > 1:
        return [word.partition("=")[0], *("-" + letter for letter in word[1:].partition("=")[0])]
    return []


def above(path: str) -> list[str]:
    """A normalised absolute path and every folder that holds it, up to `/`.

    What is longer than any path can be (limits.h: PATH_MAX) lies nowhere.
    """
    found = [path]
    if len(path) > PATH_MAX:
        return found
    while path not in ("/", ""):
        path = posixpath.dirname(path)
        found.append(path)
    return found


def domains(host: str) -> list[str]:
    """A host and every domain that it is in; an address only itself."""
    if len(host) > HOST_MAX or address(host) is not None:
        return [host]
    labels = host.split(".")
    return [".".join(labels[index:]) for index in range(len(labels))]  # RFC 1034, 3.1


def address(host: str) -> str | None:
    """The host as an IP address in its usual spelling, if it is one."""
    try:
        return str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        return None


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _of_network(action: Connect | Request | Tool) -> Question:
    if isinstance(action, Tool):
        context: dict[str, Any] = {"arguments": dict(_flat(action.arguments))}
        shown = f"tool {action.name} of {action.server}"
        return Question(
            "tool", action.principal, "Tool", action.name, context, shown=shown[:_SHOWN_LIMIT],
            server=action.server,
        )  # fmt: skip
    host = clean_host(action.host)
    context = {"host": host, "domains": domains(host), "port": action.port}
    if (ip := address(host)) is not None:
        context["ip"] = ip
    if isinstance(action, Connect):
        context["protocol"] = action.protocol
        shown = f"{action.protocol} {host}:{action.port}"
        return Question("connect", action.principal, "Host", host, context, shown=shown)
    context |= {"method": action.method, "path": action.path}
    shown = f"{action.method} {host}:{action.port}{action.path}"[:_SHOWN_LIMIT]
    return Question("request", action.principal, "Host", host, context, shown=shown)


def _flat(arguments: Mapping[str, object]) -> Iterable[tuple[str, str]]:
    """A tool's arguments by dotted names: a text as it is, anything else as JSON says it."""
    left: list[tuple[str, object, int]] = [(k, v, 1) for k, v in arguments.items()]
    seen = 0
    while left:
        name, value, depth = left.pop()
        seen += 1
        if depth > DEPTH_LIMIT or seen > QUESTIONS_LIMIT:
            raise UnaskableError("has arguments that are too many or nested too deep")
        if not isinstance(name, str):
            raise UnaskableError("has an argument whose name is no text")
        if isinstance(value, Mapping) and value:
            left += [(f"{name}.{key}", inner, depth + 1) for key, inner in value.items()]
        elif isinstance(value, list | tuple) and value:
            left += [(f"{name}.{index}", inner, depth + 1) for index, inner in enumerate(value)]
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def _check(action: Action, asked: Sequence[Question]) -> None:
    size = 0
    seen: set[int] = set()
    texts: list[str] = [action.principal.agent, action.principal.parent or ""]
    texts += [action.principal.session or "", action.principal.tenant or ""]
    for each in asked:
        texts += [each.name, each.server]
        left: list[Any] = [each.context]
        while left:
            value = left.pop()
            if isinstance(value, str):
                texts.append(value)
            elif isinstance(value, dict | list) and id(value) not in seen:
                seen.add(id(value))  # what all share counts once
                left += [*value.keys(), *value.values()] if isinstance(value, dict) else value
    for text in texts:
        size += len(text)
        if "\0" in text or not _is_unicode(text):
            raise UnaskableError("holds a text that is not Unicode")
    if size > SIZE_LIMIT:
        raise UnaskableError(_TOO_LONG)


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
