"""Where the paths of a command are: the folders that it may run in, and its words as paths."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from runner.analysis.context import is_glob
from runner.model.action import Exec
from runner.model.intent import SimpleCommand, Word
from runner.policy import links
from runner.policy.links import Links

HOME = "/home/agent"
"""The home folder inside a sandbox."""
NO_WORKSPACE = "/workspace"
"""Stands for the empty folder that a run without a workspace starts in."""
_ROOT = re.compile(r"(?:/+proc/+(?:self|thread-self|[0-9]+)/+root(?=/|\Z))+")
"""proc(5): the root folder of a process by another name."""
_FOLDERS_LIMIT = 16
_CHANGES_FOLDER = frozenset({"cd", "pushd", "chdir"})
_MAKES_LINKS = frozenset({"ln", "link", "cp"})
_LED_LIMIT = 16
"""Links that a glob is taken to stand for."""
_NORMAL = re.compile(r"(?:/(?!\.\.?(?:/|\Z))[^/]+)+")
"""An absolute path that is normalised already."""
_BELOW = re.compile(r"[^-~.:=@/][^:=@/]*(?:/[^.:=@/][^:=@/]*)*")
"""An argument that is one path and nothing else, relative, and normalised already: no part of it
begins with a dot."""
_ONE_PATH = re.compile(r"[^-:=@][^:=@]*")
"""An argument with no other path in it than itself."""
_NO_PATH = re.compile(r"-[^/~.:=@]*")
"""An option without a value."""


class NamedPath(NamedTuple):
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


@dataclass(slots=True)
class Folders:
    """The folders that relative paths may start in."""

    bases: list[str]
    unknown: bool = False
    """Some `cd` goes where only running would tell."""
    home: str | None = HOME
    workspace: str = NO_WORKSPACE
    links: Links = field(default_factory=Links)

    @classmethod
    def of(cls, action: Exec) -> Folders:
        """The workspace, and wherever a `cd` in the text leads from there."""
        workspace = normal(action.workspace or NO_WORKSPACE)
        folders = cls([workspace], workspace=workspace)
        commands = action.intent.commands
        assigned = {each.name for command in commands for each in command.assignments}
        if "HOME" in action.environment or "HOME" in assigned:
            folders.home = None
        for place, target in action.facts.links.items():
            folders.links.add(normal(f"{workspace}/{place}" if place[:1] != "/" else place), target)
        for command in commands:
            name = base_name(command)
            if name in _CHANGES_FOLDER:
                folders._change(command.words[1:])
            elif name in _MAKES_LINKS:
                folders._link(command)
        return folders

    def _link(self, command: SimpleCommand) -> None:
        for each in links.made(command):
            for place in self.places(each.name) or ():
                if each.target.dynamic:
                    self.links.add(place, None)
                elif each.from_link and each.target.text[:1] not in ("/", "~"):
                    self.links.add(place, each.target.text)
                else:
                    raw = self._raw(each.target.text)
                    for target in [None] if raw is None else raw:
                        self.links.add(place, target)

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
        if places is not None and self.links:
            places, unknown = self._led(target.text, follow=True)
            self.unknown = self.unknown or bool(unknown)
        if places is None or len(self.bases) + len(places) > _FOLDERS_LIMIT:
            self.unknown = True
            return
        self.bases += [place for place in places if place not in self.bases]

    def places(self, text: str) -> list[str] | None:
        """Where a literal path may be, as it is written; None: anywhere."""
        raw = self._raw(text)
        return [normal(each) for each in raw] if raw is not None else None

    def _raw(self, text: str) -> list[str] | None:
        """The same, absolute and not normalised."""
        if text.startswith("~"):
            user, _, rest = text[1:].partition("/")
            home = {"": self.home, "root": "/root"}.get(user, f"/home/{user}")
            if user in ("+", "-"):
                return None
            return [f"{home}/{rest}"] if home is not None else None
        if text.startswith("/"):
            return [text]
        if self.unknown:
            return None
        return [f"{base}/{text}" for base in self.bases]

    def _led(self, text: str, *, follow: bool) -> tuple[list[str], list[str]]:
        """Where a literal path may be, links followed; and its ends where it may be anywhere."""
        found: dict[str, None] = {}
        unknown: list[str] = []
        for raw in self._raw(text) or ():
            places, anywhere = self.links.through(raw, follow=follow)
            found |= dict.fromkeys((normal(raw), *map(normal, places)))
            unknown += anywhere
        return [*found], unknown

    def every(self, word: Word, *, redirect: bool = False, follow: bool = True) -> list[NamedPath]:
        """A word that is a path, and where links lead from it; `follow`: also from its end."""
        path = self.named(word, redirect=redirect)
        if not self.links or (path.dynamic and not path.prefix):
            return [path]
        if not path.dynamic:
            places, unknown = self._led(word.text, follow=follow)
            found = [path._replace(places=tuple(places))]
        elif not is_glob(word):
            return [path]
        else:
            found, unknown = self._led_by_glob(word, path, follow=follow)
        for end in dict.fromkeys(unknown):
            suffix = path.suffix if path.dynamic else _sure_suffix(end)
            found.append(NamedPath((), "", suffix, True, path.many, redirect))
        return found

    def _led_by_glob(
        self, word: Word, path: NamedPath, *, follow: bool
    ) -> tuple[list[NamedPath], list[str]]:
        head, slash, tail = word.prefix.rpartition("/")
        places, unknown = self._led(head + slash, follow=True) if head + slash else ([], [])
        found = [path]
        for place in places[1:]:
            inside = place if path.inside is not None else None
            prefix = place.rstrip("/") + "/" + tail
            found.append(path._replace(prefix=prefix, inside=inside))
        if follow or "/" in word.text[len(word.prefix) :]:
            led = [link for link in self.links.at if link.startswith(path.prefix)]
            unknown += [""] * (len(led) > _LED_LIMIT)
            for link in led[:_LED_LIMIT]:
                ends, anywhere = self.links.through(link)
                unknown += anywhere
                found += [path._replace(prefix=normal(x), inside=None) for x in ends if x != link]
        return found, unknown

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

    def operands(self, words: Iterable[Word], *, follow: bool = True) -> list[NamedPath]:
        """The paths that arguments may name, one after the other."""
        if self.unknown or len(self.bases) != 1 or self.links:
            return [path for word in words for path in self.operand(word, follow=follow)]
        found: list[NamedPath] = []
        base = self.bases[0].rstrip("/")
        for word in words:
            text = word.text
            if not word.dynamic and (text.isalnum() or _BELOW.fullmatch(text)):
                found.append(NamedPath((f"{base}/{text}",)))
            elif word.dynamic or not _NO_PATH.fullmatch(text):
                found += self.operand(word)
        return found

    def operand(self, word: Word, *, sure: bool = False, follow: bool = True) -> list[NamedPath]:
        """The paths that an argument may name; `sure`: it is known to be one."""
        if not word.dynamic:
            if not sure and _NO_PATH.fullmatch(word.text):
                return []
            if sure or _ONE_PATH.fullmatch(word.text):
                return self.every(word, follow=follow)
            texts = _candidates(word.text)
            return [path for text in texts for path in self.every(Word(text), follow=follow)]
        known, equals, value = word.prefix.partition("=")
        if known.startswith("-") and not equals:
            return []
        if equals and not word.many:
            word = Word(word.text, True, value, word.suffix, many=False)
        return self.every(word, follow=follow)

    def raw(self, word: Word) -> list[str]:
        """The absolute paths, not normalised, that a word may name; of a glob its folder."""
        if word.dynamic:
            texts = [word.prefix.rpartition("/")[0]] if is_glob(word) else []
        elif _ONE_PATH.fullmatch(word.text):
            texts = [word.text]
        else:
            texts = [] if _NO_PATH.fullmatch(word.text) else [*_candidates(word.text)]
        return [path for text in texts if text for path in self._raw(text) or ()]


def base_name(command: SimpleCommand) -> str:
    """The command's name without its folder; empty when it has none."""
    return command.words[0].text.rpartition("/")[2] if command.words else ""


def normal(path: str) -> str:
    """An absolute path without `.`, `..` and double slashes, resolved lexically."""
    if "/proc/" in path and (root := _ROOT.match(path)):
        path = "/" + path[root.end() :].lstrip("/")
    if _NORMAL.fullmatch(path):
        return path
    return posixpath.normpath("/" + path.lstrip("/"))


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
