"""SQL given on a command line: what its statements do, and the commands that run from it.

`psql -c`, `mysql -e`, `sqlite3 db "…"` and their like, and heredocs into them. Statements are told
by their keywords (`sql:drop-table`), whatever the dialect. Files that a client is told to read are
not read.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace

from runner.analysis.context import DEPTH_LIMIT, Call, Place, Readers
from runner.analysis.sql import tokens as sqltext
from runner.analysis.sql.statements import Statements
from runner.analysis.sql.tokens import DIALECTS, TEXT_LIMIT, Token
from runner.analysis.wrappers import options
from runner.analysis.wrappers.table import Wrapper
from runner.model.intent import Access, PathUse, Word

_CLIENTS = {
    "mariadb": "mysql", "clickhouse-client": "clickhouse", "clickhouse-local": "clickhouse",
    "sqlite": "sqlite3", "cockroach": "psql", "pgcli": "psql", "mycli": "mysql",
    "litecli": "sqlite3",
}  # fmt: skip
_HOST_OPTIONS = frozenset({"-h", "--host"})
_DATABASE_OPTIONS = frozenset({"-d", "--dbname", "--url", "--uri"})
_ADDRESS = re.compile(r"(?:postgres(?:ql)?|mysqlx?|cockroachdb)://(?:[^/@]*@)?([\w.-]+)[:/?]")
_STREAMS = frozenset({"-", "/dev/stdin"})
_SHELL_COMMANDS = frozenset({"!", ".shell", ".system", ".sh", "system", "\\!"})
_FILE_COMMANDS = {
    "\\i": "read", "\\ir": "read", "\\include": "read", "\\o": "write", "\\out": "write",
    "\\w": "write", "\\write": "write", "\\g": "write", "\\gx": "write", "\\s": "write",
    "\\lo_import": "read", "\\.": "read", "\\T": "write", ".read": "read", ".output": "write",
    ".once": "write", ".import": "read", ".backup": "write", ".save": "write", ".dump": "none",
    ".open": "write", ".restore": "read", ".load": "load", ".log": "write", ".trace": "write",
    ".clone": "write", ".cd": "read", ".excel": "none", ".archive": "write", ".ar": "write",
    "source": "read", "tee": "write", "pager": "shell", "\\P": "shell", "edit": "none",
}  # fmt: skip
"""Commands of the clients whose first argument is a file, or `|command`."""


def unwrap_sql(readers: Readers, row: Wrapper, call: Call, place: Place) -> None:
    """Read the SQL that a client is given."""
    taken = options.take(row, call.words[1:])
    known = row.language or place.via[-1]
    client = _CLIENTS.get(known, known)
    client = "clickhouse" if client == "clickhouse" else client
    readers.found.hosts.extend(
        value for option, value in taken.options if option in _HOST_OPTIONS and value.text
    )
    operands = [*taken.operands, *taken.rest]
    for word in (*operands[:2], *taken.values(_DATABASE_OPTIONS)):
        address = _ADDRESS.match(word.prefix if word.dynamic else word.text)
        if address is not None:
            readers.found.hosts.append(Word(address[1]))
    if row.subcommand:
        if not operands or operands[0].text not in row.subcommand:
            return
        operands = operands[1:]
    texts = taken.values(row.code)
    files = [value.text for option, value in taken.options if option in ("-f", "--file")]
    if row.first:
        texts += [word for word in operands if word.dynamic or not word.text.startswith("-")][:1]
    elif row.rest == "text":
        texts += operands[row.operands :]
    if call.given is not None and (not (texts or files) or _STREAMS.intersection(files)):
        texts.append(call.given)
    for text in texts:
        read_sql(readers, text, place, client)


def read_sql(readers: Readers, text: Word, place: Place, client: str) -> None:
    """Note what SQL text does; `client`: whose dialect it is (`runner.analysis.sql.tokens`)."""
    if place.depth > DEPTH_LIMIT:
        return
    reading = _Reading(readers, place, client)
    if text.dynamic:
        reading.construct("dynamic", sure=False)
    source = _source(text)
    if len(source) > TEXT_LIMIT or not readers.found.affords(source):
        reading.construct("unreadable")
        return
    reading.read(source, expanded=text.dynamic)


def _source(text: Word) -> str:
    """A dynamic text as it stands between its quotes."""
    if not text.dynamic:
        return text.text
    if text.prefix and not text.text.startswith(('"', "'")):
        return text.text if text.text.startswith(text.prefix) else text.prefix + " $unknown"
    quoted = re.fullmatch(r'"((?:[^"\\]|\\.)*)"', text.text, re.DOTALL)
    return re.sub(r'\\([\\"$`])', r"\1", quoted[1]) if quoted else text.text


class _Reading(Statements):
    """One text."""

    def __init__(self, readers: Readers, place: Place, client: str) -> None:
        self._readers = readers
        self._place = place
        self._client = client
        self._expanded = False

    def construct(self, what: str, *, sure: bool = True) -> None:
        """Note what a statement does; not `sure`: as advice."""
        advice = self._place.advice or not sure
        self._readers.found.construct(f"sql:{what}", replace(self._place, advice=advice))

    def read(self, text: str, *, expanded: bool) -> None:
        self._expanded = expanded
        dialect = DIALECTS.get(self._client, DIALECTS["sql"])
        self._statements(sqltext.cut(text, dialect, expanded=expanded))
        if "\\'" in text or '\\"' in text:
            # A server may be set to take backslashes the other way: that is read as well.
            other = replace(dialect, backslash=not dialect.backslash)
            was, self._place = self._place, replace(self._place, advice=True)
            self._statements(sqltext.cut(text, other, expanded=expanded))
            self._place = was

    def _statements(self, found: sqltext.Tokens) -> None:
        if found.open_end:
            self.construct("unreadable")
        statement: list[Token] = []
        for token in found.tokens:
            if token.kind == "client":
                self._client_command(token.text)
            elif token.kind == "end":
                self.statement(statement)
                statement = []
            else:
                statement.append(token)
        self.statement(statement)

    # What reaches out of the database

    def nested(self, text: str) -> None:
        inner = replace(self._place, depth=self._place.depth + 1)
        read_sql(self._readers, Word(text), inner, self._client)

    def python(self, text: str) -> None:
        """Read the Python text of a function."""
        self._readers.python(Word(textwrap.dedent(text).strip()), self._place.behind("python"))

    def command(self, text: str | None) -> None:
        """A command that the server runs."""
        self.construct("shell")
        place = replace(self._place, language="sh", advice=True)
        if text is None:
            self._readers.unknown("a command in SQL text", place.in_doubt)
        else:
            self._readers.shell(Word(text), place)

    def path(self, text: str, use: str) -> None:
        access = Access.WRITE if use == "write" else Access.READ
        self._readers.found.paths.append(PathUse(Word(text), access))

    # Commands of the clients

    def _client_command(self, line: str) -> None:
        name, arguments = _client_words(line)
        place = replace(self._place, language="sh")
        if name in _SHELL_COMMANDS:
            self.construct("shell")
            self._shell_line(arguments, place)
            return
        use = _FILE_COMMANDS.get(name)
        argument = arguments.strip()
        if self._client == "psql":
            for command in re.findall(r"`([^`]*)`", argument):
                self.construct("shell")
                self._shell_line(command, place)
        if name in ("\\copy",):
            tokens = sqltext.cut("COPY " + arguments, DIALECTS["psql"]).tokens
            self.statement(tokens)
            return
        if name == "\\gexec":
            self.construct("dynamic", sure=False)
        quoted = re.match(r"'([^']*)'|\"([^\"]*)\"", argument)
        plain = (quoted[1] or quoted[2] or "") if quoted is not None else argument
        if use == "shell" or (use is not None and plain.startswith("|")):
            self.construct("shell")
            self._shell_line(plain.removeprefix("|"), place)
        elif use == "load":
            self.construct("load-extension")
        elif use in ("read", "write") and argument:
            self.construct(f"{use}-file")
            words = argument.split()
            self.path(words[0].strip("'\""), use)

    def _shell_line(self, text: str, place: Place) -> None:
        text = text.strip().removesuffix(";")
        if self._expanded and re.search(r"[$`]", text):
            prefix = re.split(r"[$`]", text, maxsplit=1)[0]
            self._readers.shell(Word(prefix + "…", True, prefix, "", many=False), place)
        elif text:
            self._readers.shell(Word(text), place)
        else:
            self._readers.unknown("a shell of a database client", place)


def _client_words(line: str) -> tuple[str, str]:
    """The name of a client's command, and the rest of its line."""
    match = re.match(r"\\(?:!|[A-Za-z_]+|.)|\S+", line)
    name = match[0] if match is not None else line
    if name.startswith("\\") and len(name) > 2 and name[1] == "!":
        name = "\\!"
    rest = line[len(name) :]
    return (name if name.startswith("\\") else name.lower()), rest
