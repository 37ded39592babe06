"""Links: where a path leads that goes through one. Pure.

A link may be there already (a fact that was looked up), or be made by the text that is decided
about. Whether a path then goes through it only running would tell, so both places count.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.model.intent import SimpleCommand, Word

NOT_FOLLOWED = frozenset({"rm", "unlink", "rmdir", "ln", "link", "readlink"})
"""Commands that take a link by itself, and not what it leads to, where it ends a path."""
_STEPS_LIMIT = 64
"""Ways through links that are followed for one path; more come from links in circles."""
_COMPONENTS_LIMIT = 512
_WITH_VALUE = frozenset({"-S", "--suffix"})
_INTO = ("-t", "--target-directory")


@dataclass(slots=True)
class Links:
    """What is known of links."""

    at: dict[str, list[str | None]] = field(default_factory=dict)
    """Absolute places of links, each with the absolute paths that it may lead to; None: anywhere,
    as only running would tell."""

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self.at)

    def add(self, place: str, target: str | None) -> None:
        """A link; a relative target starts from the link's own folder (symlink(7))."""
        if target is not None and not target.startswith("/"):
            target = f"{posixpath.dirname(place)}/{target}"
        known = self.at.setdefault(place, [])
        if target not in known:
            known.append(target)

    def through(self, path: str, *, follow: bool = True) -> tuple[list[str], list[str]]:
        """The places of an absolute path, not normalised; and what it ends with where it may be
        anywhere, each behind a slash or empty.

        `follow`: also where its last part is a link.
        """
        found: dict[str, None] = {}
        unknown: list[str] = []
        left = [("", tuple(path.split("/")))]
        seen = set(left)
        while left:
            here, parts = left.pop()
            for index, part in enumerate(parts, start=1):
                if part in ("", "."):
                    continue
                if part == "..":
                    here = here.rpartition("/")[0]
                    continue
                here = f"{here}/{part}"
                rest = parts[index:]
                if here not in self.at or not (rest or follow):
                    continue
                for target in self.at[here]:
                    way = ("", (*(target or "").split("/"), *rest))
                    if target is None or len(way[1]) > _COMPONENTS_LIMIT:
                        unknown.append("".join(f"/{each}" for each in rest))
                    elif way not in seen:
                        seen.add(way)
                        left.append(way)
            found[here or "/"] = None
            if len(seen) > _STEPS_LIMIT:
                return [*found], [*unknown, ""]
        return [*found], unknown


@dataclass(frozen=True, slots=True)
class Made:
    """A link that a command makes."""

    name: str
    """Its path, as it is written."""
    target: Word
    from_link: bool
    """A relative target starts from the link's folder, and not from where the command runs."""


def made(command: SimpleCommand) -> list[Made]:
    """The links, hard ones too, that `ln`, `link` and `cp -s` make at places that are written out.

    A hard link to a file is the file by another name.
    """
    name = command.words[0].text.rpartition("/")[2]
    letters, into, operands = _taken(command.words[1:])
    symbolic = "s" in letters or "--symbolic" in letters
    if name == "cp" and not (symbolic or letters & {"l", "--symbolic-link", "--link"}):
        return []
    from_link = name == "ln" and symbolic and not letters & {"r", "--relative"}
    if into is not None:
        targets, places = operands, [] if into.dynamic else [into.text + "/"]
    elif len(operands) == 1:
        targets, places = operands, [""]
    elif not operands or operands[-1].dynamic:
        return []
    else:
        # Behind one target stands the link itself, or a folder for it.
        last = operands[-1].text
        targets, places = operands[:-1], [last.rstrip("/") + "/"]
        if len(operands) == 2:
            places.append(last)
    found = []
    for target in targets:
        base = posixpath.basename(target.text.rstrip("/")) if not target.dynamic else ""
        for place in places:
            link = place + base if place == "" or place.endswith("/") else place
            if link and not link.endswith("/"):
                found.append(Made(link, target, from_link))
    return found


def _taken(words: Sequence[Word]) -> tuple[set[str], Word | None, list[Word]]:
    """Letters of short options and names of long ones, the folder, and the operands."""
    letters: set[str] = set()
    into: Word | None = None
    operands: list[Word] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        text = word.text
        if word.dynamic or text == "-" or not text.startswith("-"):
            operands.append(word)
        elif text == "--":
            operands += rest
            break
        elif text.startswith("--"):
            option, equals, value = text.partition("=")
            letters.add(option)
            if option == _INTO[1]:
                into = Word(value) if equals else rest.pop(0) if rest else None
            elif option in _WITH_VALUE and not equals:
                rest = rest[1:]
        else:
            flags, found, value = text[1:].partition("t")
            letters |= set(flags)
            if found:
                into = Word(value) if value else rest.pop(0) if rest else None
            elif flags.endswith("S"):
                rest = rest[1:]
    return letters, into, operands
