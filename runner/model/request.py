"""What is asked for: one program, where, with what environment, under which profile."""

from __future__ import annotations

from dataclasses import dataclass

from runner.model.limits import NO_OVERRIDES, LimitOverrides
from runner.model.principal import Principal


@dataclass(frozen=True, slots=True)
class Argv:
    """A program and its arguments, passed to the kernel as they are."""

    words: tuple[str, ...]
    """At least one word. Bytes that are not UTF-8 are held as surrogate escapes (PEP 383)."""


@dataclass(frozen=True, slots=True)
class ShellText:
    """A command line for a shell."""

    text: str
    language: str = "bash"
    """`bash` or `sh`."""


@dataclass(frozen=True, slots=True)
class Script:
    """A script whose bytes were read once; the bytes that were decided are the bytes that run."""

    content: bytes
    language: str
    """`python`, `bash`, `sh`, `node`, `perl`, `ruby`; or `unknown` for another `#!`."""
    interpreter: tuple[str, ...]
    """The words in front of the script's path, e.g. `("python3",)`."""
    name: str
    """Base name, e.g. `fix.py`; `code.py` for text that had no file."""
    path: str | None = None
    """Absolute path on the host if it came from a file, else None."""
    args: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """No program: a sandbox that stays, for the commands of a session, which come into it later."""

    lifetime_s: float
    """So long after its start it ends, whatever goes on in it."""
    idle_s: float
    """So long after the last command it ends."""


Command = Argv | ShellText | Script
"""Something that can be read and run."""
Program = Command | Hold


@dataclass(frozen=True, slots=True)
class ExecRequest:
    """One run that somebody wants."""

    principal: Principal
    program: Program
    directory: str
    """Absolute host path of the workspace folder; the run starts there."""
    profile: str = "agent"
    environment: tuple[tuple[str, str], ...] = ()
    """Variables asked for beside the profile's, in order, names unique."""
    limits: LimitOverrides = NO_OVERRIDES
    labels: tuple[tuple[str, str], ...] = ()
    terminal: bool = False
    idempotency_key: str | None = None
    within: str | None = None
    """Run id of the session whose sandbox it is to run in; None: in one of its own."""
