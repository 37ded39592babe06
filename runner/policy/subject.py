"""What rules are asked about: one simple command, with its paths and hosts worked out once."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from typing import Any
from urllib.parse import urlsplit

import yaml

from runner.analysis.context import is_glob
from runner.model.action import Exec
from runner.model.intent import Access, Intent, SimpleCommand, Word

HOME = "/home/agent"
"""The home folder inside a sandbox."""
NO_WORKSPACE = "/workspace"
"""Stands for the empty folder that a run without a workspace starts in."""
ADVICE = frozenset({"python", "perl", "ruby", "node", "php", "lua", "awk"})
"""Readers in `via` whose findings are advice (`runner.analysis`)."""
SHELL_LANGUAGES = frozenset({"argv", "bash", "sh", "ksh", "zsh"})
"""Languages in which what is dynamic or unreadable counts against the request."""
_FOLDERS_LIMIT = 16
_CHANGES_FOLDER = frozenset({"cd", "pushd", "chdir"})
_SEARCHED = re.compile(r"PATH|LD_\w+|BASH_ENV|ENV|BASH_FUNC_.*|DYLD_\w+|GCONV_PATH|HASHCMDS")
"""Variables by which another program answers to a name."""
_SHOWN_LIMIT = 160


@dataclass(frozen=True, slots=True)
class NamedPath:
    """A path that a command names: the places it may be, or what is known of its ends."""

    places: tuple[str, ...] = ()
    """Absolute and normalised, one for each folder that the command may run in."""
    prefix: str = ""
    suffix: str = ""
    dynamic: bool = False
    many: bool = False
    """The word can become several, flags among them."""
    redirect: bool = False
    inside: str | None = None
    """All that stands in this folder (`/usr/*`), as far as its name has no dot in front."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One command, or something outside of any, that rules may match."""

    name: Word | None
    """None: a redirection or a finding without a command."""
    arguments: tuple[Word, ...] = ()
    paths: tuple[NamedPath, ...] = ()
    writes: tuple[NamedPath, ...] = ()
    hosts: tuple[Word, ...] = ()
    environment: frozenset[str] = frozenset()
    via: tuple[str, ...] = ()
    shown: str = ""
    line: int = 1
    advice: bool = False
    defaulted: bool = True
    """Whether a layer's default speaks about it when no rule does."""
    trusted_name: bool = True
    """Whether a bare name is surely the system's program of that name."""
    doubtful: bool = False
    """Whether it runs like this, or at all, only running would tell."""


def subjects(action: Exec) -> list[Subject]:
    """Everything in the action's intent that rules are asked about; at least one."""
    intent = action.intent
    folders = _Folders.of(action)
    requested = frozenset(action.environment)
    set_anywhere = requested | {a.name for c in intent.commands for a in c.assignments}
    trusted = not any(_SEARCHED.fullmatch(name) for name in set_anywhere)
    shell = intent.language in SHELL_LANGUAGES
    found = [
        _of_command(command, folders, requested, trusted=trusted, shell=shell)
        for command in intent.commands
    ]
    found += _outside(intent, folders, requested, shell=shell)
    if not any(subject.defaulted for subject in found):
        found.append(Subject(None, shown="a text without commands", environment=requested))
    return found


def _of_command(
    command: SimpleCommand,
    folders: _Folders,
    requested: frozenset[str],
    *,
    trusted: bool,
    shell: bool,
) -> Subject:
    redirects = [(use, folders.named(use.path, redirect=True)) for use in command.redirects]
    named = [path for word in command.words[1:] for path in folders.operand(word)]
    written = [path for word in _written(command) for path in folders.operand(word, sure=True)]
    written += [path for use, path in redirects if use.access is Access.WRITE]
    outputs = bool(written)
    advice = not shell or any(name in ADVICE for name in command.via)
    return Subject(
        name=command.words[0] if command.words else None,
        arguments=command.words[1:],
        paths=(*named, *(path for _, path in redirects)),
        writes=tuple(written),
        hosts=tuple(_hosts(command)),
        environment=requested | {a.name for a in command.assignments},
        via=command.via,
        shown=shown(command),
        line=command.line,
        advice=advice and not _own_interpreter(command, shell=shell),
        defaulted=bool(command.words) or outputs,
        trusted_name=trusted,
        doubtful=command.doubtful,
    )


def _own_interpreter(command: SimpleCommand, *, shell: bool) -> bool:
    """The command that stands for a script in another language is no finding in it."""
    return not shell and not command.via


def _outside(
    intent: Intent, folders: _Folders, requested: frozenset[str], *, shell: bool
) -> list[Subject]:
    """Paths and hosts that a script names outside of commands; only explicit rules match them."""
    found = [
        Subject(
            None,
            paths=(path := folders.named(use.path),),
            writes=(path,) if use.access is Access.WRITE else (),
            environment=requested,
            shown=f"{use.access.value} {use.path.text}"[:_SHOWN_LIMIT],
            advice=True,
            defaulted=False,
        )
        for use in intent.paths
    ]
    found += [
        Subject(
            None,
            hosts=(host,),
            environment=requested,
            shown=f"host {host.text}"[:_SHOWN_LIMIT],
            advice=not shell,
            defaulted=False,
        )
        for host in intent.hosts
    ]
    return found


@dataclass(slots=True)
class _Folders:
    """The folders that relative paths may start in."""

    bases: list[str]
    unknown: bool = False
    """Some `cd` goes where only running would tell."""
    home: str | None = HOME
    _known: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, action: Exec) -> _Folders:
        """The workspace, and wherever a `cd` in the text leads from there."""
        start = normal(action.workspace or NO_WORKSPACE)
        folders = cls([start])
        assigned = {a.name for c in action.intent.commands for a in c.assignments}
        if "HOME" in assigned or "HOME" in action.environment:
            folders.home = None
        for command in action.intent.commands:
            name = command.words[0].text.rsplit("/", 1)[-1] if command.words else ""
            if name in _CHANGES_FOLDER:
                folders._change(command.words[1:])
        return folders

    def _change(self, operands: tuple[Word, ...]) -> None:
        operands = tuple(
            w for w in operands if w.dynamic or not re.fullmatch(r"--|-[LPe@n]+", w.text)
        )
        if not operands:
            target = Word("~")
        elif operands[0].dynamic or operands[0].text.startswith(("-", "+")):
            self.unknown = self.unknown or operands[0].text != "-"
            return
        else:
            target = operands[0]
        places = self.places(target.text)
        if places is None or len(self.bases) + len(places) > _FOLDERS_LIMIT:
            self.unknown = True
            return
        self.bases += [place for place in places if place not in self.bases]

    def places(self, text: str) -> list[str] | None:
        """Where a literal path may be; None: anywhere."""
        if text.startswith("~"):
            user, _, rest = text[1:].partition("/")
            home = {"": self.home, "root": "/root"}.get(user, f"/home/{user}")
            if user in ("+", "-"):
                return None
            return [normal(f"{home}/{rest}")] if home is not None else None
        if text.startswith("/"):
            return [normal(text)]
        if self.unknown:
            return None
        return [normal(f"{base}/{text}") for base in self.bases]

    def named(self, word: Word, *, redirect: bool = False) -> NamedPath:
        """A word that is a path."""
        if not word.dynamic:
            places = self.places(word.text)
            if places is not None:
                return NamedPath(tuple(places), redirect=redirect)
            suffix = _sure_suffix("/" + word.text.removeprefix("~"))
            return NamedPath(suffix=suffix, dynamic=True, redirect=redirect)
        if word.text.startswith(("<(", ">(")):
            return NamedPath(prefix="/dev/fd/", dynamic=True, redirect=redirect)
        if is_glob(word) and not self.unknown:
            # Names that a glob gives never climb: its literal head is where they are.
            head, slash, tail = word.prefix.rpartition("/")
            places = self.places(head + slash) if head + slash else self.places(".")
            if places and len(places) == 1:
                start = places[0].rstrip("/") + "/" + tail
                inside = places[0] if word.text == word.prefix + "*" and not tail else None
                return NamedPath(
                    (), start, _sure_suffix(word.suffix), True, word.many, redirect, inside
                )
        return NamedPath((), "", _sure_suffix(word.suffix), True, word.many, redirect)

    def operand(self, word: Word, *, sure: bool = False) -> list[NamedPath]:
        """The paths that an argument may name; `sure`: it is known to be one."""
        if word.dynamic:
            known, equals, value = word.prefix.partition("=")
            if known.startswith("-") and not equals:
                return []
            if equals and not word.many:
                inner = Word(word.text, True, value, word.suffix, many=False)
                return [self.named(inner)]
            return [self.named(word)]
        return [
            self.named(Word(text)) for text in ([word.text] if sure else _candidates(word.text))
        ]


def normal(path: str) -> str:
    """An absolute path without `.`, `..` and double slashes, resolved lexically."""
    return posixpath.normpath("/" + path.lstrip("/"))


def shown(command: SimpleCommand) -> str:
    """The command for a person."""
    words = [word.text for word in command.words] or [a.name + "=…" for a in command.assignments]
    words = words or [f"{use.access.value} {use.path.text}" for use in command.redirects]
    text = " ".join(words)
    return text if len(text) <= _SHOWN_LIMIT else text[: _SHOWN_LIMIT - 1] + "…"


def clean_host(host: str) -> str:
    """A host name as rules see it: lower case, no dot at the end, no brackets."""
    return host.strip("[]").rstrip(".").lower()


def _sure_suffix(suffix: str) -> str:
    """What a normalised path surely ends with when its text ends with `suffix`."""
    suffix = re.sub(r"/(?:\./|/)+", "/", suffix).rstrip("/")
    components = suffix.split("/")
    if components[-1] in ("", ".", "..") or ".." in components:
        return ""
    return suffix


def _candidates(text: str) -> Iterable[str]:
    """The texts in an argument that may be paths."""
    if text and not text.startswith("-"):
        yield text
    elif len(text) > 2 and text[1] != "-" and text[2] in "/~.":
        yield text[2:]  # -C/path
    _, equals, value = text.partition("=")
    if equals and value:
        yield value
    for mark in ("@", "file://"):
        head, found, rest = text.partition(mark)
        if found and rest and not (mark == "@" and head and "=" not in head):
            yield rest
    head, colon, rest = text.partition(":")
    if colon and rest.startswith(("/", "~")) and not rest.startswith("//") and head:
        yield rest  # host:/path, source:/target
        if head.startswith("/"):
            yield head


def _written(command: SimpleCommand) -> list[Word]:
    if not command.words or command.words[0].dynamic:
        return []
    row = _writers().get(command.words[0].text.rsplit("/", 1)[-1])
    if row is None:
        return []
    words = command.words[1:]
    only = row.get("only")
    if only and not any(_has_option(word, only) for word in words):
        return []
    written = _option_values(words, row.get("values", ()))
    has_target = bool(written) and row.get("last")  # cp -t FOLDER FILE…
    for prefix in row.get("prefix", ()):
        for word in words:
            known = word.prefix if word.dynamic else word.text
            if known.startswith(prefix):
                tail = known[len(prefix) :]
                written.append(
                    Word(word.text, True, tail, word.suffix, word.many)
                    if word.dynamic
                    else Word(tail)
                )
    operands = [w for w in words if w.dynamic or not w.text.startswith("-") or w.text == "-"]
    if row.get("all"):
        written += operands
    elif row.get("rest"):
        written += operands[1:]
    elif row.get("last") and not has_target:
        written += operands[-1:] if len(operands) > 1 else operands
    return written


def _has_option(word: Word, names: Iterable[str]) -> bool:
    text = word.text
    for name in names:
        if text == name or text.startswith(name + "=") or word.dynamic:
            return True
        if not name.startswith("--") and re.match(r"-[A-Za-z0-9]*" + name[1], text):
            return True
    return False


def _option_values(words: tuple[Word, ...], names: Iterable[str]) -> list[Word]:
    values = []
    for index, word in enumerate(words):
        known = word.prefix if word.dynamic else word.text
        for name in names:
            if known == name and not word.dynamic and index + 1 < len(words):
                values.append(words[index + 1])
            elif known.startswith(name + "="):
                values.append(_tail(word, len(name) + 1))
            elif not name.startswith("--") and known.startswith(name) and len(known) > len(name):
                values.append(_tail(word, len(name)))
            elif (
                not name.startswith("--")
                and not word.dynamic
                and re.fullmatch(r"-[A-Za-z0-9]+" + name[1], known)
                and index + 1 < len(words)
            ):
                values.append(words[index + 1])  # -sSfo FILE
    return values


def _tail(word: Word, length: int) -> Word:
    if word.dynamic:
        return Word(word.text, True, word.prefix[length:], word.suffix, word.many)
    return Word(word.text[length:])


@functools.cache
def _writers() -> Mapping[str, Mapping[str, Any]]:
    source = resources.files("runner.policy").joinpath("writers.yaml").read_bytes()
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    table: dict[str, Mapping[str, Any]] = yaml.load(source, Loader=loader)  # noqa: S506
    return table


_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^\s'\"/]*(?=[/?#]|$)")
_REMOTE = re.compile(r"[\w.-]+@([\w.-]+)(?::|$)|([\w-]+(?:\.[\w-]+)+):(?!\d)")
_HOST = re.compile(r"(?!-)\[?[\w.:-]+\]?(?:/.*)?")
_CLIENTS = frozenset(
    {"nc", "ncat", "netcat", "telnet", "ping", "ftp", "ssh", "nslookup", "dig", "host", "curl",
     "wget", "http", "https"}
)  # fmt: skip
"""Commands whose operands are hosts."""


def _hosts(command: SimpleCommand) -> list[Word]:
    """Hosts that a command names: URLs, `user@host:path`, operands of clients."""
    found = []
    client = bool(command.words) and command.words[0].text.rsplit("/", 1)[-1] in _CLIENTS
    for word in command.words[1:]:
        known = word.prefix if word.dynamic else word.text
        urls = _URL.findall(known)
        found += [Word(host) for url in urls if (host := _url_host(url))]
        if word.dynamic:
            # Of a dynamic URL the host is known once its literal head reaches past it.
            if not (urls and not word.many) and (client or "://" in word.text):
                found.append(Word(word.text, dynamic=True))
        elif urls:
            continue
        elif match := _REMOTE.match(known):
            found.append(Word(match[1] or match[2]))
        elif client and _HOST.fullmatch(known):
            host, _, port = known.partition("/")[0].rpartition(":")
            found.append(Word(host if host and port.isdigit() else known.partition("/")[0]))
    for use in command.redirects:
        device = re.match(r"/dev/(?:tcp|udp)/([^/]+)/", use.path.text)
        if device:
            found.append(Word(device[1], use.path.dynamic))
    return [Word(clean_host(w.text), w.dynamic) if not w.dynamic else w for w in found]


def _url_host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
