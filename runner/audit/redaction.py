"""Takes secrets out of what is about to be written. Pure, but for asking for the key once.

In a secret's place stands `[redacted:KIND:DIGEST]`: what kind it is, and the beginning of
HMAC-SHA-256 over it, so that equal secrets are seen to be equal and, without the key, none can be
guessed. What was redacted stays as it is when it is redacted again.

A plain digest over a text that held a secret would let somebody guess it who knows the rest of the
text; so a `sha256` beside a redacted text is replaced as well.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from string import ascii_lowercase, ascii_uppercase

import orjson

from runner.audit.canonical import Written
from runner.audit.known_secrets import forms
from runner.audit.redact_patterns import Pattern
from runner.audit.secret_shapes import (
    NAME_NEEDLES,
    NEEDLES,
    NO_SECRETS,
    SECRET_NAME,
    SEPARATOR,
    SHAPES,
    Shape,
)
from runner.model.event import EventDraft
from runner.model.principal import Principal

FINGERPRINT_DIGITS = 32
"""128 bits: nobody finds two that are alike (RFC 2104, 5: no fewer than 80)."""
DIGEST_DIGITS = 12
"""48 bits: two secrets in a million are alike by chance with odds of 1 to 280 million."""
MARK = re.compile(r"\[redacted:[a-z0-9-]{1,40}:[0-9a-f]{12}\]")

Needles = tuple[tuple[str, int], ...]
_ANY = ("\0", 0)  # beside needles: something else may be there
_MARKED = "[redacted:"
_DIGESTED = "sha256"
_OWN_KEY = re.compile(r"[a-z0-9_]{1,24}")
"""Keys of an event's own vocabulary, which who reads the log looks for."""
_NAME_BEFORE = re.compile(r"-{0,2}[\w.-]{0,64}[=:]?")
_CALLED = re.compile(r"[A-Za-z_][\w.]*")
_NAME_END = 80  # characters of a name, from its end: the expression takes their square
_DEEPEST = 64  # as `canonical` allows
_OWN_WORDS = ('"tokens":', '"private_proc"')
"""Words in the events of an ordinary run that hold a needle, as they stand there, and tell none."""


_STEMS = ("--", "gh", "gl", "ldap", "pass")
"""Parts of several needles, seldom in an event."""


def _by_stem(
    needles: Needles, stems_too: Sequence[str] = _STEMS
) -> tuple[tuple[str, Needles], ...]:
    """Needles that hold another text, behind that: where it is not, they are not either."""
    texts = sorted(
        {*stems_too, *(needle for needle, _ in needles)}, key=lambda text: (len(text), text)
    )
    stems: dict[str, list[tuple[str, int]]] = {}
    for needle, number in sorted(needles):
        stem = next(text for text in texts if text in needle)
        stems.setdefault(stem, []).append((needle, number))
    return tuple((stem, tuple(held)) for stem, held in stems.items())


_BY_STEM = _by_stem((*NEEDLES, *((name, _ANY[1]) for name in NAME_NEEDLES)))

# For most events a quicker look is enough: at what is left of their texts without the digits of
# hashes. What holds a needle holds, without these, what is left of the needle.
_DROPPED = b"0123456789abcdefABCDEF"
_TO_LOWER = bytes.maketrans(ascii_uppercase.encode(), ascii_lowercase.encode())
_STEMS_LEFT = ("gh", "gl", "lp", "pss")
_TELLING = 3  # characters that must be left; fewer stand in too many texts


def _left_of(text: str) -> str:
    """An ASCII text in lower case without the digits of hashes."""
    return text.encode().translate(_TO_LOWER, _DROPPED).decode()


def _looked_for(needles: Iterable[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What to look for in what is left of texts, and what in the texts; one or the other tells."""
    texts = {*needles}
    short = {each for each in texts if len(_left_of(each)) < _TELLING}
    left = {(_left_of(each), 0) for each in texts - short}
    return tuple(stem for stem, _ in _by_stem(tuple(left), _STEMS_LEFT)), tuple(sorted(short))


_LEFT, _WHOLE = _looked_for((*(needle for needle, _ in NEEDLES), *NAME_NEEDLES))


def _is_quiet(written: Written, names: Sequence[str | None]) -> bool:
    """Whether no needle stands in an event, but for runner's own words; False: it may be."""
    keys = "\0".join(("", *written.keys, "")).replace("\0tokens\0", "\0")
    told = "\0".join(("", *written.texts, *filter(None, names), ""))
    return _holds_none(told.replace("\0private_proc\0", "\0")) and _keys_hold_none(keys)


def _holds_none(text: str) -> bool:
    """Whether no needle stands in a text; False: one may."""
    if not text.isascii():
        return False
    left = _left_of(text)
    if [each for each in _LEFT if each in left]:
        return False
    lowered = text.lower()
    return not [each for each in _WHOLE if each in lowered]


# Events of a kind have the same keys, which are half of their text.
_keys_hold_none = lru_cache(maxsize=64)(_holds_none)


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret in a text: characters `start` to `end`."""

    kind: str
    start: int
    end: int
    begins: int
    """Where the context begins that told, at most at `start`."""
    secret: str
    """What the digest is over."""
    whole_word: bool = False


class Redactor:
    """Knows the shapes, the configured patterns, and secrets by value. Safe to use in threads."""

    __slots__ = ("_key", "_known", "_own", "_patterns")

    def __init__(
        self,
        key: Callable[[], bytes],
        patterns: Sequence[Pattern] = (),
        known: Mapping[str, str] | None = None,
    ) -> None:
        """`key`: asked for when something has to be redacted; its errors pass on."""
        self._key = key
        self._patterns = tuple(patterns)
        self._known = dict(known or {})
        own = [*self._known, *(each.needle for each in self._patterns)]
        self._own = [told for each in own if (told := _in_json(each))]

    def knowing(self, secrets: Sequence[str]) -> Redactor:
        """One that also knows these values, in whatever form (`known_secrets.forms`).

        Never values that an agent chooses: it could hide what it does by calling it a secret.
        """
        more = forms(secrets)
        if not more:
            return self
        return Redactor(self._key, self._patterns, {**self._known, **more})

    @property
    def longest_known(self) -> int:
        """Characters of the longest form of a secret that is known by value."""
        return max(map(len, self._known), default=0)

    def find(self, text: str, needles: Needles = NEEDLES) -> list[Finding]:
        """The secrets in a text, in order, none overlapping another.

        `needles`: those that are not among them are known not to stand in the text.
        """
        if _MARKED in text:  # what they say would look like `password:` and a value
            text = MARK.sub(lambda mark: " " * len(mark[0]), text)
        found = self._by_value(text) if self._known else []
        lowered = text.lower()
        for number in sorted({number for needle, number in needles if needle in lowered}):
            found += _by_shape(SHAPES[number], text)
        for pattern in self._patterns:
            if pattern.needle in text:
                for match in pattern.pattern.finditer(text):
                    start, end = match.span(match.lastindex or 0)
                    found.append(Finding("pattern", start, end, match.start(), text[start:end]))
        return _merged(found, text) if found else found

    def text(self, text: str, needles: Needles = NEEDLES) -> str:
        """The text without its secrets."""
        found = self.find(text, needles)
        return self.replaced(text, found) if found else text

    def data(self, data: bytes) -> bytes:
        """Bytes without their secrets, looked at byte by byte (ISO 8859-1)."""
        text = data.decode("latin-1")
        found = self.find(text)
        return self.replaced(text, found).encode("latin-1") if found else data

    def words(self, words: Sequence[str], needles: Needles = NEEDLES) -> list[str]:
        """A command's words; one may say what the next one is."""
        view = SEPARATOR.join(word.replace(SEPARATOR, " ") for word in words)
        found = self.find(view, needles)
        if not found:
            return list(words)
        starts = [0, *accumulate(len(word) + 1 for word in words)][:-1]
        parts: list[list[Finding]] = [[] for _ in words]
        for each in found:
            first, last = (bisect_right(starts, at) - 1 for at in (each.start, each.end - 1))
            for number in range(first, last + 1):
                at, word = starts[number], words[number]
                begins, start, end = (
                    min(max(0, place - at), len(word))
                    for place in (each.begins, each.start, each.end)
                )
                if each.whole_word and _rest_belongs(word, start, split=each.begins < at):
                    end = len(word)
                if start < end:
                    parts[number].append(
                        replace(each, begins=begins, start=start, end=end, secret=word[start:end])
                        if each.kind != "known"
                        else replace(each, begins=begins, start=start, end=end)
                    )
        return [
            self.replaced(word, _merged(part, word)) if part else word
            for word, part in zip(words, parts, strict=True)
        ]

    def digest_of(self, sha256: str) -> str:
        """What stands in the log for the plain digest of something that held a secret."""
        return self._mark("digest", sha256)

    def principal(self, who: Principal) -> Principal:
        """Who it is; what looks like a secret in a name is the same mark each time."""
        names = (who.agent, who.parent, who.session, who.tenant)
        agent, parent, session, tenant = (None if n is None else self.text(n) for n in names)
        if (agent, parent, session, tenant) == names or agent is None:
            return who
        return replace(who, agent=agent, parent=parent, session=session, tenant=tenant)

    def draft(self, draft: EventDraft, written: Written | None = None) -> EventDraft:
        """The event without secrets, at any depth, in keys as well; itself, if it holds none.

        `written`: what `event.data_of` gave for it, where that was asked before.
        """
        needles = self._needles(draft, written)
        if not needles:
            return draft
        data, changed = self._mapping(draft.data, 0, needles)
        who = None if draft.principal is None else self.principal(draft.principal)
        if not changed and who is draft.principal:
            return draft
        return replace(draft, data=data, principal=who)

    def replaced(self, text: str, found: Sequence[Finding]) -> str:
        """The text with marks in the places of what was found in it."""
        parts, at = [], 0
        for each in found:
            parts += [text[at : each.start], self._mark(each.kind, each.secret)]
            at = each.end
        return "".join([*parts, text[at:]])

    def fingerprint(self, data: bytes) -> str:
        """A keyed digest, equal for equal data; of another domain than the marks."""
        told = b"runner fingerprint 1\0" + data
        return hmac.new(self._key(), told, hashlib.sha256).hexdigest()[:FINGERPRINT_DIGITS]

    def _mark(self, kind: str, secret: str) -> str:
        told = b"runner redaction 1\0" + secret.encode("utf-8", "surrogatepass")
        digest = hmac.new(self._key(), told, hashlib.sha256).hexdigest()
        return f"{_MARKED}{kind}:{digest[:DIGEST_DIGITS]}]"

    def _by_value(self, text: str) -> list[Finding]:
        found = []
        for form, secret in self._known.items():
            at = text.find(form)
            while at >= 0:
                found.append(Finding("known", at, at + len(form), at, secret))
                at = text.find(form, at + len(form))
        return found

    def _needles(self, draft: EventDraft, written: Written | None) -> Needles:
        """Which needles stand in an event, in one look at all of it; none: nothing is to be done.

        In JSON each character is written by itself, so what is in a text is in the text's JSON.
        """
        who = draft.principal
        names = () if who is None else (who.agent, who.parent, who.session, who.tenant)
        if written is not None and not self._own and _is_quiet(written, names):
            return ()
        try:
            data = orjson.dumps(draft.data) if written is None else written.data
            whole = (data + orjson.dumps(names)).decode()
        except TypeError:  # bytes that are no UTF-8, no plain dicts, or `canonical` refuses it
            return (*NEEDLES, _ANY)
        lowered = whole.lower()
        for word in _OWN_WORDS:
            lowered = lowered.replace(word, "")
        found = {
            each
            for stem, needles in _BY_STEM
            if stem in lowered
            for each in needles
            if each[0] in lowered
        }
        if self._own and any(map(whole.__contains__, self._own)):
            found.add(_ANY)
        return tuple(found)

    def _value(self, value: object, depth: int, needles: Needles) -> tuple[object, bool]:
        """The value, and whether something of it was redacted."""
        if isinstance(value, str):
            told = self.text(value, needles) if len(value) > 4 else value
            return told, told is not value
        if depth >= _DEEPEST:  # `canonical` refuses it, and says where
            return value, False
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1, needles)
        if isinstance(value, list | tuple) and value:
            if all(isinstance(each, str) for each in value):
                words = self.words(value, needles)
                return (words, True) if words != list(value) else (value, False)
            each_told = [self._value(each, depth + 1, needles) for each in value]
            if any(changed for _, changed in each_told):
                return [told for told, _ in each_told], True
        return value, False

    def _mapping(
        self, value: Mapping[str, object], depth: int, needles: Needles
    ) -> tuple[Mapping[str, object], bool]:
        if not all(isinstance(key, str) for key in value):
            return value, False  # `canonical` refuses it, and says where
        told: dict[str, object] = {}
        changed = False
        for key, item in value.items():
            new, differs = self._value(item, depth, needles)
            name = key if _OWN_KEY.fullmatch(key) else self.text(key, needles)
            if new is item and isinstance(item, str) and _is_named(key, item):
                new, differs = self._mark("named", item), True
            changed = changed or differs or name is not key
            told[name] = new
        if not changed:
            return value, False
        digest = told.get(_DIGESTED)
        if isinstance(digest, str) and not MARK.fullmatch(digest):
            told[_DIGESTED] = self.digest_of(digest)
        return told, True


def _in_json(text: str) -> str:
    """The text as it stands in JSON; nothing where it can't."""
    try:
        return orjson.dumps(text).decode()[1:-1]
    except TypeError:  # bytes that are no UTF-8; an event that holds such is looked at whole
        return ""


def is_mark(value: object) -> bool:
    """Whether it stands in the place of something that was redacted, and is no more than that."""
    return isinstance(value, str) and MARK.fullmatch(value) is not None


def is_secret_name(name: str) -> bool:
    """Whether a variable or a key of this name has a secret for its value, as names go."""
    return SECRET_NAME.fullmatch(name[-_NAME_END:]) is not None


def _is_named(key: str, value: str) -> bool:
    return bool(value) and is_secret_name(key) and not MARK.fullmatch(value)


def _by_shape(shape: Shape, text: str) -> Iterator[Finding]:
    for match in shape.pattern.finditer(text):
        start, end = match.span(match.lastindex or 0)
        secret = text[start:end]
        if not (shape.named and _is_none(secret, text[end : end + 1])):
            yield Finding(shape.kind, start, end, match.start(), secret, shape.whole_word)


def _is_none(secret: str, following: str) -> bool:
    """Whether what stands where a secret would is none: a word like `true`, a variable, a call."""
    if secret.lower() in NO_SECRETS or secret[0] in "$<%{" or not secret.strip("*.xX-=_"):
        return True
    return following in ("(", "[") and following != "" and _CALLED.fullmatch(secret) is not None


def _rest_belongs(word: str, start: int, *, split: bool) -> bool:
    """Whether a value that begins at `start` goes on to the word's end.

    `split`: the word before told. A word with blanks may be a whole script that sets a variable.
    """
    before = word[:start]
    if split:
        return not any(map(str.isspace, before))
    if _NAME_BEFORE.fullmatch(before) is None:
        return False
    return before.startswith("--") or not any(map(str.isspace, word))


def _merged(found: list[Finding], text: str) -> list[Finding]:
    """In order; those that overlap are one, by the name of what begins first."""
    found.sort(key=lambda each: (each.start, -each.end))
    merged: list[Finding] = []
    for each in found:
        if merged and each.start < merged[-1].end:
            last = merged[-1]
            if each.end > last.end:
                merged[-1] = replace(last, end=each.end, secret=text[last.start : each.end])
            continue
        merged.append(each)
    return merged
