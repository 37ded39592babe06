"""Values that expressions of a program text are sure to have, and what can be done with them.

A value is a `str`, `bytes`, `int`, `bool` or `None`; a `tuple` for any sequence; a `Pairs` for a
dictionary; a `Partial` for a text of which only the ends are known, `UNKNOWN` for anything at all;
`REST` stands in a tuple for any number of unknown values. All that is computed here is bounded.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import importlib
import posixpath
import re
import zlib
from collections.abc import Callable, Sequence
from typing import Any

TEXT_LIMIT = 256 * 1024
"""Characters of one value."""
ITEMS_LIMIT = 4096
"""Elements of one value."""
_INTEGER_BITS = 4096
_WIDTH_LIMIT = 1024
_LZMA_MEMORY_BYTES = 32 << 20

Value = Any


class TooMuchError(Exception):
    """The text asks for more computing than its length allows."""


class Partial:
    """A text that starts with `prefix` and ends with `suffix`."""

    __slots__ = ("prefix", "suffix")

    def __init__(self, prefix: str, suffix: str) -> None:
        self.prefix = prefix
        self.suffix = suffix

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Partial)
            and (self.prefix, self.suffix) == (other.prefix, other.suffix)
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.prefix, self.suffix))


class Pairs:
    """A dictionary of constants."""

    __slots__ = ("items",)

    def __init__(self, items: tuple[tuple[Value, Value], ...]) -> None:
        self.items = items

    def get(self, key: Value) -> Value:
        """The last value of a key, else UNKNOWN."""
        found = [value for known, value in self.items if known == key]
        return found[-1] if found else UNKNOWN


UNKNOWN = Partial("", "")
REST = Partial("\0", "\0")


def size(value: Value) -> int:
    """How much room a value takes, in characters or elements."""
    if isinstance(value, str | bytes | tuple):
        return len(value)
    return len(value.prefix) + len(value.suffix) if isinstance(value, Partial) else 1


def bounded(value: Value) -> Value:
    """The value, or UNKNOWN when it is larger than any that is kept."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= _INTEGER_BITS else UNKNOWN
    if isinstance(value, bytearray):
        value = bytes(value)
    if isinstance(value, list):
        value = tuple(value)
    if isinstance(value, tuple):
        return value if len(value) <= ITEMS_LIMIT else UNKNOWN
    known = isinstance(value, str | bytes | Partial | Pairs)
    return value if known and size(value) <= TEXT_LIMIT else UNKNOWN


def text_of(value: Value) -> str | Partial:
    """What `str()` and `os.fspath` make of a value; bytes are taken for the text that they hold."""
    if isinstance(value, str | Partial):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, int) and value.bit_length() <= _INTEGER_BITS:
        return str(value)
    return UNKNOWN


def concat(left: Value, right: Value) -> Value:
    """`left + right`."""
    if isinstance(left, Partial) or isinstance(right, Partial):
        if isinstance(left, tuple | int) or isinstance(right, tuple | int):
            return UNKNOWN
        first, last = text_of(left), text_of(right)
        if isinstance(first, str):
            return bounded(Partial(first + _prefix(last), _suffix(last)))
        return bounded(Partial(first.prefix, first.suffix + last if isinstance(last, str)
                               else last.suffix))  # fmt: skip
    return bounded(left + right)


def _prefix(value: str | Partial) -> str:
    return value.prefix if isinstance(value, Partial) else value


def _suffix(value: str | Partial) -> str:
    return value.suffix if isinstance(value, Partial) else value


def joined(pieces: Sequence[Value]) -> Value:
    """Texts, one behind the other."""
    texts = [text_of(piece) for piece in pieces]
    if all(isinstance(text, str) for text in texts):
        return bounded("".join(map(str, texts)))
    first = next(i for i, text in enumerate(texts) if not isinstance(text, str))
    last = next(i for i in reversed(range(len(texts))) if not isinstance(texts[i], str))
    head = "".join(map(str, texts[:first])) + _prefix(texts[first])
    return bounded(Partial(head, _suffix(texts[last]) + "".join(map(str, texts[last + 1 :]))))


def path_joined(pieces: Sequence[Value]) -> Value:
    """`os.path.join`, and `/` between paths."""
    result: Value = ""
    for piece in pieces:
        text = text_of(piece)
        head = _prefix(text)
        if head.startswith("/") or result == "":
            result = text
        elif isinstance(text, Partial) and not head:
            # It may be absolute: nothing in front is sure.
            result = Partial("", text.suffix)
        else:
            slash = "" if _suffix(text_of(result)).endswith("/") else "/"
            result = concat(concat(result, slash), text)
    return result


def arithmetic(operator: str, left: Value, right: Value) -> Value:  # noqa: PLR0911
    """An operation on two values, of those whose result stays small."""
    if operator == "Add":
        return concat(left, right)
    if operator == "Mod" and isinstance(left, str | bytes | Partial):
        return percent(left, right)
    if operator == "Mult" and not (isinstance(left, int) and isinstance(right, int)):
        if isinstance(left, int):
            left, right = right, left
        if not isinstance(right, int) or not isinstance(left, str | bytes | tuple):
            return UNKNOWN
        return left * right if len(left) * right <= TEXT_LIMIT else UNKNOWN
    if operator == "Div" and not (isinstance(left, int) and isinstance(right, int)):
        return path_joined([left, right])
    if not isinstance(left, int) or not isinstance(right, int):
        return UNKNOWN
    if operator == "LShift" and right > _INTEGER_BITS:
        return UNKNOWN
    operation = _INTEGERS.get(operator)
    return bounded(operation(left, right)) if operation is not None else UNKNOWN


_INTEGERS: dict[str, Callable[[int, int], int]] = {
    "Sub": lambda a, b: a - b, "Mult": lambda a, b: a * b, "FloorDiv": lambda a, b: a // b,
    "Mod": lambda a, b: a % b, "BitXor": lambda a, b: a ^ b, "BitAnd": lambda a, b: a & b,
    "BitOr": lambda a, b: a | b, "LShift": lambda a, b: a << b, "RShift": lambda a, b: a >> b,
}  # fmt: skip

_PERCENT = re.compile(r"%(?:\((\w+)\))?([#0\- +]*\d{0,3})(?:\.\d{1,3})?([sdixXocr%])")
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)(?:!([rsa]))?(?::([^{}]*))?\}")
_SPECIFICATION = re.compile(r"[<>^=]?[+\- ]?#?0?(\d{0,3})[sdxXobc]?")


def percent(template: Value, values: Value) -> Value:
    """`template % values`."""
    if isinstance(template, Partial):
        return Partial("", "")
    text = text_of(template)
    given = list(values) if isinstance(values, tuple) else [values]
    pieces: list[Value] = []
    position = 0
    for match in _PERCENT.finditer(str(text)):
        between = str(text)[position : match.start()]
        if "%" in between:
            # A directive that is not taken here.
            return joined([*pieces, between.partition("%")[0], UNKNOWN])
        pieces.append(between)
        position = match.end()
        if match[3] == "%":
            pieces.append("%")
            continue
        if match[1] is not None:
            value = values.get(match[1]) if isinstance(values, Pairs) else UNKNOWN
        else:
            value = given.pop(0) if given and given[0] is not REST else UNKNOWN
        plain = match[0] in ("%s", "%d", "%i") or match[1] is not None
        if not plain and isinstance(value, str | int):
            value = match[0] % value
        pieces.append(value if not isinstance(value, tuple | Pairs) else UNKNOWN)
    rest = str(text)[position:]
    return joined(
        [*pieces, rest] if "%" not in rest else [*pieces, rest.partition("%")[0], UNKNOWN]
    )


def formatted(template: Value, values: Sequence[Value], named: dict[str, Value]) -> Value:
    """`template.format(*values, **named)`."""
    if not isinstance(template, str):
        return UNKNOWN
    pieces: list[Value] = []
    position = counter = 0
    for match in _FIELD.finditer(template):
        between = template[position : match.start()]
        if "{" in between or "}" in between:
            return joined([*pieces, UNKNOWN])
        pieces.append(between)
        position = match.end()
        if match[0] in ("{{", "}}"):
            pieces.append(match[0][0])
            continue
        name = match[1]
        if name == "":
            name, counter = str(counter), counter + 1
        if name.isdigit():
            value = values[int(name)] if int(name) < len(values) else UNKNOWN
        else:
            value = named.get(name, UNKNOWN)
        pieces.append(specified(value, match[2], match[3] or ""))
    return joined([*pieces, template[position:]])


def specified(value: Value, conversion: str | None, specification: str) -> Value:
    """One field of a format string."""
    if value is REST or isinstance(value, tuple | Pairs):
        return UNKNOWN
    if conversion in ("r", "a"):
        if not isinstance(value, str | int):
            return UNKNOWN
        value = repr(value)
    if not specification or isinstance(value, Partial):
        return value
    match = _SPECIFICATION.fullmatch(specification)
    if match is None or int(match[1] or 0) > _WIDTH_LIMIT or not isinstance(value, str | int):
        return UNKNOWN
    return format(value, specification)


_CODECS = frozenset(
    {"utf-8", "utf8", "ascii", "latin-1", "latin1", "iso-8859-1", "utf-16", "utf-16-le",
     "utf-16-be", "utf-32", "utf-7", "cp1252", "unicode_escape", "unicode-escape",
     "raw_unicode_escape", "hex", "hex_codec", "base64", "base64_codec", "rot13", "rot_13"}
)  # fmt: skip
"""Codecs whose time grows with the text and no faster."""


def _codec(values: Sequence[Value], decode: bool) -> Value:
    name = values[1] if len(values) > 1 else "utf-8"
    if not isinstance(name, str) or name.lower() not in _CODECS:
        return UNKNOWN
    return (codecs.decode if decode else codecs.encode)(values[0], name.lower())


def _inflated(values: Sequence[Value], wbits: int) -> bytes | Partial:
    data = zlib.decompressobj(wbits).decompress(values[0], TEXT_LIMIT + 1)
    return data if len(data) <= TEXT_LIMIT else UNKNOWN


def _unpacked(module: str, data: bytes) -> bytes | Partial:
    library: Any = importlib.import_module(module)
    if module == "lzma":
        decompressor = library.LZMADecompressor(memlimit=_LZMA_MEMORY_BYTES)
    else:
        decompressor = library.BZ2Decompressor()
    unpacked: bytes = decompressor.decompress(data, TEXT_LIMIT + 1)
    return unpacked if len(unpacked) <= TEXT_LIMIT else UNKNOWN


def _library(module: str, function: str) -> Callable[[Sequence[Value]], Value]:
    """A function of a module that few texts need: loading it costs more than using it."""

    def call(values: Sequence[Value]) -> Value:
        result = getattr(importlib.import_module(module), function)(values[0])
        return tuple(result) if isinstance(result, list) else result

    return call


def _bytes(values: Sequence[Value]) -> Value:
    value = values[0] if values else b""
    if isinstance(value, str):
        return value.encode()
    return bytes(value) if isinstance(value, bytes | tuple) else UNKNOWN


def _sequence(values: Sequence[Value]) -> Value:
    value = values[0] if values else ()
    if isinstance(value, str | bytes | tuple):
        return tuple(value)
    return UNKNOWN


def _integer(values: Sequence[Value]) -> Value:
    if isinstance(values[0], str) and len(values[0]) > _WIDTH_LIMIT:
        return UNKNOWN
    return int(*values)


def _range(values: Sequence[Value]) -> Value:
    steps = range(*values)
    return tuple(steps) if len(steps) <= ITEMS_LIMIT else UNKNOWN


def _same(values: Sequence[Value]) -> Value:
    """Rules take a path from the workspace, and a `~` in front for the home folder."""
    return text_of(values[0])


def _expandvars(values: Sequence[Value]) -> Value:
    text = re.sub(r"\A\$(?:HOME\b|\{HOME\})", "~", values[0])
    return UNKNOWN if "$" in text else text


FUNCTIONS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "str": lambda v: text_of(v[0]) if v else "",
    "os.fspath": lambda v: text_of(v[0]), "os.fsdecode": lambda v: text_of(v[0]),
    "os.fsencode": lambda v: text_of(v[0]), "repr": lambda v: specified(v[0], "r", ""),
    "bytes": _bytes, "bytearray": _bytes, "memoryview": _bytes,
    "bytes.fromhex": lambda v: bytes.fromhex(v[0]),
    "bytearray.fromhex": lambda v: bytes.fromhex(v[0]),
    "int": _integer, "chr": lambda v: chr(v[0]), "ord": lambda v: ord(v[0]),
    "hex": lambda v: hex(v[0]), "oct": lambda v: oct(v[0]), "bin": lambda v: bin(v[0]),
    "len": lambda v: len(v[0]), "abs": lambda v: abs(v[0]), "list": _sequence, "tuple": _sequence,
    "iter": _sequence, "sorted": lambda v: tuple(sorted(v[0])), "range": _range,
    "reversed": lambda v: tuple(reversed(v[0])), "next": lambda v: v[0][0],
    "set": _sequence, "frozenset": _sequence,
    "os.path.join": path_joined, "posixpath.join": path_joined,
    "pathlib.Path": path_joined, "pathlib.PosixPath": path_joined,
    "pathlib.PurePath": path_joined, "pathlib.PurePosixPath": path_joined,
    "os.path.expanduser": _same, "os.path.expandvars": _expandvars, "os.getcwd": lambda _: ".",
    "pathlib.Path.home": lambda _: "~", "pathlib.Path.cwd": lambda _: ".",
    "os.path.abspath": _same, "os.path.realpath": _same, "os.path.normpath": _same,
    "os.path.dirname": lambda v: posixpath.dirname(v[0]),
    "os.path.basename": lambda v: posixpath.basename(v[0]),
    "base64.b64decode": lambda v: base64.b64decode(v[0]),
    "base64.standard_b64decode": lambda v: base64.b64decode(v[0]),
    "base64.decodebytes": lambda v: base64.decodebytes(v[0]),
    "base64.urlsafe_b64decode": lambda v: base64.urlsafe_b64decode(v[0]),
    "base64.b32decode": lambda v: base64.b32decode(v[0]),
    "base64.b16decode": lambda v: base64.b16decode(*v),
    "base64.b85decode": lambda v: base64.b85decode(v[0]),
    "base64.a85decode": lambda v: base64.a85decode(v[0]),
    "base64.b64encode": lambda v: base64.b64encode(v[0]),
    "binascii.unhexlify": lambda v: binascii.unhexlify(v[0]),
    "binascii.a2b_hex": lambda v: binascii.unhexlify(v[0]),
    "binascii.a2b_base64": lambda v: binascii.a2b_base64(v[0]),
    "codecs.decode": lambda v: _codec(v, True), "codecs.encode": lambda v: _codec(v, False),
    "zlib.decompress": lambda v: _inflated(v, zlib.MAX_WBITS),
    "gzip.decompress": lambda v: _inflated(v, zlib.MAX_WBITS | 16),
    "bz2.decompress": lambda v: _unpacked("bz2", v[0]),
    "lzma.decompress": lambda v: _unpacked("lzma", v[0]),
    "urllib.parse.unquote": _library("urllib.parse", "unquote"),
    "urllib.parse.unquote_plus": _library("urllib.parse", "unquote_plus"),
    "html.unescape": _library("html", "unescape"),
    "shlex.split": _library("shlex", "split"), "shlex.quote": _library("shlex", "quote"),
    "shlex.join": _library("shlex", "join"), "shutil.which": lambda v: v[0],
    "sys.intern": lambda v: v[0], "urllib.request.Request": lambda v: v[0],
    "urllib2.Request": lambda v: v[0], "httpx.URL": lambda v: v[0], "yarl.URL": lambda v: v[0],
    "textwrap.dedent": lambda v: v[0],
}  # fmt: skip
"""Functions without effect, by their full name; what raises has no value."""


def _replace(v: Sequence[Value]) -> Value:
    text, old, new = v[:3]
    found = text.count(old)
    return text.replace(*v[1:]) if len(text) + found * len(new) <= TEXT_LIMIT else UNKNOWN


def _joiner(v: Sequence[Value]) -> Value:
    separator, items = v[0], v[1]
    if isinstance(items, str):
        items = tuple(items)
    if (
        not isinstance(items, tuple)
        or sum(map(size, items)) + len(items) * size(separator) > TEXT_LIMIT
    ):
        return UNKNOWN
    if isinstance(separator, bytes) and all(isinstance(item, bytes) for item in items):
        return separator.join(items)
    pieces: list[Value] = []
    for item in items:
        pieces += [separator, item if item is not REST else UNKNOWN]
    return joined(pieces[1:])


def _padded(name: str) -> Callable[[Sequence[Value]], Value]:
    return lambda v: getattr(v[0], name)(*v[1:]) if v[1] <= _WIDTH_LIMIT else UNKNOWN


def _plain(name: str) -> Callable[[Sequence[Value]], Value]:
    return lambda v: getattr(v[0], name)(*v[1:]) if isinstance(v[0], str | bytes) else UNKNOWN


def _stripped(name: str) -> Callable[[Sequence[Value]], Value]:
    """A text that is known at its ends may lose what it is not known not to have."""
    return lambda v: Partial("", "") if isinstance(v[0], Partial) else getattr(v[0], name)(*v[1:])


METHODS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "join": _joiner, "replace": _replace,
    "encode": lambda v: _codec(v, False) if isinstance(v[0], str) else v[0],
    "decode": lambda v: _codec(v, True) if isinstance(v[0], bytes) else v[0],
    "hex": lambda v: v[0].hex(), "fromhex": lambda v: bytes.fromhex(v[1]),
    "zfill": _padded("zfill"), "ljust": _padded("ljust"), "rjust": _padded("rjust"),
    "tobytes": lambda v: v[0], "get": lambda v: v[0].get(v[1]),
    "copy": lambda v: v[0] if isinstance(v[0], tuple | Pairs) else UNKNOWN,
    "keys": lambda v: tuple(key for key, _ in v[0].items),
    "values": lambda v: tuple(value for _, value in v[0].items),
    "items": lambda v: v[0].items if isinstance(v[0], Pairs) else UNKNOWN,
    **{name: _stripped(name) for name in ("strip", "lstrip", "rstrip", "removeprefix",
                                          "removesuffix")},
    **{name: _plain(name) for name in ("lower", "upper", "title", "capitalize", "swapcase",
                                       "casefold", "split", "rsplit", "splitlines", "partition",
                                       "rpartition", "count", "find", "index")},
}  # fmt: skip
"""Methods of values without effect."""

PATH_METHODS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "joinpath": path_joined, "resolve": lambda v: v[0], "absolute": lambda v: v[0],
    "expanduser": lambda v: v[0], "as_posix": lambda v: v[0], "__str__": lambda v: v[0],
    "with_name": lambda v: path_joined([posixpath.dirname(v[0]), v[1]]),
    "with_suffix": lambda v: posixpath.splitext(v[0])[0] + v[1],
    "iterdir": lambda v: (concat(v[0], Partial("/", "")), REST),
    "glob": lambda v: (concat(v[0], Partial("/", "")), REST),
    "rglob": lambda v: (concat(v[0], Partial("/", "")), REST),
}  # fmt: skip
"""The same of `pathlib.Path`."""
CONSTANTS: dict[str, Value] = {
    "os.sep": "/", "os.curdir": ".", "os.pardir": "..", "os.devnull": "/dev/null",
    "os.linesep": "\n", "os.pathsep": ":", "sys.executable": "python3", "os.path.sep": "/",
    "string.ascii_lowercase": "abcdefghijklmnopqrstuvwxyz",
    "string.ascii_uppercase": "ABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "string.ascii_letters": "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    "string.digits": "0123456789", "string.hexdigits": "0123456789abcdefABCDEF",
    "string.punctuation": r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""",
    "string.printable": "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    r"""!"#$%&'()*+,-./:;<=>?@[\]^_`{|}~""" + " \t\n\r\x0b\x0c",
    "os.O_RDONLY": 0, "os.O_WRONLY": 1, "os.O_RDWR": 2, "os.O_CREAT": 0o100, "os.O_EXCL": 0o200,
    "os.O_TRUNC": 0o1000, "os.O_APPEND": 0o2000, "os.O_NONBLOCK": 0o4000, "os.O_CLOEXEC": 0o2000000,
    "os.O_TMPFILE": 0o20200000,
}  # fmt: skip
"""Constants of the standard library; flags of open(2) as on x86-64."""
