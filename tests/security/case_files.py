"""The files of `cases/`: what they state about themselves, and the compiling of those in C."""

from __future__ import annotations

import ast
import contextlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from runner import Outcome

FOLDER = Path(__file__).resolve().parent / "cases"
SUFFIXES = (".py", ".c", ".sh")


@dataclass(frozen=True, slots=True)
class Case:
    """One file of `cases/`, and what it states about itself in capitals.

    In a Python file these are assignments, in others lines of the comment that heads it.
    """

    path: Path
    stated: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Without the suffix."""
        return self.path.stem

    def expected(self, mode: str, outcome: Outcome) -> dict[str, Any]:
        """Fields of the outcome; `WITHOUT` says what else to expect without a protection."""
        found = dict(self.stated.get("EXPECTED", {}).get(mode, {}))
        for protection, changed in self.stated.get("WITHOUT", {}).items():
            if protection not in outcome.protections:
                found = dict(changed.get(mode, found))
        return found

    def gap(self, outcome: Outcome) -> str | None:
        """What this attack is known to reach without a protection that is not in force; None."""
        for protection, changed in self.stated.get("WITHOUT", {}).items():
            if protection not in outcome.protections and "gap" in changed:
                return f"gap without {protection}: {changed['gap']}"
        return None

    def not_run(self, target: str) -> str | None:
        """Why it can't run against the target of this name, or not on this machine; None."""
        why: str | None = self.stated.get("NOT_ON", {}).get(target)
        if why is None and self.path.suffix == ".c" and compiler() is None:
            return NO_COMPILER
        return why


def load(path: Path) -> Case:
    """Read what a case states, without running any of it."""
    text = path.read_text()
    if path.suffix != ".py":
        head = text.split("*/")[0] if path.suffix == ".c" else text.split("\n\n")[0]
        text = "\n".join(re.findall(r"^[ *#]*([A-Z_]+ = .*)$", head, re.MULTILINE))
    found = {}
    for statement in ast.parse(text).body:
        match statement:
            case ast.Assign(targets=[ast.Name(name)], value=value):
                with contextlib.suppress(ValueError):
                    found[name] = ast.literal_eval(value)
    return Case(path, found)


def cases() -> list[Case]:
    """All, in their order."""
    files = [path for path in FOLDER.glob("p*_*") if path.suffix in SUFFIXES]
    return [load(path) for path in sorted(files)]


@cache
def compiler() -> tuple[str, ...] | None:
    """What to compile C with: RUNNER_TEST_CC, cc, gcc, clang, or zig from PyPI; None."""
    if named := os.environ.get("RUNNER_TEST_CC"):
        return tuple(shlex.split(named))
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return (found,)
    zig = (sys.executable, "-m", "ziglang", "cc")
    works = subprocess.run([*zig, "--version"], capture_output=True, check=False).returncode == 0
    return zig if works else None


NO_COMPILER = "no C compiler: install gcc, or `pip install ziglang`, or name one in RUNNER_TEST_CC"


@cache
def built(source: Path) -> bytes:
    """A case, compiled; without a library that a target's root may lack, where that can be."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "program")
        # zig's default would trap what these programs do on purpose.
        options = ("-O1", "-w", "-pthread", "-fno-sanitize=undefined", "-o", str(program))
        command = [*(compiler() or ()), *options, str(source)]
        for linking in (["-static"], []):
            done = subprocess.run(
                [*command, *linking],
                capture_output=True,
                text=True,
                check=False,
                env={**os.environ, "ZIG_GLOBAL_CACHE_DIR": folder},
            )
            if done.returncode == 0:
                return program.read_bytes()
    raise AssertionError(f"{source.name} does not compile: {done.stderr}")
