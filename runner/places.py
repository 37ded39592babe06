"""Where the environment says that things are, and what all settings come from; imports little.

Beside `settings`, which reads what is set, the only reader of the environment. A client of a server
of the same user has to know no setting: it has to know that the server's come from the same places.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from runner import __version__

ETC = Path("/etc/runner")
SOCKET = "serve.sock"
"""Where a server listens in its state folder, if it is not told otherwise."""
SERVER = "RUNNER_SERVER"
"""The variable of the setting `server`: it says whether a server is asked, and nothing to that."""
AUTO, NEVER, ALWAYS = "auto", "never", "always"
_CONFIG_BYTES = 1 << 20
_OF_SETTINGS = ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
_BY_NAME = ("RUNNER_", "DOCKER_")


@dataclass(frozen=True, slots=True)
class Folders:
    """The user's."""

    home: Path | None
    config: Path | None
    """Holds `config.yaml`, `policy.d`, `wrappers.d` and `profiles` of the user."""
    state: Path | None


def environment() -> dict[str, str]:
    """A copy of this process's."""
    return dict(os.environ)


def folders_of(env: Mapping[str, str]) -> Folders:
    """As the XDG Base Directory Specification has them.

    As root, or set-uid, only those of the effective user: sudo may have left another's.
    """
    uid = os.geteuid()
    wary = uid == 0 or uid != os.getuid()

    def stated(variable: str) -> Path | None:
        # Relative ones are to be ignored (XDG Base Directory Specification).
        text = env.get(variable, "")
        if not text.startswith("/") or "\0" in text:
            return None
        path = Path(text)
        return path if not wary or _owner(path) == uid else None

    home = stated("HOME") or _home_of(uid)
    config = stated("XDG_CONFIG_HOME") or (home / ".config" if home else None)
    state = stated("XDG_STATE_HOME") or (home / ".local" / "state" if home else None)
    return Folders(home, config / "runner" if config else None, state)


def read_choice(value: object) -> str:
    """The setting `server`. ValueError: it is none of what it can be."""
    if isinstance(value, str):
        if value in (AUTO, NEVER, ALWAYS):
            return value
        if value.startswith("unix:") and len(value) > len("unix:") and "\0" not in value:
            return f"unix:{os.path.abspath(value.removeprefix('unix:'))}"  # noqa: PTH100
    raise ValueError(f"{value!r} is none of auto, never, always and unix:PATH")


def config_files(folders: Folders, etc: Path = ETC) -> tuple[Path, ...]:
    """The configuration files, the one that counts first."""
    own = (folders.config / "config.yaml",) if folders.config else ()
    return (*own, etc / "config.yaml")


def settings_digest(env: Mapping[str, str], etc: Path = ETC) -> str | None:
    """Equal for two processes whose settings are the same: it is over all that those come from.

    Also over this very installation. None: a configuration file can't be read, or is too large to
    be one.
    """
    import hashlib  # noqa: PLC0415  (not for who only asks for help)

    told = hashlib.sha256()

    def tell(*texts: str) -> None:
        for text in texts:
            raw = text.encode("utf-8", "surrogateescape")
            told.update(b"%d:%b" % (len(raw), raw))

    tell(__version__, str(Path(__file__).parent), sys.prefix, str(os.getuid()), str(os.geteuid()))
    for name in sorted(env):
        if name != SERVER and (name in _OF_SETTINGS or name.startswith(_BY_NAME)):
            tell(name, env[name])
    for path in config_files(folders_of(env), etc):
        try:
            with open(path, "rb") as file:
                content = file.read(_CONFIG_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
        if len(content) > _CONFIG_BYTES:
            return None
        tell(str(path), hashlib.sha256(content).hexdigest())
    return told.hexdigest()


def is_configured(env: Mapping[str, str], words: Iterable[bytes], etc: Path = ETC) -> bool:
    """Whether a configuration file may state one of these: then all of it has to be read."""
    for path in config_files(folders_of(env), etc):
        try:
            with open(path, "rb") as file:
                content = file.read(_CONFIG_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return True
        if any(word in content for word in words):
            return True
    return False


def _owner(path: Path) -> int | None:
    """Owner of the path, or of the nearest folder above it that exists."""
    for candidate in (path, *path.parents):
        try:
            return candidate.stat().st_uid
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return None
    return None


def _home_of(uid: int) -> Path | None:
    """The home of the user database; containers run users that it does not know."""
    try:
        home = pwd.getpwuid(uid).pw_dir
    except KeyError:
        return None
    return Path(home) if home.startswith("/") and Path(home).is_dir() else None
