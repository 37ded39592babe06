"""Expressions of a Python text -> what they are sure to be: values, and names of what is called.

An expression may have several values (a loop over constants, both sides of an `if`, the calls of a
function); each that is known counts. The work is bounded by a budget that grows with the text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, ClassVar

from runner.analysis import values as pyvalue
from runner.analysis.python.flow import Binding, Flow
from runner.analysis.python.names import (
    ALTERNATIVES_LIMIT,
    CHAIN_LIMIT,
    DEPTH_LIMIT,
    Named,
    Values,
    canonical,
)
from runner.analysis.values import REST, UNKNOWN, Pairs, Partial, TooMuchError, Value

Operation = Callable[[Sequence[Value]], Value]
_UNSURE = (UNKNOWN,)
_GROWING = frozenset({"augment", "append", "extend"})
_ENVIRONMENT = frozenset({"os.environ.get", "os.getenv", "os.environb.get"})
_GLOBS = ("glob.glob", "glob.iglob")
_TAKE_REST = frozenset({pyvalue.METHODS["join"]})


class Folder(Named):
    """What the expressions of one text are."""

    def __init__(self, flow: Flow, budget: int) -> None:
        super().__init__(flow, budget)
        self._values: dict[int, Values] = {}
        self._assignments: dict[int, Values] = {}
        self._elements: dict[int, Value] = {}
        """What a comprehension's variable is, element by element, by its binding."""
        self._kept: list[ast.expr] = []

    def pinned(self, values: Values, like: ast.AST) -> ast.expr:
        """An expression that has these values."""
        node = ast.Constant(None)
        ast.copy_location(node, like)
        self._kept.append(node)  # an identity that is remembered must not be used again
        self._values[id(node)] = values
        return node

    def elements(self, node: ast.expr) -> Values:
        """Every value that an element of a sequence may have."""
        return _distinct(self._each(Binding("each", node), 0)) or _UNSURE

    def fold(self, node: ast.expr | None, depth: int = 0) -> Values:
        """Every value that an expression may have; UNKNOWN among them: others too."""
        if node is None:
            return _UNSURE
        key = id(node)
        if not self._elements and key in self._values:
            return self._values[key]
        if depth > DEPTH_LIMIT or key in self._active:
            return _UNSURE
        self._spend(1)
        self._active.add(key)
        try:
            step = self._STEPS.get(type(node))
            values = step(self, node, depth + 1) if step is not None else _UNSURE
        finally:
            self._active.discard(key)
        values = _distinct(values)
        if not self._elements:
            self._values[key] = values
        return values

    def combined(
        self, operation: Callable[[Sequence[Value]], Value], operands: Iterable[Values]
    ) -> Values:
        """An operation over every combination of its operands' values."""
        parts = list(operands)
        count = 1
        for part in parts:
            count *= len(part)
            if count > ALTERNATIVES_LIMIT:
                return _UNSURE
        return tuple(self._computed(operation, each) for each in product(*parts))

    def _computed(
        self, operation: Callable[[Sequence[Value]], Value], operands: Sequence[Value]
    ) -> Value:
        self._spend(1 + sum(map(pyvalue.size, operands)) // 16)
        try:
            value = pyvalue.bounded(operation(operands))
        except TooMuchError:
            raise
        except Exception:
            # What Python would raise on, or what is not known well enough, has no value.
            return UNKNOWN
        self._spend(pyvalue.size(value) // 16)
        return value

    def _constant(self, node: ast.Constant, depth: int) -> Values:  # noqa: ARG002
        value = node.value
        known = value is None or isinstance(value, str | bytes | int)
        return (pyvalue.bounded(value) if known else UNKNOWN,)

    def _name(self, node: ast.Name, depth: int) -> Values:
        bindings = self._flow.reads(node)
        if bindings is None:
            return (pyvalue.CONSTANTS.get(node.id, UNKNOWN),)
        return tuple(v for binding in bindings for v in self._bound(binding, depth))

    def _bound(self, binding: Binding, depth: int) -> Values:
        # What is put together step by step is computed from its first step on: no depth.
        steps: list[Binding] = []
        each = binding
        while (
            each.kind in _GROWING and len(each.previous) == 1 and len(steps) < CHAIN_LIMIT
            and each.previous[0].kind in _GROWING and id(each.previous[0]) not in self._assignments
        ):  # fmt: skip
            each = each.previous[0]
            steps.append(each)
        for each in reversed(steps):
            self._bound_once(each, depth)
        return self._bound_once(binding, depth)

    def _bound_once(self, binding: Binding, depth: int) -> Values:
        key = id(binding)
        if key in self._elements:
            return (self._elements[key],)
        if not self._elements and key in self._assignments:
            return self._assignments[key]
        if depth > DEPTH_LIMIT or key in self._active:
            return _UNSURE
        self._spend(1)
        self._active.add(key)
        try:
            step = self._BOUND.get(binding.kind)
            values = _distinct(step(self, binding, depth + 1)) if step is not None else _UNSURE
        finally:
            self._active.discard(key)
        if not self._elements:
            self._assignments[key] = values
        return values

    def _assigned(self, binding: Binding, depth: int) -> Values:
        values = self.fold(binding.node, depth)
        if binding.index is None:
            return values
        index = binding.index
        return tuple(_item(value, index) for value in values)

    def _each(self, binding: Binding, depth: int) -> Values:
        every: list[Value] = []
        for value in self.fold(binding.node, depth):
            items = tuple(k for k, _ in value.items) if isinstance(value, Pairs) else value
            if not isinstance(items, tuple | str | bytes):
                return _UNSURE
            for item in items[: ALTERNATIVES_LIMIT + 1]:
                if item is not REST:
                    every.append(item if binding.index is None else _item(item, binding.index))
        return tuple(every)

    def _imported(self, binding: Binding, depth: int) -> Values:  # noqa: ARG002
        return (pyvalue.CONSTANTS.get(canonical(binding.text), UNKNOWN),)

    def _augment(self, binding: Binding, depth: int) -> Values:
        node = binding.node
        operator = type(node.op).__name__
        before = tuple(v for b in binding.previous for v in self._bound(b, depth)) or _UNSURE
        return self.combined(
            lambda v: pyvalue.arithmetic(operator, v[0], v[1]),
            (_distinct(before), self.fold(node.value, depth)),
        )

    def _grown(self, binding: Binding, depth: int) -> Values:
        before = tuple(v for b in binding.previous for v in self._bound(b, depth)) or _UNSURE
        added = self.fold(binding.node, depth)
        if binding.kind == "append":
            added = tuple((value,) for value in added)
        return self.combined(
            lambda v: v[0] + tuple(v[1]) if isinstance(v[0], tuple) else UNKNOWN,
            (_distinct(before), added),
        )

    def _joined_ways(self, binding: Binding, depth: int) -> Values:
        ways = [each for each in binding.previous if each is not binding]
        return tuple(v for each in ways for v in self._bound(each, depth)) or _UNSURE

    def _parameter(self, binding: Binding, depth: int) -> Values:
        given = self.given(binding)
        return tuple(v for each in given for v in self.fold(each, depth)) or _UNSURE

    def _operation(self, node: ast.BinOp, depth: int) -> Values:
        """A chain of the same operation is read from its left end, so that it is no depth."""
        operands = [node.right]
        operator = type(node.op)
        left = node.left
        while isinstance(left, ast.BinOp) and type(left.op) is operator:
            operands.append(left.right)
            left = left.left
            if len(operands) > CHAIN_LIMIT:
                return _UNSURE
        values = self.fold(left, depth)
        name = operator.__name__
        for each in reversed(operands):
            values = self.combined(
                lambda v: pyvalue.arithmetic(name, v[0], v[1]), (values, self.fold(each, depth))
            )
        return values

    def _negated(self, node: ast.UnaryOp, depth: int) -> Values:
        if isinstance(node.op, ast.Not):
            return _UNSURE
        sign: Callable[[Any], Any] = {ast.USub: lambda x: -x, ast.Invert: lambda x: ~x}.get(
            type(node.op), lambda x: +x
        )
        return self.combined(lambda v: sign(v[0]), (self.fold(node.operand, depth),))

    def _text(self, node: ast.JoinedStr, depth: int) -> Values:
        if len(node.values) > CHAIN_LIMIT:
            return _UNSURE
        parts = [self.fold(each, depth) for each in node.values]
        return self.combined(pyvalue.joined, parts)

    def _field(self, node: ast.FormattedValue, depth: int) -> Values:
        conversion = {115: "s", 114: "r", 97: "a"}.get(node.conversion)
        form = self.fold(node.format_spec, depth) if node.format_spec is not None else ("",)
        return self.combined(
            lambda v: pyvalue.specified(v[0], conversion, v[1]) if isinstance(v[1], str)
            else UNKNOWN,
            (self.fold(node.value, depth), form),
        )  # fmt: skip

    def _sequence(self, node: Any, depth: int) -> Values:
        if len(node.elts) > pyvalue.ITEMS_LIMIT:
            return _UNSURE
        parts = []
        for each in node.elts:
            if isinstance(each, ast.Starred):
                parts.append(tuple(v if isinstance(v, tuple) else (REST,)
                                   for v in self.fold(each.value, depth)))  # fmt: skip
            else:
                parts.append(tuple((value,) for value in self.fold(each, depth)))
        whole = self.combined(lambda v: sum(v, ()) if len(v) < 64 else _chained(v), parts)
        if whole == _UNSURE:
            # Too many combinations: each element that has one value is still known.
            return (_chained([part[0] if len(part) == 1 else (UNKNOWN,) for part in parts]),)
        return whole

    def _dictionary(self, node: ast.Dict, depth: int) -> Values:
        if len(node.keys) > pyvalue.ITEMS_LIMIT:
            return _UNSURE
        pairs = []
        for key, value in zip(node.keys, node.values, strict=True):
            keys = self.fold(key, depth) if key is not None else _UNSURE
            values = self.fold(value, depth)
            pairs.append((keys[0], values[0] if len(values) == 1 else UNKNOWN))
        return (Pairs(tuple(pairs)),)

    def _either(self, node: ast.IfExp, depth: int) -> Values:
        return (*self.fold(node.body, depth), *self.fold(node.orelse, depth))

    def _some(self, node: ast.BoolOp, depth: int) -> Values:
        return tuple(v for each in node.values[:ALTERNATIVES_LIMIT] for v in self.fold(each, depth))

    def _subscript(self, node: ast.Subscript, depth: int) -> Values:
        if "os.environ" in self.names(node.value, depth):
            keys = self.fold(node.slice, depth)
            return ("~",) if keys == ("HOME",) else _UNSURE
        owners = self.fold(node.value, depth)
        if isinstance(node.slice, ast.Slice):
            ends = (node.slice.lower, node.slice.upper, node.slice.step)
            parts = [self.fold(end, depth) if end is not None else (None,) for end in ends]
            return self.combined(
                lambda v: v[0][slice(*v[1:])] if _whole(v[0]) else UNKNOWN, (owners, *parts)
            )
        return self.combined(lambda v: _item(v[0], v[1]), (owners, self.fold(node.slice, depth)))

    def _attribute(self, node: ast.Attribute, depth: int) -> Values:
        for name in self.names(node, depth):
            if name in pyvalue.CONSTANTS:
                return (pyvalue.CONSTANTS[name],)
        owner = self.names(node.value, depth)
        if "pathlib.Path()" in owner and node.attr in ("parent", "name"):
            part = pyvalue.FUNCTIONS[
                "os.path.dirname" if node.attr == "parent" else "os.path.basename"
            ]
            return self.combined(part, (self.fold(node.value, depth),))
        stored = self._flow.attributes.get(node.attr, [])
        if len(stored) == 1 and not owner:
            return self._bound(stored[0], depth)
        return _UNSURE

    def _comprehension(self, node: Any, depth: int) -> Values:
        generator = node.generators[0]
        if len(node.generators) > 1 or generator.ifs or not isinstance(generator.target, ast.Name):
            return _UNSURE
        binding = self._target_of(node, generator.target.id)
        results: list[Value] = []
        for value in self.fold(generator.iter, depth):
            if not isinstance(value, tuple | str | bytes) or len(value) > pyvalue.ITEMS_LIMIT:
                return _UNSURE
            items = []
            for element in value:
                if element is REST or binding is None:
                    return _UNSURE
                self._elements[id(binding)] = element
                try:
                    made = self.fold(node.elt, depth)
                finally:
                    del self._elements[id(binding)]
                items.append(made[0] if len(made) == 1 else UNKNOWN)
            results.append(tuple(items))
        return tuple(results)

    def _target_of(self, node: ast.AST, name: str) -> Binding | None:
        for each in ast.walk(node.elt if hasattr(node, "elt") else node):
            if isinstance(each, ast.Name) and each.id == name:
                bindings = self._flow.reads(each) or ()
                return bindings[0] if len(bindings) == 1 else None
        # The element does not use it; any key will do.
        return Binding("unknown")

    def _call(self, node: ast.Call, depth: int) -> Values:  # noqa: PLR0911  (a case a line)
        if len(node.args) > pyvalue.ITEMS_LIMIT:
            return _UNSURE
        for name in self.names(node.func, depth):
            if name in pyvalue.FUNCTIONS:
                return self._applied(pyvalue.FUNCTIONS[name], node, (), depth)
            if name in _ENVIRONMENT:
                return self._environment(node, depth)
            if name in _GLOBS and node.args:
                return self.combined(_globbed, (self.fold(node.args[0], depth),))
            if name == "map" and len(node.args) == 2:
                return self._mapped(node, depth)
        returned = self._returned(node.func, depth)
        if returned is not None:
            return returned
        if isinstance(node.func, ast.Attribute):
            return self._method(node, node.func, depth)
        return _UNSURE

    def _environment(self, node: ast.Call, depth: int) -> Values:
        """A variable: the home folder as rules write it, else the default or anything."""
        if node.args and self.fold(node.args[0], depth) == ("HOME",):
            return ("~",)
        default = self.fold(node.args[1], depth) if len(node.args) > 1 else ()
        return (UNKNOWN, *default)

    def _applied(
        self, function: Operation, node: ast.Call, first: tuple[Values, ...], depth: int
    ) -> Values:
        parts = [*first, *self._arguments(node, depth)]

        def apply(values: Sequence[Value]) -> Value:
            # A sequence of unknown length is known only to what joins it.
            loose = any(isinstance(v, tuple) and REST in v for v in values) or REST in values
            return UNKNOWN if loose and function not in _TAKE_REST else function(values)

        return self.combined(apply, parts)

    def _arguments(self, node: ast.Call, depth: int) -> list[Values]:
        parts: list[Values] = []
        for each in node.args:
            if isinstance(each, ast.Starred):
                spread = self.fold(each.value, depth)
                known = len(spread) == 1 and isinstance(spread[0], tuple)
                parts += [(v,) for v in spread[0]] if known else [(REST,)]
            else:
                parts.append(self.fold(each, depth))
        return parts

    def _mapped(self, node: ast.Call, depth: int) -> Values:
        function = next((n for n in self.names(node.args[0]) if n in pyvalue.FUNCTIONS), None)
        if function is None:
            return _UNSURE
        apply = pyvalue.FUNCTIONS[function]
        return self.combined(
            lambda v: tuple(self._computed(apply, (item,)) for item in v[0])
            if isinstance(v[0], tuple | str | bytes) and REST not in tuple(v[0]) else UNKNOWN,
            (self.fold(node.args[1], depth),),
        )  # fmt: skip

    def _method(self, node: ast.Call, method: ast.Attribute, depth: int) -> Values:
        owners = self.fold(method.value, depth)
        if method.attr == "format":
            names = [each.arg for each in node.keywords]
            if None in names:
                return _UNSURE
            parts = self._arguments(node, depth)
            named = [self.fold(each.value, depth) for each in node.keywords]

            def fill(v: Sequence[Value]) -> Value:
                keywords = dict(zip(map(str, names), v[1 + len(parts) :], strict=True))
                return pyvalue.formatted(v[0], v[1 : 1 + len(parts)], keywords)

            return self.combined(fill, (owners, *parts, *named))
        table = pyvalue.METHODS
        if "pathlib.Path()" in self.names(method.value, depth):
            table = pyvalue.PATH_METHODS
        function = table.get(method.attr)
        if function is None or owners == _UNSURE:
            return _UNSURE
        return self._applied(function, node, (owners,), depth)

    def _returned(self, function: ast.expr, depth: int) -> Values | None:
        """The value of a call of this text's own function that only returns one expression."""
        returned = self.own_result(function)
        return None if returned is None else self.fold(returned, depth)

    _STEPS: ClassVar[dict[type, Any]] = {
        ast.Constant: _constant, ast.Name: _name, ast.BinOp: _operation, ast.UnaryOp: _negated,
        ast.JoinedStr: _text, ast.FormattedValue: _field, ast.List: _sequence,
        ast.Tuple: _sequence, ast.Set: _sequence, ast.Dict: _dictionary, ast.IfExp: _either,
        ast.BoolOp: _some, ast.Subscript: _subscript, ast.Attribute: _attribute, ast.Call: _call,
        ast.ListComp: _comprehension, ast.GeneratorExp: _comprehension,
        ast.SetComp: _comprehension,
        ast.NamedExpr: lambda self, node, depth: self.fold(node.value, depth),
        ast.Await: lambda self, node, depth: self.fold(node.value, depth),
    }  # fmt: skip
    _BOUND: ClassVar[dict[str, Any]] = {
        "value": _assigned, "each": _each, "import": _imported, "augment": _augment,
        "append": _grown, "extend": _grown, "join": _joined_ways, "param": _parameter,
    }  # fmt: skip


def _distinct(values: Values) -> Values:
    if len(values) < 2:
        return values
    every = tuple({(type(value), value): value for value in values}.values())
    if len(every) <= ALTERNATIVES_LIMIT:
        return every
    return (*every[: ALTERNATIVES_LIMIT - 1], UNKNOWN)


def _chained(parts: Sequence[tuple[Value, ...]]) -> tuple[Value, ...]:
    return tuple(value for part in parts for value in part)


def _whole(value: Value) -> bool:
    return isinstance(value, str | bytes) or (isinstance(value, tuple) and REST not in value)


def _item(value: Value, index: Value) -> Value:
    if isinstance(value, Pairs):
        return value.get(index)
    if not isinstance(value, tuple | str | bytes) or not isinstance(index, int):
        return UNKNOWN
    if isinstance(value, tuple) and (index < 0 or REST in value[: index + 1]) and REST in value:
        return UNKNOWN
    return value[index] if -len(value) <= index < len(value) else UNKNOWN


def _globbed(values: Sequence[Value]) -> Value:
    text = pyvalue.text_of(values[0])
    if isinstance(text, Partial):
        return (Partial(text.prefix, ""), REST)
    positions = [text.find(mark) for mark in "*?[" if mark in text]
    head = text[: min(positions)] if positions else text
    tail = text[max(text.rfind(mark) for mark in "*?]") + 1 :] if positions else ""
    return (Partial(head, tail), REST) if positions else (text,)
