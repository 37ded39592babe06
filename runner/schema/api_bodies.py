"""What the exec API is sent: the models of request bodies, in the library's words."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from runner.errors import RequestError
from runner.model.kill import KillScope
from runner.schema.base import Strict
from runner.schema.profiles import is_path

MOST_FILES = 1000
MOST_PATH_BYTES = 4096
"""PATH_MAX (limits.h)."""
MOST_NAME_BYTES = 255
"""NAME_MAX (limits.h)."""
MOST_FOLDERS = 32
"""Deeper than any source tree that somebody sends along."""
LONGEST_WAIT_S = 3600.0
MOST_CELLS = 4096
"""Rows or columns of a terminal; what is drawn into one grows with them."""


def _profile(name: str) -> str:
    if is_path(name):
        raise ValueError("is a file; over the API a profile is given by its name")
    return name


def _paths(files: Mapping[str, Any]) -> Mapping[str, Any]:
    for path in files:
        parts = path.split("/")
        if (
            not {"", ".", ".."}.isdisjoint(parts)
            or "\0" in path
            or len(path.encode()) > MOST_PATH_BYTES
            or max(len(part.encode()) for part in parts) > MOST_NAME_BYTES
            or len(parts) > MOST_FOLDERS
        ):
            raise ValueError(
                f"{path[:80]!r} is no relative path in its shortest spelling, like 'src/main.py'"
            )
    return files


def _base64(text: str) -> str:
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not base64 (RFC 4648, 4)") from None
    return text


Base64 = Annotated[str, AfterValidator(_base64), Field(json_schema_extra={"format": "byte"})]


class Base64Content(Strict):
    """Bytes that are no text."""

    base64: Base64

    @property
    def content(self) -> bytes:
        """The bytes."""
        return base64.b64decode(self.base64)


Content = str | Base64Content


def content_of(given: Content) -> bytes:
    """The bytes that are meant: text as UTF-8."""
    return given.encode() if isinstance(given, str) else given.content


# Refused requests are recorded with who asked and under what, so those are short; the library says
# what is a name.
Name = Annotated[str, Field(max_length=256)]


def _one_program(schema: dict[str, Any]) -> None:
    """What `build_request` says, for who reads the schema."""
    kinds = {"argv": ["argv"], "shell": ["shell"], "code": ["code", "language"]}
    schema["oneOf"] = [{"required": words, "title": kind} for kind, words in kinds.items()]


class Words(Strict):
    """One program, and what it is given."""

    model_config = ConfigDict(json_schema_extra=_one_program)

    argv: tuple[str, ...] | None = Field(
        default=None,
        description="A program and its arguments. One of argv, shell, code and script.",
    )
    shell: str | None = Field(default=None, description="A command line for a shell.")
    code: str | None = Field(default=None, description="A script's text; needs a language.")
    language: Name | None = Field(
        default=None,
        description="Of code or script: python, bash, sh, node, perl, ruby; of shell: bash "
        "(default), sh.",
    )
    args: tuple[str, ...] = Field(default=(), description="Arguments of the code or script.")


class _Bounds(Strict):
    """What holds for it."""

    env: dict[Name, str] = Field(default={}, description="Variables beside the profile's.")
    limits: dict[Name, Name | int | float] = Field(
        default={}, description="By the keys of a profile: {'wall': '5s'}; they can only tighten."
    )
    labels: dict[Name, Name] = Field(default={}, description="Recorded with the run.")


class WhoseBody(Strict):
    """Who asks, under what, and where."""

    profile: Annotated[Name, AfterValidator(_profile)] | None = Field(
        default=None, description="A profile's name; else the server's default."
    )
    agent: Name | None = Field(
        default=None,
        description="Who asks; a caller that is an agent may leave it out, and name no other.",
    )
    parent: Name | None = Field(default=None, description="The agent that started it.")
    session: Name | None = Field(default=None, description="The name that budgets count it under.")
    tenant: Name | None = Field(default=None, description="On whose account.")
    cwd: str | None = Field(
        default=None,
        max_length=MOST_PATH_BYTES,
        description="The workspace: an absolute path on the server's machine; without it, a fresh "
        "folder of its own.",
    )


class ProgramBody(Words, _Bounds, WhoseBody):
    """One program, who asks for it, and under what."""

    script: str | None = Field(
        default=None,
        max_length=MOST_PATH_BYTES,
        description="A script's path, from cwd; for the server's own user, with cwd.",
    )


class DecisionBody(ProgramBody):
    """A program to be decided about, and not run."""


class OpenFile(Strict):
    """A descriptor of the caller's process, and what it stands for, so that no other is taken."""

    descriptor: Annotated[int, Field(ge=0, le=65535)]
    device: int
    inode: int


class AttachBody(Strict):
    """The caller's own streams; null: nothing is read, or what comes is only kept."""

    stdin: OpenFile | None = None
    stdout: OpenFile | None = None
    stderr: OpenFile | None = None


class AskedBody(Strict):
    """How long it waits for answers."""

    ask_wait: Name | Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None,
        description="How long it waits where a rule asks, seconds or '15m'; but for the server's "
        "own user at most what its setting ask_wait says, which holds where nothing is said here.",
    )


class WaitedBody(AskedBody):
    """What a run reads, and how its end is waited for."""

    stdin: Content | None = Field(default=None, description="What it reads; nothing else.")
    wait: bool | Annotated[float, Field(ge=0, le=LONGEST_WAIT_S, allow_inf_nan=False)] = Field(
        default=True,
        description="Whether to answer when it has ended, or for how many seconds to wait for "
        "that; else the answer is 202.",
    )
    cancel_on_disconnect: bool = Field(
        default=False,
        description="Whether it is cancelled if the caller goes away while waiting; else it goes "
        "on.",
    )


Files = Annotated[dict[str, Content], AfterValidator(_paths)]


class FilledBody(Strict):
    """What its workspace holds."""

    files: Files = Field(
        default={},
        max_length=MOST_FILES,
        description="What the fresh folder holds: relative path to text or {'base64': …}; not "
        "with cwd.",
    )


class RunBody(ProgramBody, WaitedBody, FilledBody):
    """A program to be run."""

    attach: AttachBody | None = Field(
        default=None,
        description="Connect it to open files of the calling process; for the server's own user "
        "at its unix socket, with cwd.",
    )
    environment: dict[str, str] | None = Field(
        default=None,
        description="What the profile's inherited variables are taken from, in the place of the "
        "server's own environment; for the server's own user.",
    )


class SessionRunBody(Words, _Bounds, WaitedBody):
    """A program to be run in a session. Of limits: wall, cpu_time, output and open_files."""


class Size(Strict):
    """Of a terminal."""

    rows: Annotated[int, Field(ge=1, le=MOST_CELLS)]
    columns: Annotated[int, Field(ge=1, le=MOST_CELLS)]


class _Conversed(AskedBody):
    """How a client talks with it."""

    terminal: Size | None = Field(
        default=None,
        description="Give it a terminal of that size; all output is of stdout then.",
    )
    cancel_on_disconnect: bool = Field(
        default=True,
        description="Whether it is cancelled if the caller goes away; else its input ends, and it "
        "goes on.",
    )


class InteractiveBody(ProgramBody, _Conversed, FilledBody):
    """A program to be run, whose input comes while it runs: a WebSocket's first message."""


class SessionInteractiveBody(Words, _Bounds, _Conversed):
    """The same in a session. Of limits: wall, cpu_time, output and open_files."""


class SaidBody(Strict):
    """What a client says of its input: its end, its terminal's size, or that the run is to end."""

    say: Literal["end", "resize", "cancel"]
    size: Size | None = Field(default=None, description="With resize.")


Span = Name | Annotated[float, Field(gt=0, allow_inf_nan=False)]


class SessionBody(WhoseBody, _Bounds):
    """A session to be begun."""

    files: Files = Field(
        default={},
        max_length=MOST_FILES,
        description="What the fresh folder holds at first, as in a run; not with cwd.",
    )
    lifetime: Span | None = Field(
        default=None,
        description="When it ends at the latest, seconds or '1h'; the setting session_lifetime is "
        "the most, and what holds where nothing is said here.",
    )
    idle: Span | None = Field(
        default=None,
        description="How long it stays with no command; the setting session_idle likewise.",
    )


class ApplyBody(Strict):
    """Which of a run's changes are to be applied."""

    paths: tuple[str, ...] = Field(default=(), description="These, and what is below; none: all.")
    dry_run: bool = Field(default=False, description="Only say what would become of each.")


def check_workspace_given(body: RunBody | InteractiveBody | SessionBody) -> None:
    """RequestError: files were sent for a folder that is not its own."""
    if body.files and body.cwd is not None:
        whose = "session" if isinstance(body, SessionBody) else "run"
        raise RequestError(
            f"files go into a fresh folder of the {whose}'s own: leave out cwd, or files"
        )


Reason = Annotated[str, Field(min_length=1, max_length=1000, description="It is recorded.")]


class AnswerBody(Strict):
    """The answer to a question."""

    answer: Literal["approve", "deny"]
    reason: Reason


class BudgetBody(Strict):
    """Which counters of a budget are to begin anew."""

    budget: Name = Field(description="Its id.")
    scope: Name | None = Field(
        default=None,
        description="Whose counter, such as 'agent:coder', as the list of budgets has it; without "
        "it all of the budget's, which is for who reaches everything.",
    )
    profile: Annotated[Name, AfterValidator(_profile)] | None = Field(
        default=None, description="The profile that states it; else the server's default."
    )
    reason: Reason


class BudgetSetBody(BudgetBody):
    """Which amounts of a budget are to hold for a time."""

    amounts: dict[Name, Name] = Field(
        default={},
        description="By what is counted, as a policy spells them: {'calls': '10', 'wall': '2h'}; "
        "without any, what is stated holds again.",
    )
    lasting: Name | None = Field(
        default=None, description="For how long: '2h'. It goes with amounts."
    )


class LiftBody(Strict):
    """Whom to let run again."""

    scope: KillScope
    name: Name = Field(default="", description="Of the agent, session or tenant; none with 'all'.")
    reason: Reason


class KillBody(LiftBody):
    """What to end."""
