"""Which assignment each name of a Python text reads: its scopes, walked in the order they run.

One pass over the syntax tree. At an `if`, a `try` or a loop the ways are joined, so a name may read
several assignments; what can't be told (`del`, a star, `global`) is the one `UNKNOWN`. A name that
a function reads from outside has a value only where it is assigned once.

Nothing here is imported that a bounded child (`runner.analysis.child`) would have to wait for.
"""

from __future__ import annotations

import ast
from typing import Any, ClassVar

_JOIN_LIMIT = 16
"""Assignments that one name may read; beyond, it is unknown."""
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_MUTATES = frozenset(
    {"insert", "remove", "pop", "clear", "sort", "reverse", "update", "setdefault", "add",
     "discard", "popitem", "appendleft", "extendleft"}
)  # fmt: skip


class Scope:
    """A module, function, class, lambda or comprehension."""

    __slots__ = ("bindings", "kind", "node", "parent")

    def __init__(self, kind: str, node: ast.AST | None, parent: Scope | None) -> None:
        self.kind = kind
        self.node = node
        self.parent = parent
        self.bindings: dict[str, list[Binding]] = {}


class Binding:
    """One place where a name gets a value.

    `kind` says what `node` is: the `value`; the iterable of which it is `each`; what is entered by
    `with` (`enter`); the `function` or `class`; the function of a `param`; what is added to
    `previous` (`augment`, `append`, `extend`). `text` is what an `import` brings or a parameter's
    name, `index` the place in what is unpacked. `join`: any of `previous`. `unknown`: anything.
    """

    __slots__ = ("index", "kind", "node", "previous", "text")

    def __init__(
        self,
        kind: str,
        node: Any = None,
        *,
        text: str = "",
        index: int | None = None,
        previous: tuple[Binding, ...] = (),
    ) -> None:
        self.kind = kind
        self.node = node
        self.text = text
        self.index = index
        self.previous = previous


UNKNOWN = Binding("unknown")
Reaching = tuple[Binding, ...]


class _Ways:
    """What each name reads here; a branch writes over what stands outside of it."""

    __slots__ = ("names", "outer")

    def __init__(self, outer: _Ways | None = None) -> None:
        self.names: dict[str, Reaching] = {}
        self.outer = outer

    def get(self, name: str) -> Reaching:
        ways: _Ways | None = self
        while ways is not None:
            if name in ways.names:
                return ways.names[name]
            ways = ways.outer
        return ()

    def join(self, branches: list[_Ways]) -> None:
        """Go on behind branches of which one was taken."""
        if len(branches) == 1:
            self.names.update(branches[0].names)
            return
        changed = {name for branch in branches for name in branch.names}
        # All are read before any is written: the branches look through to these names.
        joined = {n: _union([branch.get(n) for branch in branches]) for n in changed}
        self.names.update(joined)


def _union(parts: list[Reaching]) -> Reaching:
    every = dict.fromkeys(binding for part in parts for binding in part)
    return tuple(every) if len(every) <= _JOIN_LIMIT else (UNKNOWN,)


class Flow:
    """The names of a text."""

    def __init__(self, tree: ast.Module) -> None:
        self.calls: list[ast.Call] = []
        self.attributes: dict[str, list[Binding]] = {}
        """What is assigned to `x.NAME`, for any `x`, and in the bodies of classes."""
        self.functions: dict[str, list[Function]] = {}
        self.owner: dict[int, str] = {}
        """The class that a method stands in, by the identity of its node."""
        self.returns: dict[int, list[ast.expr | None]] = {}
        self.sites: dict[str, list[ast.Call]] = {}
        """Calls by the name that is called; `.NAME` for methods."""
        self.direct: dict[int, list[ast.Call]] = {}
        """Calls of a lambda where it stands."""
        self.stars: list[str] = []
        self.imports: list[tuple[str, int]] = []
        self.others: list[ast.Attribute | ast.Name] = []
        """Every name and attribute that is read."""
        self.aliased: set[int] = set()
        """What a name is assigned as a whole, by its identity."""
        self.checked: set[int] = set()
        """Arguments of `isinstance`."""
        self._loads: dict[int, tuple[Scope, Reaching]] = {}
        self._unsure: set[str] = set()
        self._every: dict[str, list[Binding]] = {}
        self._later: list[tuple[Function, Scope]] = []
        top = Scope("module", tree, None)
        self.module = top.bindings
        """What the text assigns outside of functions and classes."""
        self._block(tree.body, top, _Ways())
        while self._later:
            self._function(*self._later.pop())

    def reads(self, node: ast.Name) -> Reaching | None:
        """What a name may read; None: nothing in this text assigns it."""
        scope, reaching = self._loads.get(id(node), (None, ()))
        if node.id in self._unsure:
            return _only(self._every.get(node.id, []))
        if reaching:
            return reaching
        within = True
        while scope is not None:
            found = scope.bindings.get(node.id)
            if found and (within or scope.kind != "class"):
                return _only(found)
            within = False
            scope = scope.parent
        return None

    # Statements

    def _block(self, statements: list[ast.stmt], scope: Scope, ways: _Ways) -> bool:
        """Walk statements; False when what stands behind them is not reached."""
        going = True
        for statement in statements:
            going = self._statement(statement, scope, ways) and going
        return going

    def _statement(self, node: ast.stmt, scope: Scope, ways: _Ways) -> bool:
        step = self._STEPS.get(type(node))
        if step is not None:
            return step(self, node, scope, ways) is not False
        self._expressions(node, scope, ways)
        return not isinstance(node, ast.Raise)

    def _expressions(self, node: ast.AST, scope: Scope, ways: _Ways) -> None:
        for child in ast.iter_child_nodes(node):
            self._expression(child, scope, ways)

    def _define(self, node: Any, scope: Scope, ways: _Ways) -> None:
        inside = (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults))
        for each in inside:
            self._expression(each, scope, ways)
        self._named(node, node.name, scope)
        self._bind(node.name, Binding("function", node), scope, ways)

    def _named(self, node: Function, name: str, scope: Scope) -> None:
        self.functions.setdefault(name, []).append(node)
        if scope.kind == "class" and isinstance(scope.node, ast.ClassDef):
            self.owner[id(node)] = scope.node.name
        self._later.append((node, Scope("function", node, scope)))

    def _function(self, node: Function, scope: Scope) -> None:
        ways = _Ways()
        arguments = node.args
        plain = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)
        for each in plain:
            self._bind(each.arg, Binding("param", node, text=each.arg), scope, ways)
        for rest in (arguments.vararg, arguments.kwarg):
            if rest is not None:
                self._bind(rest.arg, UNKNOWN, scope, ways)
        if isinstance(node, ast.Lambda):
            self._expression(node.body, scope, ways)
            self.returns[id(node)] = [node.body]
        else:
            self._block(node.body, scope, ways)

    def _class(self, node: ast.ClassDef, scope: Scope, ways: _Ways) -> None:
        for each in (*node.decorator_list, *node.bases, *node.keywords):
            self._expression(each, scope, ways)
        inner = Scope("class", node, scope)
        self._block(node.body, inner, _Ways())
        for name, bindings in inner.bindings.items():
            self.attributes.setdefault(name, []).extend(bindings)
        self._bind(node.name, Binding("class", node), scope, ways)

    def _return(self, node: ast.Return, scope: Scope, ways: _Ways) -> bool:
        self._expressions(node, scope, ways)
        self.returns.setdefault(id(scope.node), []).append(node.value)
        return False

    def _assign(self, node: ast.Assign, scope: Scope, ways: _Ways) -> None:
        self._expression(node.value, scope, ways)
        for target in node.targets:
            self._target(target, "value", node.value, scope, ways)

    def _annotated(self, node: ast.AnnAssign, scope: Scope, ways: _Ways) -> None:
        if node.value is not None:
            self._expression(node.value, scope, ways)
            self._target(node.target, "value", node.value, scope, ways)

    def _augmented(self, node: ast.AugAssign, scope: Scope, ways: _Ways) -> None:
        self._expression(node.value, scope, ways)
        if isinstance(node.target, ast.Name):
            name = node.target.id
            added = Binding("augment", node, previous=ways.get(name))
            self._bind(name, added, scope, ways)
        else:
            self._target(node.target, "unknown", None, scope, ways)

    def _delete(self, node: ast.Delete, scope: Scope, ways: _Ways) -> None:
        for target in node.targets:
            self._target(target, "unknown", None, scope, ways)

    def _expr(self, node: ast.Expr, scope: Scope, ways: _Ways) -> None:
        self._expression(node.value, scope, ways)
        call = node.value
        if not (
            isinstance(call, ast.Call)
            and isinstance(call.func, ast.Attribute)
            and isinstance(call.func.value, ast.Name)
        ):
            return
        name, method = call.func.value.id, call.func.attr
        before = ways.get(name)
        if method in ("append", "extend") and len(call.args) == 1 and before:
            self._bind(name, Binding(method, call.args[0], previous=before), scope, ways)
        elif method in _MUTATES and before:
            self._bind(name, Binding("mutated", previous=before), scope, ways)

    def _import(self, node: ast.Import, scope: Scope, ways: _Ways) -> None:
        for alias in node.names:
            self.imports.append((alias.name, node.lineno))
            top = alias.name.partition(".")[0]
            brought = alias.name if alias.asname else top
            self._bind(alias.asname or top, Binding("import", text=brought), scope, ways)

    def _import_from(self, node: ast.ImportFrom, scope: Scope, ways: _Ways) -> None:
        module = "." * node.level + (node.module or "")
        self.imports.append((module, node.lineno))
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(module)
                continue
            brought = f"{module}.{alias.name}"
            self.imports.append((brought, node.lineno))
            self._bind(alias.asname or alias.name, Binding("import", text=brought), scope, ways)

    def _global(self, node: Any, scope: Scope, ways: _Ways) -> None:  # noqa: ARG002
        self._unsure.update(node.names)

    def _if(self, node: ast.If, scope: Scope, ways: _Ways) -> bool:
        branches: list[_Ways] = []
        rest: list[ast.stmt] = [node]
        while len(rest) == 1 and isinstance(rest[0], ast.If):  # a chain of `elif` is no depth
            each = rest[0]
            self._expression(each.test, scope, ways)
            branch = _Ways(ways)
            if self._block(each.body, scope, branch):
                branches.append(branch)
            rest = each.orelse
        last = _Ways(ways)
        if self._block(rest, scope, last):
            branches.append(last)
        ways.join(branches)
        return bool(branches)

    def _loop(self, node: Any, scope: Scope, ways: _Ways) -> None:
        self._expression(node.test if isinstance(node, ast.While) else node.iter, scope, ways)
        joins: dict[str, Binding] = {}
        for name, assigned in _stored(node).items():
            before = ways.get(name)
            if assigned or before:
                joins[name] = Binding("join", previous=before)
                ways.names[name] = (joins[name],)
        body = _Ways(ways)
        if not isinstance(node, ast.While):
            self._target(node.target, "each", node.iter, scope, body)
        self._block(node.body, scope, body)
        for name, join in joins.items():
            join.previous = _union([join.previous, body.get(name)])
        self._block(node.orelse, scope, ways)

    def _with(self, node: Any, scope: Scope, ways: _Ways) -> bool:
        for item in node.items:
            self._expression(item.context_expr, scope, ways)
            if item.optional_vars is not None:
                self._target(item.optional_vars, "enter", item.context_expr, scope, ways)
        return self._block(node.body, scope, ways)

    def _try(self, node: Any, scope: Scope, ways: _Ways) -> None:
        body = _Ways(ways)
        self._block(node.body, scope, body)
        failed = _Ways(ways)
        failed.join([body, _Ways(ways)])
        branches = [body] if self._block(node.orelse, scope, body) else []
        for handler in node.handlers:
            branch = _Ways(failed)
            if handler.type is not None:
                self._expression(handler.type, scope, branch)
            if handler.name:
                self._bind(handler.name, UNKNOWN, scope, branch)
            if self._block(handler.body, scope, branch):
                branches.append(branch)
        flat = [_flattened(branch, ways) for branch in branches]
        ways.join(flat or [body])
        self._block(node.finalbody, scope, ways)

    def _match(self, node: ast.Match, scope: Scope, ways: _Ways) -> None:
        self._expression(node.subject, scope, ways)
        branches = [_Ways(ways)]
        for case in node.cases:
            branch = _Ways(ways)
            for part in ast.walk(case.pattern):
                name = getattr(part, "name", None) or getattr(part, "rest", None)
                if isinstance(name, str):
                    self._bind(name, UNKNOWN, scope, branch)
            if case.guard is not None:
                self._expression(case.guard, scope, branch)
            if self._block(case.body, scope, branch):
                branches.append(branch)
        ways.join(branches)

    # Names

    def _bind(self, name: str, binding: Binding, scope: Scope, ways: _Ways) -> None:
        ways.names[name] = (binding,)
        scope.bindings.setdefault(name, []).append(binding)
        self._every.setdefault(name, []).append(binding)
        if isinstance(binding.node, ast.Lambda) and binding.kind == "value":
            self.functions.setdefault(name, []).append(binding.node)

    def _target(
        self, target: ast.expr, kind: str, value: ast.expr | None, scope: Scope, ways: _Ways
    ) -> None:
        if isinstance(target, ast.Name):
            if kind == "value":
                self.aliased.add(id(value))
            self._bind(target.id, Binding(kind, value), scope, ways)
        elif isinstance(target, ast.Attribute):
            self._expression(target.value, scope, ways)
            self.attributes.setdefault(target.attr, []).append(Binding(kind, value))
        elif isinstance(target, ast.Tuple | ast.List):
            whole = any(isinstance(each, ast.Starred) for each in target.elts)
            for index, each in enumerate(target.elts):
                if isinstance(each, ast.Name) and not whole:
                    self._bind(each.id, Binding(kind, value, index=index), scope, ways)
                else:
                    self._target(each, "unknown", None, scope, ways)
        elif isinstance(target, ast.Starred):
            self._target(target.value, "unknown", None, scope, ways)
        elif isinstance(target, ast.Subscript):
            self._expression(target, scope, ways)
            if isinstance(target.value, ast.Name) and ways.get(target.value.id):
                name = target.value.id
                self._bind(name, Binding("mutated", previous=ways.get(name)), scope, ways)

    # Expressions

    def _expression(self, root: ast.AST, scope: Scope, ways: _Ways) -> None:
        stack: list[tuple[ast.AST, Scope, _Ways]] = [(root, scope, ways)]
        while stack:
            node, scope, ways = stack.pop()
            if isinstance(node, ast.Name):
                self._loads[id(node)] = (scope, ways.get(node.id))
                self.others.append(node)
                continue
            if isinstance(node, ast.Call):
                self._site(node)
            elif isinstance(node, ast.Attribute):
                self.others.append(node)
            elif isinstance(node, ast.Lambda):
                self._later.append((node, Scope("function", node, scope)))
                defaults = (*node.args.defaults, *filter(None, node.args.kw_defaults))
                stack.extend((each, scope, ways) for each in defaults)
                continue
            elif isinstance(node, ast.NamedExpr):
                self._walrus(node, scope, ways)
                stack.append((node.value, scope, ways))
                continue
            elif isinstance(node, _COMPREHENSIONS):
                self._comprehension(node, scope, ways, stack)
                continue
            stack.extend((each, scope, ways) for each in reversed(list(ast.iter_child_nodes(node))))

    def _site(self, node: ast.Call) -> None:
        self.calls.append(node)
        if isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                for each in node.args[1:2]:
                    every = each.elts if isinstance(each, ast.Tuple) else [each]
                    self.checked.update(map(id, every))
            self.sites.setdefault(node.func.id, []).append(node)
        elif isinstance(node.func, ast.Attribute):
            self.sites.setdefault("." + node.func.attr, []).append(node)
        elif isinstance(node.func, ast.Lambda):
            self.direct.setdefault(id(node.func), []).append(node)

    def _walrus(self, node: ast.NamedExpr, scope: Scope, ways: _Ways) -> None:
        while scope.kind == "comprehension" and scope.parent is not None:
            self._unsure.add(node.target.id)
            scope = scope.parent
        self._bind(node.target.id, Binding("value", node.value), scope, ways)

    def _comprehension(
        self, node: Any, scope: Scope, ways: _Ways, stack: list[tuple[ast.AST, Scope, _Ways]]
    ) -> None:
        inner, inside = Scope("comprehension", node, scope), _Ways(ways)
        parts: list[tuple[ast.AST, Scope, _Ways]] = []
        for position, generator in enumerate(node.generators):
            # The first is evaluated outside (Python reference, "Displays").
            parts.append((generator.iter, *((inner, inside) if position else (scope, ways))))
            self._target(generator.target, "each", generator.iter, inner, inside)
            parts += [(each, inner, inside) for each in generator.ifs]
        made = (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,)
        parts += [(each, inner, inside) for each in made]
        stack.extend(reversed(parts))

    _STEPS: ClassVar[dict[type, Any]] = {
        ast.FunctionDef: _define, ast.AsyncFunctionDef: _define, ast.ClassDef: _class,
        ast.Return: _return, ast.Assign: _assign, ast.AnnAssign: _annotated,
        ast.AugAssign: _augmented, ast.Delete: _delete, ast.Expr: _expr, ast.Import: _import,
        ast.ImportFrom: _import_from, ast.Global: _global, ast.Nonlocal: _global, ast.If: _if,
        ast.For: _loop, ast.AsyncFor: _loop, ast.While: _loop, ast.With: _with,
        ast.AsyncWith: _with, ast.Try: _try, ast.TryStar: _try, ast.Match: _match,
    }  # fmt: skip


def _only(bindings: list[Binding]) -> Reaching:
    """What a name reads that is assigned somewhere: its one assignment, or each of what is named
    by definition."""
    if len(bindings) == 1 or all(b.kind in ("import", "function", "class") for b in bindings):
        return _union([tuple(bindings)])
    return (UNKNOWN,)


def _flattened(branch: _Ways, below: _Ways) -> _Ways:
    """A branch of a branch as one on `below`."""
    flat = _Ways(below)
    layers = []
    each: _Ways | None = branch
    while each is not None and each is not below:
        layers.append(each)
        each = each.outer
    for layer in reversed(layers):
        flat.names.update(layer.names)
    return flat


def _stored(loop: ast.AST) -> dict[str, bool]:
    """Names that a loop assigns (True) or may change in place, in order.

    Names of functions inside are their own.
    """
    names: dict[str, bool] = {}
    stack = [loop]
    while stack:
        top = stack.pop()
        if isinstance(top, ast.Name):
            if not isinstance(top.ctx, ast.Load):
                names[top.id] = True
        elif isinstance(top, ast.Attribute | ast.Subscript) and isinstance(top.value, ast.Name):
            names.setdefault(top.value.id, False)  # x.append(…), x[…] = …
        elif isinstance(top, (*_FUNCTIONS, ast.ClassDef)):
            names[top.name] = True
            continue
        elif isinstance(top, ast.Import | ast.ImportFrom):
            for alias in top.names:
                names[alias.asname or alias.name.partition(".")[0]] = True
        elif isinstance(top, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and top.name:
            names[top.name] = True
        stack.extend(reversed(list(ast.iter_child_nodes(top))))
    return names
