"""Canonical bytes: JSON as RFC 8785 (JSON Canonicalization Scheme) writes it.

One value has one spelling, so a hash over the bytes is a hash over the value. This format is
final: changing a byte of it breaks every log that exists.

Strings from the system (arguments, file names) may hold bytes that are not UTF-8, which Python
keeps as lone surrogates (PEP 383) and JSON can't hold. They are escaped first, reversibly:

    a surrogate code point     U+FFFD and its four hex digits     '\\udcff'  ->  '\\ufffddcff'
    U+FFFD itself              U+FFFD twice                       '\\ufffd'  ->  '\\ufffd\\ufffd'

so no two strings are written alike. All other strings stay as they are.

RFC 8785 is written by `rfc8785`, in Python. Nearly all that is recorded is plain enough that
`orjson` writes the same bytes, some thirty times as fast; `written_fast` tells when.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import orjson
import rfc8785

from runner.errors import RecordError

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exact (RFC 8785, 3.2.2.3; RFC 7493, 2.2)."""

MAX_DEPTH = 64
"""Deepest nesting of lists and objects; far from Python's recursion limit, deep enough for us."""

_OPTIONS = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER
# No exponent begins with a 0, which with most letters tells what else follows an "e" at once.
_EXPONENT = re.compile(rb"e[-+1-9][0-9]*+[,\]}]")
_ZEROS = re.compile(rb"\.0(?:[,\]}]|00000)")

_ASTRAL = re.compile(rb"[\xf0-\xf4]")  # first bytes in UTF-8 of what is beyond U+FFFF
_REPLACEMENT = "\ufffd".encode()
_PLAIN, _FLOATS = 1, 2

_UNSAFE = re.compile("[\ud800-\udfff\ufffd]")
_SCALARS = frozenset({int, bool, type(None)})
_ESCAPED = re.compile("\ufffd(?:(\ufffd)|([0-9a-f]{4}))")


def escape(text: str) -> str:
    """`text` as a string that UTF-8 can hold; `unescape` gives it back."""
    return _UNSAFE.sub(_escape_one, text) if _UNSAFE.search(text) else text


def unescape(text: str) -> str:
    """What `escape` was given; anything that it would not have written stays as it is."""
    return _ESCAPED.sub(lambda m: m[1] or chr(int(m[2], 16)), text)


def canonical(value: object) -> bytes:
    """RFC 8785 bytes of a JSON value (str, int, bool, None, list, tuple, mapping, finite float).

    RecordError: it holds something else, an integer beyond 2^53, a number that is not finite, or
    is nested deeper than `MAX_DEPTH`; the message says where in `value`.
    """
    if type(value) is dict:
        written = written_fast(value)
        if written is not None:
            return written.data
    return canonical_again(_plain(value, "", 0))


class Written(NamedTuple):
    """An object's canonical bytes, and what was seen while they were written."""

    data: bytes
    keys: list[str]
    """Of all objects in it, at any depth."""
    texts: list[str]
    """All other strings in it."""


def written_fast(value: dict[str, object], depth: int = 0) -> Written | None:
    """The same bytes, where it can be told at little cost that `orjson` writes them; else None.

    Strings in them hold no U+FFFD and no surrogate, so each is what it is in `value`. `depth`: how
    deep `value` will stand in what is written in the end.
    """
    keys: list[str] = []
    texts: list[str] = []
    plain = _plainness(value, depth, keys, texts)
    if not plain:
        return None
    try:
        data = orjson.dumps(value, option=_OPTIONS)
    except TypeError:  # a lone surrogate, an integer beyond 2^53, a key that is no string
        return None
    if not _same_texts(data) or (plain == _FLOATS and not _same_numbers(data)):
        return None
    return Written(data, keys, texts)


def parse_canonical(data: bytes) -> object:
    """The JSON value that `data` is the canonical spelling of, strings still escaped.

    ValueError: `data` is not JSON, or not in its canonical spelling.
    """
    value: object
    if data[:1] == b"{" and _same_texts(data) and _same_numbers(data):
        try:
            value = orjson.loads(data)
            if orjson.dumps(value, option=_OPTIONS) == data:
                return value
        except (orjson.JSONDecodeError, TypeError):
            pass  # what is wrong with it, if anything, is said below
    try:
        value = json.loads(
            data.decode("utf-8"), parse_int=_parse_integer, parse_constant=_refuse_constant
        )
        again = canonical_again(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not canonical JSON: {error}") from None
    if again != data:
        raise ValueError("not canonical JSON: the same value is spelled otherwise")
    return value


def canonical_again(value: Any) -> bytes:
    """RFC 8785 bytes of what `parse_canonical` gave, whose strings are escaped already.

    ValueError: it can't be written.
    """
    return rfc8785.dumps(value)


def _same_texts(data: bytes) -> bool:
    """Whether the strings in what orjson wrote are written, and sorted, as RFC 8785 does it.

    Both write strings alike. Keys are sorted by code points and by UTF-16, which differ only where
    there are characters beyond U+FFFF. U+FFFD is what `escape` writes twice.
    """
    return data.isascii() or (_REPLACEMENT not in data and _ASTRAL.search(data) is None)


def _same_numbers(data: bytes) -> bool:
    """Whether the numbers in what orjson wrote are those of RFC 8785 too.

    Both write floats by their shortest digits. They differ in numbers that orjson gives an
    exponent, a trailing `.0` or many zeros, all of which stands out; of integers beyond 2^53,
    `OPT_STRICT_INTEGER` tells. False where it can't be told so simply.
    """
    return _ZEROS.search(data) is None and _EXPONENT.search(data) is None


def _plainness(value: dict[str, object], depth: int, keys: list[str], texts: list[str]) -> int:
    """Whether it is made of the very types that JSON has: `_PLAIN`, or `_FLOATS` with such in it.

    0: `_plain` says what is to be done. Of keys that are no strings, orjson tells. Keys and all
    other strings are added to `keys` and `texts`.
    """
    found = _PLAIN
    level: list[Any] = [value]
    for _ in range(depth, MAX_DEPTH):
        below: list[Any] = []
        for each in level:
            items = each
            if type(each) is dict:
                keys += each
                items = each.values()
            for item in items:
                kind = type(item)
                if kind is str:
                    texts.append(item)
                elif kind in _SCALARS:
                    continue
                elif kind is dict or kind is list:
                    below.append(item)
                elif kind is float and math.isfinite(item):
                    found = _FLOATS
                else:
                    return 0
        if not below:
            return found
        level = below
    return 0


def _escape_one(match: re.Match[str]) -> str:
    found = match[0]
    return "\ufffd\ufffd" if found == "\ufffd" else f"\ufffd{ord(found):04x}"


def _plain(value: object, where: str, depth: int) -> object:
    """`value` built of plain dicts and lists, strings escaped, everything else checked."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return escape(str(value))
    if isinstance(value, int):
        if abs(value) > MAX_SAFE_INTEGER:
            _refuse(where, "an integer beyond 2^53, which JSON readers don't keep exact")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            _refuse(where, f"the number {value}, which JSON does not have")
        return value
    if depth >= MAX_DEPTH:
        _refuse(where, f"nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return _plain_object(value, where, depth)
    if isinstance(value, list | tuple):
        return [_plain(item, f"{where}[{i}]", depth + 1) for i, item in enumerate(value)]
    _refuse(where, f"a {type(value).__name__}, which is no JSON value")


def _plain_object(value: Mapping[object, object], where: str, depth: int) -> dict[str, object]:
    plain: dict[str, object] = {}
    for key, item in value.items():
        if not isinstance(key, str):
            _refuse(where, f"a {type(key).__name__} as a key, where only strings can stand")
        name = escape(str(key))
        plain[name] = _plain(item, f"{where}.{name}" if where else name, depth + 1)
    return plain


def _refuse(where: str, what: str) -> NoReturn:
    raise RecordError(f"an event can't be recorded: {where or 'its top level'} holds {what}")


def _parse_integer(digits: str) -> int | float:
    """RFC 8785 writes 1e20 as an integer: past the safe range digits are a double."""
    number = int(digits) if len(digits) <= 17 else MAX_SAFE_INTEGER + 1  # 17: "-" and 16 digits
    return number if abs(number) <= MAX_SAFE_INTEGER else float(digits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")
