"""What vouches for a log beside its own hashes: checkpoints, the stored and the kept ones.

`verify` feeds it each event that names a key, and the tree at each size that a checkpoint is over,
so one pass in constant memory checks all of them: the signature is that of the key which the log
named at that size, and the root is the tree's.

A stored checkpoint lies beside the log and was signed by a key that lies there too. It shows
nothing against who has both. One that somebody else *kept* does, and so does a key that is known
from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from operator import attrgetter

from runner.audit.checkpoint import Checkpoint, parse_checkpoint
from runner.audit.cosignature import cosigned_at
from runner.audit.keychain import KEY_KINDS, KeyChain, KeyChainError, NamedKey
from runner.audit.merkle import Tree
from runner.audit.note import NoteError, open_note
from runner.errors import RequestError
from runner.model.event import EventKind

_NEVER = 1 << 63  # more events than any log has

_STORED, _KEPT = "the stored checkpoint", "the checkpoint that was kept"


@dataclass(frozen=True, slots=True)
class StoredNote:
    """A checkpoint as it is stored: columns of any type, since nobody vouches for them."""

    size: int
    note: object
    kept: bool = False
    """Whether it comes from somebody else than the log's owner."""


@dataclass(frozen=True, slots=True)
class Cosigned:
    """The largest tree that a witness has cosigned, as far as is known."""

    witness: str
    """Its key's name."""
    size: int
    time_s: int
    """When it was cosigned, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the checkpoints told about a log that holds."""

    stored: int
    """Number of stored checkpoints, all of which hold."""
    covered: int
    """So many events, the first ones, are under one of the log's own checkpoints."""
    kept: int
    """So many are under one that somebody kept; 0: there was none."""
    key: str | None
    """The vkey in force at the end; None: the log names none."""
    trusted: bool
    """Whether it is, or follows, a key that the reader knew."""
    cosigned: tuple[Cosigned, ...] = ()
    """What each witness that the reader named has cosigned."""


class NotVouchedError(Exception):
    """A checkpoint or a key does not hold; `seq`: the first event that it concerns."""

    def __init__(self, seq: int, why: str) -> None:
        """`why`: one clause, to be read behind "event 7: "."""
        super().__init__(why)
        self.seq = seq


def kept_notes(text: str) -> list[StoredNote]:
    """The checkpoints in a file that somebody kept, one behind the other, each with its signatures.

    ValueError: something in it is no checkpoint; the message tells where.
    """
    notes: list[str] = []
    body: list[str] = []
    signed = False
    for line in text.splitlines(keepends=True):
        if signed and not line.startswith("\u2014 "):
            notes.append("".join(body))
            body, signed = [], False
        if not body and not line.strip():
            continue
        signed = line.startswith("\u2014 ")
        body.append(line)
    if body:
        notes.append("".join(body))
    if not notes:
        raise ValueError("it holds no checkpoint")
    found = []
    for number, each in enumerate(notes, start=1):
        try:
            found.append(StoredNote(parse_checkpoint(each).size, each, kept=True))
        except ValueError as error:
            raise ValueError(f"the text number {number} in it is no checkpoint: {error}") from None
    return sorted(found, key=attrgetter("size"))


class Vouching:
    """Fed by one call of `verify`."""

    def __init__(
        self,
        stored: Iterable[StoredNote] = (),
        kept: Sequence[StoredNote] = (),
        *,
        trusted: str | None = None,
        named: Sequence[NamedKey] | None = None,
        archived: int = 0,
        witnesses: Sequence[str] = (),
    ) -> None:
        """`stored` and `kept`: in the order of their sizes. `trusted`: a vkey known from elsewhere.

        `named`: the keys that the log's table has, to be compared; of the first `archived` events,
        which are not read, it is taken as it is. `witnesses`: vkeys; each of them must have
        cosigned one of `kept`.
        """
        before = tuple(key for key in named or () if key.seq < archived)
        self._chain = KeyChain(trusted, before)
        self._named = named
        self._notes = iter(merge(stored, kept, key=attrgetter("size")))
        self._next: StoredNote | None = None
        self.next_size = 0
        """The tree of so many events is asked for next; `verify` calls `at` when it is there."""
        self._repaired = False
        """Whether an event says that the log was made anew: what lay beside its events is gone."""
        self._count = self._covered = self._kept = 0
        self._cosigned: dict[str, Cosigned | None] = dict.fromkeys(witnesses)
        self._advance()

    def event(self, seq: int, kind: object, body: bytes) -> None:
        """An event that holds by itself. NotVouchedError: what it says of keys does not."""
        self._repaired = self._repaired or kind == EventKind.LOG_REPAIRED
        if kind not in KEY_KINDS:
            return
        try:
            self._chain.take(seq, str(kind), body)
        except KeyChainError as error:
            raise NotVouchedError(seq, str(error)) from None

    def at(self, tree: Tree) -> None:
        """The tree over the first events, of `next_size` or more. NotVouchedError.

        RequestError: what was kept is over fewer events than can be told apart here.
        """
        while self._next is not None and self.next_size <= tree.size:
            self._check(self._next, tree)
            self._advance()

    def finish(self, tree: Tree) -> Vouched:
        """The tree over all events. NotVouchedError: a checkpoint is over more, or a key is not."""
        self.at(tree)
        if self._next is not None:
            what = _KEPT if self._next.kept else _STORED
            raise NotVouchedError(
                tree.size, f"it is missing: {what} is over {self._next.size} events"
            )
        chain = self._chain
        # A log that was made of an archive has neither a table of keys nor checkpoints, and one
        # that was repaired not until it is used again.
        told = self._count > 0 or (bool(self._named) and not self._repaired)
        if told and self._named is not None and list(self._named) != chain.keys:
            wrong = (
                next((key for key in chain.keys if key not in self._named), None) or self._named[-1]
            )
            raise NotVouchedError(
                wrong.seq, "the table of the log's keys does not say what its events say"
            )
        if not chain.reached:
            first = chain.keys[0].seq if chain.keys else 0
            raise NotVouchedError(
                first, f"the log never names the key that is trusted, {chain.trusted}"
            )
        if told and not self._count:
            raise NotVouchedError(
                chain.keys[0].seq, "no checkpoint is stored, although one was made with the key"
            )
        for vkey, cosigned in self._cosigned.items():
            if cosigned is None:
                raise NotVouchedError(
                    0, f"the witness {vkey} has cosigned no checkpoint that was kept"
                )
        return Vouched(
            self._count,
            self._covered,
            self._kept,
            chain.keys[-1].vkey if chain.keys else None,
            chain.trusted is not None,
            tuple(each for each in self._cosigned.values() if each is not None),
        )

    def _advance(self) -> None:
        self._next = next(self._notes, None)
        self.next_size = _NEVER if self._next is None else self._next.size

    def _check(self, found: StoredNote, tree: Tree) -> None:
        since = self._kept if found.kept else self._covered
        what = _KEPT if found.kept else _STORED
        which = f"{what} over {found.size} events"
        told = self._read(found, since, which)
        if told.origin != self._chain.name:
            raise NotVouchedError(
                0,
                f"{which} is of the log {told.origin}, and this is {self._chain.name}: it is "
                "another log, or this one was put in its place",
            )
        if found.kept and found.size < tree.size:
            raise RequestError(
                f"{which} can't be compared, because the first {tree.size} events are archived: "
                "name the archive with --archive"
            )
        if found.size == tree.size and told.root != tree.root:
            many = found.size - since > 1
            where = f"it, or another one up to {found.size - 1}," if many else "it"
            raise NotVouchedError(since, f"{where} is not what {which} was made of")
        vkey = self._chain.at(found.size)
        if vkey is None:
            raise NotVouchedError(since, f"{which} is signed, but the log names no key before it")
        try:
            open_note(str(found.note), [vkey])
        except NoteError as error:
            raise NotVouchedError(
                since,
                f"{which} is not signed by the key that the log names for it, {vkey}: {error}",
            ) from None
        if found.kept:
            self._kept = found.size
            self._witnessed(str(found.note), found.size, which)
        else:
            self._count += 1
            self._covered = found.size

    def _witnessed(self, note: str, size: int, which: str) -> None:
        for vkey in self._cosigned:
            try:
                time_s = cosigned_at(note, vkey)
            except NoteError as error:
                raise NotVouchedError(size - 1, f"{which} can't be believed: {error}") from None
            if time_s is not None:
                self._cosigned[vkey] = Cosigned(vkey.partition("+")[0], size, time_s)

    @staticmethod
    def _read(found: StoredNote, since: int, which: str) -> Checkpoint:
        try:
            if not isinstance(found.note, str):
                raise ValueError("it is no text")
            told = parse_checkpoint(found.note)
        except ValueError as error:
            raise NotVouchedError(since, f"{which} can't be read: {error}") from None
        if told.size != found.size:
            raise NotVouchedError(since, f"{which} says that it is over {told.size}")
        return told
