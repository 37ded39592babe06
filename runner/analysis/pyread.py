"""Python text -> what it would run, open and connect to, as far as constants tell.

Stands alone on purpose: `runner.analysis.python` calls it in-process for small texts and starts it
as a bounded child for the rest, where a crash of the parser costs nothing. A finding is a plain
dict, so that it passes through JSON: `kind` is `shell`, `argv`, `path`, `host` or `code`.
"""

from __future__ import annotations

import ast
import json
import sys
import warnings
from collections import Counter
from typing import Any

Finding = dict[str, Any]

_FOLD_DEPTH = 40
_TEXT_LIMIT = 100_000
_FINDINGS_LIMIT = 10_000
_CPU_LIMIT_S = 10
_DATA_LIMIT_BYTES = 1 << 30

_SHELL = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn",
    "commands.getoutput", "asyncio.create_subprocess_shell", "popen2.popen2", "platform.popen",
}  # fmt: skip
_POPEN = {"subprocess." + name for name in ("run", "call", "check_call", "check_output", "Popen")}
_EXEC_LIST = {
    "os.execv",
    "os.execve",
    "os.execvp",
    "os.execvpe",
    "os.posix_spawn",
    "os.posix_spawnp",
}
_EXEC_FLAT = {"os.execl", "os.execle", "os.execlp", "os.execlpe"}
_SPAWN_LIST = {"os.spawnv", "os.spawnve", "os.spawnvp", "os.spawnvpe"}
_SPAWN_FLAT = {"os.spawnl", "os.spawnle", "os.spawnlp", "os.spawnlpe"}
_WRITES = {
    "shutil.rmtree": (0,), "os.remove": (0,), "os.unlink": (0,), "os.rmdir": (0,),
    "os.removedirs": (0,), "os.rename": (0, 1), "os.replace": (0, 1), "os.renames": (0, 1),
    "os.mkdir": (0,), "os.makedirs": (0,), "os.truncate": (0,), "os.chmod": (0,), "os.chown": (0,),
    "os.symlink": (1,), "os.link": (1,), "os.mknod": (0,), "os.mkfifo": (0,), "shutil.move": (0, 1),
    "shutil.copy": (1,), "shutil.copy2": (1,), "shutil.copyfile": (1,), "shutil.copytree": (1,),
    "shutil.chown": (0,), "os.utime": (0,), "os.setxattr": (0,), "shutil.unpack_archive": (1,),
}  # fmt: skip
_READS = {
    "os.listdir": (0,), "os.scandir": (0,), "os.walk": (0,), "os.readlink": (0,), "os.stat": (0,),
    "shutil.copy": (0,), "shutil.copy2": (0,), "shutil.copyfile": (0,), "shutil.copytree": (0,),
    "linecache.getlines": (0,), "runpy.run_path": (0,), "glob.glob": (0,),
}  # fmt: skip
_PATH_WRITES = {
    "write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "rename", "replace", "chmod",
    "symlink_to", "hardlink_to", "lchmod",
}  # fmt: skip
_PATH_READS = {"read_text", "read_bytes", "iterdir", "readlink"}
_PATHS = {"pathlib.Path", "pathlib.PosixPath", "pathlib.PurePath", "pathlib.PurePosixPath"}
_OPENS = {"open", "io.open", "os.open", "codecs.open", "gzip.open", "bz2.open", "lzma.open"}
_URLS = {
    "urllib.request.urlopen", "urllib.request.Request", "urllib.request.urlretrieve",
    "urllib2.urlopen", "aiohttp.request", "websocket.create_connection",
}  # fmt: skip
_URL_MODULES = {"requests", "httpx"}
_URL_VERBS = {"get", "post", "put", "delete", "head", "patch", "options", "request", "stream"}
_HOSTS = {
    "socket.gethostbyname", "socket.getaddrinfo", "http.client.HTTPConnection",
    "http.client.HTTPSConnection", "ftplib.FTP", "ftplib.FTP_TLS", "smtplib.SMTP",
    "smtplib.SMTP_SSL", "telnetlib.Telnet", "imaplib.IMAP4", "imaplib.IMAP4_SSL", "poplib.POP3",
}  # fmt: skip
_ADDRESSES = {"connect", "connect_ex", "create_connection", "sendto"}


def read_python(text: bytes) -> list[Finding]:
    """What `text` would do; it is bytes, for it may declare its encoding.

    SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse`.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(text)
    return _Reading(tree).findings


class _Reading:
    def __init__(self, tree: ast.Module) -> None:
        self.findings: list[Finding] = []
        self._aliases: dict[str, str] = {}
        self._constants: dict[str, ast.expr] = {}
        calls = []
        stores: Counter[str] = Counter()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                calls.append(node)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                self._import(node)
            elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
                stores[node.id] += 1
            elif isinstance(node, ast.arg):
                stores[node.arg] += 1
        for statement in tree.body:
            self._constant(statement, stores)
        for call in sorted(calls, key=lambda each: (each.lineno, each.col_offset)):
            if len(self.findings) < _FINDINGS_LIMIT:
                self._call(call)

    def _import(self, node: ast.Import | ast.ImportFrom) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                name = alias.asname or alias.name.partition(".")[0]
                self._aliases[name] = alias.name if alias.asname else name
        elif node.module and not node.level:
            for alias in node.names:
                if alias.name == "*":
                    # Names of the modules that matter, as if each had been imported.
                    for known in _known_names(node.module):
                        self._aliases.setdefault(known, f"{node.module}.{known}")
                else:
                    self._aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def _constant(self, statement: ast.stmt, stores: Counter[str]) -> None:
        if (
            isinstance(statement, ast.Assign)
            and len(statement.targets) == 1
            and isinstance(statement.targets[0], ast.Name)
            and stores[statement.targets[0].id] == 1
        ):
            name = statement.targets[0].id
            dotted = self._dotted(statement.value)
            if dotted is not None and "." in dotted:
                self._aliases.setdefault(name, dotted)  # s = os.system
            elif isinstance(statement.value, ast.Call) and (
                module := self._module(statement.value)
            ):
                self._aliases.setdefault(name, module)  # o = __import__("os")
            else:
                self._constants[name] = statement.value

    def _module(self, call: ast.Call) -> str | None:
        dotted = self._dotted(call.func)
        if dotted in {"__import__", "importlib.import_module", "builtins.__import__"} and call.args:
            return self._fold(call.args[0])
        return None

    def _dotted(self, node: ast.expr, depth: int = 0) -> str | None:
        """`os.path.join` of an expression, aliases and dynamic imports resolved."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        base: str | None = None
        if isinstance(node, ast.Name):
            base = self._aliases.get(node.id, node.id)
        elif isinstance(node, ast.Call) and depth < _FOLD_DEPTH:
            base = self._module(node)
            if (
                base is None
                and self._dotted(node.func, depth + 1) == "getattr"
                and len(node.args) > 1
            ):
                owner = self._dotted(node.args[0], depth + 1)
                name = self._fold(node.args[1])
                base = f"{owner}.{name}" if owner and name else None
        if base is None:
            return None
        return ".".join([base, *reversed(parts)])

    def _call(self, call: ast.Call) -> None:
        dotted = self._dotted(call.func) or ""
        name = dotted.removeprefix("builtins.")
        method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
        if name in _SHELL:
            self._add(call, "shell", self._text(_argument(call, 0, "cmd", "command")))
        elif name in _POPEN or name == "asyncio.create_subprocess_exec":
            self._popen(call, name)
        elif name in _EXEC_LIST | _SPAWN_LIST:
            shift = name in _SPAWN_LIST
            self._argv(call, call.args[shift : shift + 1], _element(call.args, 1 + shift))
        elif name in _EXEC_FLAT | _SPAWN_FLAT:
            shift = name in _SPAWN_FLAT
            self._argv(call, call.args[shift : shift + 1], call.args[2 + shift :])
        elif name in ("exec", "eval", "runpy.run_path", "compile") and call.args:
            code = self._fold(call.args[0])
            if code is not None and name != "runpy.run_path":
                self.findings.append({"kind": "code", "text": code, "line": call.lineno})
        elif name.startswith("ctypes.") or "CDLL" in ast.dump(call.func)[:2000]:
            if method in ("system", "popen"):
                self._add(call, "shell", self._text(_element(call.args, 0)))
        else:
            self._files(call, name, method)
            self._network(call, name, method)

    def _popen(self, call: ast.Call, name: str) -> None:
        if name == "asyncio.create_subprocess_exec":
            self._argv(call, [], call.args)
            return
        command = _argument(call, 0, "args")
        shell = next((k.value for k in call.keywords if k.arg == "shell"), None)
        in_shell = shell is not None and not (isinstance(shell, ast.Constant) and not shell.value)
        if isinstance(command, ast.List | ast.Tuple):
            if in_shell and command.elts:
                self._add(call, "shell", self._text(command.elts[0]))
            else:
                self._argv(call, [], command.elts)
            return
        split = self._split(command)
        if split is not None:
            self._argv(call, [], split)
        elif in_shell:
            self._add(call, "shell", self._text(command))
        else:
            self._argv(call, [], command)

    def _split(self, node: ast.expr | None) -> list[ast.expr] | None:
        """`"ls -l".split()` and `shlex.split("ls -l")`."""
        node = self._resolved(node)
        if isinstance(node, ast.List | ast.Tuple):
            return list(node.elts)
        if not isinstance(node, ast.Call):
            return None
        text = None
        if self._dotted(node.func) == "shlex.split" and node.args:
            text = self._fold(node.args[0])
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "split" and not node.args:
            text = self._fold(node.func.value)
        return None if text is None else [ast.Constant(piece) for piece in text.split()]

    def _argv(
        self, call: ast.Call, program: list[ast.expr], rest: list[ast.expr] | ast.expr | None
    ) -> None:
        words: list[tuple[str, bool]] = []
        if isinstance(rest, ast.expr):
            split = self._split(rest)
            rest = split if split is not None else [rest]
        if program:
            words.append(self._text(program[0]))
            # The first of the list is the name that it sees, not what is run.
            rest = (rest or [])[1:] if not isinstance(call.func, ast.Attribute) or not (
                call.func.attr.startswith(("execl", "spawnl"))) else rest  # fmt: skip
        for each in rest or []:
            words.append(("…", True) if isinstance(each, ast.Starred) else self._text(each))
        if words:
            self.findings.append({"kind": "argv", "words": words, "line": call.lineno})

    def _files(self, call: ast.Call, name: str, method: str) -> None:
        for index in _WRITES.get(name, ()):
            self._path(call, _element(call.args, index), "write")
        for index in _READS.get(name, ()):
            self._path(call, _element(call.args, index), "read")
        if name in _OPENS:
            mode = _argument(call, 1, "mode", "flags")
            self._path(call, _argument(call, 0, "file", "filename", "path"), self._access(mode))
        elif isinstance(call.func, ast.Attribute) and name not in _WRITES:
            owner = call.func.value
            if not self._is_path(owner):
                return
            if method in _PATH_WRITES:
                self._path(call, owner, "write")
            elif method in _PATH_READS:
                self._path(call, owner, "read")
            elif method == "open":
                self._path(call, owner, self._access(_argument(call, 0, "mode")))

    def _access(self, mode: ast.expr | None) -> str:
        if mode is None:
            return "read"
        text = self._fold(mode)
        if text is None:
            # os.open's flags are numbers by name.
            return (
                "write"
                if any(w in ast.dump(mode)[:2000] for w in ("O_WRONLY", "O_RDWR", "O_CREAT"))
                else "read"
            )
        return "write" if set(text) & set("wax+") else "read"

    def _is_path(self, node: ast.expr) -> bool:
        node = self._resolved(node) or node
        for _ in range(_FOLD_DEPTH):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                node = self._resolved(node.left) or node.left
            elif isinstance(node, ast.Call):
                return self._dotted(node.func) in _PATHS
            else:
                break
        return False

    def _network(self, call: ast.Call, name: str, method: str) -> None:
        module, _, verb = name.rpartition(".")
        if name in _URLS or (module in _URL_MODULES and verb in _URL_VERBS):
            index = 1 if verb in ("request", "stream") and module in _URL_MODULES else 0
            self._add(call, "url", self._text(_argument(call, index, "url")))
        elif name in _HOSTS:
            self._add(call, "host", self._text(_argument(call, 0, "host")))
        elif method in _ADDRESSES or name in (
            "socket.create_connection",
            "asyncio.open_connection",
        ):
            address = call.args[-1] if method == "sendto" and call.args else _element(call.args, 0)
            address = self._resolved(address)
            if isinstance(address, ast.Tuple) and address.elts:
                self._add(call, "host", self._text(address.elts[0]))

    def _path(self, call: ast.Call, node: ast.expr | None, access: str) -> None:
        if node is not None:
            text, dynamic = self._text(node)
            self.findings.append(
                {
                    "kind": "path",
                    "text": text,
                    "dynamic": dynamic,
                    "access": access,
                    "line": call.lineno,
                }
            )

    def _add(self, call: ast.Call, kind: str, word: tuple[str, bool]) -> None:
        self.findings.append(
            {"kind": kind, "text": word[0], "dynamic": word[1], "line": call.lineno}
        )

    def _text(self, node: ast.expr | None) -> tuple[str, bool]:
        """The value of an expression, or its kind and True."""
        if node is None:
            return "", True
        folded = self._fold(node)
        if folded is not None:
            return folded, False
        return f"<{type(node).__name__.lower()}>", True

    def _resolved(self, node: ast.expr | None) -> ast.expr | None:
        for _ in range(_FOLD_DEPTH):
            if not (isinstance(node, ast.Name) and node.id in self._constants):
                break
            node = self._constants[node.id]
        return node

    def _fold(self, node: ast.expr | None, depth: int = 0) -> str | None:
        """The string that an expression is sure to be, else None."""
        node = self._resolved(node)
        if node is None or depth > _FOLD_DEPTH:
            return None
        if isinstance(node, ast.Constant):
            return _constant_text(node.value)
        if isinstance(node, ast.BinOp):
            return self._fold_operation(node, depth)
        if isinstance(node, ast.JoinedStr):
            return self._joined([self._fold(_inner(v), depth + 1) for v in node.values], "")
        return self._fold_call(node, depth) if isinstance(node, ast.Call) else None

    def _fold_operation(self, node: ast.BinOp, depth: int) -> str | None:
        """Strings added, and paths joined by `/`."""
        if not isinstance(node.op, ast.Add | ast.Div):
            return None
        left, right = self._fold(node.left, depth + 1), self._fold(node.right, depth + 1)
        if left is None or right is None or len(left) + len(right) > _TEXT_LIMIT:
            return None
        if isinstance(node.op, ast.Add):
            return left + right
        return right if right.startswith("/") else f"{left.rstrip('/')}/{right}"

    def _fold_call(self, node: ast.Call, depth: int) -> str | None:
        dotted = self._dotted(node.func)
        if dotted in _PATHS | {"str", "os.fspath", "bytes"} and node.args:
            return self._joined([self._fold(each, depth + 1) for each in node.args], "/")
        if dotted == "os.path.join":
            return self._joined([self._fold(each, depth + 1) for each in node.args], "/")
        if dotted == "chr" and isinstance(node.args[0] if node.args else None, ast.Constant):
            value = node.args[0].value  # type: ignore[attr-defined]
            return chr(value) if isinstance(value, int) and 0 <= value < 0x110000 else None
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("encode", "decode", "strip"):
            return self._fold(node.func.value, depth + 1)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "join" and node.args:
            separator = self._fold(node.func.value, depth + 1)
            items = self._resolved(node.args[0])
            if separator is not None and isinstance(items, ast.List | ast.Tuple):
                return self._joined([self._fold(e, depth + 1) for e in items.elts], separator)
        return None

    def _joined(self, pieces: list[str | None], separator: str) -> str | None:
        known = [piece for piece in pieces if piece is not None]
        if len(known) != len(pieces) or sum(map(len, known)) > _TEXT_LIMIT:
            return None
        return separator.join(known)


def _inner(value: ast.expr) -> ast.expr:
    plain = isinstance(value, ast.FormattedValue) and value.format_spec is None
    return value.value if isinstance(value, ast.FormattedValue) and plain else value


def _constant_text(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _argument(call: ast.Call, index: int, *names: str) -> ast.expr | None:
    if index < len(call.args):
        return call.args[index]
    return next((k.value for k in call.keywords if k.arg in names), None)


def _element(nodes: list[ast.expr], index: int) -> ast.expr | None:
    return nodes[index] if index < len(nodes) else None


def _known_names(module: str) -> list[str]:
    every = {*_SHELL, *_POPEN, *_EXEC_LIST, *_EXEC_FLAT, *_SPAWN_LIST, *_SPAWN_FLAT, *_WRITES}
    every |= {*_READS, *_PATHS, *_URLS, *_HOSTS, "shlex.split", "os.path"}
    return [n.rpartition(".")[2] for n in every if n.rpartition(".")[0] == module]


def _main() -> int:
    import resource  # noqa: PLC0415

    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_LIMIT_S, _CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_LIMIT_BYTES, _DATA_LIMIT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    text = sys.stdin.buffer.read()
    try:
        result: dict[str, object] = {"findings": read_python(text)}
    except (SyntaxError, ValueError) as error:
        result = {"error": error.msg if isinstance(error, SyntaxError) else str(error),
                  "line": getattr(error, "lineno", None)}  # fmt: skip
    except (RecursionError, MemoryError):
        result = {"error": "nested too deep", "line": None}
    sys.stdout.write(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(_main())
