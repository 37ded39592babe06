"""What expressions of a Python text are called in full: `os.system`, whatever it hides behind.

Aliases, `__import__`, `getattr`, `sys.modules`, `vars()` and parameters are followed as far as
constants tell.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from typing import Any, ClassVar

from runner.analysis.python.flow import Binding, Flow, Function
from runner.analysis.values import UNKNOWN, TooMuchError, Value

ALTERNATIVES_LIMIT = 16
DEPTH_LIMIT = 60
CHAIN_LIMIT = 2000
"""Operands of one `a + b + …`, attributes of one `a.b.…`."""
_NAMES_LIMIT = 4
_RE_EXPORTED = {
    "os": "os", "_os": "os", "sys": "sys", "_sys": "sys", "subprocess": "subprocess",
    "builtins": "builtins", "__builtins__": "builtins", "posix": "os", "nt": "os",
    "importlib": "importlib", "ctypes": "ctypes",
}  # fmt: skip
"""Modules that others bring along: `shutil.os.system` is `os.system`."""
_ELEMENTS_OF_PATHS = ("pathlib.Path().iterdir()", "pathlib.Path().glob()", "pathlib.Path().rglob()")

Values = tuple[Value, ...]
Names = tuple[str, ...]


class Named:
    """The names of one text's expressions; values are told by who inherits from this."""

    def __init__(self, flow: Flow, budget: int) -> None:
        self._flow = flow
        self._budget = budget
        self._active: set[int] = set()
        self._names: dict[int, Names] = {}
        self._unique = {id(f[0]): n for n, f in flow.functions.items() if len(f) == 1}
        """Functions that are the only ones of their name."""

    def fold(self, node: ast.expr | None, depth: int = 0) -> Values:
        """Every value that an expression may have; UNKNOWN among them: others too."""
        raise NotImplementedError

    def _spend(self, units: int) -> None:
        self._budget -= units
        if self._budget < 0:
            raise TooMuchError

    def names(self, node: ast.expr, depth: int = 0) -> Names:
        """What an expression is called in full: `os.system`, `pathlib.Path()` for one of these.

        A last part `?` stands for a name that can't be told.
        """
        key = id(node)
        known = self._told(key, depth)
        if known is not None:
            return known
        attributes: list[str] = []
        while isinstance(node, ast.Attribute) and len(attributes) < CHAIN_LIMIT:
            attributes.append(node.attr)
            node = node.value
        step = self._NAMED.get(type(node))
        found = step(self, node, depth + 1) if step is not None else ()
        if attributes:
            tail = ".".join(reversed(attributes))
            found = tuple(f"{name}.{tail}" for name in found) or self._stored(attributes, depth)
        return self._keep(key, (canonical(name) for name in found))

    def _told(self, key: int, depth: int) -> Names | None:
        """What was found before, nothing where it is too deep; None: it is to be found now."""
        if key in self._names:
            return self._names[key]
        if depth > DEPTH_LIMIT:
            return ()
        self._spend(1)
        self._names[key] = ()  # what refers to itself has none
        return None

    def _keep(self, key: int, found: Iterable[str]) -> Names:
        names = tuple(dict.fromkeys(found))[:_NAMES_LIMIT]
        self._names[key] = names
        return names

    def _stored(self, attributes: list[str], depth: int) -> Names:
        """`self.run` where a text assigns `.run` once."""
        stored = self._flow.attributes.get(attributes[0], [])
        return self._bound_names(stored[0], depth) if len(stored) == 1 else ()

    def _named(self, node: ast.Name, depth: int) -> Names:
        bindings = self._flow.reads(node)
        if bindings is None:
            starred = [f"{module}.{node.id}" for module in self._flow.stars]
            return (*starred, node.id)
        found = (n for b in bindings[:_NAMES_LIMIT] for n in self._bound_names(b, depth))
        return tuple(found)[:_NAMES_LIMIT]

    def _bound_names(self, binding: Binding, depth: int) -> Names:
        key = id(binding)
        known = self._told(key, depth)
        if known is not None:
            return known
        return self._keep(key, self._names_of(binding, depth + 1))

    def _names_of(self, binding: Binding, depth: int) -> Names:
        if binding.kind == "import":
            return (binding.text,)
        if binding.kind in ("value", "enter"):
            node = binding.node
            if binding.index is not None:
                node = _element(node, binding.index)
            return self.names(node, depth) if node is not None else ()
        if binding.kind == "each":
            return self._each_name(binding, depth)
        if binding.kind in ("join", "mutated", "augment"):
            every = (self._bound_names(each, depth) for each in binding.previous)
            return tuple(name for names in every for name in names)
        if binding.kind == "param":
            given = self.given(binding)[:_NAMES_LIMIT]
            return tuple(n for each in given if each is not None for n in self.names(each, depth))
        return ()

    def _each_name(self, binding: Binding, depth: int) -> Names:
        if isinstance(binding.node, ast.List | ast.Tuple) and binding.index is None:
            some = binding.node.elts[:_NAMES_LIMIT]
            return tuple(name for each in some for name in self.names(each, depth))
        if any(name in _ELEMENTS_OF_PATHS for name in self.names(binding.node, depth)):
            return ("pathlib.Path()",)
        return ()

    def _called(self, node: ast.Call, depth: int) -> Names:
        found: list[str] = []
        for name in self.names(node.func, depth):
            if name in _IMPORTERS:
                found += self._module(name, node, depth)
            elif name == "getattr" and len(node.args) > 1:
                found += self._member(node.args[0], node.args[1], depth)
            elif name == "operator.attrgetter()" and isinstance(node.func, ast.Call):
                if node.args and node.func.args:
                    found += self._member(node.args[0], node.func.args[0], depth)
            elif name.endswith(".__getattribute__") and node.args:
                found += self._fetched(node, depth)
            elif name == "pkgutil.resolve_name" and node.args:
                found += [v.replace(":", ".") for v in self.fold(node.args[0]) if type(v) is str]
            elif name in ("vars", "globals", "locals", "dir"):
                owners = self.names(node.args[0], depth) if node.args else ("",)
                found += [f"{owner}.__dict__" for owner in owners]
            elif name == "functools.partial" and node.args:
                found += self.names(node.args[0], depth)
            else:
                found.append(f"{name}()")
        if not found:
            returned = self.own_result(node.func)
            if returned is not None:
                return self.names(returned, depth)
        return tuple(found)

    def _fetched(self, node: ast.Call, depth: int) -> Names:
        """`os.__getattribute__("system")`, `object.__getattribute__(os, "system")`."""
        if len(node.args) > 1:
            return self._member(node.args[0], node.args[1], depth)
        if isinstance(node.func, ast.Attribute):
            return self._member(node.func.value, node.args[0], depth)
        return ()

    def _module(self, name: str, node: ast.Call, depth: int) -> list[str]:
        argument = node.args[0] if node.args else _keyword(node, "name")
        found = []
        for value in self.fold(argument, depth):
            if not isinstance(value, str) or not value:
                found.append("?")
            elif name.endswith("__import__") and not (
                len(node.args) > 3 or _keyword(node, "fromlist") is not None
            ):
                found.append(value.partition(".")[0])
            else:
                found.append(value)
        return found

    def _member(self, owner: ast.expr, member: ast.expr, depth: int) -> Names:
        values = self.fold(member, depth)
        tails = [value if isinstance(value, str) else "?" for value in values]
        return tuple(f"{name}.{tail}" for name in self.names(owner, depth) for tail in tails)

    def _item_name(self, node: ast.Subscript, depth: int) -> Names:
        base = node.value
        if isinstance(base, ast.Name):
            bindings = self._flow.reads(base) or ()
            if len(bindings) == 1 and bindings[0].kind == "value":
                base = bindings[0].node
        if isinstance(base, ast.List | ast.Tuple | ast.Dict):
            return self._literal_item(base, node.slice, depth)
        found: list[str] = []
        for name in self.names(node.value, depth):
            for value in self.fold(node.slice, depth):
                key = value if isinstance(value, str) else "?"
                if name == "sys.modules":
                    found.append(key)
                elif name == ".__dict__":  # globals()
                    found += self._global_name(key, depth)
                elif name.endswith(".__dict__"):
                    found.append(f"{name.removesuffix('.__dict__')}.{key}")
                elif name in ("builtins", "__builtins__", "ctypes.CDLL()", "ctypes.cdll"):
                    found.append(f"{name}.{key}")
                else:
                    found.append(f"{name}[]")
        return tuple(found)

    def _global_name(self, key: str, depth: int) -> Names:
        bindings = self._flow.module.get(key)
        if bindings is None:
            return (key,)
        return tuple(n for each in bindings[:1] for n in self._bound_names(each, depth))

    def _literal_item(self, base: Any, index: ast.expr, depth: int) -> Names:
        found: list[str] = []
        self._spend(len(base.keys if isinstance(base, ast.Dict) else base.elts))
        for value in self.fold(index, depth):
            if isinstance(base, ast.Dict):
                every = [
                    each for key, each in zip(base.keys, base.values, strict=True)
                    if key is not None and value in (UNKNOWN, *self.fold(key, depth))
                ]  # fmt: skip
            elif isinstance(value, int) and -len(base.elts) <= value < len(base.elts):
                every = [base.elts[value]]
            else:
                every = base.elts
            for each in every[:_NAMES_LIMIT]:
                found += self.names(each, depth)
        return tuple(found)

    def _names_of_ways(self, node: Any, depth: int) -> Names:
        ways = (node.body, node.orelse) if isinstance(node, ast.IfExp) else node.values
        return tuple(n for each in ways[:_NAMES_LIMIT] for n in self.names(each, depth))

    def _path_name(self, node: ast.BinOp, depth: int) -> Names:
        base: ast.expr = node
        while isinstance(base, ast.BinOp) and isinstance(base.op, ast.Div):
            base = base.left
        if isinstance(base, ast.BinOp):
            return ()
        return ("pathlib.Path()",) if "pathlib.Path()" in self.names(base, depth) else ()

    _NAMED: ClassVar[dict[type, Any]] = {
        ast.Name: _named, ast.Call: _called, ast.Subscript: _item_name, ast.IfExp: _names_of_ways,
        ast.BoolOp: _names_of_ways, ast.BinOp: _path_name,
        ast.NamedExpr: lambda self, node, depth: self.names(node.value, depth),
        ast.Await: lambda self, node, depth: self.names(node.value, depth),
    }  # fmt: skip

    def given(self, binding: Binding) -> list[ast.expr | None]:
        """What is passed for a parameter, by all calls of its function; None: not known."""
        function: Function = binding.node
        arguments = function.args
        positional = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        defaults: dict[str, ast.expr | None] = dict(
            zip(reversed(positional), reversed(arguments.defaults), strict=False)
        )
        keywords = [each.arg for each in arguments.kwonlyargs]
        defaults.update(zip(keywords, arguments.kw_defaults, strict=True))
        found: list[ast.expr | None] = []
        for call, shift in self._calls_of(function):
            named = {each.arg: each.value for each in call.keywords}
            place = positional.index(binding.text) - shift if binding.text in positional else -1
            if binding.text in named:
                found.append(named[binding.text])
            elif any(isinstance(each, ast.Starred) for each in call.args) or None in named:
                found.append(None)
            elif 0 <= place < len(call.args):
                found.append(call.args[place])
            else:
                found.append(defaults.get(binding.text))
            if len(found) > ALTERNATIVES_LIMIT:
                return [*found[:ALTERNATIVES_LIMIT], None]
        return found

    def _calls_of(self, function: Function) -> list[tuple[ast.Call, int]]:
        direct = self._flow.direct.get(id(function), [])
        name = self._unique.get(id(function), "")
        owner = self._flow.owner.get(id(function))
        if owner is not None and isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            if function.name == "__init__":
                both = (*self._sites(owner), *self._sites("." + owner))
                return [(call, 1) for call in both]
            static = any(getattr(d, "id", "") == "staticmethod" for d in function.decorator_list)
            return [(call, 0 if static else 1) for call in self._sites("." + name)]
        return [(call, 0) for call in (*direct, *(self._sites(name) if name else ()))]

    def _sites(self, name: str) -> list[ast.Call]:
        return self._flow.sites.get(name, [])

    def own_result(self, function: ast.expr) -> ast.expr | None:
        """What a function of this text returns, when that is one expression."""
        node: ast.AST | None = function
        if isinstance(function, ast.Name):
            bindings = self._flow.reads(function) or ()
            node = bindings[0].node if len(bindings) == 1 else None
        if isinstance(node, ast.FunctionDef | ast.Lambda):
            every = self._flow.returns.get(id(node), [])
            return every[0] if len(every) == 1 else None
        return None


_IMPORTERS = frozenset(
    {"__import__", "importlib.import_module", "importlib.__import__", "importlib.reload"}
)
_CLASSES = {
    "pathlib.PosixPath()": "pathlib.Path()", "pathlib.PurePath()": "pathlib.Path()",
    "pathlib.PurePosixPath()": "pathlib.Path()", "pathlib.Path.home()": "pathlib.Path()",
    "pathlib.Path.cwd()": "pathlib.Path()", "pathlib.Path().resolve()": "pathlib.Path()",
    "pathlib.Path().absolute()": "pathlib.Path()", "pathlib.Path().expanduser()": "pathlib.Path()",
    "pathlib.Path().joinpath()": "pathlib.Path()", "pathlib.Path().with_name()": "pathlib.Path()",
    "pathlib.Path().with_suffix()": "pathlib.Path()", "pathlib.Path().parent": "pathlib.Path()",
    "ctypes.cdll.LoadLibrary()": "ctypes.CDLL()", "ctypes.PyDLL()": "ctypes.CDLL()",
    "ctypes.pythonapi": "ctypes.CDLL()",
}  # fmt: skip


_TELLING = frozenset({"?.system", "?.popen"})
"""Names that tell which module it is that is imported by a name that can't be told."""


def canonical(name: str) -> str:
    """The name that the tables have for something: `shutil.os.system` is `os.system`."""
    if len(name) > 4096:
        return name[:64]
    parts = name.split(".")
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] in _RE_EXPORTED and (index > 0 or len(parts) > 1):
            name = ".".join([_RE_EXPORTED[parts[index]], *parts[index + 1 :]])
            break
    name = name.removeprefix("builtins.") if name != "builtins.__dict__" else name
    if name in _TELLING:
        return "os" + name[1:]
    for known, plain in _CLASSES.items():
        if name.startswith(known):
            return canonical(plain + name[len(known) :])
    return name


def _element(node: ast.expr, index: int) -> ast.expr | None:
    if isinstance(node, ast.Tuple | ast.List) and index < len(node.elts):
        return node.elts[index]
    return None


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((each.value for each in call.keywords if each.arg == name), None)
