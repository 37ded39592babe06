"""The processes that calls in a Python text start."""

from __future__ import annotations

import ast
import re
from typing import Any, ClassVar

from runner.analysis import values as pyvalue
from runner.analysis.notes import Notes
from runner.analysis.python import tables
from runner.analysis.python.fold import Folder
from runner.analysis.values import REST, UNKNOWN, Pairs, Partial, Value

_WORDS_LIMIT = 4096
_SHELL_WORD = re.compile(r"\s*[^\s$`'\"\\]+\s")
"""A beginning of shell text that names what is run."""


class Processes(Notes):
    """What starts processes."""

    def __init__(self, folder: Folder) -> None:
        super().__init__("python")
        self._folder = folder
        self._kept: list[ast.AST] = []
        """Calls that were put together here: what is remembered of nodes goes by their identity."""

    def _shell(self, call: ast.Call, values: tuple[Value, ...], node: ast.AST | None) -> None:
        self.construct("process", call.lineno)
        for value in values:
            if isinstance(value, tuple):
                self._words(call, (value,), node=node)
                continue
            text = pyvalue.text_of(value)
            if isinstance(text, Partial) and not _SHELL_WORD.match(text.prefix):
                self.construct("dynamic-process", call.lineno)
            self.add("shell", call.lineno, value, node)

    def _words(
        self, call: ast.Call, values: tuple[Value, ...], *, first: Value = None,
        node: ast.AST | None = None, given: tuple[Value, ...] = (),
    ) -> None:  # fmt: skip
        """Lists of words; `first`: a word in front; `given`: texts that it is fed."""
        self.construct("process", call.lineno)
        for value in values:
            listed = value if isinstance(value, tuple) else (value,)
            if first is not None:
                listed = (first, *(listed if isinstance(value, tuple) else (REST,)))
            words = []
            elements = node.elts if isinstance(node, ast.List | ast.Tuple) else []
            for index, each in enumerate(listed[:_WORDS_LIMIT]):
                shown = elements[index] if len(elements) == len(listed) else node
                words.append(self.word(each, shown))
            if len(listed) > _WORDS_LIMIT:
                words.append(["…", True, "", ""])
            if not words or words[0][1]:
                self.construct("dynamic-process", call.lineno)
            if words:
                size = sum(len(part) for word in words for part in (word[0], word[2], word[3]))
                finding = {"kind": "argv", "words": words, "line": call.lineno}
                size += 8 * len(words)
                fed = [t for each in given if isinstance(t := pyvalue.text_of(each), str)]
                for text in fed:
                    self.keep({**finding, "stdin": text}, size + len(text))
                if len(fed) < max(len(given), 1):
                    self.keep(finding, size)

    def _unknown_process(self, call: ast.Call) -> None:
        self.construct("process", call.lineno)
        self.construct("dynamic-process", call.lineno)

    def _flat(self, call: ast.Call, nodes: list[ast.expr]) -> None:
        whole = ast.Tuple(nodes, ast.Load())
        self._kept.append(whole)
        self._words(call, self._folder.fold(whole), node=whole)

    def _popen(self, call: ast.Call, name: str) -> None:  # noqa: ARG002
        node = argument(call, 0, ("args",))
        program = argument(call, 2, ("executable",))
        shell = argument(call, 8, ("shell",))
        values = self._folder.fold(node) if node is not None else self._spread(call, "args")
        shells = self._folder.fold(shell) if shell is not None else self._spread(call, "shell")
        if not values:
            self._unknown_process(call)
            return
        programs = self._folder.fold(program) if program is not None else ()
        given = argument(call, -1, ("input",))
        texts = self._folder.fold(given) if given is not None else ()
        for value in values:
            listed = isinstance(value, tuple)
            in_shell = any(each if each is not UNKNOWN else not listed for each in shells)
            if in_shell:
                # The list's first is the text, the rest are its positional parameters.
                self._shell(call, (value[0] if listed and value else value,), node)
            elif programs:
                for each in programs:
                    words = (each, *(value[1:] if listed else ()))
                    self._words(call, (words,), node=node, given=texts)
            else:
                self._words(call, (value,), node=node, given=texts)

    def _spread(self, call: ast.Call, name: str) -> tuple[Value, ...]:
        """What `**{"shell": True}` holds under a name."""
        found: list[Value] = []
        for keyword in call.keywords:
            for value in self._folder.fold(keyword.value) if keyword.arg is None else ():
                keys = [key for key, _ in value.items] if isinstance(value, Pairs) else [name]
                if name in keys:
                    found.append(value.get(name) if isinstance(value, Pairs) else UNKNOWN)
        return tuple(found)

    def _exec(self, call: ast.Call, name: str) -> None:
        program, rest = tables.EXEC[name]
        node = argument(call, program, ("path", "file"))
        listed = self._folder.fold(argument(call, rest, ("args", "argv")))
        for each in self._folder.fold(node):
            # The first of the list is the name that it sees, not what is run.
            values = tuple((each, *(v[1:] if isinstance(v, tuple) else (REST,))) for v in listed)
            for value in values:
                self._words(call, (value,), node=node)

    def _exec_flat(self, call: ast.Call, name: str) -> None:
        start = tables.EXEC_FLAT[name]
        arguments = call.args[start:]
        if name in tables.WITH_ENVIRONMENT:
            arguments = arguments[:-1]
        if not arguments:
            self._unknown_process(call)
        elif any(isinstance(each, ast.Starred) for each in arguments[:2]):
            whole = ast.Tuple(arguments, ast.Load())
            self._kept.append(whole)
            values = self._folder.fold(whole)
            self._words(call, tuple((v[0], *v[2:]) for v in values if isinstance(v, tuple) and v))
        else:
            self._flat(call, [arguments[0], *arguments[2:]])

    def _libc(self, call: ast.Call, name: str) -> None:
        """A function of a C library that was loaded: `ctypes.CDLL(None).system`."""
        function = re.split(r"[.\[\]()]+", name)[-1]
        self.construct("ctypes", call.lineno)
        first = argument(call, 0, ())
        if function in tables.LIBC_SHELL:
            self._shell(call, self._folder.fold(first), first)
        elif function in tables.LIBC_ARGV:
            self._words(call, tuple((v, REST) for v in self._folder.fold(first)), node=first)
        elif function in tables.LIBC_DELETE and first is not None:
            self.construct("delete", call.lineno)
            for value in self._folder.fold(first):
                self.add("path", call.lineno, value, first, access="write")

    def _run_module(self, call: ast.Call, name: str) -> None:
        node = argument(call, 0, ("path_name", "mod_name"))
        if node is not None:
            flag = ("-m",) if name == "runpy.run_module" else ()
            for value in self._folder.fold(node):
                self._words(call, (("python3", *flag, value),), node=node)

    def _pip(self, call: ast.Call, name: str) -> None:  # noqa: ARG002
        self._words(call, self._folder.fold(argument(call, 0, ("args",))), first="pip")

    def _sh(self, call: ast.Call, name: str) -> None:
        """`sh.rm("-rf", "x")` of the package sh."""
        self._flat(call, [ast.Constant(name[3:]), *call.args])

    def start_process(self, call: ast.Call, name: str) -> bool:
        """Note the process that a call of `name` starts, if it starts one by rules of its own."""
        step = self._STARTS.get(name)
        if step is None and name.startswith(("ctypes.CDLL()", "cffi.FFI().dlopen()")):
            step = Processes._libc
        elif step is None and name.startswith("sh.") and name[3:].isidentifier():
            step = Processes._sh
        elif step is None and name.endswith(".?") and name[:-2] in tables.HOLDS_STARTERS:
            self.construct("dynamic-process", call.lineno)
            return True
        if step is not None:
            step(self, call, name)
        return step is not None

    _STARTS: ClassVar[dict[str, Any]] = {
        **dict.fromkeys(tables.POPEN, _popen), **dict.fromkeys(tables.EXEC, _exec),
        **dict.fromkeys(tables.EXEC_FLAT, _exec_flat), "runpy.run_path": _run_module,
        "runpy.run_module": _run_module, "pip.main": _pip, "pip._internal.main": _pip,
        "pip._internal.cli.main.main": _pip,
    }  # fmt: skip


def argument(call: ast.Call, index: int, names: tuple[str, ...]) -> ast.expr | None:
    """An argument by its place or its name; None too when `*args` may stand in its place."""
    for keyword in call.keywords:
        if keyword.arg in names and keyword.arg is not None:
            return keyword.value
    if any(isinstance(each, ast.Starred) for each in call.args[: index + 1]):
        spread = [e for each in call.args for e in _spread(each)]
        return spread[index] if index < len(spread) else None
    return call.args[index] if 0 <= index < len(call.args) else None


def _spread(node: ast.expr) -> list[ast.expr]:
    if isinstance(node, ast.Starred):
        inner = node.value
        return inner.elts if isinstance(inner, ast.List | ast.Tuple) else [node] * 64
    return [node]
