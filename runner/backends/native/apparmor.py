"""The AppArmor profile that lets one interpreter make user namespaces, and its installing.

Ubuntu 24.04 sets `kernel.apparmor_restrict_unprivileged_userns`: a program that no profile allows
`userns` gets a user namespace without any capability in it. AppArmor attaches a profile by the path
of the file that is executed, links resolved, so the grant is as wide as that file is shared.

Sources: apparmor.d(5), apparmor_parser(8).
"""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from runner.errors import BackendError

RESTRICTION = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
FOLDER = Path("/etc/apparmor.d")
PARSER = "/usr/sbin/apparmor_parser"
PARSER_TIMEOUT_S = 60.0

_GLOB_CHARACTERS = "*?[]{}^"
"""Mean something in a path of apparmor.d(5) unless a backslash stands before them."""

_TEXT = """\
# Lets runner build its sandboxes: programs that {python}
# starts, and it itself, may make user namespaces. Whoever may execute that file has the same right.
abi <abi/4.0>,
include <tunables/global>

profile {name} {attachment} flags=(unconfined) {{
  userns,
  include if exists <local/{name}>
}}
"""


def restricts(path: Path = RESTRICTION) -> bool:
    """Whether AppArmor withholds user namespaces from programs without a profile here."""
    try:
        return path.read_text().strip() == "1"
    except OSError:
        return False  # a kernel without the restriction


@dataclass(frozen=True, slots=True)
class Grant:
    """The profile of one interpreter: a file of its own, named after the interpreter's path."""

    python: Path
    """Absolute, links resolved."""
    folder: Path = FOLDER
    parser: str = PARSER

    @property
    def name(self) -> str:
        """The profile's name and its file's."""
        return f"runner-{hashlib.sha256(os.fsencode(self.python)).hexdigest()[:8]}"

    @property
    def file(self) -> Path:
        """Where it is installed."""
        return self.folder / self.name

    @property
    def text(self) -> str:
        """The profile. BackendError: no profile can name this path."""
        path = str(self.python)
        if not path.isprintable() or '"' in path or "\\" in path:
            raise BackendError(
                f"no AppArmor profile can name the interpreter {path!r}; make the environment at a "
                "path of letters, digits and plain punctuation"
            )
        escaped = "".join(f"\\{char}" if char in _GLOB_CHARACTERS else char for char in path)
        return _TEXT.format(python=path, name=self.name, attachment=f'"{escaped}"')

    @property
    def is_installed(self) -> bool:
        """Whether the file is there with exactly this text."""
        try:
            return self.file.read_text(encoding="utf-8") == self.text
        except OSError:
            return False

    def shared_by(self) -> str | None:
        """Why more than one environment executes this file, in a clause; None: it seems its own."""
        if self.python.is_relative_to("/usr"):
            return "is the machine's, so every Python program of every user would have the right"
        found = self.python.stat()
        if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "can be changed by others, who could then do anything with the right"
        return None

    def install(self) -> None:
        """Write the file and load it; the one before, if any, comes back when that fails.

        BackendError: it can't be written, or the parser refuses it.
        """
        try:
            before = self.file.read_bytes()
        except OSError:
            before = None
        self._write(self.text.encode())
        try:
            self._parse("--replace")
        except BackendError:
            if before is None:
                self.file.unlink()
            else:
                self._write(before)
            raise

    def remove(self) -> None:
        """Take the profile out of the kernel and remove its file. BackendError: it stays."""
        self._parse("--remove")
        try:
            self.file.unlink()
        except OSError as error:
            raise BackendError(f"{self.file} can't be removed ({error}); remove it") from error

    def _write(self, content: bytes) -> None:
        try:
            # Whole or not at all: the service that loads the folder at boot may look meanwhile, and
            # passes over names that begin with a dot.
            with tempfile.NamedTemporaryFile(
                dir=self.folder, prefix=f".{self.name}.", delete=False
            ) as fresh:
                fresh.write(content)
                fresh.flush()
                os.fsync(fresh.fileno())
                os.fchmod(fresh.fileno(), 0o644)
            Path(fresh.name).replace(self.file)
        except OSError as error:
            raise BackendError(
                f"{self.file} can't be written ({error}); see that {self.folder} is there and that "
                "you are root"
            ) from error

    def _parse(self, what: str) -> None:
        try:
            done = subprocess.run(
                [self.parser, what, str(self.file)],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
                capture_output=True,
                text=True,
                timeout=PARSER_TIMEOUT_S,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise BackendError(
                f"{self.parser} can't be run ({error}); install the package apparmor"
            ) from error
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
            raise BackendError(f"{self.parser} {what} refused {self.file}: {said}")
