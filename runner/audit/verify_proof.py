#!/usr/bin/env python3
"""Check a proof from somebody's log. This file is a program and needs nothing else of runner.

    python3 verify_proof.py PROOF --key VKEY|FILE [--witness VKEY|FILE]

PROOF is one line of canonical JSON (RFC 8785), one of these:

    {"checkpoint":"<signed note>","events":[{"event":{…},"leaf":"<hex>","path":["<hex>",…],"seq":7},
     …],"proof":"runner run proof v1","run":"run-…"}
    {"checkpoint":…,"events":[<one of these>],"proof":"runner event proof v1"}
    {"new":"<signed note>","old":"<signed note>","path":[…],"proof":"runner consistency proof v1"}

The key is the log's public one, a C2SP vkey, got from somewhere else than the proof. Checked:

1. The file is, byte for byte, the canonical spelling of what it says, and has no other fields.
2. Each checkpoint is signed by a key that was named, is of the log that the key is named after, and
   is cosigned by each witness that was named (https://c2sp.org/signed-note, /tlog-checkpoint,
   /tlog-cosignature).
3. Each event is in the tree that the checkpoint has the root of: SHA-256 over 0x00 and its bytes is
   the leaf, and its path leads from there, at its number, to the root (RFC 9162, 2.1.3.2).
4. The events of a run begin with `run.decided` and are in their order; one is the run's end, and
   there are as many as it says. In an old log it may say nothing: then the answer is how many
   others lie between these, since no proof shows that none of them is the run's.
5. A consistency proof leads from the old root to the new one (RFC 9162, 2.1.4.2).

Not checked, because no proof shows it: that what was recorded is true; that what the log's owner
did not record did not happen; and that nothing was recorded of the run after its end.

Exit code: 0 it holds; 1 it does not; 2 it could not be checked: no such file, or no key.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RUN, EVENT = "runner run proof v1", "runner event proof v1"
CONSISTENCY = "runner consistency proof v1"
EVENT_FIELDS = "v seq time kind run principal data prev"
ENDS = ("run.ended", "run.recovered")
LOG_KEY, WITNESS_KEY = 1, 4  # signature types of C2SP signed-note: Ed25519, and its cosignatures
MAX_BYTES = 256 << 20  # a larger file is not read


class DoesNotHoldError(Exception):
    """The proof shows nothing; the message says what is wrong with it."""


class UncheckedError(Exception):
    """There is no proof to check, or no key to check it with."""


class Key(NamedTuple):
    """A public key, from a vkey `<name>+<id, hex>+<base64 of its type and its 32 bytes>`."""

    name: str
    id: bytes
    public: bytes


class Tree(NamedTuple):
    """What a checkpoint says."""

    origin: str
    size: int
    root: bytes


def verify(data: bytes, keys: Sequence[Key], witnesses: Sequence[Key] = ()) -> list[str]:
    """What the proof shows, in lines. DoesNotHoldError: nothing."""
    proof = parse(data)
    kind = proof.get("proof") if isinstance(proof, dict) else None
    if kind == CONSISTENCY:
        fields(proof, "new old path proof", "the proof")
        old, _ = signed_tree(proof["old"], keys, (), "its old checkpoint")
        new, told = signed_tree(proof["new"], keys, witnesses, "its new checkpoint")
        check_consistency(old, new, hashes(proof["path"], "its path"))
        return [f"log {shown(new.origin)}: the tree of {new.size} events begins with that of "
                f"{old.size}: none of these was changed, cut or put in since", *told]  # fmt: skip
    if kind not in (RUN, EVENT):
        fail(f"it is no proof of a kind that is known: {shown(kind)}")
    fields(proof, "checkpoint events proof" + " run" * (kind == RUN), "the proof")
    tree, told = signed_tree(proof["checkpoint"], keys, witnesses, "its checkpoint")
    if not isinstance(proof["events"], list) or not proof["events"]:
        fail("it has no events")
    events = [event_in_tree(item, tree) for item in proof["events"]]
    if kind == RUN:
        told = [check_run(events, proof["run"]), *told]
    elif len(events) != 1:
        fail("it is of one event, and has several")
    where = f"all in the tree of {tree.size} events of the log {shown(tree.origin)}"
    return [*(f"event {event['seq']}: {story(event)}" for event in events), where, *told]


def signed_tree(
    note: object, keys: Sequence[Key], witnesses: Sequence[Key], what: str
) -> tuple[Tree, list[str]]:
    """Check the signatures, and only then read what was signed; and who cosigned it, in lines."""
    if not isinstance(note, str) or "\n\n" not in note or not note.endswith("\n"):
        fail(f"{what} is no signed note")
    text, _, below = note.rpartition("\n\n")
    text, signatures = text + "\n", []
    for line in below[:-1].split("\n"):
        match = re.fullmatch("\u2014 ([^\\s+]+) ([A-Za-z0-9+/=]+)", line)
        if match is None:
            fail(f"{what}: a line below its text is no signature")
        signatures.append((match[1], unbase64(match[2], what)))

    def made_by(key: Key) -> list[bytes]:  # others' signatures are not looked at
        return [data[4:] for name, data in signatures if (name, data[:4]) == (key.name, key.id)]

    signers = [key for key in keys if made_by(key)]
    if not signers:
        fail(f"{what} is not signed by the key that you named: another log's, or another key then?")
    for key in signers:
        for signature in made_by(key):
            check_signature(key, signature, text, f"{what}: the log's signature")
    told = []
    for key in witnesses:
        if not made_by(key):
            fail(f"{what} is not cosigned by the witness {shown(key.name)}")
        for signature in made_by(key):
            time = int.from_bytes(signature[:8], "big")
            message = f"cosignature/v1\ntime {time}\n{text}"
            check_signature(key, signature[8:], message, f"{what}: {shown(key.name)}'s cosignature")
            when = datetime.fromtimestamp(min(time, 253402300799), UTC)  # the year 9999
            told.append(f"cosigned by {shown(key.name)} at {when:%Y-%m-%dT%H:%M:%SZ}")
    lines = text[:-1].split("\n")
    if len(lines) < 3 or "" in lines or not re.fullmatch("[1-9][0-9]{0,15}", lines[1]):
        fail(f"{what}: what is signed is no checkpoint")
    if any(lines[0] != key.name for key in signers):
        fail(f"{what} is of another log than the key")
    root = unbase64(lines[2], what)
    if len(root) != 32:
        fail(f"{what} has no root")
    return Tree(lines[0], int(lines[1]), root), told


def event_in_tree(item: object, tree: Tree) -> dict[str, Any]:
    """The event, once its bytes are found to be in the tree."""
    found = fields(item, "event leaf path seq", "an item of its events")
    seq = found["seq"]
    if type(seq) is not int or not 0 <= seq < tree.size:
        fail(f"an event's number is not one of the {tree.size} that the checkpoint is over")
    where = f"event {seq}"
    event = fields(found["event"], EVENT_FIELDS, where)
    leaf = hashlib.sha256(b"\x00" + canonical(event).encode()).digest()
    if found["leaf"] != leaf.hex():
        fail(f"{where}: its leaf hash is not that of its bytes")
    if root_of(leaf, seq, tree.size, hashes(found["path"], where)) != tree.root:
        fail(f"{where}: it is not in the tree: its path does not lead to the checkpoint's root")
    if (type(event["v"]), event["v"]) != (int, 1) or type(event["seq"]) is not int:
        fail(f"{where}: it is of an unknown format")
    if event["seq"] != seq:
        fail(f"{where}: it says that its number is {shown(event['seq'])}")
    if not isinstance(event["kind"], str) or not isinstance(event["data"], dict):
        fail(f"{where}: it has no kind, or no data")
    return event


def check_run(events: list[dict[str, Any]], run: object) -> str:
    """A run is decided first, and ends once; whether these are all of its events until then."""
    numbers, kinds = [each["seq"] for each in events], [each["kind"] for each in events]
    if not isinstance(run, str) or any(each["run"] != run for each in events):
        fail("an event of it is of another run")
    if sorted(set(numbers)) != numbers:
        fail("its events are not in their order")
    if kinds[0] != "run.decided" or kinds.count("run.decided") != 1:
        fail("its first event, and no other, should be run.decided")
    ends = [place for place, kind in enumerate(kinds) if kind in ENDS]
    if len(ends) != 1:
        fail("it should have one event that ends the run")
    count, told = ends[0] + 1, events[ends[0]]["data"].get("events")
    if told is not None:
        if told != count:
            fail(f"the run has {shown(told)} events up to its end, and here are {count}")
        return f"run {shown(run)}: these are all of its events up to its end"
    others = numbers[ends[0]] - numbers[0] + 1 - count
    between = f"{others} others lie between these, and no proof shows that they are not its"
    return f"run {shown(run)}: {between if others else 'no other event lies between these'}"


def root_of(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Where the path leads, as RFC 9162, 2.1.3.2 has it, in its names; None: not to a root."""
    fn, sn, r = index, size - 1, leaf
    for p in path:
        if sn == 0:
            return None  # too long
        if fn & 1 or fn == sn:
            r = node(p, r)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            r = node(r, p)
        fn, sn = fn >> 1, sn >> 1
    return r if sn == 0 else None  # too short


def check_consistency(old: Tree, new: Tree, path: Sequence[bytes]) -> None:
    """RFC 9162, 2.1.4.2, in its names."""
    if old.origin != new.origin:
        fail("its checkpoints are of two logs")
    if old.size > new.size:
        fail(f"its new checkpoint is over {new.size} events, and its old one over {old.size}")
    if old.size == new.size:
        if path or old.root != new.root:
            fail("its checkpoints are over equally many events, and not the same")
        return
    steps = [old.root, *path] if old.size & (old.size - 1) == 0 else list(path)
    fn, sn = old.size - 1, new.size - 1
    while fn & 1:
        fn, sn = fn >> 1, sn >> 1
    fr = sr = steps.pop(0) if steps else b""
    for c in steps:
        if sn == 0:
            fail("its path is too long")
        if fn & 1 or fn == sn:
            fr, sr = node(c, fr), node(c, sr)
            while fn and not fn & 1:
                fn, sn = fn >> 1, sn >> 1
        else:
            sr = node(sr, c)
        fn, sn = fn >> 1, sn >> 1
    if sn or (fr, sr) != (old.root, new.root):
        fail("its path does not lead from the old root to the new: a fork, or the proof is wrong")


def node(left: bytes, right: bytes) -> bytes:
    """The hash of two children (RFC 9162, 2.1.1)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def parse(data: bytes) -> Any:
    """JSON in its one canonical spelling and a newline, in which no name stands twice."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name stands twice in an object")
        return found

    def integer(digits: str) -> int | float:  # beyond 2^53 a number is a double (RFC 8785)
        number = int(digits)
        return number if abs(number) < 1 << 53 else float(digits)

    try:
        value = json.loads(data.decode(), object_pairs_hook=once, parse_int=integer)
        again = canonical(value).encode() + b"\n"
    except (ValueError, OverflowError, RecursionError) as error:
        fail(f"it is no canonical JSON: {shown(error)}")
    if again != data:
        fail("it is no canonical JSON: what it says would be spelled otherwise")
    return value


def canonical(value: Any) -> str:
    """RFC 8785: no white space, names in the order of their UTF-16, one spelling of each value."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    return number(value) if isinstance(value, float) else json.dumps(value, ensure_ascii=False)


def number(value: float) -> str:
    """A double as ECMAScript writes it: Python has the same digits, and other exponents."""
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    if not isinstance(exponent, int):
        raise ValueError("a number is not finite")
    text, point = "".join(map(str, digits)), len(digits) + exponent
    if value == 0:
        return "0"
    if len(text) <= point <= 21:
        text += "0" * (point - len(text))
    elif 0 < point <= 21:
        text = f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        text = f"{text[0]}{'.' * (len(text) > 1)}{text[1:]}e{point - 1:+}"
    return f"{'-' * sign}{text}"


def fields(value: object, names: str, what: str) -> dict[str, Any]:
    """The value, if it is an object of exactly these fields."""
    if not isinstance(value, dict) or value.keys() != set(names.split()):
        fail(f"{what} is no object of {names} and nothing else")
    return value


def hashes(value: object, where: str) -> list[bytes]:
    """A path's steps."""
    if not isinstance(value, list) or not all(
        isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in value
    ):
        fail(f"{where}: a step of the path is no hash")
    return [bytes.fromhex(each) for each in value]


def unbase64(text: str, what: str) -> bytes:
    """Base64 in the one form that is written."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        fail(f"{what} has what is no base64")
    return data


def check_signature(key: Key, signature: bytes, message: str, what: str) -> None:
    """RFC 8032."""
    try:
        Ed25519PublicKey.from_public_bytes(key.public).verify(signature, message.encode())
    except (InvalidSignature, ValueError):
        fail(f"{what} does not hold")


def story(event: dict[str, Any]) -> str:
    """An event in a line; nothing in it is believed to have the type that it should have."""
    data, decision = event["data"], event["data"].get("decision")
    effect = decision.get("effect") if isinstance(decision, dict) else None
    words = (event["time"], event["kind"], event["run"], effect, data.get("termination"))
    return " ".join(shown(word) for word in words if word is not None)


def shown(value: object) -> str:
    """In ASCII, at most 200 characters: what was recorded must not move the reader's cursor."""
    text = "..." if isinstance(value, dict | list) else ascii(str(value))[1:-1]
    return text if len(text) <= 200 else f"{text[:197]}..."


def fail(why: str) -> NoReturn:
    """Say that the proof shows nothing."""
    raise DoesNotHoldError(why)


def key_of(given: str, kind: int) -> Key:
    """A key of this signature type, from a vkey or a file that holds one. UncheckedError."""
    vkey = given if given.count("+") >= 2 else read(given, 4096).decode("utf-8", "replace")
    name, _, rest = vkey.strip().partition("+")
    told, _, encoded = rest.partition("+")
    try:
        typed = base64.b64decode(encoded, validate=True)
    except ValueError:
        typed = b""
    hashed = hashlib.sha256(name.encode("utf-8", "replace") + b"\n" + typed).digest()[:4]
    if not name or len(typed) != 33 or typed[0] != kind or told != hashed.hex():
        whose = "a log" if kind == LOG_KEY else "a witness"
        raise UncheckedError(f"{shown(given)} is no key of {whose}, nor a file with one")
    return Key(name, hashed, typed[1:])


def read(path: str, most: int) -> bytes:
    """A file's bytes. UncheckedError."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        raise UncheckedError(f"{shown(path)} can't be read: {shown(error)}") from None
    if len(data) > most:
        raise UncheckedError(f"{shown(path)} is larger than {most} bytes")
    return data


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(description="Check a proof from a log.")
    parser.add_argument("proof", metavar="PROOF", help="a file by `runner audit prove`")
    for name, what in (("key", "the log's public key"), ("witness", "who must have cosigned it")):
        parser.add_argument(f"--{name}", metavar="VKEY|FILE", action="append", default=[],
                            required=name == "key", help=what)  # fmt: skip
    given = parser.parse_args(arguments)
    try:
        keys = [key_of(each, LOG_KEY) for each in given.key]
        witnesses = [key_of(each, WITNESS_KEY) for each in given.witness]
        lines = verify(read(given.proof, MAX_BYTES), keys, witnesses)
    except DoesNotHoldError as error:
        sys.stderr.write(f"does not hold: {error}\n")
        return 1
    except UncheckedError as error:
        sys.stderr.write(f"can't be checked: {error}\n")
        return 2
    sys.stdout.write("\n".join([*lines, "the proof holds", ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
