"""Shell text -> every simple command in it.

The syntax tree is walked as a whole: what is known is handled by its kind, and everything else is
searched for commands inside, so that a construct this module never heard of hides nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from runner.analysis import feeds
from runner.analysis.context import NOTHING, TEXTS_LIMIT, Call, Place, Readers
from runner.analysis.shell import constants, fed, mended, output, plain, shfmt
from runner.analysis.shell.shfmt import Node, ShellSyntaxError
from runner.analysis.shell.words import WordReader
from runner.analysis.wrappers.unwrap import SUBSCRIPT
from runner.model.intent import Access, Assignment, PathUse, Word

_DIALECTS = {
    # `sh` may be dash or bash, so what either makes of it counts.
    "sh": ("posix", "bash"),
    "bash": ("bash",),
    "ksh": ("mksh", "bash"),
    "zsh": ("zsh", "bash"),
}
_BASH_DIFFERS = re.compile(
    rb"\(\(|\[\[|\$['\"]|[{]|=\(|&>|\|&|<\(|>\(|<<<"
    rb"|\b(?:time|let|declare|typeset|local|export|readonly|nameref|coproc|select|function)\b"
)
"""Where bash and a POSIX shell may read the same text as different commands."""
_READS = frozenset({"<", "<>"})
_WRITES = frozenset({">", ">>", ">|", "&>", "&>>", "<>", ">!", ">>|", "&>|"})
_FEEDS = frozenset({"<<", "<<-", "<<<"})
_CONSTRUCTS = {
    "FuncDecl": "shell:function", "Subshell": "shell:subshell", "ForClause": "shell:loop",
    "WhileClause": "shell:loop", "CmdSubst": "shell:command-substitution",
    "CoprocClause": "shell:coprocess",
}  # fmt: skip
_BEHIND = ("Background", "Coprocess", "Disown")
_SEEN = "seen"
"""Marks a substitution whose inside is read later than its place in the tree."""
_NAME = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_MARK_LIMIT = 64
"""Characters of what `xargs -I` replaces; a longer one is not looked for."""
_DESCRIPTOR = re.compile(r"\d+-?|-")


def read_shell(readers: Readers, text: Word, place: Place) -> None:
    """Note every command of `text`; its failure to parse is noted as unreadable."""
    found = readers.found
    if text.dynamic:
        _read_partly(readers, text, place)
        return
    words = plain.words(text.text)
    if words is not None:
        readers.command(Call(words, place))
        return
    found.texts += 1
    if found.texts > TEXTS_LIMIT:
        found.fail(f"it holds more than the {TEXTS_LIMIT} nested texts that are read")
        return
    try:
        source = text.text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        found.fail("the shell text holds characters that no encoding has")
        return
    if place.fed is not None:
        place = replace(place, fed=None)  # which of its commands reads how much is not known
    dialects = _DIALECTS[place.language]
    if place.language == "sh" and not _BASH_DIFFERS.search(source):
        dialects = ("posix",)
    try:
        _read_all(readers, source, place, dialects)
    except ShellSyntaxError as error:
        if place.language == "sh" and _read_as_bash(readers, source, place):
            readers.unknown(text.text, place.in_doubt)
        elif not place.advice:
            found.fail(str(error))


def _read_as_bash(readers: Readers, source: bytes, place: Place) -> bool:
    """Read a text for `sh` that only bash takes (`&>`): where `sh` is bash, it means just that."""
    try:
        _read_all(readers, source, place, ("bash",))
    except ShellSyntaxError:
        return False
    return True


def _read_partly(readers: Readers, text: Word, place: Place) -> None:
    """A text with something dynamic in it: anything could run.

    Where it starts with something literal that is no more than a doubt, if what is known of it can
    be read with a variable in the place of what is not.
    """
    feeds.run_text(readers, text, place)
    noted = len(readers.found.commands)
    if text.prefix.strip():
        read_shell(readers, Word(_with_variable(text)), replace(place, advice=True))
    understood = len(readers.found.commands) > noted
    readers.unknown(text.text, place.in_doubt if understood else place)


def _with_variable(text: Word) -> str:
    """What is known of a dynamic text, and `$unknown` for the rest."""
    if not text.text.startswith(text.prefix):
        return f"{text.prefix}$unknown{text.suffix}"
    # `find -exec` and `xargs -I` give what the words become, a mark (`{}`) in it, perhaps often.
    middle = text.text[len(text.prefix) : len(text.text) - len(text.suffix)]
    sizes = range(1, min(len(middle), _MARK_LIMIT) + 1)
    size = next((n for n in sizes if middle.endswith(middle[:n])), 0)
    return text.text.replace(middle[:size], "$unknown") if size else ""


def _read_all(readers: Readers, source: bytes, place: Place, dialects: tuple[str, ...]) -> None:
    """Read by each dialect; the first must parse, commands that only another sees are added."""
    commands = readers.found.commands
    start = len(commands)
    for dialect in dialects:
        before = len(commands)
        try:
            tree = shfmt.parse(source, dialect)
        except ShellSyntaxError:
            if dialect == dialects[0]:
                raise
            continue
        _Walk(readers, tree, source, place, dialect).run()
        if before > start:
            seen = set(commands[start:before])
            commands[before:] = [each for each in commands[before:] if each not in seen]


class _Walk:
    """One text in one dialect."""

    def __init__(
        self, readers: Readers, tree: Node, source: bytes, place: Place, dialect: str
    ) -> None:
        self._readers = readers
        self._tree = tree
        self._place = place
        relied = readers.found.relied
        self._language = language = place.language
        sure = constants.find(
            tree,
            source,
            outermost=place.depth == 0,
            language=language,
            dialect=dialect,
            relied=relied,
        )
        self._words = WordReader(
            source, language=language, dialect=dialect, constants=sure, relied=relied
        )
        self._source = source
        self._stack: list[tuple[Any, Place]] = []

    def run(self) -> None:
        """Search the tree for statements, in order, without recursion."""
        self._stack.append((self._tree, self._place))
        while self._stack:
            node, place = self._stack.pop()
            if callable(node):
                node()
            elif isinstance(node, dict):
                self._node(node, place)
            elif isinstance(node, list):
                self._later(node, place)

    def _node(self, node: Node, place: Place) -> None:
        kind = node.get("Type")
        if kind is None and ("Cmd" in node or "Redirs" in node):
            self._statement(node, place)
            return
        construct = _CONSTRUCTS.get(str(kind))
        if construct is not None:
            self._readers.found.construct(construct, self._at(node, place))
        if (
            kind in ("CmdSubst", "ProcSubst")
            and b"<<" in self._source
            and mended.loses_separator(node)
        ):
            self._readers.unknown(self._span(node), place)
        if kind in ("ArithmExp", "ArithmCmd") and mended.is_subshell(node, self._span(node)):
            self._readers.unknown(self._span(node), place)
        if kind == "ParamExp":
            self._parameter(node, place)
        elif kind == "Word":
            self._operand(node, place)
        elif kind == "ProcSubst":
            self._substitution(node, place)
            return
        elif kind == "ForClause":
            self._later([node.get("Loop")], place)
            return
        self._later([v for k, v in node.items() if k not in ("Pos", "End")], place)

    def _later(self, nodes: Sequence[object], place: Place) -> None:
        """Go on with these, in order, before all that waits already."""
        self._stack.extend((each, place) for each in reversed(nodes))

    def _then(self, task: Callable[[], None]) -> None:
        """Do this when all that is put before it after this call is done."""
        self._stack.append((task, self._place))

    def _at(self, node: Node, place: Place) -> Place:
        if place.depth:
            # Lines of a text inside a command would mean nothing to who wrote the request.
            return place
        return replace(place, line=(node.get("Pos") or {}).get("Line", 1))

    def _statement(self, node: Node, place: Place) -> None:
        """Note a statement's command and files, and what stands inside it."""
        found = self._readers.found
        place = replace(self._at(node, place), holds=NOTHING)
        redirects = node.get("Redirs") or []
        uses = tuple(use for each in redirects for use in self._redirect(each))
        command = node.get("Cmd") or {}
        kind = command.get("Type")
        mended.in_front(command)
        if any(node.get(key) for key in _BEHIND):
            found.construct("shell:background", place)
        for each in redirects:
            if each.get("Op") in _FEEDS:
                name = "here-string" if each["Op"] == "<<<" else "heredoc"
                found.construct(f"shell:{name}", place)
        for use in uses:
            if use.path.text.startswith(("/dev/tcp/", "/dev/udp/")):
                found.construct("shell:network-redirection", place)
        start = len(found.commands)
        if kind in ("CallExpr", "DeclClause"):
            self._with_substitutions(node, place, uses, start)
            return
        if uses:
            self._readers.command(Call((), place, redirects=uses))
        self._then(lambda: self._finished(uses, start))
        if kind == "BinaryCmd" and command.get("Op") in ("|", "|&"):
            self._then(lambda: self._right(command, place, start))
            self._later([redirects, command.get("X")], place)
        elif kind == "ForClause":
            self._then(lambda: self._later([command.get("Do")], place))
            self._then(lambda: self._loop_variable(command, start))
            self._later([redirects, command], place)
        elif kind == "FuncDecl":
            self._then(lambda: self._function(command, start))
            self._later([redirects, command], place)
        else:
            inner = replace(place, via=(*place.via, "time")) if kind == "TimeClause" else place
            self._later([redirects, command], inner)

    def _with_substitutions(
        self, node: Node, place: Place, uses: tuple[PathUse, ...], start: int
    ) -> None:
        """A plain command: first what is substituted into its words, so that it is known then.

        Behind it what its output goes to by `>(…)`. In the list it stands in front all the same.
        """
        found = self._readers.found
        command = node["Cmd"]
        outputs = list(_output_substitutions(node))

        def finish() -> None:
            inner = len(found.commands)
            own = replace(place, holds=feeds.brought(found.commands[start:], found))
            note = self._call if command["Type"] == "CallExpr" else self._declaration
            note(node, own, uses)
            called = found.commands[inner:]
            found.commands[start:] = called + found.commands[start:inner]
            sources = own.holds | feeds.brought(called, found)
            feeds.keep_files(found, Call((), own, redirects=uses), sources)
            if outputs:
                inside = replace(own, feed=own.feed | feeds.PIPE | sources, piped=None)
                self._later([each.get("Stmts") for each in outputs], inside)

        for each in outputs:
            found.construct("shell:process-substitution", place)
            each["Op"] = _SEEN
        self._then(finish)
        self._later([node.get("Redirs"), command], place)

    def _right(self, command: Node, place: Place, start: int) -> None:
        """The right side of a pipe, when its left side was read."""
        found = self._readers.found
        sources = feeds.PIPE | feeds.brought(found.commands[start:], found)
        left, right = command.get("X") or {}, mended.timed(command.get("Y") or {})
        if (right.get("Cmd") or {}).get("Type") == "TimeClause":
            # `{` and `if` are words of the program `time` then; what follows is read otherwise.
            self._readers.unknown(self._span(right), place.behind("time"))
        fed = self._fed(left, right) if command.get("Op") == "|" else None
        self._later([right], replace(place, feed=sources, piped=self._piped(left), fed=fed))

    def _fed(self, left: Node, right: Node) -> Word | None:
        """All that a plain command on the left writes, for a plain one on the right alone."""
        redirects = [*(left.get("Redirs") or []), *(right.get("Redirs") or [])]
        if any(each.get("Op") not in _FEEDS for each in left.get("Redirs") or []):
            return None
        commands = [each.get("Cmd") or {} for each in (left, right)]
        if any(c.get("Type") != "CallExpr" or c.get("Assigns") for c in commands):
            return None
        inside = constants.nodes([commands, redirects])
        if any(each.get("Type") in ("CmdSubst", "ProcSubst") for each in inside):
            return None  # it reads the same input
        words = [word for each in commands[0].get("Args") or [] for word in self._words.words(each)]
        text = output.exact(words, self._stdin(left), self._language)
        if text is None:
            return None
        self._readers.found.relied.add(words[0].text)
        return Word(text)

    def _piped(self, statement: Node) -> Word | None:
        """What a plain command writes into a pipe, where that can be told."""
        node = statement.get("Cmd") or {}
        if node.get("Type") != "CallExpr":
            return None
        words = [word for each in node.get("Args") or [] for word in self._words.words(each)]
        return fed.text(words, self._stdin(statement))

    def _stdin(self, statement: Node) -> Word | None:
        feeding = [each for each in statement.get("Redirs") or [] if each.get("Op") in _FEEDS]
        return self._words.heredoc(feeding[-1]) if feeding else None

    def _finished(self, uses: tuple[PathUse, ...], start: int) -> None:
        found = self._readers.found
        if any(use.access is Access.WRITE for use in uses):
            sources = feeds.brought(found.commands[start:], found)
            feeds.keep_files(found, Call((), self._place, redirects=uses), sources)

    def _loop_variable(self, command: Node, start: int) -> None:
        found = self._readers.found
        name = ((command.get("Loop") or {}).get("Name") or {}).get("Value", "")
        feeds.keep(found, f"${name}", feeds.brought(found.commands[start:], found))

    def _function(self, command: Node, start: int) -> None:
        found = self._readers.found
        name = (command.get("Name") or {}).get("Value", "")
        found.functions.add(name)
        feeds.keep(found, f"{name}()", feeds.brought(found.commands[start:], found))

    def _call(self, statement: Node, place: Place, uses: tuple[PathUse, ...]) -> None:
        """Note a plain command; once for each of the few names that it can have."""
        choices = self._words.choices((statement["Cmd"].get("Args") or [])[:1])
        for each in choices:
            self._words.choose(each)
            self._called(statement, place, uses)
        self._words.choose({})

    def _called(self, statement: Node, place: Place, uses: tuple[PathUse, ...]) -> None:
        node = statement["Cmd"]
        stdin = self._stdin(statement)
        words = [word for each in node.get("Args") or [] for word in self._words.words(each)]
        assignments = tuple(self._assignment(each) for each in node.get("Assigns") or [])
        self._keep(assignments, place)
        call = Call(tuple(words), place, assignments, uses, stdin)
        if uses:
            self._writes(call, statement)
        self._readers.command(call)

    def _writes(self, call: Call, statement: Node) -> None:
        """Remember what a plain command writes into a file, where that is sure."""
        content = None
        if not call.assignments and output.written(statement.get("Redirs") or []):
            content = output.exact(call.words, call.stdin, call.place.language)
        key, contents = (call.place.via, call.words, call.redirects), self._readers.found.contents
        contents[key] = content if contents.get(key, content) == content else None

    def _declaration(self, statement: Node, place: Place, uses: tuple[PathUse, ...]) -> None:
        """`export A=1`: a command of its words, and the assignments that it makes."""
        node = statement["Cmd"]
        words = [Word((node.get("Variant") or {}).get("Value", "declare"))]
        assignments = []
        for each in node.get("Args") or []:
            if "Name" not in each:
                words += self._words.words(each.get("Value") or {})
                continue
            assignment = self._assignment(each)
            if each.get("Naked"):
                words.append(Word(assignment.name))
                continue
            assignments.append(assignment)
            value = assignment.value
            words.append(Word(f"{assignment.name}={value.text}", value.dynamic,
                              prefix=f"{assignment.name}=", many=False))  # fmt: skip
        words = [word if word.dynamic else Word(word.text) for word in words]
        self._keep(assignments, place)
        self._readers.command(Call(tuple(words), place, tuple(assignments), uses))

    def _keep(self, assignments: Sequence[Assignment], place: Place) -> None:
        for each in assignments:
            sources = place.holds | feeds.of_word(each.value, self._readers.found)
            if not each.value.dynamic and ("$(" in each.value.text or "`" in each.value.text):
                sources |= feeds.SUBSTITUTION
            feeds.keep(self._readers.found, f"${each.name}", sources)

    def _assignment(self, node: Node) -> Assignment:
        # Not the tree's name: a subscript may have been read as a part of it.
        found = _NAME.match(
            self._source, ((node.get("Name") or {}).get("Pos") or {}).get("Offset", 0)
        )
        name = found[0].decode() if found else ""
        if "Array" in node:
            return Assignment(name, Word(self._span(node["Array"]), dynamic=True))
        return Assignment(name, self._words.value(node.get("Value")))

    def _redirect(self, node: Node) -> list[PathUse]:
        operator = node.get("Op")
        if operator in _FEEDS:
            return []
        path = self._words.value(node.get("Word"))
        if operator in ("<&", ">&"):
            # `2>&1` copies a descriptor; `>&file` writes.
            if operator == "<&" or (not path.dynamic and _DESCRIPTOR.fullmatch(path.text)):
                return []
            return [PathUse(path, Access.WRITE)]
        uses = []
        if operator in _READS:
            uses.append(PathUse(path, Access.READ))
        if operator in _WRITES or operator not in _READS:
            uses.append(PathUse(path, Access.WRITE))
        return uses

    def _substitution(self, node: Node, place: Place) -> None:
        """`<(…)`; `>(…)` is read with the command that writes to it."""
        if node.get("Op") == _SEEN:
            return
        self._readers.found.construct("shell:process-substitution", self._at(node, place))
        self._later([node.get("Stmts")], place)

    def _parameter(self, node: Node, place: Place) -> None:
        operation = node.get("Exp") or {}
        transform = ((operation.get("Word") or {}).get("Parts") or [{}])[0].get("Value")
        if operation.get("Op") == "@" and transform == "P":
            # `${x@P}` expands the value like a prompt, substitutions included.
            self._readers.unknown(self._span(node), place.behind("@P"))

    def _operand(self, node: Node, place: Place) -> None:
        """A word of a test or of arithmetic: a quoted subscript is run all the same."""
        word = self._words.value(node)
        holds = word.dynamic and feeds.SUBSTITUTION & feeds.of_word(word, self._readers.found)
        if holds or (not word.dynamic and SUBSCRIPT.search(word.text)):
            self._readers.unknown(word.text, place.behind("arithmetic"))

    def _span(self, node: Node) -> str:
        start = (node.get("Pos") or {}).get("Offset", 0)
        end = (node.get("End") or {}).get("Offset", 0)
        return self._source[start:end].decode("utf-8", "surrogateescape")


def _output_substitutions(statement: Node) -> Iterator[Node]:
    """The `>(…)` among a plain command's words and redirections."""
    words = [*((statement.get("Cmd") or {}).get("Args") or [])]
    words += [each.get("Word") or {} for each in statement.get("Redirs") or []]
    for word in words:
        for part in word.get("Parts") or []:
            if part.get("Type") == "ProcSubst" and part.get("Op") == ">(":
                yield part
