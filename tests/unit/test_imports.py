"""The house, held up by a test: which module may import which, and who may touch the outside.

The tables say what DESIGN.md says; the functions only look. Reading is by `ast`, so an import
inside a function or under `TYPE_CHECKING` counts as well.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Lowest first. A module belongs to the longest prefix that fits and imports its own layer or a
# lower one.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("runner.errors",),
    ("runner.model",),
    ("runner.books",),
    ("runner.ports",),
    (
        "runner.streams",
        "runner.clock",
        "runner.linked",
        "runner.caller",
        "runner.pacing",
        "runner.places",
        "runner.proposed",
    ),
    (
        "runner.analysis",
        "runner.policy",
        "runner.bound",
        "runner.compile",
        "runner.metering",
        "runner.audit",
        "runner.syscalls",
        "runner.syscall_names",
        "runner.syscall_process_tier",
        "runner.tiers",
        "runner.records",
        "runner.changes",
    ),
    ("runner.granting", "runner.operator_records"),
    ("runner.charging", "runner.looping", "runner.killing"),
    ("runner.deciding", "runner.spending", "runner.pausing", "runner.killswitch"),
    ("runner.facts", "runner.approving"),
    ("runner.recording",),
    ("runner.supervisor",),
    (
        "runner.backends",
        "runner.egress",
        "runner.stores",
        "runner.workspaces",
        "runner.schema",
        "runner.policy_points",
        "runner.settings",
    ),
    ("runner.testing",),
    (
        "runner.recalled",
        "runner.showing",
        "runner.applying",
        "runner.budgeting",
        "runner.guards",
        "runner.keys",
        "runner.kills",
        "runner.approvals",
        "runner.auditing",
    ),
    ("runner.following",),
    ("runner.intake", "runner.client.outcomes", "runner.client.parsing"),
    ("runner.sessions",),
    ("runner.app", "runner.adapters", "runner.workbench", "runner.replay"),
    ("runner.client",),
    ("runner.asynchronous",),
    ("runner.surfaces", "runner.__main__"),
)

# Adapters never import each other, except for what is no adapter itself but support for them.
ADAPTER_LAYER = next(i for i, layer in enumerate(LAYERS) if "runner.backends" in layer)
SUPPORT_FOR: dict[str, tuple[str, ...]] = {
    # backends/pump.py and other modules that stand directly in backends/
    "runner.backends": ("runner.backends.*",),
    # settings are read from YAML files with the models of schema/
    "runner.schema": ("runner.settings",),
}

# `from runner import Runner` loads the application: only who stands above it may write that.
FACADE = "runner"
FACADE_OWN_NAMES = {"__version__"}
FACADE_IS = "runner.app"

PURE = (
    "runner.model",
    "runner.errors",
    "runner.analysis",
    "runner.policy",
    "runner.bound",
    "runner.compile",
    "runner.metering",
    "runner.audit",
    "runner.syscalls",
    "runner.syscall_names",
    "runner.syscall_process_tier",
    "runner.tiers",
    "runner.records",
    "runner.changes",
    "runner.granting",
    "runner.charging",
    "runner.looping",
    "runner.killing",
    "runner.operator_records",
    "runner.pausing",
    "runner.deciding",
    "runner.facts",
)
# Whose business is files, processes, the network, time or chance.
OUTSIDE_MODULES = frozenset(
    """
    aiofiles anyio asyncio concurrent ctypes docker fcntl ftplib getpass glob http httpx io
    mmap multiprocessing os platform psutil pty pwd random resource requests sched secrets
    select selectors shutil signal smtplib socket socketserver sqlite3 ssl subprocess syslog
    tempfile termios threading time tty urllib3 uuid webbrowser
    """.split()  # noqa: SIM905  (forty words are read more easily so)
)
OUTSIDE_NAMES = frozenset({"pathlib.Path", "pathlib.PosixPath", "urllib.request", "datetime.now"})
OUTSIDE_CALLS = frozenset(
    {"open", "input", "print", "datetime.now", "datetime.utcnow", "date.today"}
)

# Module, what it may import all the same, why.
PURE_EXCEPTIONS: tuple[tuple[str, frozenset[str], str], ...] = (
    (
        "runner.audit.verify_proof",
        frozenset({"pathlib"}),
        "is a program by itself, and reads the file that it checks",
    ),
    (
        "runner.analysis.shell.shfmt",
        frozenset({"os", "pathlib", "resource", "select", "shutil", "subprocess", "time"}),
        "finds and starts the parser, shfmt, bounded, and must be able to end it",
    ),
    (
        "runner.analysis.worker",
        frozenset({"os", "pathlib", "resource", "select", "subprocess", "time"}),
        "starts a process of its own for texts that could crash a parser, bounded",
    ),
    (
        "runner.analysis.recent",
        frozenset({"threading"}),
        "remembers what it read, for all threads",
    ),
)

ENVIRONMENT_READERS = ("runner.settings", "runner.places")
ENVIRONMENT_NAMES = frozenset({"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"})
FORBIDDEN_MODULES = frozenset({"pickle", "marshal", "shelve", "dill", "cloudpickle", "jsonpickle"})
FORBIDDEN_CALLS = frozenset({"eval", "exec", "__import__"})

MAX_LINES = 500
# Module, why it may be longer.
LONG_MODULES: dict[str, str] = {}


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def at(self, node: ast.AST) -> str:
        shown = self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path
        return f"{shown}:{getattr(node, 'lineno', 1)}"


def module_from(path: Path, top: Path) -> Module:
    parts = path.relative_to(top).with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    return Module(name, path, text, ast.parse(text, str(path)))


@cache
def modules() -> tuple[Module, ...]:
    return tuple(module_from(path, ROOT) for path in sorted((ROOT / "runner").rglob("*.py")))


@cache
def module_names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def imports(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Every dotted name that the module imports, relative ones made absolute."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            for alias in node.names:
                yield f"{base}.{alias.name}", node


def own_target(imported: str) -> str | None:
    """The name within this package that an import means; None for foreign ones."""
    if not under(imported, FACADE) or imported == FACADE:
        return None
    if layer_of(imported) is not None or imported in module_names():
        return imported
    # Not a module: a name of runner/__init__.py.
    return None if imported.removeprefix(FACADE + ".") in FACADE_OWN_NAMES else FACADE_IS


def under(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def layer_of(name: str) -> int | None:
    fits = [(len(p), i) for i, layer in enumerate(LAYERS) for p in layer if under(name, p)]
    return max(fits)[1] if fits else None


def adapter_of(name: str) -> str:
    """`runner.backends.native` for its modules, `runner.stores` for `runner.stores.sqlite`."""
    parts = name.split(".")
    if parts[1] != "backends":
        return ".".join(parts[:2])
    folder = ROOT / "runner" / "backends" / (parts[2] if len(parts) > 2 else "")
    return ".".join(parts[:3]) if len(parts) > 2 and folder.is_dir() else "runner.backends"


def upward(module: Module) -> Iterator[str]:
    mine = layer_of(module.name)
    for imported, node in imports(module):
        target = own_target(imported)
        if target is None or mine is None:
            continue
        theirs = layer_of(target)
        if theirs is not None and theirs > mine:
            yield f"{module.at(node)}: {module.name} imports {target}, which stands above it"


def sideways(module: Module) -> Iterator[str]:
    if layer_of(module.name) != ADAPTER_LAYER:
        return
    mine = adapter_of(module.name)
    for imported, node in imports(module):
        target = own_target(imported)
        if target is None or layer_of(target) != ADAPTER_LAYER or adapter_of(target) == mine:
            continue
        allowed = SUPPORT_FOR.get(adapter_of(target), ())
        if not any(fnmatchcase(module.name, pattern) for pattern in allowed):
            yield f"{module.at(node)}: adapter {module.name} imports adapter {target}"


def environment_reads(module: Module) -> Iterator[str]:
    if any(under(module.name, reader) for reader in ENVIRONMENT_READERS):
        return
    for node in ast.walk(module.tree):
        named = (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
            and node.attr in ENVIRONMENT_NAMES
        )
        taken = (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(alias.name in ENVIRONMENT_NAMES for alias in node.names)
        )
        if named or taken:
            yield f"{module.at(node)}: {module.name} reads the environment, not runner.settings"


def forbidden(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Assert):
            yield f"{module.at(node)}: assert in product code vanishes under -O: raise an error"
        if isinstance(node, ast.Call) and call_name(node) in FORBIDDEN_CALLS:
            yield f"{module.at(node)}: {call_name(node)}() in product code"
    for imported, node in imports(module):
        if imported.split(".")[0] in FORBIDDEN_MODULES:
            yield f"{module.at(node)}: {module.name} imports {imported}, which runs what it reads"


def call_name(node: ast.Call) -> str:
    if isinstance(node.func, ast.Name):
        return node.func.id
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name):
        return f"{node.func.value.id}.{node.func.attr}"
    return ""


def impure(module: Module) -> Iterator[str]:
    if not any(under(module.name, prefix) for prefix in PURE):
        return
    excused: frozenset[str] = frozenset().union(
        *(names for name, names, _ in PURE_EXCEPTIONS if name == module.name)
    )
    for imported, node in imports(module):
        top = imported.split(".")[0]
        outside = top in OUTSIDE_MODULES or imported in OUTSIDE_NAMES or imported == "pathlib"
        if outside and top not in excused:
            yield f"{module.at(node)}: {module.name} is pure and imports {imported}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and call_name(node) in OUTSIDE_CALLS:
            yield f"{module.at(node)}: {module.name} is pure and calls {call_name(node)}()"


def too_long(module: Module) -> Iterator[str]:
    lines = module.text.count("\n")
    if lines > MAX_LINES and module.name not in LONG_MODULES:
        yield f"{module.at(module.tree)}: {module.name} has {lines} lines, more than {MAX_LINES}"


RULES = (upward, sideways, environment_reads, forbidden, impure, too_long)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps(rule):
    found = [line for module in modules() if module.name != FACADE for line in rule(module)]
    assert not found, "\n" + "\n".join(found)


def test_every_module_has_a_layer():
    without = [m.name for m in modules() if m.name != FACADE and layer_of(m.name) is None]
    assert not without, f"give these a layer in {__file__}: {without}"


def test_importing_the_package_loads_nothing_of_it():
    facade = next(m for m in modules() if m.name == FACADE)
    eager = [
        target
        for node in facade.tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for imported, _ in imports(Module(FACADE, facade.path, "", ast.Module([node], [])))
        if (target := own_target(imported))
    ]
    assert not eager, f"runner/__init__.py imports {eager} whenever anything of it is imported"


def test_exceptions_are_still_needed():
    known = {module.name: module for module in modules()}
    unused = [name for name in LONG_MODULES if name not in known]
    for name, excused, _ in PURE_EXCEPTIONS:
        used = {i.split(".")[0] for i, _ in imports(known[name])} if name in known else set()
        unused += [f"{name}: {module}" for module in sorted(excused - used)]
    assert not unused, "take these out of the tables"


# What each rule must find, and a twin that it must let pass: (rule, module, found, passes).
EXAMPLES = (
    ("upward", "runner/model/x.py", "from runner.ports import Clock", "import runner.errors"),
    ("upward", "runner/policy/x.py", "import runner.supervisor", "from runner.ports import Clock"),
    ("upward", "runner/stores/x.py", "from runner import Runner", "from runner import __version__"),
    (
        "upward",
        "runner/audit/x.py",
        "def f():\n    from ..app import R",
        "from ..model import event",
    ),
    ("sideways", "runner/stores/x.py", "import runner.schema", "import runner.audit"),
    ("sideways", "runner/egress/x.py", "from runner.backends import pump", "import runner.model"),
    ("sideways", "runner/backends/native/x.py", "import runner.backends.docker", "import os"),
    ("environment_reads", "runner/app.py", "import os\nos.environ['A']", "import os\nos.getpid()"),
    ("environment_reads", "runner/app.py", "from os import getenv", "from os import getpid"),
    ("forbidden", "runner/app.py", "assert True", "raise ValueError"),
    ("forbidden", "runner/app.py", "import pickle", "import json"),
    ("forbidden", "runner/app.py", "eval('1')", "model.eval('1')"),
    ("impure", "runner/policy/x.py", "import socket", "import ipaddress"),
    (
        "impure",
        "runner/model/x.py",
        "from pathlib import Path",
        "from pathlib import PurePosixPath",
    ),
    ("impure", "runner/compile.py", "open('x')", "x.open('x')"),
    ("impure", "runner/audit/x.py", "import datetime\ndatetime.now()", "import datetime"),
    ("too_long", "runner/app.py", "x = 1\n" * (MAX_LINES + 1), "x = 1\n" * MAX_LINES),
)


@pytest.mark.parametrize(("rule", "place", "found", "passes"), EXAMPLES)
def test_a_rule_finds_what_it_is_for(rule, place, found, passes, tmp_path):
    look = next(r for r in RULES if r.__name__ == rule)
    for text, expected in ((found, True), (passes, False)):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        assert bool(list(look(module_from(path, tmp_path)))) is expected, text
