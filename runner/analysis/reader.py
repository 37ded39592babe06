"""Reading a program: the way in."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from runner.analysis import feeds, languages, relied, written
from runner.analysis.context import DEPTH_LIMIT, NOTHING, Call, Collector, Place, Readers
from runner.analysis.python import reader as python
from runner.analysis.recent import Recent
from runner.analysis.shell import plain
from runner.analysis.shell import text as shell
from runner.analysis.wrappers import unwrap
from runner.analysis.wrappers.table import Table, load
from runner.model.intent import Intent, SimpleCommand, Word
from runner.model.request import Argv, Command, Hold, Program, Script, ShellText

SHELLS = frozenset({"bash", "sh"})
_CACHE_BYTES = 16 << 20
"""Of what was read last, about twice that is kept."""
_OBJECT_BYTES = 128
"""About what a word, a command or another part of an intent takes."""
_UNKNOWN_LIMIT = 200
"""Characters of source text that a dynamic command is shown with."""


def read(program: Program, wrappers: Table | None = None) -> Intent:
    """What a program would do, as far as reading it tells.

    `wrappers`: the table of commands that run others; None: the shipped one. Never raises: what
    can't be read is stated in `Intent.unreadable`. Keeps no state but a small cache of what was
    read before, so that the same text is read into the same object; may start the parser of
    `runner.analysis.shell.shfmt`.
    """
    if isinstance(program, Hold):
        return Intent("session")
    table = wrappers if wrappers is not None else load()
    key, length = _key(program, table)
    intent = _READ.get(key)
    if intent is None:
        intent = _fresh(program, table)
        if intent.unreadable is None:  # a failure may have been the machine's
            _READ.put(key, intent, length + _OBJECT_BYTES * _objects(intent))
    return _with_arguments(intent, program) if isinstance(program, Script) else intent


_READ: Recent[Hashable, Intent] = Recent(_CACHE_BYTES)


def _key(program: Command, table: Table) -> tuple[Hashable, int]:
    """All that reading it depends on, and how long that is."""
    if isinstance(program, ShellText):
        return (table.digest, program.language, program.text), len(program.text)
    if isinstance(program, Argv):
        return (table.digest, "argv", program.words), sum([len(word) for word in program.words])
    own = table.digest, program.language, program.interpreter, program.name, program.content
    return own, len(program.content)


def _objects(intent: Intent) -> int:
    """How many parts it has, each of which takes memory beside its text."""
    count = len(intent.paths) + len(intent.hosts) + len(intent.constructs)
    for command in intent.commands:
        count += 3 + len(command.words) + len(command.assignments) + len(command.redirects)
    return count


def _with_arguments(intent: Intent, program: Script) -> Intent:
    """The script's own arguments on the command that stands for it; they are not in the cache."""
    if program.language in SHELLS or not program.args or not intent.commands:
        return intent
    own = intent.commands[0]
    words = (*own.words, *(Word(text) for text in program.args))
    return replace(intent, commands=(replace(own, words=words), *intent.commands[1:]))


def _fresh(program: Command, table: Table) -> Intent:
    language = "argv" if isinstance(program, Argv) else program.language
    words = _literal_words(program)
    if words is not None and unwrap.is_alone(words, table):
        return Intent(language, (SimpleCommand(words),))
    session = _Session(table)
    try:
        session.read(program)
        written.settle(session)
        relied.settle(session)
    except (RecursionError, MemoryError):
        session.found.fail("it is nested too deep to read")
    except Exception as error:
        session.found.fail(f"reading it failed: {type(error).__name__}")
    found = session.found
    return Intent(
        language=language,
        commands=tuple(found.commands),
        paths=tuple(found.paths),
        hosts=tuple(found.hosts),
        unreadable=found.unreadable,
        constructs=tuple(sorted(found.constructs.values(), key=lambda each: each.line)),
    )


def _literal_words(program: Command) -> tuple[Word, ...] | None:
    """Its words where it is one command of plain ones, and no more; else None."""
    if isinstance(program, Argv):
        return tuple([Word(text) for text in program.words]) or None
    return plain.words(program.text) if isinstance(program, ShellText) else None


class _Session(Readers):
    """One reading; ties the readers of the languages together."""

    def __init__(self, table: Table) -> None:
        self._found = Collector()
        self._table = table

    @property
    def found(self) -> Collector:
        return self._found

    @property
    def table(self) -> Table:
        return self._table

    def read(self, program: Command) -> None:
        if isinstance(program, Argv):
            self.command(Call(tuple(Word(text) for text in program.words), Place()))
        elif isinstance(program, ShellText):
            self.shell(Word(program.text), Place(language=_shell_language(program.language)))
        else:
            self._script(program)

    def command(self, call: Call) -> None:
        if not call.words and not call.assignments and not call.redirects:
            return
        self._found.add(call)
        alone = replace(call, redirects=()) if call.redirects else call
        feeds.keep_files(self._found, alone, NOTHING)
        unwrap.unwrap(self, call)

    def shell(self, text: Word, place: Place) -> None:
        if place.depth > DEPTH_LIMIT:
            self._found.fail(f"line {place.line} nests more than {DEPTH_LIMIT} texts in each other")
            return
        shell.read_shell(self, text, place)

    def python(self, text: Word, place: Place) -> None:
        if place.depth <= DEPTH_LIMIT:
            python.read_python(self, text, place)

    def unknown(self, source: str, place: Place) -> None:
        word = Word(source[:_UNKNOWN_LIMIT], dynamic=True)
        self._found.add(Call((word,), place))

    def _script(self, program: Script) -> None:
        text = program.content.decode("utf-8", "surrogateescape")
        if program.language in SHELLS:
            self.shell(Word(text), Place(language=program.language))
            return
        words = (*program.interpreter, program.name)
        self._found.add(Call(tuple(Word(each) for each in words), Place()))
        problem = languages.read(
            self, program.language, Word(text), Place((program.language,), 1, 1, "sh", True)
        )
        if problem is not None:
            self._found.fail(problem)


def _shell_language(language: str) -> str:
    return language if language in {"bash", "sh", "ksh", "zsh"} else "bash"
