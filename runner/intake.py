"""What callers say, in the library's words, to an ExecRequest; the bytes of a script are read here.

They are read once: what is decided about is what runs.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path

from runner.errors import RequestError
from runner.model.limits import LimitOverrides
from runner.model.principal import Principal
from runner.model.request import Argv, ExecRequest, Program, Script, ShellText
from runner.schema.limits import parse_limit_mapping
from runner.schema.quantities import parse_wait

SCRIPT_BYTES = 16 << 20
"""A larger script is no script that somebody wrote."""
NAME_CHARACTERS = 256
"""Agents, sessions, tenants, labels: long enough for a URI, short enough for every record."""

LANGUAGES: dict[str, tuple[tuple[str, ...], str]] = {
    "python": (("python3",), "py"),
    "bash": (("bash",), "sh"),
    "sh": (("sh",), "sh"),
    "node": (("node",), "js"),
    "perl": (("perl",), "pl"),
    "ruby": (("ruby",), "rb"),
}
"""Language -> interpreter, file suffix."""
ALIASES = {"python3": "python", "py": "python", "shell": "bash", "javascript": "node", "js": "node"}
SUFFIXES = {
    ".py": "python", ".sh": "bash", ".bash": "bash", ".js": "node", ".mjs": "node",
    ".cjs": "node", ".pl": "perl", ".rb": "ruby",
}  # fmt: skip
_VERSION = re.compile(r"[0-9.]*$")


def build_request(
    *,
    argv: Sequence[str] | None = None,
    shell: str | None = None,
    script: str | os.PathLike[str] | None = None,
    code: str | bytes | None = None,
    content: bytes | None = None,
    language: str | None = None,
    args: Sequence[str] = (),
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    profile: str = "agent",
    agent: str | None = None,
    parent: str | None = None,
    session: str | None = None,
    tenant: str | None = None,
    limits: Mapping[str, object] | LimitOverrides | None = None,
    labels: Mapping[str, str] | None = None,
    terminal: bool = False,
) -> ExecRequest:
    """One of `argv`, `shell` (text), `script` (path), `code` (with `language`) as a request.

    `content` is a script's bytes that came without a file: its language from `#!` or `language`.

    `args` go to a script or code. A relative `script` is looked up from `cwd`, which is this
    process's own folder when it is not given. RequestError says what is wrong.
    """
    directory = _directory(cwd)
    stated = [
        name
        for name, value in (
            ("argv", argv),
            ("shell", shell),
            ("script", script),
            ("code", code),
            ("content", content),
        )
        if value is not None
    ]
    if len(stated) != 1:
        found = ", ".join(stated) or "none"
        raise RequestError(f"give exactly one of argv, shell, script and code, not {found}")
    if args and stated[0] in ("argv", "shell"):
        raise RequestError("args go with a script or code; put them into argv itself")
    if argv is not None:
        program: Program = _argv(argv)
    elif shell is not None:
        program = ShellText(_text(shell, "shell"), _shell_language(language))
    elif script is not None:
        program = read_script(Path(directory, script), tuple(args), language)
    elif content is not None:
        program = script_from_text(content, tuple(args), language)
    else:
        program = _code(code if code is not None else "", language, tuple(args))
    return ExecRequest(
        principal=Principal(
            uid=os.getuid(),
            agent=_name(agent, "agent") or "default",
            parent=_name(parent, "parent"),
            session=_name(session, "session"),
            tenant=_name(tenant, "tenant"),
        ),
        program=program,
        directory=directory,
        profile=profile,
        environment=tuple((_text(k, "env"), _text(v, f"env {k}")) for k, v in (env or {}).items()),
        limits=limits if isinstance(limits, LimitOverrides) else parse_limit_mapping(limits or {}),
        labels=tuple(_label(key, value) for key, value in (labels or {}).items()),
        terminal=terminal,
    )


def ask_wait_s(given: str | float) -> float:
    """Seconds to wait for an answer: a duration as text, or a number. RequestError: it is none."""
    try:
        return parse_wait(given)
    except ValueError as error:
        raise RequestError(f"ask_wait {given!r}: {error}") from None


def checked_stdin(stdin: int | bytes | str | None) -> int | bytes | None:
    """What a run reads from: text as UTF-8. RequestError: a descriptor that is not open."""
    if isinstance(stdin, str):
        return stdin.encode("utf-8", "surrogateescape")
    if isinstance(stdin, int):
        try:
            os.fstat(stdin)
        except (OSError, OverflowError) as error:
            raise RequestError(
                f"stdin {stdin} is no open descriptor; pass one, or bytes"
            ) from error
    return stdin


def read_script(path: Path, args: tuple[str, ...], language: str | None) -> Script:
    """A script from a file, opened once; its interpreter from `#!`, `language` or its name."""
    try:
        with open(path, "rb", opener=_open_regular) as file:
            content = file.read(SCRIPT_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(f"script {str(path)!r} can't be read: {why}") from error
    _check_size(content, f"script {str(path)!r}")
    resolved = path.resolve()
    found, interpreter = interpreter_of(content, resolved.name, language)
    return Script(content, found, interpreter, resolved.name, str(resolved), args)


def script_from_text(content: bytes, args: tuple[str, ...], language: str | None) -> Script:
    """A script that came over stdin; its interpreter from `#!` or `language`."""
    _check_size(content, "the script on stdin")
    found, interpreter = interpreter_of(content, "-", language)
    suffix = LANGUAGES[found][1] if found in LANGUAGES else "script"
    return Script(content, found, interpreter, f"stdin.{suffix}", None, args)


def interpreter_of(content: bytes, name: str, language: str | None) -> tuple[str, tuple[str, ...]]:
    """Language and interpreter words of a script: `language`, else its `#!`, else its suffix."""
    if language is not None:
        known = _language(language)
        return known, LANGUAGES[known][0]
    if content.startswith(b"#!"):
        words = _shebang(content)
        return _language_of(words), words
    suffix = Path(name).suffix.lower()
    if suffix in SUFFIXES:
        found = SUFFIXES[suffix]
        return found, LANGUAGES[found][0]
    what = "the script on stdin" if name == "-" else f"script {name!r}"
    if content.startswith(b"\x7fELF"):
        raise RequestError(f"{what} is a program; run it with `runner run -- ./{name}`")
    raise RequestError(
        f"can't tell what {what} is written in: begin it with a `#!` line, "
        f"or give --language ({', '.join(LANGUAGES)})"
    )


def _open_regular(path: str, flags: int) -> int:
    """An opener for `open` that waits for no FIFO's writer and takes nothing but files."""
    fd = os.open(path, flags | os.O_NONBLOCK)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise RequestError(f"script {path!r} is not a file; name a script, or `-` for stdin")


def _check_size(content: bytes, what: str) -> None:
    if len(content) > SCRIPT_BYTES:
        raise RequestError(
            f"{what} is larger than {SCRIPT_BYTES >> 20} MiB; "
            "run a program with `runner run -- PROGRAM`"
        )


def _shebang(content: bytes) -> tuple[str, ...]:
    """The words of `#!`: the kernel passes all behind the interpreter as one (execve(2))."""
    line = content.split(b"\n", 1)[0][2:].decode("utf-8", "surrogateescape").strip()
    path, _, rest = line.partition(" ")
    rest = rest.strip()
    if not path.startswith("/"):
        raise RequestError(f"the script's first line names no absolute interpreter: #!{line}")
    if path.rpartition("/")[2] == "env" and rest.startswith("-S"):
        return (path, "-S", rest[2:].strip())
    return (path, rest) if rest else (path,)


def _language_of(words: tuple[str, ...]) -> str:
    names = [word.rpartition("/")[2] for word in " ".join(words).split()]
    if names and names[0] == "env":
        names = [name for name in names[1:] if not name.startswith("-") and "=" not in name]
    base = _VERSION.sub("", names[0]) if names else ""
    if base in ("dash", "ash"):
        return "sh"
    return base if base in LANGUAGES else ALIASES.get(base, "unknown")


def _language(language: str) -> str:
    known = ALIASES.get(language.lower(), language.lower())
    if known not in LANGUAGES:
        raise RequestError(f"language {language!r} is not one of {', '.join(LANGUAGES)}")
    return known


def _shell_language(language: str | None) -> str:
    known = _language(language or "bash")
    if known not in ("bash", "sh"):
        raise RequestError(f"a shell text is bash or sh, not {language!r}; use code= for others")
    return known


def _code(code: str | bytes, language: str | None, args: tuple[str, ...]) -> Script:
    if language is None:
        raise RequestError(f"code needs a language: {', '.join(LANGUAGES)}")
    known = _language(language)
    interpreter, suffix = LANGUAGES[known]
    try:
        raw = code if isinstance(code, bytes) else code.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise RequestError(
            f"code holds half a surrogate pair at character {error.start}, which is no text"
        ) from error
    return Script(raw, known, interpreter, f"code.{suffix}", None, args)


def _argv(argv: Sequence[str]) -> Argv:
    if isinstance(argv, str):
        raise RequestError("argv is a list of words; for a command line as one text use shell=")
    words = tuple(argv)
    if not words or not words[0]:
        raise RequestError("argv is empty; name a program")
    for word in words:
        _text(word, "argv")
    return Argv(words)


def _text(text: str, what: str) -> str:
    if not isinstance(text, str):
        raise RequestError(f"{what} holds {type(text).__name__}, not text")
    if "\0" in text:
        raise RequestError(f"{what} holds a NUL character, which no program can be given")
    return text


def _directory(cwd: str | os.PathLike[str] | None) -> str:
    try:
        directory = Path(cwd if cwd is not None else os.getcwd()).resolve(strict=True)
    except (OSError, RuntimeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise RequestError(f"folder {str(cwd)!r} can't be used: {why}") from error
    if not directory.is_dir():
        raise RequestError(f"{str(directory)!r} is not a folder; give the workspace's folder")
    return str(directory)


def _name(value: str | None, what: str) -> str | None:
    if value is None:
        return None
    if not _text(value, what) or len(value) > NAME_CHARACTERS or not value.isprintable():
        raise RequestError(
            f"{what} {value!r} is not a name: 1 to {NAME_CHARACTERS} printable characters"
        )
    return value


def _label(key: str, value: str) -> tuple[str, str]:
    _name(key, "label")
    if len(_text(value, f"label {key}")) > NAME_CHARACTERS or not value.isprintable():
        raise RequestError(
            f"label {key}={value!r} is too long or not printable: at most {NAME_CHARACTERS}"
        )
    return key, value
