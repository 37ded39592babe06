"""JavaScript text -> what it would run, open and connect to, as far as constants tell.

Parsed by tree-sitter (https://tree-sitter.github.io), which takes any text and builds its tree
without recursion; the tree is walked so as well. A name has a value where it is assigned once in
the whole text. The findings are those of `runner.analysis.notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from runner.analysis import values as pyvalue
from runner.analysis.javascript import tables
from runner.analysis.javascript.bindings import Bindings, arguments_of
from runner.analysis.javascript.fold import PROMISIFY, Folder, starts
from runner.analysis.notes import FINDINGS_LIMIT, Finding, FullError, Notes
from runner.analysis.values import REST, UNKNOWN, Partial, TooMuchError, Value

if TYPE_CHECKING:
    from tree_sitter import Node

_BUDGET_BASE = 20_000
_BUDGET_A_CHARACTER = 4
_SHELL_WORD = re.compile(r"\s*[^\s$`'\"\\]+\s")
_HANDS_ON = frozenset(
    {"arguments", "array", "pair", "return_statement", "arrow_function", "ternary_expression"}
)
_CONSTRUCTS = {
    "shell": "process", "argv": "process", "list": "process", "fork": "process",
    "deno": "process", "read": "read", "write": "write", "delete": "delete", "url": "connect",
    "host": "connect", "endpoint": "connect", "listen": "listen", "signal": "signal",
    "native": "native",
}  # fmt: skip


def read_javascript(text: str) -> tuple[list[Finding], str | None]:
    """What `text` would do, and why (a part of) it could not be read: one clause, or None.

    ImportError: the parser is not installed.
    """
    import tree_sitter  # noqa: PLC0415  (an extra; and the command line starts without it)
    import tree_sitter_javascript  # noqa: PLC0415

    content = text.encode("utf-8", "replace")
    language = tree_sitter.Language(tree_sitter_javascript.language())
    root = tree_sitter.Parser(language).parse(content).root_node
    reading = _Reading(root, _BUDGET_BASE + _BUDGET_A_CHARACTER * len(content))
    return reading.findings, reading.problem


class _Reading(Notes):
    def __init__(self, root: Node, budget: int) -> None:
        super().__init__("javascript")
        self.problem: str | None = None
        self._bindings = Bindings(root)
        self._folder = Folder(self._bindings, budget)
        try:
            self._all(root)
        except TooMuchError:
            self.problem = "the JavaScript text asks for more computing than its length allows"
        except FullError:
            self.problem = f"the JavaScript text does more than the {FINDINGS_LIMIT} things read"
        except RecursionError:
            self.problem = "the JavaScript text is nested too deep to read"

    def _all(self, root: Node) -> None:
        if root.has_error:
            line = next((_line(n) for n in walk(root) if n.is_error or n.is_missing), 1)
            # No reason to refuse it: an interpreter may know more of the language than the parser.
            self.construct("unreadable", line)
        for name, node in self._bindings.imports:
            self._import(name, _line(node))
        called = set()
        for node in self._bindings.calls:
            function = node.child_by_field_name("function") or node.child_by_field_name(
                "constructor"
            )
            if function is not None:
                called.add(function.id)
                self._call(node, function)
        for node in self._bindings.members:
            self._reference(node, called)

    def _import(self, name: str, line: int) -> None:
        plain = name.removeprefix("node:")
        self.construct(f"import:{plain[:256]}", line)
        if plain.endswith(".node"):
            self.construct("native", line)

    def _call(self, node: Node, function: Node) -> None:
        line = _line(node)
        for name in self._folder.names(function):
            if name in ("require", "import") or name.endswith(".require"):
                self._required(node, line)
            elif name in ("setTimeout", "setInterval", "setImmediate"):
                for value in self._folder.fold_argument(node, 0):
                    if isinstance(value, str):
                        self._code(value, line)
            elif name.startswith("shelljs.") and name not in tables.CALLS:
                self._words(node, (name[8:], *self._arguments(node)), line)
            elif name == "child_process.?":
                self._unknown_process(line)
            for kind, index in tables.CALLS.get(name, ()):
                if kind in _CONSTRUCTS:
                    self.construct(_CONSTRUCTS[kind], line)
                self._use(node, name, kind, index)

    def _use(self, node: Node, name: str, kind: str, index: int) -> None:
        line = _line(node)
        arguments = node.child_by_field_name("arguments")
        if arguments is not None and arguments.type == "template_string":
            self._shell(self._folder.fold(arguments)[0], line)
            return
        if kind in ("listen", "signal", "native"):
            return
        step = {"shell": self._run_shell, "argv": self._run, "list": self._run_list,
                "fork": self._fork, "deno": self._deno, "worker": self._worker,
                "endpoint": self._endpoint, "open": self._open}.get(kind)  # fmt: skip
        if step is not None:
            step(node, line)
            return
        place = index if index >= 0 else len(arguments_of(node)) + index
        for value in self._folder.fold_argument(node, place):
            if kind == "code":
                self.construct(f"call:{name.rpartition('.')[2]}", line)
                self._code(value, line)
            elif kind in ("read", "write", "delete"):
                self._path(value, kind, line)
            elif kind == "url":
                self._url(node, place, value, line)
            else:
                self.add("host", line, value, None)

    def _code(self, value: Value, line: int) -> None:
        if isinstance(value, str):
            self.keep({"kind": "code", "text": value, "line": line}, len(value))
        else:
            self.construct("dynamic-code", line)

    def _path(self, value: Value, use: str, line: int) -> None:
        if not isinstance(value, int):  # a descriptor
            access = "read" if use == "read" else "write"
            self.add("path", line, value, None, access=access)

    def _open(self, node: Node, line: int) -> None:
        modes = self._folder.fold_argument(node, 1)
        options = self._folder.option(node, 1, ("write", "append", "create", "truncate"))
        writes = options == (True,) or any(
            isinstance(m, str) and set(m) & set("wa+") for m in modes
        )
        use = "write" if writes else "read"
        self.construct(use, line)
        for value in self._folder.fold_argument(node, 0):
            self._path(value, use, line)

    # Processes

    def _run_shell(self, node: Node, line: int) -> None:
        for value in self._folder.fold_argument(node, 0):
            self._shell(value, line)

    def _shell(self, value: Value, line: int) -> None:
        text = pyvalue.text_of(value)
        if isinstance(text, Partial) and not _SHELL_WORD.match(text.prefix):
            self.construct("dynamic-process", line)
        self.add("shell", line, text, None)

    def _arguments(self, node: Node) -> tuple[Value, ...]:
        count = len(arguments_of(node))
        return tuple(self._folder.fold_argument(node, index)[0] for index in range(count))

    def _run(self, node: Node, line: int) -> None:
        """`spawn(file, [args], {shell})`."""
        arguments = self._arguments(node)
        program = arguments[0] if arguments else UNKNOWN
        listed = arguments[1] if len(arguments) > 1 else ()
        rest = listed if isinstance(listed, tuple) else (REST,)
        if len(arguments) > 1 and isinstance(listed, pyvalue.Pairs):
            rest = ()
        shells = {
            *self._folder.option(node, 1, ("shell",)),
            *self._folder.option(node, 2, ("shell",)),
        }
        if shells - {False, None}:
            pieces: list[Value] = [program]
            for each in rest:
                pieces += [" ", each if each is not REST else UNKNOWN]
            self._shell(pyvalue.joined(pieces), line)
        else:
            self._words(node, (program, *rest), line)

    def _run_list(self, node: Node, line: int) -> None:
        """`Bun.spawn([…])`, `Bun.spawn({cmd: […]})`, `Deno.run({cmd: […]})`."""
        given = self._folder.option(node, 0, ("cmd",)) or self._folder.fold_argument(node, 0)
        for value in given:
            self._words(node, value if isinstance(value, tuple) else (value,), line)

    def _fork(self, node: Node, line: int) -> None:
        arguments = self._arguments(node)
        rest = arguments[1] if len(arguments) > 1 and isinstance(arguments[1], tuple) else ()
        self._words(node, ("node", *arguments[:1], *rest), line)

    def _deno(self, node: Node, line: int) -> None:
        program = self._folder.fold_argument(node, 0)
        rest = self._folder.option(node, 1, ("args",)) or ((),)
        for value in program:
            listed = rest[0] if isinstance(rest[0], tuple) else (REST,)
            self._words(node, (value, *listed), line)

    def _worker(self, node: Node, line: int) -> None:
        if True in self._folder.option(node, 1, ("eval",)):
            for value in self._folder.fold_argument(node, 0):
                self._code(value, line)

    def _words(self, node: Node, values: tuple[Value, ...], line: int) -> None:  # noqa: ARG002
        self.construct("process", line)
        words = [self.word(value, None) for value in values]
        if not words or words[0][1]:
            self.construct("dynamic-process", line)
        if words:
            self.keep({"kind": "argv", "words": words, "line": line},
                      sum(len(word[0]) + 8 for word in words))  # fmt: skip

    def _unknown_process(self, line: int) -> None:
        self.construct("process", line)
        self.construct("dynamic-process", line)

    # Hosts

    def _url(self, node: Node, place: int, value: Value, line: int) -> None:
        hosts = self._folder.option(node, place, ("hostname", "host", "url", "uri"))
        if isinstance(value, pyvalue.Pairs) or hosts:
            for host in hosts:
                self.add("url" if "://" in starts(host) else "host", line, host, None)
        else:
            self.add("url", line, value, None)

    def _endpoint(self, node: Node, line: int) -> None:
        hosts = self._folder.option(node, 0, ("host", "hostname"))
        for host in hosts or self._folder.fold_argument(node, 1):
            if isinstance(host, str | Partial) and not (host == UNKNOWN and not hosts and len(
                arguments_of(node)) < 2):  # fmt: skip
                self.add("host", line, host, None)

    # Imports and references

    def _required(self, node: Node, line: int) -> None:
        for value in self._folder.fold_argument(node, 0):
            if isinstance(value, str):
                self._import(value, line)
            else:
                self.construct("dynamic-import", line)

    def _reference(self, node: Node, called: set[int]) -> None:
        for name in self._folder.names(node):
            if name in ("process.env", "Deno.env"):
                self.construct("environment", _line(node))
            elif name in tables.STARTS_PROCESSES and node.id not in called and self._kept(node):
                self._unknown_process(_line(node))

    def _kept(self, node: Node) -> bool:
        """Whether a function is handed on where its calls are not seen."""
        parent = node.parent
        if parent is None or parent.type not in _HANDS_ON or node.id in self._bindings.aliased:
            return False
        call = parent.parent if parent.type == "arguments" else None
        function = call.child_by_field_name("function") if call is not None else None
        return function is None or PROMISIFY.isdisjoint(self._folder.names(function))


def walk(root: Node) -> Iterator[Node]:
    """Every node, in the order of the text, without recursion."""
    cursor = root.walk()
    while True:
        node = cursor.node
        if node is not None:
            yield node
        if cursor.goto_first_child():
            continue
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return


def _line(node: Node) -> int:
    return node.start_point[0] + 1
