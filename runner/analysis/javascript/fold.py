"""Expressions of a JavaScript text -> what they are sure to be: values, and names of functions.

The counterpart of `runner.analysis.python.fold`, with the same values.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote

from runner.analysis import values as pyvalue
from runner.analysis.javascript.bindings import Bindings, arguments_of, text_of
from runner.analysis.javascript.tables import GLOBALS, SAME_MODULES
from runner.analysis.values import REST, UNKNOWN, Pairs, Partial, TooMuchError, Value

if TYPE_CHECKING:
    from tree_sitter import Node

_DEPTH_LIMIT = 60
_CHAIN_LIMIT = 16
"""Members of members; no name that means something has as many."""
_ALTERNATIVES_LIMIT = 8
_UNSURE = (UNKNOWN,)
_ESCAPE = re.compile(
    r"\\(?:u\{([0-9a-fA-F]{1,6})\}|u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([0-7]{1,3})|(\r\n|[\s\S]))"
)
_PLAIN_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "v": "\v", "\n": "",
                  "\r\n": ""}  # fmt: skip
_WRAPPED = frozenset({"parenthesized_expression", "await_expression"})
PROMISIFY = frozenset({"util.promisify", "promisify"})
_REQUIRES = frozenset(
    {"require", "import", "module.require", "process.mainModule.require", "require.main.require",
     "createRequire()", "module.createRequire()", "process.getBuiltinModule"}
)  # fmt: skip

Values = tuple[Value, ...]
Names = tuple[str, ...]


class Folder:
    """What the expressions of one text are."""

    def __init__(self, bindings: Bindings, budget: int) -> None:
        self._bindings = bindings
        self._budget = budget
        self._values: dict[int, Values] = {}
        self._names: dict[int, Names] = {}
        self._active: set[int] = set()

    def _spend(self, units: int) -> None:
        self._budget -= units
        if self._budget < 0:
            raise TooMuchError

    # Values

    def fold(self, node: Node | None, depth: int = 0) -> Values:
        """Every value that an expression may have; UNKNOWN among them: others too."""
        if node is None:
            return _UNSURE
        if node.id in self._values:
            return self._values[node.id]
        if depth > _DEPTH_LIMIT or node.id in self._active:
            return _UNSURE
        self._spend(1)
        self._active.add(node.id)
        try:
            step = self._STEPS.get(node.type)
            values = step(self, node, depth + 1) if step is not None else _UNSURE
        finally:
            self._active.discard(node.id)
        values = tuple(dict.fromkeys(values))
        values = values if len(values) <= _ALTERNATIVES_LIMIT else _UNSURE
        self._values[node.id] = values
        return values

    def fold_argument(self, call: Node, index: int) -> Values:
        """The values of an argument by its place."""
        arguments = arguments_of(call)
        return self.fold(arguments[index]) if 0 <= index < len(arguments) else _UNSURE

    def option(self, call: Node, index: int, names: Sequence[str]) -> Values:
        """What an object that is passed holds under one of `names`; nothing: none of them."""
        arguments = arguments_of(call)
        if not 0 <= index < len(arguments):
            return ()
        found: list[Value] = []
        for value in self.fold(arguments[index]):
            if isinstance(value, Pairs):
                found += [each for key, each in value.items if key in names]
        return tuple(dict.fromkeys(found))

    def _combined(
        self, operation: Callable[[Sequence[Value]], Value], operands: Sequence[Values]
    ) -> Values:
        if any(len(each) != 1 for each in operands):
            return self._alternatives(operation, operands)
        return (self._computed(operation, [each[0] for each in operands]),)

    def _alternatives(
        self, operation: Callable[[Sequence[Value]], Value], operands: Sequence[Values]
    ) -> Values:
        """One operand may have several values; with more than one such nothing is known."""
        several = [index for index, each in enumerate(operands) if len(each) != 1]
        if len(several) > 1:
            return _UNSURE
        first = several[0]
        made = []
        for value in operands[first]:
            values = [each[0] if i != first else value for i, each in enumerate(operands)]
            made.append(self._computed(operation, values))
        return tuple(made)

    def _computed(
        self, operation: Callable[[Sequence[Value]], Value], values: Sequence[Value]
    ) -> Value:
        self._spend(1 + sum(map(pyvalue.size, values)) // 16)
        try:
            value = pyvalue.bounded(operation(values))
        except TooMuchError:
            raise
        except Exception:
            return UNKNOWN  # what JavaScript would throw on, or what is not known well enough
        self._spend(pyvalue.size(value) // 16)
        return value

    def _string(self, node: Node, depth: int) -> Values:  # noqa: ARG002
        return (pyvalue.bounded(_ESCAPE.sub(_unescaped, text_of(node)[1:-1])),)

    def _template(self, node: Node, depth: int) -> Values:
        parts: list[Values] = []
        for child in node.children:
            if child.type == "template_substitution":
                parts.append(self.fold(next(iter(child.named_children), None), depth))
            elif child.type in ("string_fragment", "escape_sequence"):
                parts.append((_ESCAPE.sub(_unescaped, text_of(child)),))
        return self._combined(pyvalue.joined, parts) if parts else ("",)

    def _number(self, node: Node, depth: int) -> Values:  # noqa: ARG002
        text = text_of(node).replace("_", "")
        try:
            return (int(text, 0) if len(text) < 64 else UNKNOWN,)
        except ValueError:
            return _UNSURE

    def _identifier(self, node: Node, depth: int) -> Values:
        name = text_of(node)
        store = self._bindings.sure(name)
        if store is None:
            return (".",) if name == "__dirname" else _UNSURE
        if store.value is None or isinstance(store.value, str):
            return _UNSURE
        values = self.fold(store.value, depth)
        if store.member:
            return tuple(v.get(store.member) if isinstance(v, Pairs) else UNKNOWN for v in values)
        return values

    def _binary(self, node: Node, depth: int) -> Values:
        """A chain of `+` is read from its left end, so that it is no depth."""
        operands: list[Node | None] = []
        top: Node | None = node
        operator = node.child_by_field_name("operator")
        sign = text_of(operator) if operator is not None else ""
        while top is not None and top.type == "binary_expression" and len(operands) < _CHAIN_LIMIT:
            inner = top.child_by_field_name("operator")
            if inner is None or text_of(inner) != sign:
                break
            operands.append(top.child_by_field_name("right"))
            top = top.child_by_field_name("left")
        if sign in ("||", "??", "&&"):
            every = [self.fold(each, depth) for each in (top, *operands)][:_ALTERNATIVES_LIMIT]
            return tuple(value for values in every for value in values)
        values = self.fold(top, depth)
        name = {"+": "Add", "-": "Sub", "*": "Mult", "^": "BitXor", "%": "Mod"}.get(sign)
        if name is None:
            return _UNSURE
        for each in reversed(operands):
            values = self._combined(
                lambda v: _plus(v[0], v[1]) if name == "Add"
                else pyvalue.arithmetic(name, v[0], v[1]) if isinstance(v[0], int) else UNKNOWN,
                (values, self.fold(each, depth)),
            )  # fmt: skip
        return values

    def _either(self, node: Node, depth: int) -> Values:
        ways = ("consequence", "alternative")
        return tuple(v for w in ways for v in self.fold(node.child_by_field_name(w), depth))

    def _array(self, node: Node, depth: int) -> Values:
        if node.named_child_count > pyvalue.ITEMS_LIMIT:
            return _UNSURE
        items: list[Value] = []
        for each in node.named_children:
            if each.type == "spread_element":
                inner = self.fold(next(iter(each.named_children), None), depth)
                known = len(inner) == 1 and isinstance(inner[0], tuple)
                items += inner[0] if known else [REST]
            elif each.type != "comment":
                values = self.fold(each, depth)
                items.append(values[0] if len(values) == 1 else UNKNOWN)
        return (tuple(items),)

    def _object(self, node: Node, depth: int) -> Values:
        pairs: list[tuple[Value, Value]] = []
        for each in node.named_children[: pyvalue.ITEMS_LIMIT]:
            key = each.child_by_field_name("key")
            if each.type == "shorthand_property_identifier":
                pairs.append((text_of(each), self._identifier(each, depth)[0]))
            elif key is not None:
                name: Value = text_of(key).strip("'\"")
                if key.type == "computed_property_name":
                    name = self.fold(next(iter(key.named_children), None), depth)[0]
                values = self.fold(each.child_by_field_name("value"), depth)
                pairs.append((name, values[0] if len(values) == 1 else UNKNOWN))
        return (Pairs(tuple(pairs)),)

    def _inner(self, node: Node, depth: int) -> Values:
        return self.fold(node.named_children[-1] if node.named_children else None, depth)

    def _member(self, node: Node, depth: int) -> Values:
        for name in self.names(node, depth):
            if name in _CONSTANTS:
                return (_CONSTANTS[name],)
        owners = self.fold(node.child_by_field_name("object"), depth)
        if node.type == "subscript_expression":
            keys = self.fold(node.child_by_field_name("index"), depth)
            return self._combined(lambda v: _item(v[0], v[1]), (owners, keys))
        key = node.child_by_field_name("property")
        name = text_of(key) if key is not None else ""
        return self._combined(
            lambda v: v[0].get(name) if isinstance(v[0], Pairs) else UNKNOWN, (owners,)
        )

    def _called(self, node: Node, depth: int) -> Values:
        function = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        if function is None:
            return _UNSURE
        arguments = [self.fold(each, depth) for each in arguments_of(node)[:_CHAIN_LIMIT]]
        for name in self.names(function, depth):
            operation = _FUNCTIONS.get(name)
            if operation is not None:
                return self._combined(operation, arguments)
        if function.type == "member_expression":
            method = function.child_by_field_name("property")
            operation = _METHODS.get(text_of(method) if method is not None else "")
            if operation is not None:
                owners = self.fold(function.child_by_field_name("object"), depth)
                return self._combined(operation, (owners, *arguments))
        return _UNSURE

    _STEPS: ClassVar[dict[str, Any]] = {
        "string": _string, "template_string": _template, "number": _number,
        "identifier": _identifier, "binary_expression": _binary,
        "ternary_expression": _either, "array": _array, "object": _object,
        "member_expression": _member, "subscript_expression": _member,
        "call_expression": _called, "new_expression": _called, "sequence_expression": _inner,
        "true": lambda *_: (True,), "false": lambda *_: (False,), "null": lambda *_: (None,),
        **dict.fromkeys(_WRAPPED, _inner),
    }  # fmt: skip

    # Names

    def names(self, node: Node, depth: int = 0) -> Names:
        """What an expression is called in full; a part `?` stands for what can't be told."""
        if node.id in self._names:
            return self._names[node.id]
        if depth > _DEPTH_LIMIT:
            return ()
        self._spend(1)
        self._names[node.id] = ()  # what refers to itself has none
        step = self._NAMED.get(node.type)
        found = step(self, node, depth + 1) if step is not None else ()
        names = tuple(dict.fromkeys(_canonical(name) for name in found))[:4]
        self._names[node.id] = names
        return names

    def _identifier_name(self, node: Node, depth: int) -> Names:
        name = text_of(node)
        store = self._bindings.sure(name)
        if store is None:
            return (name,)
        if isinstance(store.value, str):
            return (store.value,)
        if store.value is None:
            return ()
        names = self.names(store.value, depth)
        return tuple(f"{each}.{store.member}" if store.member else each for each in names)

    def _member_name(self, node: Node, depth: int) -> Names:
        # From the inside out, so that a long chain is no depth.
        chain: list[Node] = []
        base: Node | None = node
        while base is not None and base.type == "member_expression" and len(chain) < _CHAIN_LIMIT:
            chain.append(base)
            base = base.child_by_field_name("object")
        if base is None or base.type == "member_expression":
            return ()
        parts = [each.child_by_field_name("property") for each in reversed(chain)]
        tail = ".".join(text_of(part) for part in parts if part is not None)
        names = self.names(base, depth)
        return tuple(f"{name}.{tail}" for name in names)

    def _item_name(self, node: Node, depth: int) -> Names:
        owner, index = node.child_by_field_name("object"), node.child_by_field_name("index")
        if owner is None:
            return ()
        keys = [k if isinstance(k, str) else "?" for k in self.fold(index, depth)]
        return tuple(f"{name}.{key}" for name in self.names(owner, depth) for key in keys)

    def _call_name(self, node: Node, depth: int) -> Names:
        function = node.child_by_field_name("function") or node.child_by_field_name("constructor")
        if function is None:
            return ()
        arguments = arguments_of(node)
        found: list[str] = []
        names = ("import",) if function.type == "import" else self.names(function, depth)
        for name in names:
            if name in _REQUIRES:
                values = self.fold(arguments[0] if arguments else None, depth)
                found += [value if isinstance(value, str) else "?" for value in values]
            elif name in PROMISIFY and arguments:
                found += self.names(arguments[0], depth)
            elif name.endswith((".bind", ".call", ".apply")):
                found.append(name.rpartition(".")[0])
            else:
                found.append(f"{name}()")
        return tuple(found)

    def _inner_name(self, node: Node, depth: int) -> Names:
        return self.names(node.named_children[-1], depth) if node.named_children else ()

    def _either_name(self, node: Node, depth: int) -> Names:
        fields = ("consequence", "alternative", "left", "right")
        ways = [each for f in fields if (each := node.child_by_field_name(f)) is not None]
        return tuple(name for each in ways for name in self.names(each, depth))

    _NAMED: ClassVar[dict[str, Any]] = {
        "identifier": _identifier_name, "member_expression": _member_name,
        "subscript_expression": _item_name, "call_expression": _call_name,
        "new_expression": _call_name, "import": lambda *_: ("import",),
        "sequence_expression": _inner_name, "ternary_expression": _either_name,
        "binary_expression": _either_name, **dict.fromkeys(_WRAPPED, _inner_name),
    }  # fmt: skip


def _canonical(name: str) -> str:
    name = name[:4096].removeprefix("node:")
    for each in GLOBALS:
        name = name.removeprefix(each)
    for module, plain in SAME_MODULES.items():
        if name == module or name.startswith(module + "."):
            name = plain + name[len(module) :]
    if name.startswith(("fs.", "Deno.")):
        name = name.removesuffix("Sync")
    return name.replace(".default.", ".")


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2] or match[3]
    if digits or match[4]:
        value = int(digits, 16) if digits else int(match[4], 8)
        return chr(value) if value < 0xD800 or 0xDFFF < value < 0x110000 else "\ufffd"
    return _PLAIN_ESCAPES.get(match[5], match[5])


def _plus(left: Value, right: Value) -> Value:
    if isinstance(left, int) and isinstance(right, int):
        return left + right
    return pyvalue.joined([left, right])


def _item(value: Value, key: Value) -> Value:
    if isinstance(value, Pairs):
        return value.get(key)
    whole = isinstance(value, str) or (isinstance(value, tuple) and REST not in value)
    return value[key] if whole and isinstance(key, int) and 0 <= key < len(value) else UNKNOWN


def _from_char_codes(values: Sequence[Value]) -> Value:
    return "".join(map(chr, values))


def _buffer(values: Sequence[Value]) -> Value:
    value, encoding = values[0], values[1] if len(values) > 1 else "utf8"
    if isinstance(value, tuple):
        return bytes(value).decode("utf-8", "replace")
    if encoding == "hex":
        return bytes.fromhex(value).decode("utf-8", "replace")
    if encoding in ("base64", "base64url"):
        return _base64([value])
    return value


def _base64(values: Sequence[Value]) -> Value:
    text = values[0].replace("-", "+").replace("_", "/")
    return base64.b64decode(text + "=" * (-len(text) % 4)).decode("utf-8", "replace")


def _js_join(values: Sequence[Value]) -> Value:
    separator = values[1] if len(values) > 1 else ","
    if not isinstance(values[0], tuple):
        return UNKNOWN
    return pyvalue.METHODS["join"]([separator, values[0]])


def _split(values: Sequence[Value]) -> Value:
    return tuple(values[0]) if values[1] == "" else tuple(values[0].split(values[1]))


def _concat(values: Sequence[Value]) -> Value:
    if isinstance(values[0], tuple):
        every = [v if isinstance(v, tuple) else (v,) for v in values]
        return tuple(item for each in every for item in each)
    return pyvalue.joined(list(values))


def _reverse(values: Sequence[Value]) -> Value:
    return values[0][::-1] if isinstance(values[0], tuple) and REST not in values[0] else UNKNOWN


def _slice(values: Sequence[Value]) -> Value:
    whole = isinstance(values[0], str) or REST not in values[0]
    return values[0][slice(*values[1:3])] if whole and len(values) > 1 else UNKNOWN


def _repeat(values: Sequence[Value]) -> Value:
    return pyvalue.arithmetic("Mult", values[0], values[1])


def _textual(operation: Callable[[str], str]) -> Callable[[Sequence[Value]], Value]:
    return lambda v: operation(v[0]) if isinstance(v[0], str) else UNKNOWN


_FUNCTIONS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "String.fromCharCode": _from_char_codes, "String.fromCodePoint": _from_char_codes,
    "Buffer.from": _buffer, "atob": _base64, "unescape": lambda v: unquote(v[0]),
    "decodeURIComponent": lambda v: unquote(v[0]), "decodeURI": lambda v: unquote(v[0]),
    "String": lambda v: pyvalue.text_of(v[0]), "path.join": pyvalue.path_joined,
    "path.resolve": pyvalue.path_joined, "path.normalize": lambda v: v[0],
    "os.homedir": lambda _: "~", "process.cwd": lambda _: ".", "Deno.cwd": lambda _: ".",
    "URL": lambda v: v[0], "parseInt": lambda v: int(v[0][:64], *v[1:]),
}  # fmt: skip
_METHODS: dict[str, Callable[[Sequence[Value]], Value]] = {
    "join": _js_join, "split": _split, "concat": _concat, "reverse": _reverse, "slice": _slice,
    "substring": _slice, "repeat": _repeat, "toString": lambda v: pyvalue.text_of(v[0]),
    "trim": _textual(str.strip), "toLowerCase": _textual(str.lower),
    "toUpperCase": _textual(str.upper), "replace": lambda v: v[0].replace(v[1], v[2], 1),
    "replaceAll": pyvalue.METHODS["replace"], "charAt": lambda v: _item(v[0], v[1]),
}  # fmt: skip
_CONSTANTS: dict[str, Value] = {
    "process.execPath": "node", "process.env.HOME": "~", "path.sep": "/", "os.EOL": "\n",
    "process.argv0": "node", "Deno.execPath": "deno",
}  # fmt: skip


def starts(value: Value) -> str:
    """What is known of a text's beginning."""
    text = pyvalue.text_of(value)
    return text.prefix if isinstance(text, Partial) else text
