"""A rival in an environment of its own, which is thrown away."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from policies import Command, Stated

NAME = "agent-governance-toolkit-core"
VERSION = "5.0.0"
_INSTALL_LIMIT_S = 300


class UnavailableError(Exception):
    """The rival can't be had here; the message says why."""


class RivalProcess:
    """A script beside this one, run by a Python that has the rival; started once, asked in turns.

    It reads a line of JSON, answers with a line, and so on.
    """

    def __init__(self, folder: Path, script: str) -> None:
        """Installs the rival into `folder`. UnavailableError: it can't be."""
        python = _installed(folder)
        self._process = subprocess.Popen(
            [python, "-u", str(Path(__file__).with_name(script))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        )

    def asked(self, value: Any) -> Any:
        """What it answers. UnavailableError: it has ended."""
        self._say(value)
        return json.loads(self._hear())

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, value: Any) -> None:
        if self._process.stdin is not None:
            try:
                self._process.stdin.write(json.dumps(value) + "\n")
                self._process.stdin.flush()
            except BrokenPipeError:
                raise UnavailableError(self._last_words()) from None

    def _hear(self) -> str:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        if not line:
            raise UnavailableError(self._last_words())
        return line

    def _last_words(self) -> str:
        self._process.wait()
        told = self._process.stderr.read() if self._process.stderr is not None else ""
        return _last_line(told) or "it ended"


def _installed(folder: Path) -> str:
    """The Python of a new environment that has it."""
    python = str(folder / "bin" / "python")
    for argv in (
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
         f"{NAME}=={VERSION}"],
    ):  # fmt: skip
        try:
            done = subprocess.run(
                argv, capture_output=True, text=True, timeout=_INSTALL_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UnavailableError(type(error).__name__) from error
        if done.returncode != 0:
            raise UnavailableError(_last_line(done.stderr or done.stdout))
    return python


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


class Rival(RivalProcess):
    """Its decision point."""

    def __init__(self, folder: Path, policies: dict[int, list[Stated]]) -> None:
        """Installs it into `folder`. UnavailableError: it can't be."""
        super().__init__(folder, "rival_toolkit.py")
        try:
            self.asked(
                {
                    count: [
                        {"id": s.rule.id, "effect": s.rule.effect.value, "facts": s.facts}
                        for s in rules
                    ]
                    for count, rules in policies.items()
                }
            )
        except BaseException:
            self.close()
            raise

    def times_ns(self, command: Command, rules: int, times: int) -> list[int]:
        """Nanoseconds of each of so many decisions about the whole command."""
        answer = self.asked({"rules": rules, "facts": command.facts, "times": times})
        if answer["allowed"] != (command.effect.value == "allow"):
            raise SystemExit(f"bench: {NAME} decides '{command.name}' otherwise")
        found: list[int] = answer["took_ns"]
        return found
