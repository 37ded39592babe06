"""A wrapper's own options, taken off its words as getopt_long(3) would."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Assignment, Word


@dataclass(slots=True)
class Taken:
    """What stood in front of the command."""

    options: list[tuple[str, Word]] = field(default_factory=list)
    """Each option with its value (an empty word for none), in order."""
    assignments: list[Assignment] = field(default_factory=list)
    operands: list[Word] = field(default_factory=list)
    rest: tuple[Word, ...] = ()
    stopped: bool = False
    """Nothing is run (`--version`)."""
    doubtful: bool = False
    """Something is not in the table, or only running would tell."""

    def values(self, names: frozenset[str]) -> list[Word]:
        """Values of the options among `names`, in order."""
        return [value for option, value in self.options if option in names]


def may_be_option(word: Word) -> bool:
    """Whether a word could turn out to be an option, or several words."""
    if not word.dynamic:
        return word.text.startswith("-")
    return not word.prefix or word.prefix.startswith("-")


def assignment(word: Word) -> Assignment | None:
    """`NAME=value` as a word of env(1) or sudo(8): any name will do, `BASH_FUNC_ls%%` too."""
    known = word.prefix if word.dynamic else word.text
    name, equals, value = known.partition("=")
    if not equals or not name or name.startswith("-") or (word.dynamic and word.many):
        return None
    if word.dynamic:
        return Assignment(name, Word(word.text, dynamic=True))
    return Assignment(name, Word(value))


class _Taker:
    def __init__(self, wrapper: Wrapper, words: Sequence[Word]) -> None:
        self.wrapper = wrapper
        self.words = words
        self.index = 0
        self.taken = Taken()

    def run(self) -> Taken:
        if self.wrapper.first_if:
            self._first()
        while self.index < len(self.words) and not self.taken.stopped and self._step():
            pass
        self._operands()
        self.taken.rest = tuple(self.words[self.index :])
        return self.taken

    def _first(self) -> None:
        first = self.words[0] if self.words else Word("")
        if not first.dynamic and any(_like(first.text, p) for p in self.wrapper.first_if):
            self.taken.operands.append(first)
            self.index = 1

    def _step(self) -> bool:
        """Take one word; False where the options end."""
        word = self.words[self.index]
        row = self.wrapper
        if row.assignments and (found := assignment(word)):
            self.taken.assignments.append(found)
        elif word.dynamic:
            return self._dynamic(word)
        elif word.text == "--":
            self.index += 1
            return False
        elif word.text.startswith("--") or word.text in row.takes_none | row.stop:
            self._long(word.text)
        elif len(word.text) > 1 and word.text.startswith("-"):
            self._short(word.text)
        elif row.interspersed or (row.kind == "lenient" and not row.subcommand):
            self.taken.operands.append(word)
        else:
            return False
        self.index += 1
        return True

    def _dynamic(self, word: Word) -> bool:
        name, equals, _ = word.prefix.partition("=")
        if equals and not word.many and name in self.wrapper.takes_value | self.wrapper.optional:
            self.taken.options.append((name, Word(word.text, dynamic=True)))
            self.index += 1
            return True
        if self.wrapper.lenient and not word.many:
            self.taken.operands.append(word)
            self.index += 1
            return self.wrapper.interspersed
        if may_be_option(word):
            self.taken.doubtful = True
        return False

    def _long(self, text: str) -> None:
        row = self.wrapper
        name, equals, value = text.partition("=")
        name = self._whole(name)
        if name in row.stop:
            self.taken.stopped = True
        elif name in row.takes_value:
            self._value(name, value if equals else None)
        elif name in row.optional or (not equals and name in row.takes_none):
            self.taken.options.append((name, Word(value)))
        elif not row.lenient:
            self.taken.doubtful = True

    def _whole(self, name: str) -> str:
        """The long option that a shortened one stands for (getopt_long(3)); else the name."""
        row = self.wrapper
        known = row.takes_value | row.takes_none | row.optional | row.stop
        if name in known or len(name) <= len("--") or not row.lenient:
            return name
        held = row.takes_value - row.values
        return next((each for each in sorted(held) if each.startswith(name)), name)

    def _short(self, text: str) -> None:
        row = self.wrapper
        name, equals, value = text.partition("=")
        if name in row.takes_value and (not equals or len(name) > len("-x")):
            # Of several letters, such as find's, or go's `-exec=CMD`.
            self._value(name, value if equals else None)
            return
        if row.numeric and text[1:].lstrip("+-").isdigit():
            return
        for position, letter in enumerate(text[1:], start=2):
            option = "-" + letter
            attached = text[position:]
            if option in row.stop:
                self.taken.stopped = True
            elif option in row.takes_value and not (option in row.optional and not attached):
                self._value(option, attached or None)
                return
            elif option in row.optional:
                self.taken.options.append((option, Word(attached)))
                return
            elif option in row.takes_none:
                self.taken.options.append((option, Word("")))
            elif not row.lenient:
                self.taken.doubtful = True
                return

    def _value(self, option: str, attached: str | None) -> None:
        if attached is not None:
            value = Word(attached)
        else:
            self.index += 1
            if self.index >= len(self.words):
                self.taken.stopped = True  # it fails for want of the value
                return
            value = self.words[self.index]
        if value.dynamic and value.many:
            self.taken.doubtful = True
        self.taken.options.append((option, value))
        if option in self.wrapper.split:
            following = self.index + 1
            self.words = [*self.words[:following], *split_string(value), *self.words[following:]]

    def _operands(self) -> None:
        row = self.wrapper
        for _ in range(row.operands):
            if self.index >= len(self.words):
                break
            word = self.words[self.index]
            if word.dynamic and word.many:
                self.taken.doubtful = True
            self.taken.operands.append(word)
            self.index += 1
        # Behind `--` and behind operands too: `env -- A=1 CMD` (env(1)).
        while row.assignments and self.index < len(self.words):
            found = assignment(self.words[self.index])
            if found is None:
                break
            self.taken.assignments.append(found)
            self.index += 1


def take(wrapper: Wrapper, words: Sequence[Word]) -> Taken:
    """Take the options off `words` (without the wrapper's name)."""
    return _Taker(wrapper, words).run()


def begins_rest(wrapper: Wrapper, word: Word) -> bool:
    """Whether a literal word behind the wrapper surely is what it runs: nothing would be taken."""
    row, text = wrapper, word.text
    if row.assignments or row.interspersed or row.operands or row.first_if or text[:1] == "-":
        return False
    return not (text in row.flags or text in row.interactive or text in row.stop)


def split_string(value: Word) -> list[Word]:
    """The words of `env -S`'s string; one dynamic word when it holds more than plain ones."""
    if value.dynamic or re.search(r"[\\$#'\"\n]", value.text):
        return [Word(value.text, dynamic=True)]
    return [Word(piece) for piece in value.text.split()]


def _like(text: str, pattern: str) -> bool:
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
