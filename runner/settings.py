"""What runner takes by default and what is set: with `places`, the only reader of the environment.

A setting comes from the first of these that states it: a flag; a variable `RUNNER_*`; the
user's `~/.config/runner/config.yaml`; the machine's `/etc/runner/config.yaml`; the default. The
user's file stands before the machine's because settings are preferences; what an organisation
wants held it says in `/etc/runner/policy.d`, whose layer no setting takes away.

As root, or set-uid, `HOME` and `XDG_*` count only where they name folders of the effective
user: sudo may have left another's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from runner.audit.redact_patterns import Pattern, parse_patterns
from runner.errors import SettingsError
from runner.model.callers import Issuer, PeerRule
from runner.model.checkpoints import CheckpointRules, Destination
from runner.model.limits import Unlimited
from runner.places import AUTO, ETC, Folders, config_files, folders_of, read_choice
from runner.schema.callers import read_issuers, read_peers
from runner.schema.destinations import read_destinations
from runner.schema.problems import Problem, raise_problems, unknown
from runner.schema.quantities import parse_count, parse_size, parse_wait
from runner.schema.yaml import Document, parse, read_file

T = TypeVar("T")

DEFAULT_PROFILE = "agent"
DEFAULT_BACKEND = "native"
DEFAULT_KEEP_OUTPUT_BYTES = 1 << 20
"""Of each stream; enough for a long traceback, and a thousand runs stay under 2 GiB."""
DEFAULT_KEEP_PROGRAM_BYTES = 1 << 20
"""More than anybody writes by hand; what is larger is not kept at all."""
DEFAULT_SERVER_SESSIONS = 32
"""Each is a process of runner's beside its sandbox."""
MOST_SERVER_SESSIONS = 1000
DEFAULT_KEEP_CHANGES_BYTES = 256 << 20
"""Of one run: sources and what a build makes of them, not a whole tree of packages."""
DEFAULT_KEEP_CHANGES_TOTAL_BYTES = 2 << 30
DEFAULT_KEEP_CHANGES_DAYS = 7
"""What nobody looked at in a week is not waited for."""

DEFAULT_KEEP_OUTPUT_DAYS = 30
DEFAULT_KEEP_OUTPUT_TOTAL_BYTES = 2 << 30
"""A thousand runs that fill what is kept of each stream."""

DEFAULT_SESSION_LIFETIME_S = 8 * 3600.0
"""A working day."""
DEFAULT_SESSION_IDLE_S = 1800.0

_RULES = CheckpointRules()

# What no setting can be: it would be taken for unset, or break a path.
_FORBIDDEN = ("", "\0")


@dataclass(frozen=True, slots=True)
class Setting(Generic[T]):
    """A value, and where it came from."""

    value: T
    origin: str
    """`flag`, `environment RUNNER_HOME`, the configuration file's path, or `default`."""


@dataclass(frozen=True, slots=True)
class PolicyFolder:
    """A folder of policy layers, and whose they are."""

    path: Path
    kind: str
    """`organisation` or `user`, as `schema.policies.load_policy_dir` takes it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, each with its origin."""

    home: Setting[Path]
    """State folder: log, ledger, kept output."""
    profile: Setting[str]
    """Name or file of the profile for runs that name none."""
    backend: Setting[str]
    keep_output_bytes: Setting[int]
    """How much of each stream of a run is kept; 0 keeps nothing."""
    keep_program_bytes: Setting[int]
    """The largest text of a run that is kept beside its output; 0 keeps none."""
    keep_output_days: Setting[int | Unlimited]
    """How long output and programs are kept."""
    keep_output_total_bytes: Setting[int]
    """How much of all runs together is kept; the oldest go first."""
    keep_changes_bytes: Setting[int]
    """How much of the contents of what one run changed is kept; 0 keeps none."""
    keep_changes_total_bytes: Setting[int]
    """Of all runs together; beyond it the oldest are discarded. 0: all, at the next sweep."""
    keep_changes_days: Setting[int | Unlimited]
    """How long they are kept."""
    checkpoint_events: Setting[int]
    """A checkpoint of the log is made at the latest after so many events."""
    checkpoint_seconds: Setting[int]
    """And at the next event, when the last one is older."""
    checkpoint_to: Setting[tuple[Destination, ...]]
    """Where checkpoints are sent."""
    server: Setting[str]
    """Whether commands have a server of the same user run what they are given: `auto`, `never`,
    `always`, or which one: `unix:PATH`."""
    server_peers: Setting[tuple[PeerRule, ...]]
    """What other users' processes may do at the API's socket."""
    server_sessions: Setting[int]
    """How many sessions may go on when another begins at a server; 0: none begins there."""
    server_issuers: Setting[tuple[Issuer, ...]]
    """Whose tokens the API takes."""
    redact_patterns: Setting[tuple[Pattern, ...]]
    """Secrets that are redacted beside those of known shapes."""
    ask_wait: Setting[float]
    """Seconds that a run waits for an answer where a rule asks; 0: it is denied at once."""
    approvals_to: Setting[tuple[Destination, ...]]
    """Who is told of new questions."""
    approvals_secret: Setting[Path | None]
    """The file with what webhooks of questions are signed by."""
    session_lifetime: Setting[float]
    """Seconds after which a session ends at the latest; it can be begun with less."""
    session_idle: Setting[float]
    """Seconds without a command after which it ends; likewise."""
    policy_dirs: Setting[tuple[PolicyFolder, ...]]
    """In the order of their layers; the organisation's is always the first."""
    wrapper_dirs: Setting[tuple[PolicyFolder, ...]]
    """Folders of rows for the table of wrappers; the organisation's is always the first."""
    profile_dirs: Setting[tuple[Path, ...]]
    """Looked through in order, then the shipped profiles."""
    user_home: Path | None
    """The user's home folder, which no workspace may be; None: there is none."""

    @property
    def checkpoint_rules(self) -> CheckpointRules:
        """What a store is made with."""
        return CheckpointRules(
            self.checkpoint_events.value,
            float(self.checkpoint_seconds.value),
            self.checkpoint_to.value,
        )


@dataclass(frozen=True, slots=True)
class _File:
    document: Document
    values: Mapping[str, object]


def load_settings(
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    etc: Path = ETC,
) -> Settings:
    """All settings as they stand for this process.

    `flags`: values by the names of `Settings` (None: not given). `env`: instead of the process's
    own environment. `etc`: instead of /etc/runner, for tests. SettingsError with a line for each
    value that is wrong, a configuration file that can't be read, or no home folder to be found.
    """
    environment = os.environ if env is None else env
    folders = folders_of(environment)
    files = [file for path in config_files(folders, etc) if (file := _read(path))]
    sources = _Sources(dict(flags or {}), environment, files)
    settings = Settings(
        home=sources.take("home", partial(_path, folders.home), lambda: _state(folders)),
        profile=sources.take("profile", _word, lambda: DEFAULT_PROFILE),
        backend=sources.take("backend", _word, lambda: DEFAULT_BACKEND),
        keep_output_bytes=sources.take(
            "keep_output_bytes", _kept, lambda: DEFAULT_KEEP_OUTPUT_BYTES
        ),
        keep_program_bytes=sources.take(
            "keep_program_bytes", _kept, lambda: DEFAULT_KEEP_PROGRAM_BYTES
        ),
        keep_output_days=sources.take(
            "keep_output_days", parse_count, lambda: DEFAULT_KEEP_OUTPUT_DAYS
        ),
        keep_output_total_bytes=sources.take(
            "keep_output_total_bytes", _kept, lambda: DEFAULT_KEEP_OUTPUT_TOTAL_BYTES
        ),
        keep_changes_bytes=sources.take(
            "keep_changes_bytes", _kept, lambda: DEFAULT_KEEP_CHANGES_BYTES
        ),
        keep_changes_total_bytes=sources.take(
            "keep_changes_total_bytes", _kept, lambda: DEFAULT_KEEP_CHANGES_TOTAL_BYTES
        ),
        keep_changes_days=sources.take(
            "keep_changes_days", parse_count, lambda: DEFAULT_KEEP_CHANGES_DAYS
        ),
        checkpoint_events=sources.take("checkpoint_events", _number, lambda: _RULES.every_events),
        checkpoint_seconds=sources.take("checkpoint_seconds", _number, lambda: int(_RULES.every_s)),
        checkpoint_to=sources.take(
            "checkpoint_to", partial(read_destinations, folders.home), tuple
        ),
        server=sources.take("server", read_choice, lambda: AUTO),
        server_peers=sources.take("server_peers", read_peers, tuple),
        server_sessions=sources.take("server_sessions", _sessions, lambda: DEFAULT_SERVER_SESSIONS),
        server_issuers=sources.take("server_issuers", read_issuers, tuple),
        redact_patterns=sources.take("redact_patterns", _patterns, tuple),
        approvals_to=sources.take("approvals_to", partial(read_destinations, folders.home), tuple),
        approvals_secret=sources.take(
            "approvals_secret", partial(_path, folders.home), lambda: None
        ),
        ask_wait=sources.take("ask_wait", parse_wait, float),
        session_lifetime=sources.take(
            "session_lifetime", _time, lambda: DEFAULT_SESSION_LIFETIME_S
        ),
        session_idle=sources.take("session_idle", _time, lambda: DEFAULT_SESSION_IDLE_S),
        policy_dirs=_policy_dirs(sources, folders, etc, "policy"),
        wrapper_dirs=_policy_dirs(sources, folders, etc, "wrapper"),
        profile_dirs=sources.take(
            "profile_dirs",
            partial(_paths, folders.home),
            lambda: _with_user(folders, "profiles", etc / "profiles"),
        ),
        user_home=folders.home,
    )
    sources.raise_problems()
    return settings


def host_environment(names: Iterable[str], env: Mapping[str, str] | None = None) -> dict[str, str]:
    """Those of the named variables that are set here, for profiles that inherit them."""
    environment = os.environ if env is None else env
    return {name: environment[name] for name in names if name in environment}


def passed_sockets(env: Mapping[str, str] | None = None) -> int:
    """How many sockets a service manager passed to this process, from descriptor 3 on.

    As sd_listen_fds(3) has it: those that are meant for another process are none.
    """
    environment = os.environ if env is None else env
    meant_for, count = environment.get("LISTEN_PID", ""), environment.get("LISTEN_FDS", "")
    if meant_for != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return 0
    return int(count)


def notify_socket(env: Mapping[str, str] | None = None) -> str | None:
    """Where a service manager wants to be told that this process is ready (sd_notify(3)).

    None: it does not, or by a kind of socket that this is not sent over.
    """
    where = (os.environ if env is None else env).get("NOTIFY_SOCKET", "")
    return where if where[:1] in ("/", "@") and len(where) > 1 else None


SETTING_NAMES = tuple(field.name for field in fields(Settings) if field.name != "user_home")


class _Sources:
    """Flags, variables and files, asked in order; problems are collected."""

    def __init__(
        self, flags: Mapping[str, object], env: Mapping[str, str], files: list[_File]
    ) -> None:
        self._flags = flags
        self._env = env
        self._files = files
        self._problems: list[str] = []
        self._in_files: list[Problem] = []
        for name in flags:
            if name not in SETTING_NAMES:
                self._problems.append(unknown("setting", name, SETTING_NAMES))
        for file in files:
            self._in_files += [
                file.document.problem((name,), unknown("key", name, SETTING_NAMES))
                for name in file.values
                if name not in SETTING_NAMES
            ]

    def take(self, name: str, read: Callable[[object], T], default: Callable[[], T]) -> Setting[T]:
        """The first stated value; the default stands in for one that is wrong, until raised."""
        variable = f"RUNNER_{name.upper()}"
        # An empty variable counts as unset, as the XDG specification has it for its own.
        stated = [
            ("flag", self._flags.get(name)),
            (f"environment {variable}", self._env.get(variable) or None),
        ]
        for origin, value in stated:
            if value is not None:
                try:
                    return Setting(read(value), origin)
                except ValueError as problem:
                    where = f"setting {name}" if origin == "flag" else variable
                    self._problems.append(f"{where}: {problem}")
                    return self._instead(default)
        for file in self._files:
            if file.values.get(name) is not None:
                try:
                    return Setting(read(file.values[name]), file.document.source)
                except ValueError as problem:
                    self._in_files.append(file.document.problem((name,), str(problem)))
                    return self._instead(default)
        return Setting(default(), "default")

    def _instead(self, default: Callable[[], T]) -> Setting[T]:
        """The default for a value that was wrong, so that the others are looked at too."""
        try:
            return Setting(default(), "default")
        except SettingsError:
            self.raise_problems()
            raise

    def raise_problems(self) -> None:
        """SettingsError with everything that was wrong."""
        if self._problems:
            lines = [*self._problems, *(str(problem) for problem in self._in_files)]
            raise SettingsError("\n".join(lines))
        raise_problems(self._in_files, SettingsError)


def _read(path: Path) -> _File | None:
    if not _exists(path):
        return None
    document = parse(read_file(path, SettingsError), str(path), SettingsError)
    values = {} if document.data is None else document.data
    if not isinstance(values, dict):
        raise_problems(
            [document.problem((), "must be a mapping, like 'profile: ci'")], SettingsError
        )
        return None
    return _File(document, values)


def _exists(path: Path) -> bool:
    """Whether something is there; what can't be looked at counts, so that reading it tells."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _state(folders: Folders) -> Path:
    if folders.state is None:
        raise SettingsError(
            f"no home folder is known for uid {os.geteuid()}; set RUNNER_HOME to the folder for "
            "runner's state, or HOME"
        )
    return folders.state / "runner"


def _with_user(folders: Folders, name: str, system: Path) -> tuple[Path, ...]:
    return (folders.config / name, system) if folders.config else (system,)


def _policy_dirs(
    sources: _Sources, folders: Folders, etc: Path, what: str
) -> Setting[tuple[PolicyFolder, ...]]:
    """The organisation's folder, always; then the user's, or those that a setting names."""
    name = {"policy": "policy.d", "wrapper": "wrappers.d"}[what]

    def default() -> tuple[Path, ...]:
        return (folders.config / name,) if folders.config else ()

    users = sources.take(f"{what}_dirs", partial(_paths, folders.home), default)
    layers = tuple(PolicyFolder(path, "user") for path in users.value)
    return Setting((PolicyFolder(etc / name, "organisation"), *layers), users.origin)


def _word(value: object) -> str:
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{value!r} must be text")
    text = os.fspath(value)
    if not isinstance(text, str) or text in _FORBIDDEN or "\0" in text:
        raise ValueError(f"{value!r} must be a word")
    return text


def _path(home: Path | None, value: object) -> Path:
    """An absolute path; `~` is the user's home, and a relative one starts here."""
    text = _word(value)
    if text == "~" or text.startswith("~/"):
        if home is None:
            raise ValueError(f"{text!r} needs a home folder; write the path out")
        return home / text[2:]
    return Path(os.path.abspath(text))  # noqa: PTH100  (resolve() would follow links)


def _paths(home: Path | None, value: object) -> tuple[Path, ...]:
    """A list, or one text with `:` between paths as in PATH."""
    if isinstance(value, str):
        return tuple(_path(home, part) for part in value.split(":") if part)
    if isinstance(value, list | tuple):
        return tuple(_path(home, part) for part in value)
    raise ValueError(f"{value!r} must be a list of paths")


def _number(value: object) -> int:
    count = parse_count(value)
    if isinstance(count, Unlimited):
        raise ValueError("'unlimited' would leave the log unsigned; give a number")
    return count


def _time(value: object) -> float:
    time_s = parse_wait(value)
    if time_s <= 0:
        raise ValueError(f"{value!r} must be above 0")
    return time_s


def _sessions(value: object) -> int:
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    count = parse_count(value)
    if isinstance(count, Unlimited) or count > MOST_SERVER_SESSIONS:
        raise ValueError(f"{value!r} must be at most {MOST_SERVER_SESSIONS}")
    return count


def _patterns(value: object) -> tuple[Pattern, ...]:
    """A list, or in a variable one pattern a line."""
    texts = value.splitlines() if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise ValueError(f"{value!r} must be a list of patterns")
    return parse_patterns([each for each in texts if each])


def _kept(value: object) -> int:
    if value in (0, "0") and not isinstance(value, bool):
        return 0
    size = parse_size(value)
    if isinstance(size, Unlimited):
        raise ValueError("'unlimited' would let a program fill the disk; give a size like 1MiB")
    return size
