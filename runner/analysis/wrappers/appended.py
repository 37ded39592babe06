"""The words that xargs and GNU parallel append, where they stand in the text itself."""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Sequence

from runner.analysis.context import Call
from runner.analysis.wrappers.options import Taken
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Access, Word

_RUNS_LIMIT = 32
"""Commands that one wrapper is read to run; of more than so many the words are dynamic."""
_TEXT_LIMIT = 16_384
"""Characters up to which xargs surely appends all to one command (xargs(1): at least 128 KiB)."""
_XARGS_WORD = re.compile(r"""(?:[^\s'"\\]|\\.|'[^'\n]*'|"[^"\n]*")+""", re.DOTALL)
_XARGS_LINE = re.compile(r"""(?:[^'"\\\n]|\\.|'[^'\n]*'|"[^"\n]*")+""", re.DOTALL)
_QUOTED = re.compile(r"""'([^'\n]*)'|"([^"\n]*)"|\\(.)|(.)""", re.DOTALL)
_NULL = frozenset({"-0", "--null"})
_HARMLESS = {
    "xargs": _NULL
    | {"-r", "--no-run-if-empty", "-t", "--verbose", "-P", "--max-procs", "-x", "--exit", "-n",
       "--max-args", "-I", "-i", "--replace", "-o", "--open-tty", "--process-slot-var"},
    "parallel": frozenset(
        {"-k", "--keep-order", "-t", "--verbose", "--bar", "--eta", "--progress", "-u", "--ungroup",
         "--line-buffer", "--lb", "--no-notice", "--will-cite", "-j", "--jobs", "-P", "--max-procs",
         "-r", "--no-run-if-empty", "--delay", "--timeout", "--retries", "--joblog", "--results",
         "--halt", "--tmpdir"}
    ),
}  # fmt: skip
"""Options that do not change which words are appended to what, or are followed here."""


def xargs(row: Wrapper, taken: Taken, call: Call, rest: Sequence[Word]) -> list[list[Word]] | None:
    """The commands that xargs runs with a literal input, each as its words; None: can't be told."""
    fed = _input(call)
    if row.name != "xargs" or fed is None or not _followed(row, taken):
        return None
    marks = [value.text or "{}" for value in taken.values(row.replace)]
    if len(marks) > 1 or any(word.dynamic for word in rest):
        return None
    items = _items(fed, null=bool(taken.values(_NULL)), lines=bool(marks))
    if items is None:
        return None
    if marks:
        runs = [[Word(word.text.replace(marks[0], item)) for word in rest] for item in items]
    else:
        most = taken.values(frozenset({"-n", "--max-args"}))
        if most and not re.fullmatch(r"[1-9]\d{0,5}", most[-1].text):
            return None
        size = int(most[-1].text) if most else max(1, len(items))
        parts = [items[start : start + size] for start in range(0, len(items), size)] or [[]]
        runs = [[*rest, *map(Word, part)] for part in parts]
    return runs if len(runs) <= _RUNS_LIMIT else None


def parallel(row: Wrapper, taken: Taken, call: Call, rest: Sequence[Word]) -> list[str] | None:
    """The shell texts that GNU parallel runs for literal inputs; None: can't be told.

    `rest`: the words in front of `:::`. Each input is quoted, unless it is the command itself.
    """
    if row.name != "parallel" or not _followed(row, taken) or any(w.dynamic for w in rest):
        return None
    behind = taken.rest[len(rest) :]
    combinations = _combinations(behind) if behind else _lines(call)
    template = " ".join(word.text for word in rest)
    if combinations is None or (row.replace and re.search(r"\{[^}\s]+\}", template)):
        return None
    if not template:
        return [" ".join(each) for each in combinations]
    quoted = [" ".join(map(shlex.quote, each)) for each in combinations]
    if "{}" in template:
        return [template.replace("{}", each) for each in quoted]
    return [f"{template} {each}" for each in quoted]


def _followed(row: Wrapper, taken: Taken) -> bool:
    known = _HARMLESS[row.name]
    return not taken.doubtful and all(
        option in known and not value.dynamic for option, value in taken.options
    )


def _input(call: Call) -> str | None:
    """All that it reads, where that is sure."""
    if any(use.access is Access.READ for use in call.redirects):
        return None
    given = call.stdin if call.stdin is not None else call.place.fed
    if given is None or given.dynamic or len(given.text) > _TEXT_LIMIT:
        return None
    return given.text


def _items(text: str, *, null: bool, lines: bool) -> list[str] | None:
    """As xargs(1) takes its input apart; None: a quote is not closed."""
    if null:
        return text.removesuffix("\0").split("\0")
    pattern = _XARGS_LINE if lines else _XARGS_WORD
    if pattern.sub("", text).strip():
        return None
    found = [each.lstrip() if lines else each for each in pattern.findall(text)]
    return ["".join(map("".join, _QUOTED.findall(each))) for each in found if each]


def _lines(call: Call) -> list[tuple[str, ...]] | None:
    fed = _input(call)
    if fed is None:
        return None
    lines = fed.splitlines()
    return [(line,) for line in lines] if len(lines) <= _RUNS_LIMIT else None


def _combinations(behind: Sequence[Word]) -> list[tuple[str, ...]] | None:
    """Every combination of what stands behind each `:::`."""
    lists: list[list[str]] = []
    for word in behind:
        if word.dynamic:
            return None
        if word.text == ":::":
            lists.append([])
        elif word.text in ("::::", ":::+", "::::+"):
            return None
        else:
            lists[-1].append(word.text)
    count = 1
    for each in lists:
        count *= len(each)
    return [*itertools.product(*lists)] if count <= _RUNS_LIMIT else None
