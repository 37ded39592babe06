"""Python text -> what it would run, open and connect to, as far as constants tell.

Called in-process for small texts and in a bounded child for the rest (`runner.analysis.worker`).
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any, ClassVar

from runner.analysis import values as pyvalue
from runner.analysis.notes import FINDINGS_LIMIT, Finding, FullError
from runner.analysis.python import tables
from runner.analysis.python.flow import Flow
from runner.analysis.python.fold import Folder
from runner.analysis.python.processes import Processes, argument
from runner.analysis.values import UNKNOWN, TooMuchError, Value

_BUDGET_BASE = 20_000
_BUDGET_A_CHARACTER = 4
"""Of 640 modules of the standard library none takes more than 0.2 a character."""
_CHANGES_FOLDER = 4
_COOKIE = re.compile(rb"\A(?:[^\n]*\n)?[ \t\f]*#[^\n]*?coding[:=][ \t]*([-\w.]+)")
"""How a text declares its encoding (Python reference, "Encoding declarations")."""
_LIKE_ASCII = re.compile(
    rb"(?:us-?)?ascii|utf[-_]?8(?:-sig)?|iso-?8859-?\d+|latin[-_]?\d*|cp125\d|koi8-[ru]"
)
_LITERAL_NAMES = {"eval", "exec", "compile", "__import__"}
_METHOD_ADDRESSES = frozenset({"connect", "connect_ex", "create_connection", "sendto"})
_CONSTRUCTS = {
    "shell": "process", "argv": "process", "words": "process", "read": "read", "write": "write",
    "delete": "delete", "url": "connect", "host": "connect", "address": "connect",
    "connect": "connect", "listen": "listen", "signal": "signal", "load": "ctypes",
    "unpack": "unpack", "environment": "environment",
}  # fmt: skip
_WRITING_FLAGS = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000
"""O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND of open(2), as on x86-64."""


def read_python(text: str) -> tuple[list[Finding], str | None]:
    """What `text` would do, and why (a part of) it could not be read: one clause, or None.

    A text that declares an encoding is one program to `python FILE` and another to `python -c`,
    which ignores that: it is read as both.
    """
    try:
        content = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return [], "the Python text holds characters that no encoding has"
    found, problem = _read(content)
    if _declares(content):
        also, _ = _read(content.decode("utf-8", "replace"))
        found += [each for each in also if each not in found[:FINDINGS_LIMIT]]
    return found, problem


def needs_care(text: str) -> bool:
    """Whether its declared encoding is reason enough not to read it in this process."""
    return _declares(text[:4096].encode("utf-8", "replace"))


def _declares(content: bytes) -> bool:
    """Whether a text declares an encoding in which its ASCII characters mean something else."""
    declared = _COOKIE.match(content)
    return declared is not None and _LIKE_ASCII.fullmatch(declared[1].lower()) is None


def _read(text: bytes | str) -> tuple[list[Finding], str | None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        where = f"line {line} of the" if isinstance(line, int) else "the"
        message = str(getattr(error, "msg", error)).splitlines() or [""]
        return [], f"{where} Python text does not parse: {message[0][:200]}"
    except (RecursionError, MemoryError):
        return [], "the Python text is nested too deep to read"
    try:
        reading = _Reading(tree, _BUDGET_BASE + _BUDGET_A_CHARACTER * len(text))
    except RecursionError:
        return [], "the Python text is nested too deep to read"
    return reading.findings, reading.problem


class _Reading(Processes):
    def __init__(self, tree: ast.Module, budget: int) -> None:
        self._flow = Flow(tree)
        super().__init__(Folder(self._flow, budget))
        self.problem: str | None = None
        self._folders: list[str] = []
        self._used: set[int] = set()
        """References to functions whose call was read."""
        self._partials: dict[int, ast.Call] = {}
        """Calls of what `partial` made, and that call of it."""
        try:
            self._all()
        except TooMuchError:
            self.problem = "the Python text asks for more computing than its length allows"
        except FullError:
            self.problem = (
                f"the Python text does more than the {FINDINGS_LIMIT} things that are read"
            )

    def _all(self) -> None:
        for name, line in self._flow.imports:
            self._import(name, line)
        calls = sorted(self._flow.calls, key=lambda each: (each.lineno, each.col_offset))
        self._used = {id(call.func) for call in calls} | self._flow.aliased
        for call in calls:
            self._survive(self._partial, call)
        for call in calls:
            self._survive(self._call, call)
        for node in self._flow.others:
            self._survive(self._reference, node)

    def _survive(self, step: Any, node: Any) -> None:
        try:
            step(node)
        except RecursionError:
            self.problem = self.problem or "a part of the Python text is nested too deep to read"

    def _import(self, name: str, line: int) -> None:
        if name and not name.startswith("."):
            top = name.partition(".")[0]
            self.construct(f"import:{top}", line)
            if name != top:
                self.construct(f"import:{name[:256]}", line)
            if top in ("ctypes", "cffi", "_ctypes"):
                self.construct("ctypes", line)

    # Calls

    def _call(self, call: ast.Call) -> None:
        names = self._folder.names(call.func)
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        made = self._partials.get(id(call))
        if made is not None:
            given = [*made.args[1:], *call.args]
            self._made(call, made.args[0], given, [*made.keywords, *call.keywords])
            return
        for name in names:
            self._by_name(call, name)
        if method in _METHOD_ADDRESSES and not any(n in tables.CALLS for n in names):
            self._address(call, -1 if method == "sendto" else 0, sure=False)
        if method in tables.APPLYING_METHODS and not any(n in tables.CALLS for n in names):
            self._apply(call, 1 if method in ("run_in_executor", "call_later", "call_at") else 0)
        if isinstance(call.func, ast.Call):
            self._call_of_result(call, call.func)

    def _by_name(self, call: ast.Call, name: str) -> None:
        if name in _LITERAL_NAMES:
            self.construct(f"call:{name}", call.lineno)
        step = self._BY_NAME.get(name)
        if step is not None:
            step(self, call)
        elif name in tables.OPENS:
            mode = argument(call, tables.OPENS[name], ("mode", "flags"))
            self._open(call, argument(call, 0, ("file", "filename", "path", "name")), mode)
        elif name in tables.DEFERRED:
            self._deferred(call, tables.DEFERRED[name])
        elif name in tables.APPLIED:
            self._apply(call, tables.APPLIED[name])
        elif not self.start_process(call, name):
            self._table(call, name)

    def _open_path(self, call: ast.Call) -> None:
        if isinstance(call.func, ast.Attribute):
            self._open(call, call.func.value, argument(call, 0, ("mode",)))

    def _yaml(self, call: ast.Call) -> None:
        loader = argument(call, 1, ("Loader",))
        if loader is None or not any("Safe" in name for name in self._folder.names(loader)):
            self.construct("unpack", call.lineno)

    def _table(self, call: ast.Call, name: str) -> None:
        for kind, index, keyword in tables.CALLS.get(name, ()):
            if kind in _CONSTRUCTS:
                self.construct(_CONSTRUCTS[kind], call.lineno)
            if index == "":
                continue
            if index == "self":
                node = call.func.value if isinstance(call.func, ast.Attribute) else None
            else:
                node = argument(call, int(index), (keyword,))
            if kind == "words":
                self._flat(call, call.args[int(index) :])
            elif kind == "address":
                self._address(call, int(index), sure=True)
            elif node is None:
                if kind in ("shell", "argv"):
                    self._unknown_process(call)
            else:
                self._use(call, kind, node)

    def _use(self, call: ast.Call, kind: str, node: ast.expr) -> None:
        values = self._folder.fold(node)
        if kind == "shell":
            self._shell(call, values, node)
        elif kind == "argv":
            self._words(call, values, node=node)
        elif kind in ("read", "write", "delete"):
            self._paths(call, kind, values, node)
        elif kind == "code":
            self._code(call, values, node)
        else:
            for value in values:
                if kind != "sql" or value is not UNKNOWN:
                    self.add(kind, call.lineno, value, node)

    # Functions that call another

    def _partial(self, call: ast.Call) -> None:
        """`partial(f, a)(b)`, or `p(b)` where `p` is one."""
        made: ast.AST | None = call.func
        if isinstance(made, ast.Name):
            bindings = self._flow.reads(made) or ()
            only = bindings[0] if len(bindings) == 1 else None
            made = only.node if only is not None and only.kind == "value" else None
        if not isinstance(made, ast.Call) or not made.args:
            return
        if "functools.partial" in self._folder.names(made.func):
            self._partials[id(call)] = made
            self._used.add(id(made))

    def _call_of_result(self, call: ast.Call, inner: ast.Call) -> None:
        """`methodcaller("system", a)(os)`."""
        if "operator.methodcaller" not in self._folder.names(inner.func):
            return
        for method in self._folder.fold(inner.args[0]) if inner.args and call.args else ():
            if isinstance(method, str) and method.isidentifier():
                function = ast.Attribute(call.args[0], method, ast.Load())
                self._made(call, function, inner.args[1:], inner.keywords)

    def _apply(self, call: ast.Call, index: int) -> None:
        if index >= len(call.args) or id(call) in self._used:
            return
        rest = call.args[index + 1 :]
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        names = self._folder.names(call.func)
        if "map" in method or "map" in names or method.startswith("imap"):
            rest = [self._folder.pinned(self._folder.elements(each), each) for each in rest]
        elif method in ("apply", "apply_async") or "thread.start" in " ".join(names):
            rest = _listed(rest[0]) if rest else []
        self._made(call, call.args[index], rest, call.keywords)

    def _deferred(self, call: ast.Call, keyword: str) -> None:
        function = argument(call, 1, (keyword,))
        arguments = argument(call, 3 if keyword == "target" else 2, ("args",))
        if function is not None:
            self._made(call, function, _listed(arguments) if arguments is not None else [], [])

    def _made(
        self, call: ast.Call, function: ast.expr, arguments: list[ast.expr],
        keywords: list[ast.keyword],
    ) -> None:  # fmt: skip
        """Read a call that another function makes."""
        names = self._folder.names(function)
        if not any(n in tables.CALLS or n in tables.OPENS or n in tables.STARTS_PROCESSES
                   for n in names):  # fmt: skip
            return
        self._used.add(id(function))
        made = ast.Call(function, arguments, keywords)
        ast.copy_location(made, call)
        self._kept.append(made)
        for name in names:
            self._by_name(made, name)

    # Files, hosts, code

    def _open(self, call: ast.Call, path: ast.expr | None, mode: ast.expr | None) -> None:
        if path is None:
            return
        accesses = set()
        for value in self._folder.fold(mode) if mode is not None else ("r",):
            if isinstance(value, str):
                accesses.add("write" if set(value) & set("wax+") else "read")
            elif isinstance(value, int):
                accesses.add("write" if value & _WRITING_FLAGS else "read")
            else:
                accesses.add("read")
        for access in sorted(accesses):
            self._paths(call, access, self._folder.fold(path), path)

    def _paths(self, call: ast.Call, use: str, values: tuple[Value, ...], node: ast.expr) -> None:
        access = "read" if use == "read" else "write"
        for value in values:
            if value is None or isinstance(value, int):
                continue  # a descriptor
            self.construct(use, call.lineno)
            self.add("path", call.lineno, value, node, access=access)
            text = pyvalue.text_of(value)
            if isinstance(text, str) and not text.startswith(("/", "~")):
                for folder in self._folders:
                    there = pyvalue.path_joined([folder, text])
                    self.add("path", call.lineno, there, node, access=access)

    def _chdir(self, call: ast.Call) -> None:
        for value in self._folder.fold(argument(call, 0, ("path",))):
            if isinstance(value, str) and value not in self._folders:
                self._folders = [*self._folders, value][:_CHANGES_FOLDER]

    def _address(self, call: ast.Call, index: int, *, sure: bool) -> None:
        place = index if index >= 0 else len(call.args) - 1
        node = argument(call, place, ("address",))
        if node is None:
            return
        for value in self._folder.fold(node):
            if isinstance(value, tuple) and 2 <= len(value) <= 4 and not isinstance(value[0], int):
                self.construct("connect", call.lineno)
                self.add("host", call.lineno, value[0], node)
            elif sure and not isinstance(value, str | bytes):  # a text is a Unix socket's path
                self.add("host", call.lineno, UNKNOWN, node)

    def _code(self, call: ast.Call, values: tuple[Value, ...], node: ast.expr) -> None:
        compiled = isinstance(node, ast.Call) and "compile" in self._folder.names(node.func)
        for value in values:
            text = pyvalue.text_of(value)
            if isinstance(text, str):
                self.keep({"kind": "code", "text": text, "line": call.lineno}, len(text))
            elif not compiled:
                self.construct("dynamic-code", call.lineno)

    def _dynamic_import(self, call: ast.Call) -> None:
        for value in self._folder.fold(argument(call, 0, ("name",))):
            if isinstance(value, str):
                self._import(value, call.lineno)
            else:
                self.construct("dynamic-import", call.lineno)

    def _reference(self, node: ast.Attribute | ast.Name) -> None:
        """What a name stands for beside a call of it."""
        if isinstance(node, ast.Attribute) and node.attr in tables.INTROSPECTION:
            self.construct("introspection", node.lineno)
        known = id(node) in self._used or id(node) in self._flow.checked
        for name in self._folder.names(node):
            if name == "os.environ":
                self.construct("environment", node.lineno)
            elif name in tables.STARTS_PROCESSES and not known:
                self.construct("process", node.lineno)
                self.construct("dynamic-process", node.lineno)

    _BY_NAME: ClassVar[dict[str, Any]] = {
        "__import__": _dynamic_import, "importlib.import_module": _dynamic_import,
        "importlib.__import__": _dynamic_import, "pathlib.Path().open": _open_path,
        "os.chdir": _chdir, "yaml.load": _yaml,
    }  # fmt: skip


def _listed(node: ast.expr) -> list[ast.expr]:
    """`args=(a, b)` as two arguments."""
    if isinstance(node, ast.List | ast.Tuple):
        return list(node.elts)
    return [ast.copy_location(ast.Starred(node, ast.Load()), node)]
