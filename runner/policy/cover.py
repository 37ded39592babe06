"""Whether a rule surely matches whatever another one does. Pure, and right when it says yes.

`covers(whole, part)` says that `whole` holds at least as far as `part`, for every action there can
be; no says nothing. It follows `conditions` and `matching`, and `tests/unit/test_policy_lint.py`
holds it to them with actions that nobody chose.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from runner.model.decision import Effect
from runner.model.rule import Match, Rule
from runner.policy.globs import is_literal
from runner.policy.languages import disjoint, includes
from runner.policy.matching import CompiledRule
from runner.policy.notation import from_home, is_local, option_name
from runner.policy.subject import Kind

_FLAG = re.compile(r"-[A-Za-z0-9]")
_OF_ONE_COMMAND = ("commands", "args", "any_args", "ordered_args", "via")
"""What only a command has, so that nothing else can match beside it."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Under which reading the two are taken (`hold.Reading`)."""

    part_narrow: bool
    """The one that is covered allows."""
    whole_narrow: bool


def covers(whole: Rule, part: Rule) -> bool:
    """Whether `whole` holds at least as far as `part` about every subject; yes is sure.

    Of a subject that only may run like this, a rule that does not allow holds possibly at most: an
    `allow` that is covered by another effect holds surely there and the other one possibly.
    """
    sides = Sides(part.effect is Effect.ALLOW, whole.effect is Effect.ALLOW)
    if sides.whole_narrow and not sides.part_narrow:
        return False  # what is read widely holds where what is read narrowly does not
    return kinds(part) <= CompiledRule(whole).concerns and _covers(whole.match, part.match, sides)


def covers_match(whole: Match, part: Match) -> bool:
    """Whether `whole`, read widely, surely holds wherever `part` does, read narrowly."""
    return _covers(whole, part, Sides(part_narrow=True, whole_narrow=False))


def kinds(rule: Rule) -> frozenset[Kind]:
    """The kinds of subjects that a rule can match at all; none: it never matches."""
    return CompiledRule(rule).concerns & _kinds(rule.match)


def contradiction(match: Match) -> str | None:
    """What in a match can't be true at once, in one clause; None: nothing is known."""
    if not _kinds(match):
        return "a construct is no part of a command, and it states both"
    for one, other in _pairs(match):
        if one.commands and other.commands and _no_name_in_common(one.commands, other.commands):
            return f"no command is both {_or(one.commands)} and {_or(other.commands)}"
        for field, what in (("sessions", "session"), ("tenants", "tenant")):
            stated, beside = getattr(one, field), getattr(other, field)
            if stated and beside and all(disjoint(a, b) for a in stated for b in beside):
                return f"no {what} is both {_or(stated)} and {_or(beside)}"
        if one.uids and other.uids and not set(one.uids) & set(other.uids):
            return "no user has both numbers"
    return None


def _kinds(match: Match) -> frozenset[Kind]:
    found = frozenset(Kind)
    if any(getattr(match, field) for field in _OF_ONE_COMMAND):
        found &= {Kind.COMMAND}
    if match.constructs:
        found &= {Kind.CONSTRUCT}
    if match.paths or match.reads or match.writes or match.hosts:
        found -= {Kind.CONSTRUCT}
    for part in match.all_of:
        found &= _kinds(part)
    if match.any_of:
        found &= frozenset().union(*(_kinds(part) for part in match.any_of))
    return found


def _pairs(match: Match) -> Iterator[tuple[Match, Match]]:
    together = [match, *_all_below(match)]
    for index, one in enumerate(together):
        for other in together[index + 1 :]:
            yield one, other


def _all_below(match: Match) -> Iterator[Match]:
    """The matches that hold wherever this one does."""
    for part in match.all_of:
        yield part
        yield from _all_below(part)


def _no_name_in_common(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    return all(
        # A name with a folder matches by that or by its end, and `..` has two ends.
        "/" not in a + b
        and disjoint(a, b)
        and not any(includes(p, odd) for p in (a, b) for odd in ("", ".", ".."))
        for a in one
        for b in other
    )


def _covers(whole: Match, part: Match, sides: Sides) -> bool:
    if whole == part and _repeatable(whole, sides):
        return True
    if any(_node_covers(whole, node, part, sides) for node in (part, *_all_below(part))):
        return True
    return bool(part.any_of) and all(_covers(whole, each, sides) for each in part.any_of)


def _repeatable(match: Match, sides: Sides) -> bool:
    """Whether what both state holds for `whole` where it does for `part`.

    Under one reading it does, but for CEL, which has a bound on all its work. From narrow to wide
    it does too, but for a `not` with several conditions on words: read widely one word can't be
    both a flag and an operand, and read narrowly that is not looked at.
    """
    parts = (*match.any_of, *match.all_of, *match.none_of)
    if sides.part_narrow == sides.whole_narrow:
        return match.when is None and all(_repeatable(part, sides) for part in parts)
    return all(_repeatable(part, sides) for part in parts) and all(map(_simple, match.none_of))


def _simple(part: Match) -> bool:
    lists = (part.any_args, part.ordered_args, part.paths, part.reads, part.writes, part.hosts)
    words = len(part.args) + sum(map(bool, lists))
    return words <= 1 and not (part.any_of or part.all_of or part.none_of)


def _node_covers(whole: Match, node: Match, part: Match, sides: Sides) -> bool:
    """Whether each condition of `whole` follows from those of `node`, which holds with `part`."""
    return (
        _circumstances(whole, node, sides)
        and _names(whole.commands, node.commands, sides)
        and _some_text(whole.via, node.via)
        and _some_text(whole.environment, node.environment)
        and _some_text(whole.constructs, node.constructs)
        and all(_argument(each, node, sides) for each in whole.args)
        and (not whole.any_args or _any_argument(whole.any_args, node, sides))
        and (not whole.ordered_args or whole.ordered_args == node.ordered_args)
        and all(_on_paths(field, whole, node, sides) for field in ("paths", "reads", "writes"))
        and _patterns(whole.hosts, node.hosts, _host, sides)
        and (not whole.any_of or _any_of(whole, part, sides))
        and all(_covers(each, part, sides) for each in whole.all_of)
        and all(_among(each, node.none_of, sides) for each in whole.none_of)
    )


def _circumstances(whole: Match, node: Match, sides: Sides) -> bool:
    labels = dict(node.labels)
    once = sides.part_narrow and not sides.whole_narrow
    return (
        _some_text(whole.agents, node.agents)
        and _some_text(whole.sessions, node.sessions)
        and _some_text(whole.tenants, node.tenants)
        and (not whole.uids or (bool(node.uids) and set(node.uids) <= set(whole.uids)))
        and all(name in labels and includes(g, labels[name]) for name, g in whole.labels)
        and (not whole.hours or (bool(node.hours) and set(node.hours) <= set(whole.hours)))
        and (whole.frequency is None or _frequency(whole, node))
        and (whole.when is None or (once and whole.when == node.when))
    )


def _frequency(whole: Match, node: Match) -> bool:
    one, other = whole.frequency, node.frequency
    return (
        one is not None
        and other is not None
        and (one.of, one.window_s) == (other.of, other.window_s)
        and one.at_least <= other.at_least
    )


def _some_text(whole: tuple[str, ...], node: tuple[str, ...]) -> bool:
    """Some own text matches: so it does if the patterns of `node` are within those of `whole`."""
    if not whole:
        return True
    return bool(node) and all(any(includes(q, p) for q in whole) for p in node)


def _names(whole: tuple[str, ...], node: tuple[str, ...], sides: Sides) -> bool:
    if not whole:
        return True
    if "*" in node and "*" not in whole:
        return False  # a name that only running would tell matches `*` alone
    return bool(node) and all(any(_name(q, p, sides) for q in whole) for p in node)


def _name(whole: str, part: str, sides: Sides) -> bool:
    if "/" not in part:
        return "/" not in whole and includes(whole, part)
    if "/" in whole:
        return includes(whole, part, path=True)
    base = posixpath.basename(part)
    return not sides.whole_narrow and is_literal(part) and bool(base) and includes(whole, base)


def _argument(pattern: str, node: Match, sides: Sides) -> bool:
    """Of `args`: some argument matches this one pattern."""
    if pattern in node.args:
        return True
    return sides.part_narrow and any(_takes_all(pattern, each) for each in node.args)


def _any_argument(patterns: tuple[str, ...], node: Match, sides: Sides) -> bool:
    sources: list[tuple[str, ...]] = [(each,) for each in node.args]
    if node.any_args:
        sources.append(node.any_args)
    if sides.part_narrow:
        return any(
            all(any(_takes_all(q, p) for q in patterns) for p in source) for source in sources
        )
    # Read widely, one dynamic word can't be a flag and an operand: both must ask for the same.
    return any(
        set(source) <= set(patterns) and _asks_flag(source) == _asks_flag(patterns)
        for source in sources
    )


def _asks_flag(patterns: tuple[str, ...]) -> bool:
    return all(each.startswith("-") and each[1:2] != "-" for each in patterns)


def _takes_all(whole: str, part: str) -> bool:
    """Whether `whole` matches each literal argument that `part` does, bundles of flags too."""
    if whole == part:
        return True
    if not includes(whole, part):
        return False
    option = option_name(part)
    if option is not None and not includes(whole, option):
        # The value may be the next word, which only a pattern on the same option sees.
        value = len(option) + 1
        return option == option_name(whole) and includes(whole[value:], part[value:])
    return not _FLAG.fullmatch(part) or includes(whole, "-?*")


def _on_paths(field: str, whole: Match, node: Match, sides: Sides) -> bool:
    stated: tuple[str, ...] = getattr(whole, field)
    if _patterns(stated, getattr(node, field), _path, sides):
        return True
    # What is read is named. What is written may be somewhere else than a path of that name.
    return field == "paths" and _patterns(stated, node.reads, _path, sides)


def _patterns(
    whole: tuple[str, ...],
    node: tuple[str, ...],
    within: Callable[[str, str], bool],
    sides: Sides,
) -> bool:
    """Read narrowly every one matches `node`, so some one matches what is wider.

    Read widely, what a glob of the text could become is compared with the patterns one by one, so
    they must be the same.
    """
    if not whole:
        return True
    if not node:
        return False
    if sides.part_narrow:
        return all(any(within(q, p) for q in whole) for p in node)
    return set(node) <= set(whole)


def _path(whole: str, part: str) -> bool:
    if is_local(whole) or not is_local(part):
        # A path in whatever workspace is one at no place that is known.
        return is_local(whole) is is_local(part) and includes(
            from_home(whole), from_home(part), path=True
        )
    anywhere = (part[1:] or "/", "/**" + part[1:])  # in `/`, or in any other workspace
    return all(includes(from_home(whole), each, path=True) for each in anywhere)


def _host(whole: str, part: str) -> bool:
    one, other = (each.lower().rstrip(".") for each in (whole, part))
    return includes(one, other)


def _any_of(whole: Match, part: Match, sides: Sides) -> bool:
    if whole.any_of == part.any_of and all(_repeatable(each, sides) for each in whole.any_of):
        return True
    return any(_covers(each, part, sides) for each in whole.any_of)


def _among(part: Match, parts: tuple[Match, ...], sides: Sides) -> bool:
    simple = sides.part_narrow == sides.whole_narrow or _simple(part)
    return part in parts and simple and _repeatable(part, sides)


def _or(words: tuple[str, ...]) -> str:
    shown = " or ".join(f"'{word}'" for word in words[:3])
    return shown if len(words) <= 3 else f"{shown} or another of {len(words)}"
