"""A change as a unified diff, in the form that git writes and applies (git-diff(1)).

Both sides may be hostile: what a diff costs grows with their size and no faster. Lines that stand
once on each side are taken as anchors (Bram Cohen's "patience diff"); what lies between two of
them is compared line by line as far as that is bounded, and else told as replaced.
"""

from __future__ import annotations

import difflib
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from runner.model.outcome import Change

CONTEXT_LINES = 3
MOST_BYTES = 8 << 20
"""Of each side; what is larger is told like a binary file."""
_BINARY_HEAD_BYTES = 8000
"""As git: a NUL among the first so many bytes makes a file binary (xdiff-interface.c)."""
_MOST_PAIRS = 250_000
"""Lines times lines that are compared between two anchors; more are told as replaced."""

Match = tuple[int, int, int]
"""Where equal lines begin in the old and in the new text, and how many they are."""


@dataclass(frozen=True, slots=True)
class Side:
    """A path before or after."""

    type: str
    """`file` or `symlink`."""
    executable: bool
    content: bytes | None
    """A file's bytes or a link's target; None: it can't be shown."""

    @property
    def mode(self) -> str:
        """As git writes it."""
        if self.type == "symlink":
            return "120000"
        return "100755" if self.executable else "100644"


@dataclass(frozen=True, slots=True)
class FileDiff:
    """One change, for people and for `git apply`."""

    change: Change
    text: bytes
    """Empty for a folder."""
    added: int | None
    """Lines; None: binary, or not shown."""
    removed: int | None
    note: str | None = None
    """Why it is not shown, or not whole."""


def file_diff(change: Change, old: Side | None, new: Side | None, note: str | None) -> FileDiff:
    """The diff of one change; None for a side that is not there or is a folder."""
    if old is None and new is None:
        return FileDiff(change, b"", None, None, note)
    path = change.path
    shown = _quoted("a/" + path), _quoted("b/" + path)
    head = [b"diff --git %s %s\n" % shown]
    if old is None and new is not None:
        head.append(f"new file mode {new.mode}\n".encode())
    elif new is None and old is not None:
        head.append(f"deleted file mode {old.mode}\n".encode())
    elif old is not None and new is not None and old.mode != new.mode:
        head.append(f"old mode {old.mode}\nnew mode {new.mode}\n".encode())
    names = (b"/dev/null" if old is None else shown[0], b"/dev/null" if new is None else shown[1])
    before, after = _content(old), _content(new)
    if before is None or after is None or _is_binary(before) or _is_binary(after):
        if before is None or after is None or before != after:
            head.append(b"Binary files %s and %s differ\n" % names)
        return FileDiff(change, b"".join(head), None, None, note)
    body = list(unified(before, after))
    if body:
        head.append(b"--- %s\n+++ %s\n" % names)
    added = sum(line[:1] == b"+" for line in body)
    removed = sum(line[:1] == b"-" for line in body)
    return FileDiff(change, b"".join(head + body), added, removed, note)


def _content(side: Side | None) -> bytes | None:
    if side is None:
        return b""
    return None if side.content is None or len(side.content) > MOST_BYTES else side.content


def _is_binary(content: bytes) -> bool:
    return b"\0" in content[:_BINARY_HEAD_BYTES]


def unified(before: bytes, after: bytes) -> Iterator[bytes]:
    """Hunks of a unified diff, a line each, all ending with a newline."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    old, new = _by_newline(old), _by_newline(new)
    for hunk in _grouped(_opcodes(matches(old, new), len(old), len(new))):
        first, last = hunk[0], hunk[-1]
        yield b"@@ -%s +%s @@\n" % (_range(first[1], last[2]), _range(first[3], last[4]))
        for tag, i1, i2, j1, j2 in hunk:
            if tag == "equal":
                yield from (_line(b" ", line) for line in old[i1:i2])
                continue
            yield from (_line(b"-", line) for line in old[i1:i2])
            yield from (_line(b"+", line) for line in new[j1:j2])


def matches(old: Sequence[bytes], new: Sequence[bytes]) -> list[Match]:
    """Runs of equal lines, in order, as long as they can be."""
    joined: list[Match] = []
    for i, j, size in _matches(old, new):
        if joined and joined[-1][0] + joined[-1][2] == i and joined[-1][1] + joined[-1][2] == j:
            joined[-1] = (*joined[-1][:2], joined[-1][2] + size)
        else:
            joined.append((i, j, size))
    return joined


def _matches(old: Sequence[bytes], new: Sequence[bytes]) -> list[Match]:
    found: list[Match] = []
    i = j = 0
    for anchor_i, anchor_j in (*_anchors(old, new), (len(old), len(new))):
        if anchor_i < i or anchor_j < j:
            continue  # swallowed by what goes on from the anchor before
        found += _between(old, new, (i, anchor_i), (j, anchor_j))
        i, j = anchor_i, anchor_j
        while i < len(old) and j < len(new) and old[i] == new[j]:
            i, j = i + 1, j + 1
        if i > anchor_i:
            found.append((anchor_i, anchor_j, i - anchor_i))
    return found


def _anchors(old: Sequence[bytes], new: Sequence[bytes]) -> list[tuple[int, int]]:
    """Lines that stand once on each side, as many as stand in the same order."""
    once_old = {line for line, times in Counter(old).items() if times == 1}
    once_new = {line for line, times in Counter(new).items() if times == 1}
    unique = once_old & once_new
    place = {line: j for j, line in enumerate(new) if line in unique}
    pairs = [(i, place[line]) for i, line in enumerate(old) if line in unique]
    # The longest increasing subsequence, by piles.
    tops: list[int] = []
    piles: list[int] = []
    back: list[int] = []
    for number, (_, j) in enumerate(pairs):
        pile = bisect_left(tops, j)
        back.append(piles[pile - 1] if pile else -1)
        if pile == len(tops):
            tops.append(j)
            piles.append(number)
        else:
            tops[pile] = j
            piles[pile] = number
    chain = []
    number = piles[-1] if piles else -1
    while number >= 0:
        chain.append(pairs[number])
        number = back[number]
    return chain[::-1]


def _between(
    old: Sequence[bytes], new: Sequence[bytes], olds: tuple[int, int], news: tuple[int, int]
) -> Iterator[Match]:
    i1, i2, j1, j2 = *olds, *news
    start = i1, j1
    while i1 < i2 and j1 < j2 and old[i1] == new[j1]:
        i1, j1 = i1 + 1, j1 + 1
    if i1 > start[0]:
        yield *start, i1 - start[0]
    end = i2, j2
    while i1 < i2 and j1 < j2 and old[i2 - 1] == new[j2 - 1]:
        i2, j2 = i2 - 1, j2 - 1
    if 0 < (i2 - i1) * (j2 - j1) <= _MOST_PAIRS:
        matcher = difflib.SequenceMatcher(None, old[i1:i2], new[j1:j2])
        for i, j, size in matcher.get_matching_blocks():
            if size:
                yield i1 + i, j1 + j, size
    if end[0] > i2:
        yield i2, j2, end[0] - i2


Opcode = tuple[str, int, int, int, int]


def _opcodes(found: Sequence[Match], old_lines: int, new_lines: int) -> Iterator[Opcode]:
    i = j = 0
    for at_i, at_j, size in (*found, (old_lines, new_lines, 0)):
        if i < at_i or j < at_j:
            yield "replace", i, at_i, j, at_j
        if size:
            yield "equal", at_i, at_i + size, at_j, at_j + size
        i, j = at_i + size, at_j + size


def _grouped(codes: Iterator[Opcode]) -> Iterator[list[Opcode]]:
    """Hunks: changes with the lines around them."""
    hunk: list[Opcode] = []
    lead: Opcode | None = None
    for tag, i1, i2, j1, j2 in codes:
        if tag != "equal":
            if lead is not None:
                hunk.append(lead)
                lead = None
            hunk.append((tag, i1, i2, j1, j2))
            continue
        if hunk and i2 - i1 > 2 * CONTEXT_LINES:
            end = i1 + CONTEXT_LINES
            yield [*hunk, ("equal", i1, end, j1, j1 + CONTEXT_LINES)]
            hunk = []
        if hunk:
            lead = (tag, i1, i2, j1, j2)
        else:
            skip = max(i1, i2 - CONTEXT_LINES)
            lead = (tag, skip, i2, j1 + skip - i1, j2)
    if hunk:
        if lead is not None:
            _, i1, i2, j1, j2 = lead
            size = min(CONTEXT_LINES, i2 - i1)
            hunk.append(("equal", i1, i1 + size, j1, j1 + size))
        yield hunk


def _by_newline(lines: Sequence[bytes]) -> list[bytes]:
    """Lines end with a line feed and nothing else: bytes.splitlines takes a carriage return too."""
    joined: list[bytes] = []
    held: list[bytes] = []
    for line in lines:
        held.append(line)
        if line.endswith(b"\n"):
            joined.append(b"".join(held))
            held = []
    return [*joined, b"".join(held)] if held else joined


def _range(start: int, end: int) -> bytes:
    length = end - start
    if length == 1:
        return b"%d" % (start + 1)
    return b"%d,%d" % (start if length == 0 else start + 1, length)


def _line(sign: bytes, line: bytes) -> bytes:
    if line.endswith(b"\n"):
        return sign + line
    return sign + line + b"\n\\ No newline at end of file\n"


_ESCAPES = {7: "a", 8: "b", 9: "t", 10: "n", 11: "v", 12: "f", 13: "r", 34: '"', 92: "\\"}


def _quoted(path: str) -> bytes:
    """As git quotes names (`core.quotePath`): C-style, where something in it needs it."""
    raw = path.encode("utf-8", "surrogateescape")
    if all(32 <= byte < 127 and byte not in (34, 92) for byte in raw):
        return raw
    shown = [
        f"\\{_ESCAPES[byte]}"
        if byte in _ESCAPES
        else chr(byte)
        if 32 <= byte < 127
        else f"\\{byte:03o}"
        for byte in raw
    ]
    return f'"{"".join(shown)}"'.encode("ascii")
