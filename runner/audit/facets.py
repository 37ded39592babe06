"""What of an event can be searched for: short texts, each in a field.

Pure, and the same for an index, for a search without one, and for who follows the log. An event is
what its bytes say (`json.loads` of the body); one that was doctored has fewer facets, or none.
"""

from __future__ import annotations

from typing import Final


class Field:
    """In which sense an event is searched for: plain numbers, which stand in search indexes."""

    KIND: Final = 0
    AGENT: Final = 1
    SESSION: Final = 2
    PROFILE: Final = 3
    EFFECT: Final = 4
    RULE: Final = 5
    PROGRAM: Final = 6
    HOST: Final = 7
    LABEL: Final = 8
    """`name=value`."""
    TERMINATION: Final = 9


Facet = tuple[int, str]

MOST_CHARACTERS = 300
"""Of a facet: twice what a name of an agent may have by the command line, and any file or host
name. Longer texts are searched for by their beginning."""


def facets(event: object) -> list[Facet]:
    """All of an event; the same one may be there twice. Never raises."""
    if not isinstance(event, dict):
        return []
    found: list[tuple[int, object]] = [(Field.KIND, event.get("kind"))]
    who = event.get("principal")
    if isinstance(who, dict):
        found += (Field.AGENT, who.get("agent")), (Field.SESSION, who.get("session"))
    data = event.get("data")
    if isinstance(data, dict):
        found += (Field.PROFILE, data.get("profile")), (Field.TERMINATION, data.get("termination"))
        if "decision" in data:
            _of_a_decision(data, found)
    return [(f, t[:MOST_CHARACTERS]) for f, t in found if isinstance(t, str)]


def _of_a_decision(data: dict[str, object], found: list[tuple[int, object]]) -> None:
    decision = data["decision"]
    if isinstance(decision, dict):
        found.append((Field.EFFECT, decision.get("effect")))
        found += [(Field.RULE, each.get("id")) for each in _dicts(decision.get("rules"))]
    labels = data.get("labels")
    if isinstance(labels, dict):
        found += [(Field.LABEL, f"{name}={value}") for name, value in labels.items()]
    intent = data.get("intent")
    if isinstance(intent, dict) and "programs" in intent:
        found += [(Field.PROGRAM, each) for each in _list(intent["programs"])]
        found += [(Field.HOST, each) for each in _list(intent.get("hosts"))]
    elif isinstance(program := data.get("program"), dict):
        # An event that is older than the names; of a shell's text they are not known.
        words = _list(program.get("argv")) or _list(program.get("interpreter"))
        found += [
            (Field.PROGRAM, each.rpartition("/")[2]) for each in words[:1] if type(each) is str
        ]


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _dicts(value: object) -> list[dict[str, object]]:
    return [each for each in _list(value) if isinstance(each, dict)]
