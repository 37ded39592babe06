"""Globs: does a pattern match a text, and could it match one of which only the ends are known.

`*`, `?`, `[abc]`, `[!abc]`; a backslash takes the next character as it is. For paths none of these
match `/`, and `**` matches anything. What a pattern costs grows no faster than the text, whatever
either holds: both come from people whom runner does not know.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_REGEX_LIMIT = 256
"""Characters of a path up to which the regular expression is the faster way: it takes time by the
text's length times that of a component."""
_MASKS_LIMIT = 512
"""Characters that an automaton remembers."""


@dataclass(frozen=True, slots=True)
class Token:
    """One step of a pattern."""

    piece: str
    """A regular expression for one character that it takes."""
    star: bool = False
    """It takes any number of them; else exactly one."""


class Glob:
    """One compiled pattern."""

    __slots__ = ("_automata", "_itself", "_path", "_regex", "_text", "pattern", "tokens")

    def __init__(self, pattern: str, *, path: bool = False) -> None:
        """`path`: `*` stays within one component, and `/x/**` matches `/x` too."""
        self.pattern = pattern
        self._path = path
        self._text = pattern if is_literal(pattern) else None
        self.tokens = _tokens(pattern, path=path)
        self._regex = re.compile(_regex(self.tokens), re.DOTALL)
        self._automata: tuple[_Automaton, _Automaton] | None = None
        below = path and pattern.endswith("/**") and len(pattern) > 3
        self._itself = glob(pattern[:-3], path=True) if below else None

    def matches(self, text: str) -> bool:
        """Whether the whole text matches."""
        if self._text is not None:
            return text == self._text
        if self._path and len(text) > _REGEX_LIMIT:
            matches = self._both()[0].takes(text)
        else:
            matches = self._regex.fullmatch(text) is not None
        return matches or (self._itself is not None and self._itself.matches(text))

    def could_match(self, prefix: str, suffix: str) -> bool:
        """Whether some text that starts and ends like this matches, as far as the ends tell."""
        forward, backward = self._both()
        if forward.survives(prefix) and backward.survives(suffix[::-1]):
            return True
        return self._itself is not None and self._itself.could_match(prefix, suffix)

    def _both(self) -> tuple[_Automaton, _Automaton]:
        if self._automata is None:
            self._automata = _Automaton(self.tokens), _Automaton(self.tokens[::-1])
        return self._automata


@functools.lru_cache(maxsize=8192)
def glob(pattern: str, *, path: bool = False) -> Glob:
    """The compiled pattern; compiled once."""
    return Glob(pattern, path=path)


def globs(patterns: Iterable[str], *, path: bool = False) -> tuple[Glob, ...]:
    """Each of them compiled."""
    return tuple(glob(pattern, path=path) for pattern in patterns)


def is_literal(pattern: str) -> bool:
    """Whether it matches exactly one text, itself."""
    return not any(c in pattern for c in "*?[\\")


class _Automaton:
    """All ways to match at once: bit `i` is set where the first `i` tokens may be used up."""

    __slots__ = ("_end", "_masks", "_pieces", "_stars")

    def __init__(self, tokens: Sequence[Token]) -> None:
        self._pieces = [re.compile(token.piece, re.DOTALL) for token in tokens]
        self._stars = sum(1 << i for i, token in enumerate(tokens) if token.star)
        self._end = 1 << len(tokens)
        self._masks: dict[str, int] = {}

    def takes(self, text: str) -> bool:
        """Whether the whole text matches."""
        return bool(self._after(text) & self._end)

    def survives(self, text: str) -> bool:
        """Whether a text that goes on after `text` can still match."""
        return bool(self._after(text))

    def _after(self, text: str) -> int:
        masks, stars = self._masks, self._stars
        states = 1 | (1 & stars) << 1
        for char in text:
            mask = masks.get(char)
            if mask is None:
                mask = self._mask(char)
            states &= mask
            states = (states & stars) | (states & ~stars) << 1
            # A star may stand for nothing; two never stand beside each other.
            states |= (states & stars) << 1
            if not states:
                return 0
        return states

    def _mask(self, char: str) -> int:
        if len(self._masks) >= _MASKS_LIMIT:
            self._masks.clear()
        mask = sum(1 << i for i, piece in enumerate(self._pieces) if piece.fullmatch(char))
        self._masks[char] = mask
        return mask


def _tokens(pattern: str, *, path: bool) -> list[Token]:
    any_one = "[^/]" if path else "."
    tokens: list[Token] = []
    index = 0
    while index < len(pattern):
        char = pattern[index]
        index += 1
        if char == "*":
            stars = 1
            while index < len(pattern) and pattern[index] == "*":
                stars += 1
                index += 1
            tokens.append(Token("." if stars > 1 else any_one, star=True))
            continue
        if char == "?":
            piece = any_one
        elif char == "[" and (end := _class_end(pattern, index)) is not None:
            piece = ("(?!/)" if path else "") + _class(pattern[index:end])
            index = end + 1
        else:
            if char == "\\" and index < len(pattern):
                char = pattern[index]
                index += 1
            piece = re.escape(char)
        tokens.append(Token(piece))
    return tokens


def _class_end(pattern: str, start: int) -> int | None:
    first = start + 1 if pattern[start : start + 1] in ("!", "^") else start
    end = pattern.find("]", first + 1)
    return end if end >= 0 else None


def _class(body: str) -> str:
    negated = body[:1] in ("!", "^")
    members = re.sub(r"([\\\[\]&~|^])", r"\\\1", body[1:] if negated else body)
    try:
        re.compile(f"[{members}]")
    except re.error:
        members = re.escape(body)
    return f"[{'^' if negated else ''}{members}]"


def _regex(tokens: Sequence[Token]) -> str:
    """A regular expression that never goes back to a star once what follows it was found.

    The first place at which what follows a star fits is the best one: whatever can come after a
    later place can come after it. Between two stars that cross `/` that holds for all that stands
    between them, as a whole. A group in a look-ahead that is then repeated keeps Python from
    trying the other places (as in its own fnmatch).
    """
    blocks: list[list[Token]] = [[]]
    for token in tokens:
        if token.star and token.piece == ".":
            blocks.append([])
        else:
            blocks[-1].append(token)
    if len(blocks) == 1:
        return _block(blocks[0], "0", last=True)
    middle = [
        f"(?=(?P<b{i}>.*?{_block(block, str(i), last=False)}))(?P=b{i})"
        for i, block in enumerate(blocks[1:-1], start=1)
    ]
    first, last = _block(blocks[0], "0", last=False), _block(blocks[-1], "z", last=True)
    return f"{first}{''.join(middle)}.*{last}"


def _block(tokens: Sequence[Token], name: str, *, last: bool) -> str:
    """What stands between two stars that cross `/`; stars in it do not."""
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token.star:
            pieces.append([])
        else:
            pieces[-1].append(token.piece)
    texts = ["".join(piece) for piece in pieces]
    found = texts[0]
    for i, text in enumerate(texts[1:], start=1):
        if i == len(texts) - 1 and last:
            found += f"[^/]*{text}"
        else:
            found += f"(?=(?P<s{name}_{i}>[^/]*?{text}))(?P=s{name}_{i})"
    return found
