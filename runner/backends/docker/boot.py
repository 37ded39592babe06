"""Gets `inside/` running in a container that has Python and nothing of runner."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

PACKAGE = "runner.backends.docker.inside"
# In the order in which they import each other.
MODULES = ("wire", "tree", "counters", "walls", "child", "watch", "init")

_PROGRAM = f"""\
import json, os, sys, types
def take(count):
    data = b""
    while len(data) < count:
        more = os.read(0, count - len(data))
        if not more:
            os._exit(1)
        data += more
    return data
sources = json.loads(take(int(take(10))))
name = ""
for part in {PACKAGE!r}.split("."):
    name = (name + "." + part).lstrip(".")
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = []
for part, source in sources:
    module = types.ModuleType(name + "." + part)
    sys.modules[module.__name__] = module
    setattr(sys.modules[name], part, module)
    exec(compile(source, part + ".py", "exec"), module.__dict__)
sys.modules[name + ".init"].run()
"""

COMMAND = ("/usr/bin/python3", "-I", "-S", "-c", _PROGRAM)
"""Pid 1 of every container; says nothing of the run, because the program can read it."""


@cache
def sources() -> bytes:
    """What `COMMAND` reads first from its stdin: ten digits of length, then JSON."""
    folder = resources.files(PACKAGE)
    texts = [(name, folder.joinpath(f"{name}.py").read_text("utf-8")) for name in MODULES]
    body = json.dumps(texts).encode("ascii")
    return b"%010d" % len(body) + body
