"""Files that a request may write and then runs: `echo 'rm x' > f; . ./f`.

When all is read, each file that is run (`feeds.run_file`) is looked for among those that something
in the request may have written. What surely stands in it, because every writer writes the same
constant, is read as what it is run as. Else what runs can't be told.

Files are compared by the last name of their path alone: folders may be entered, linked and moved.
Programs write as they like; only what their words tell counts (`runner.analysis.writers`). A file
that nothing here writes is a program like any other.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from runner.analysis import languages
from runner.analysis.context import Call, Collector, FileRun, Place, Readers
from runner.analysis.shell.output import WRITERS
from runner.analysis.writers import Name, Writer, writers
from runner.model.intent import SimpleCommand, Word

_SEARCH_LIMIT = 200_000
"""Commands looked at, over and over, for what else may change a file whose text is known."""
_NAMES_LIMIT = 512
"""More files written by names that can't be told count as one that may have any name."""
_UNSETTLING = frozenset(
    {"alias", "unalias", "enable", "ulimit", "prlimit", "hash", "xpg_echo", "shopt"}
)
"""What may change what `echo`, `printf`, `cat` or `>` do."""
_HARMLESS = frozenset(
    {"chmod", "chown", "rm", "cat", "ls", "head", "tail", "wc", "test", "[", "echo", "printf",
     "mkdir", "touch", "stat", "file", "diff", "cmp", "grep", "sha256sum", "md5sum", "cd", "pytest",
     "shellcheck", "mypy", "realpath", "dirname", "basename", "true", "sleep", "which", "type",
     "trap", "eval", "less", "nl", "du", "export", "env", "nohup", "timeout", "nice", "command",
     "sudo", "exec"}
)  # fmt: skip
"""Commands that leave files which they name as they are, and wrappers, whose inside counts."""
_HARMLESS_GIT = frozenset({"add", "commit", "diff", "log", "status", "rm"})
_INTERPRETERS = re.compile(
    r"(?:ba|da|z|k|mk)?sh|source|\.|python[\d.]*|pypy3?|perl|ruby|node|nodejs|php|lua|Rscript"
)
_SHEBANG_LIMIT = 255
"""Bytes of a `#!` line that Linux takes (execve(2))."""
_SCRIPT_OPTIONS = {
    "awk": ("-f", "--file"), "gawk": ("-f", "--file"), "mawk": ("-f",), "sed": ("-f", "--file"),
    "make": ("-f", "--file", "--makefile"), "gmake": ("-f", "--file", "--makefile"),
    "bash": ("--rcfile", "--init-file"), "psql": ("-f", "--file"), "at": ("-f",), "vim": ("-S",),
    "gdb": ("-x",), "parallel": ("-a",), "php": ("-f",), "expect": ("-f",),
}  # fmt: skip
"""Options whose value is a file that is run."""
_IMPORT = "import"
_SYSTEM = re.compile(r"/(?:usr|bin|sbin|lib\w*)/(?!.*\.\.)")
"""Folders that no sandbox lets anybody write to: a name that can't be told is none of theirs."""
_MAKE, _MAKEFILES = re.compile("g?make"), ("Makefile", "makefile", "GNUmakefile")
_PROGRAM = re.compile(r"\x7fELF|MZ|PK")
_CODE = frozenset(
    {"awk", "gawk", "mawk", "nawk", "sed", "gsed", "perl", "ruby", "php", "lua", "node", "nodejs",
     "bun", "deno", "ed", "ex", "vi", "vim", "expect", "tclsh", "julia", "Rscript", "sqlite3"}
)  # fmt: skip
"""What runs texts out of its words, which may name a file that they write."""
_TOKEN = re.compile(r"[\w.-]+")
_BEYOND_A_PATH = re.compile(r"[\s>\"'({|;]")
_BUILTINS = frozenset(
    {"test", "[", "echo", "printf", "cd", "read", "set", "export", "true", "false", "pwd", "type",
     "wait", "kill", "times", "jobs", "let", "return", "exit", "break", "continue", "shift", "time"}
)  # fmt: skip


def settle(readers: Readers) -> None:
    """Note what the files hold that are written and run; reading them may tell of more."""
    if not _writes(readers.found):
        return
    settled = _Settled(readers)
    while settled.once():
        pass


def _writes(found: Collector) -> bool:
    """Whether anything is written at all: of most requests nothing."""
    commands = found.commands
    return len(commands) > 1 or bool(found.paths)


@dataclass(frozen=True, slots=True)
class _Files:
    """All writers by the last name of what they write."""

    named: dict[str, list[Writer]]
    others: list[Writer]

    def of(self, name: Name) -> list[Writer]:
        """Those that may write a file of this name."""
        if name.exact is None and len(self.named) > _NAMES_LIMIT:
            found = [Writer(Name(None, ""), None)]
        elif name.exact is None:
            found = [each for same in self.named.values() for each in same[:3]]
        else:
            found = self.named.get(name.exact, [])
        return [each for each in (*found, *self.others) if each.name.may_be(name)]


class _Settled:
    """What was settled about the files of one request."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._found = readers.found
        self._unknown: set[tuple[str, bool]] = set()
        self._read: set[tuple[str, str]] = set()
        self._code: set[str] = set()
        self._searched = 0

    def once(self) -> bool:
        """Look at every file that is run; whether that told of something new."""
        found = self._found
        noted = len(found.commands), len(found.runs)
        files = _sorted(writers(found))
        self._code = _tokens(found)
        for run in _distinct([*found.runs, *_other_runs(found)]):
            self._run(run, files)
        self._by_name(files)
        return (len(found.commands), len(found.runs)) != noted and found.unreadable is None

    def _run(self, run: FileRun, files: _Files) -> None:
        name = Name.of(run.path)
        named = run.place.via[:1] == (_IMPORT,) or _SYSTEM.match(run.path.text)
        may_be = [
            each
            for each in files.of(name)
            if not each.is_of(run.redirects)
            and not (each.program and run.kind == "program")
            and (each.name.exact is not None or not named)
        ]
        if not may_be:
            may_be = self._in_code(name)
        if not may_be:
            return
        content = self._content(may_be, name)
        if content is not None:
            self._text(run, content)
        else:
            sure = any(each.sure for each in may_be)
            sure = sure and not (run.place.advice and name.exact is None)
            self._note(run, doubtful=not sure)

    def _note(self, run: FileRun, *, doubtful: bool) -> None:
        key = (run.path.text, doubtful)
        if key in self._unknown or (run.path.text, False) in self._unknown:
            return
        self._unknown.add(key)
        place = run.place.in_doubt if doubtful else run.place
        self._readers.unknown(f"{run.path.text} (which this writes)", place)

    def _in_code(self, name: Name) -> list[Writer]:
        """A command that runs a text which names the file."""
        if name.exact is None or not self._code:
            return []
        named = name.exact in self._code or _TOKEN.fullmatch(name.exact) is None
        return [Writer(name, None)] if named else []

    def _content(self, may_be: list[Writer], name: Name) -> str | None:
        """What stands in the file for sure."""
        contents = {each.content for each in may_be}
        if len(contents) != 1 or None in contents or name.exact is None:
            return None
        found = self._found
        self._searched += len(found.commands)
        if self._searched > _SEARCH_LIMIT or found.functions & WRITERS:
            return None
        if any(key[0].endswith((":write", ":dynamic-code")) for key in found.constructs):
            return None
        token = _token(name.exact)
        for command in found.commands:
            if _base(command) in _UNSETTLING or _may_change(command, name, token):
                return None
        return next(iter(contents))

    def _text(self, run: FileRun, content: str) -> None:
        kind = run.kind
        if (kind, content) in self._read:
            return
        self._read.add((kind, content))
        if _PROGRAM.match(content) or "\0" in content:
            self._note(run, doubtful=False)
        elif kind == "program":
            self._program(run, content)
        elif kind == "shell":
            self._readers.shell(Word(content), run.place)
        elif kind:
            languages.read(self._readers, kind, Word(content), run.place)
        else:
            self._note(run, doubtful=False)

    def _program(self, run: FileRun, content: str) -> None:
        """execve(2): by its first line, or, without one, the shell's own language."""
        if not content.startswith("#!"):
            # bash runs it itself; what calls execvp(3) has `sh` run it.
            language = "sh" if run.place.via else run.place.language
            place = replace(run.place.behind(posixpath.basename(run.path.text)), language=language)
            self._readers.shell(Word(content), place)
            return
        line = content[2:].partition("\n")[0][:_SHEBANG_LIMIT].strip(" \t")
        words = [Word(word) for word in line.split(None, 1)]
        if words:
            self._readers.command(Call((*words, run.path), run.place.behind("#!")))

    def _by_name(self, files: _Files) -> None:
        """A command without a path is found by PATH, where the file may stand."""
        commands = tuple(self._found.commands)
        searched = any(a.name in ("PATH", "path") for c in commands for a in c.assignments)
        entered = any(_base(command) in ("cd", "pushd") for command in commands)
        usable = {
            name: [each for each in same if searched or entered or each.elsewhere]
            for name, same in files.named.items()
        }
        for command in commands:
            base = command.words[0].text if command.words else ""
            if not base or command.words[0].dynamic or "/" in base:
                continue
            if base in _BUILTINS and not command.via:
                continue
            if any(not each.is_of(command.redirects) for each in usable.get(base, ())):
                self._note_name(command)
        if searched and any(each.sure for each in files.others):
            self._note_name(SimpleCommand((Word("PATH"),), doubtful=True))

    def _note_name(self, command: SimpleCommand) -> None:
        key = (command.words[0].text, command.doubtful)
        if key not in self._unknown:
            self._unknown.add(key)
            place = Place(command.via, command.line, doubtful=command.doubtful)
            self._readers.unknown(f"{key[0]} (which this writes)", place)


def _sorted(every: list[Writer]) -> _Files:
    named: dict[str, list[Writer]] = {}
    others: dict[tuple[str, bool], Writer] = {}
    for each in every:
        if each.name.exact is not None:
            named.setdefault(each.name.exact, []).append(each)
        else:
            others.setdefault((each.name.suffix, each.sure), each)
    if len(others) > _NAMES_LIMIT:
        others = {("", True): Writer(Name(None, ""), None)}
    return _Files(named, list(others.values()))


def _other_runs(found: Collector) -> Iterator[FileRun]:
    """Files that are run without being named as a command or a script."""
    for command in found.commands:
        options = _SCRIPT_OPTIONS.get(_base(command), ())
        place = Place((*command.via, _base(command)), command.line, 1, doubtful=command.doubtful)
        words = command.words[1:] if options else ()
        for word, following in zip(words, (*words[1:], None), strict=False):
            if not word.dynamic and word.text in options and following is not None:
                yield FileRun(following, place, "")
            elif not word.dynamic and word.text.startswith(options):
                yield FileRun(Word(re.sub(r"^--?\w+=?", "", word.text)), place, "")
        if _MAKE.fullmatch(_base(command)):
            yield from (FileRun(Word(each), place, "") for each in _MAKEFILES)
    for (construct, line), each in found.constructs.items():
        if construct.startswith("python:import:"):
            place = Place(("import",), line, 1, "sh", advice=each.advice)
            yield FileRun(
                Word(construct.rpartition(":")[2].rpartition(".")[2] + ".py"), place, "python"
            )


def _distinct(runs: list[FileRun]) -> list[FileRun]:
    """One of each file and way to run it, the sure ones first."""
    kept: dict[tuple[str, bool, str, bool], FileRun] = {}
    for run in runs:
        key = (run.path.text, run.path.dynamic, run.kind, run.place.doubtful)
        kept.setdefault(key, run)
    return sorted(kept.values(), key=lambda run: run.place.doubtful)


def _base(command: SimpleCommand) -> str:
    first = command.words[0] if command.words else None
    return posixpath.basename(first.text) if first is not None and not first.dynamic else ""


def _may_change(command: SimpleCommand, name: Name, token: re.Pattern[str]) -> bool:
    """Whether a command that is not known to write the file may do so: it names it."""
    base, words = _base(command), command.words[1:]
    if base in _HARMLESS or base == name.exact:
        return False
    if base == "git" and words and words[0].text in _HARMLESS_GIT:
        return False
    if _INTERPRETERS.fullmatch(base):
        script = next((w for w in words if w.dynamic or not w.text.startswith("-")), None)
        if script is not None and not script.dynamic and Name.of(script) == name:
            return False
    return any(Name.of(w).may_be(name) if w.dynamic else token.search(w.text) for w in words)


def _tokens(found: Collector) -> set[str]:
    """Every word in the texts that commands run; a word that is no more than a path is none."""
    tokens: set[str] = set()
    for command in found.commands:
        if _base(command) in _CODE:
            for word in command.words[1:]:
                if _BEYOND_A_PATH.search(word.text):
                    tokens.update(each.rstrip(".") for each in _TOKEN.findall(word.text))
    return tokens


def _token(name: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
