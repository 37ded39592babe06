"""`exact_args`: the arguments of a command are these, one by one, and no others."""

from __future__ import annotations

from runner.model.intent import Word
from runner.policy.conditions import NEVER, SURE, Witness
from runner.policy.globs import Glob, glob
from runner.policy.hold import Hold
from runner.policy.subject import Subject

ANY_NUMBER = "**"
"""The pattern that stands for any number of arguments."""
_ANY_ONE = "*"


class ExactArguments:
    """Patterns over all arguments; implements `matching.OnWords`.

    `**` takes whatever stands there, words that only running would tell as well: what they become
    is no matter to it.
    """

    __slots__ = ("_patterns", "key", "stated")

    def __init__(self, patterns: tuple[str, ...]) -> None:
        self.key, self.stated = "exact_args", ", ".join(patterns)
        self._patterns: tuple[Glob | None, ...] = tuple(
            None if pattern == ANY_NUMBER else glob(pattern) for pattern in patterns
        )

    def witness(self, subject: Subject) -> Witness:
        """Read widely."""
        return (NEVER, Witness(False, True, True), SURE)[self.narrow(subject)]

    def narrow(self, subject: Subject) -> Hold:
        """Read narrowly: the same."""
        if self._taken(subject.arguments, could=False):
            return Hold.SURELY
        return Hold(int(bool(subject.unsure) and self._taken(subject.arguments, could=True)))

    def _taken(self, words: tuple[Word, ...], *, could: bool) -> bool:
        """Whether all words are taken, each by a pattern; `could`: by what it could become."""
        states = self._skipped({0})
        for word in words:
            states = self._skipped(self._after(states, word, could=could))
            if not states:
                return False
        return len(self._patterns) in states

    def _after(self, states: set[int], word: Word, *, could: bool) -> set[int]:
        following = set()
        for state in states:
            if state == len(self._patterns):
                continue
            pattern = self._patterns[state]
            if pattern is None:
                following.add(state)
            elif _takes(pattern, word, could=could):
                following.add(state + 1)
        if could and word.dynamic and word.many:
            # It can become any number of words, whatever the patterns want.
            following |= set(range(min(states, default=0), len(self._patterns) + 1))
        return following

    def _skipped(self, states: set[int]) -> set[int]:
        """With what is reached without a word: `**` may stand for none."""
        reached = set(states)
        for state in states:
            here = state
            while here < len(self._patterns) and self._patterns[here] is None:
                here += 1
                reached.add(here)
        return reached


def _takes(pattern: Glob, word: Word, *, could: bool) -> bool:
    if not word.dynamic:
        return pattern.matches(word.text)
    if not word.many and pattern.pattern == _ANY_ONE:
        return True
    return could and pattern.could_match(word.prefix, word.suffix)
