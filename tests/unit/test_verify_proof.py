"""The auditor's program, on proofs of a small log: what was changed, anywhere, is found."""

from __future__ import annotations

import ast
import base64
import copy
import hashlib
import json
import math
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from runner.audit import verify_proof
from runner.audit.checkpoint import Checkpoint
from runner.audit.cosignature import cosigned, cosigned_at, cosigner_vkey
from runner.audit.event import NO_PREVIOUS, seal
from runner.audit.merkle import (
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    range_root,
    tree_of,
)
from runner.audit.note import NoteError, Signer, sign
from runner.audit.proof import ProvedEvent, consistency_document, event_proof, run_proof
from runner.audit.verify_proof import (
    LOG_KEY,
    WITNESS_KEY,
    DoesNotHoldError,
    UncheckedError,
    canonical,
    key_of,
    parse,
    verify,
)
from runner.model.event import AuditEvent, EventDraft, EventKind
from runner.model.principal import Principal

NAME = "runner.log/0123"
LOG = Signer(NAME, bytes(range(32)))
OTHER_KEY = Signer(NAME, bytes(32))
OTHER_LOG = Signer("runner.log/4567", bytes(range(32)))
WITNESS = Signer("runner.witness/89", bytes(range(1, 33)))
KEY = key_of(LOG.vkey, LOG_KEY)
WITNESS_VKEY = cosigner_vkey(WITNESS)
KINDS: list[tuple[EventKind, str | None, dict[str, Any]]] = [
    (EventKind.LOG_CREATED, None, {"log_id": "0123"}),
    (EventKind.RUN_DECIDED, "run-a", {"decision": {"effect": "allow"}, "x": 1.5, "n": None}),
    (EventKind.RUN_STARTED, "run-a", {"text": '\u20ac \ufb33 \U0001f600 \x00 \x7f " \\'}),
    (EventKind.RUN_DECIDED, "run-b", {"decision": {"effect": "deny"}}),
    (EventKind.RUN_ENDED, "run-b", {"termination": "denied"}),
    (EventKind.RUN_ENDED, "run-a", {"termination": "exited", "wall_s": 1e-7, "events": 3}),
    (EventKind.OUTPUT_DISCARDED, None, {"runs": []}),
]


def log(kinds: list[tuple[EventKind, str | None, dict[str, Any]]]) -> list[AuditEvent]:
    events: list[AuditEvent] = []
    previous = NO_PREVIOUS
    for seq, (kind, run, data) in enumerate(kinds):
        draft = EventDraft(kind, data, run_id=run, principal=Principal(1000, "coder"))
        events.append(seal(draft, seq, 1e9 + seq, previous))
        previous = events[-1].leaf_hash
    return events


EVENTS = log(KINDS)
HASHES = [event.leaf_hash for event in EVENTS]


def checkpoint(size: int, signer: Signer = LOG, name: str = NAME) -> str:
    return sign(Checkpoint(name, size, tree_of(HASHES[:size]).root).text, [signer])


def proved(seq: int, size: int) -> ProvedEvent:
    path = inclusion_proof(range_root(HASHES), seq, size)
    return ProvedEvent(seq, EVENTS[seq].body, path)


def of_run(run: str, note: str, size: int = 6) -> bytes:
    numbers = [event.seq for event in EVENTS if event.run_id == run]
    return run_proof(run, [proved(seq, size) for seq in numbers], note)


COSIGNED = cosigned(checkpoint(6), WITNESS, 1_700_000_000)
OF_RUN = of_run("run-a", COSIGNED)
OF_EVENT = event_proof(proved(3, 6), COSIGNED)
OF_CONSISTENCY = consistency_document(
    checkpoint(3), cosigned(checkpoint(7), WITNESS, 5), consistency_proof(range_root(HASHES), 3, 7)
)
ALL = {"run": OF_RUN, "event": OF_EVENT, "consistency": OF_CONSISTENCY}
each_proof = pytest.mark.parametrize("data", ALL.values(), ids=ALL)


def check(data: bytes) -> list[str]:
    return verify(data, [KEY], [key_of(WITNESS_VKEY, WITNESS_KEY)])


def test_what_holds_is_told() -> None:
    told = check(OF_RUN)
    assert told[0].startswith("event 1: ")
    assert "run run-a: these are all of its events up to its end" in told
    assert "cosigned by runner.witness/89 at 2023-11-14T22:13:20Z" in told
    assert "run run-b: no other event lies between these" in check(of_run("run-b", COSIGNED))
    assert check(OF_EVENT)[0].endswith("run.decided run-b deny")
    assert "the tree of 7 events begins with that of 3" in check(OF_CONSISTENCY)[0]


@each_proof
def test_every_byte_counts(data: bytes) -> None:
    check(data)
    for place in range(len(data)):
        for bit in (0x01, 0x04, 0x20, 0x80):
            changed = bytearray(data)
            changed[place] ^= bit
            with pytest.raises(DoesNotHoldError):
                check(bytes(changed))
        for other in (data[:place], data[:place] + data[place + 1 :], _put_in(data, place)):
            with pytest.raises(DoesNotHoldError):
                check(other)


def _put_in(data: bytes, place: int) -> bytes:
    return data[:place] + b" " + data[place:]


@each_proof
def test_every_value_counts(data: bytes) -> None:
    """Changed so that what comes of it is canonical again."""
    document = json.loads(data)
    tried = 0
    for place in places(document):
        for change in CHANGES:
            changed = copy.deepcopy(document)
            if not change(changed, place) or changed == document:
                continue
            tried += 1
            with pytest.raises(DoesNotHoldError):
                check(rfc8785.dumps(changed) + b"\n")
    assert tried > 30


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in a document, objects and lists included."""
    if above:
        yield above
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[name], (*above, name))


def _holder(document: Any, place: tuple[Any, ...]) -> Any:
    for name in place[:-1]:
        document = document[name]
    return document


def _drop(document: Any, place: tuple[Any, ...]) -> bool:
    del _holder(document, place)[place[-1]]
    return True


def _replace(with_: Any) -> Callable[[Any, tuple[Any, ...]], bool]:
    def change(document: Any, place: tuple[Any, ...]) -> bool:
        _holder(document, place)[place[-1]] = with_
        return True

    return change


def _add(document: Any, place: tuple[Any, ...]) -> bool:
    holder = _holder(document, place)
    if isinstance(holder, dict):
        holder["another"] = 1
    else:
        holder.append(holder[-1])
    return True


def _swap(document: Any, place: tuple[Any, ...]) -> bool:
    holder = _holder(document, place)
    if not isinstance(holder, list) or len(holder) < 2:
        return False
    holder.reverse()
    return True


CHANGES = [
    _drop, _add, _swap, *map(_replace, [None, True, 0, 1, -1, 1.5, "", "x", [], {}, 2**53 - 1])
]  # fmt: skip


def test_an_event_of_the_run_can_not_be_left_out() -> None:
    document = json.loads(OF_RUN)
    del document["events"][1]
    with pytest.raises(
        DoesNotHoldError, match="the run has 3 events up to its end, and here are 2"
    ):
        check(rfc8785.dumps(document) + b"\n")


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("seq", 2, "it says that its number is 2"),
        ("seq", "1", "of an unknown format"),
        ("v", 2, "of an unknown format"),
        ("v", True, "of an unknown format"),
        ("kind", None, "no kind, or no data"),
        ("data", [], "no kind, or no data"),
        ("another", 1, "no object of"),
    ],
)
def test_what_the_log_signed_and_is_no_event_of_its(field: str, value: Any, why: str) -> None:
    """Its key signs any tree; what is no event at its own number proves nothing."""
    body = rfc8785.dumps({**json.loads(EVENTS[1].body), field: value})
    hashes = [HASHES[0], leaf_hash(body), HASHES[2]]
    note = sign(Checkpoint(NAME, 3, tree_of(hashes).root).text, [LOG])
    item = ProvedEvent(1, body, inclusion_proof(range_root(hashes), 1, 3))
    with pytest.raises(DoesNotHoldError, match=why):
        verify(event_proof(item, note), [KEY])


@pytest.mark.parametrize(
    ("count", "says"),
    [
        (3, "these are all of its events up to its end"),
        (None, "1 others lie between these, and no proof shows that they are not its"),
    ],
)
def test_logs_that_do_not_count_a_runs_events(count: int | None, says: str) -> None:
    end = {"termination": "exited"} | ({} if count is None else {"events": count})
    kinds = [
        (EventKind.RUN_DECIDED, "run-a", {}),
        (EventKind.REQUEST_REFUSED, None, {}),
        (EventKind.RUN_STARTED, "run-a", {}),
        (EventKind.RUN_ENDED, "run-a", end),
        (EventKind.CHANGES_DISCARDED, "run-a", {}),
    ]
    events = log(kinds)
    hashes = [event.leaf_hash for event in events]
    note = sign(Checkpoint(NAME, 5, tree_of(hashes).root).text, [LOG])
    path = partial(inclusion_proof, range_root(hashes), size=5)
    items = [ProvedEvent(n, events[n].body, path(n)) for n in (0, 2, 3, 4)]
    for shown in (items, items[:-1]):  # what came after the end may be left out
        assert f"run run-a: {says}" in verify(run_proof("run-a", shown, note), [KEY])


@pytest.mark.parametrize(
    ("numbers", "run", "why"),
    [
        ([2, 5], "run-a", "its first event, and no other, should be run.decided"),
        ([1, 2], "run-a", "it should have one event that ends the run"),
        ([1, 4, 5], "run-a", "an event of it is of another run"),
        ([1, 2, 5], "run-b", "an event of it is of another run"),
        ([1, 1, 5], "run-a", "its events are not in their order"),
        ([2, 1, 5], "run-a", "its events are not in their order"),
    ],
)
def test_a_run_is_all_of_it(numbers: list[int], run: str, why: str) -> None:
    data = run_proof(run, [proved(seq, 6) for seq in numbers], COSIGNED)
    with pytest.raises(DoesNotHoldError, match=why):
        check(data)


def test_a_proof_of_a_run_is_no_proof_of_an_event() -> None:
    document = json.loads(OF_RUN)
    del document["run"]
    document["proof"] = verify_proof.EVENT
    with pytest.raises(DoesNotHoldError, match="it is of one event, and has several"):
        check(rfc8785.dumps(document) + b"\n")


@pytest.mark.parametrize(
    ("note", "why"),
    [
        (checkpoint(6, OTHER_KEY), "is not signed by the key that you named"),
        (checkpoint(6, OTHER_LOG), "is not signed by the key that you named"),
        (checkpoint(6, LOG, OTHER_LOG.name), "is of another log than the key"),
        (checkpoint(5), "its path does not lead"),
        (checkpoint(7), "its path does not lead"),
        (sign("a text\n", [LOG]), "no checkpoint"),
        ("no note", "no signed note"),
    ],
)
def test_other_checkpoints(note: str, why: str) -> None:
    with pytest.raises(DoesNotHoldError, match=why):
        verify(of_run("run-a", note), [KEY])


def test_a_former_key_is_named_as_well() -> None:
    data = consistency_document(
        checkpoint(3), checkpoint(7, OTHER_KEY), consistency_proof(range_root(HASHES), 3, 7)
    )
    other = key_of(OTHER_KEY.vkey, LOG_KEY)
    for one in (KEY, other):
        with pytest.raises(DoesNotHoldError, match="is not signed by the key"):
            verify(data, [one])
    assert verify(data, [KEY, other])


def test_consistency_is_of_one_log_and_leads_on() -> None:
    path = consistency_proof(range_root(HASHES), 3, 7)
    elsewhere = checkpoint(7, OTHER_LOG, OTHER_LOG.name)
    keys = [KEY, key_of(OTHER_LOG.vkey, LOG_KEY)]
    with pytest.raises(DoesNotHoldError, match="two logs"):
        verify(consistency_document(checkpoint(3), elsewhere, path), keys)
    with pytest.raises(DoesNotHoldError, match="over 3 events, and its old one over 7"):
        verify(consistency_document(checkpoint(7), checkpoint(3), path), keys)
    assert verify(consistency_document(checkpoint(7), checkpoint(7), []), keys)


def test_a_cosignature_is_asked_for_by_key() -> None:
    witness = key_of(WITNESS_VKEY, WITNESS_KEY)
    assert cosigned_at(COSIGNED, WITNESS_VKEY) == 1_700_000_000
    assert cosigned_at(checkpoint(6), WITNESS_VKEY) is None
    with pytest.raises(DoesNotHoldError, match=r"not cosigned by the witness runner\.witness/89"):
        verify(of_run("run-a", checkpoint(6)), [KEY], [witness])
    # By its plain signature, which is another type of key, it is no cosignature.
    plain = checkpoint(6) + WITNESS.line(checkpoint(6).partition("\n\n")[0] + "\n")
    with pytest.raises(DoesNotHoldError, match="not cosigned"):
        verify(of_run("run-a", plain), [KEY], [witness])
    # Of another checkpoint, it does not hold.
    line = COSIGNED.splitlines(keepends=True)[-1]
    moved = checkpoint(7) + line
    with pytest.raises(DoesNotHoldError, match="cosignature does not hold"):
        verify(consistency_document(checkpoint(7), moved, []), [KEY], [witness])
    with pytest.raises(NoteError, match="does not hold"):
        cosigned_at(moved, WITNESS_VKEY)


def test_the_cosignature_of_the_specification() -> None:
    """The key ID and the message are those of C2SP tlog-cosignature, taken apart by hand."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
    public = private.public_key().public_bytes_raw()
    name, text = "runner.witness/89", COSIGNED.partition("\n\n")[0] + "\n"
    key_id = hashlib.sha256(name.encode() + b"\n\x04" + public).digest()[:4]
    message = b"cosignature/v1\ntime 1700000000\n" + text.encode()
    signature = key_id + struct.pack(">Q", 1_700_000_000) + private.sign(message)
    assert COSIGNED.endswith(f"\n\u2014 {name} {base64.b64encode(signature).decode()}\n")
    typed = base64.b64encode(b"\x04" + public).decode()
    assert f"{name}+{key_id.hex()}+{typed}" == WITNESS_VKEY


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"null\n",
        b"[]\n",
        b'"x"\n',
        b"\xff\n",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"1" * 10_000 + b"\n",
        b'{"proof":NaN}\n',
        b'{"proof":1e999}\n',
        b'{"proof":"\\ud800"}\n',
        b'{"proof":["runner run proof v1"]}\n',
    ],
)
def test_what_is_no_proof(data: bytes) -> None:
    with pytest.raises(DoesNotHoldError):
        check(data)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('{"a":1,"a":1}', "a name stands twice"),
        ('{"a":1,"\\u0061":2}', "a name stands twice"),
        ('{"b":1,"a":1}', "spelled otherwise"),
        ('{"a": 1}', "spelled otherwise"),
        ('"\\u0061"', "spelled otherwise"),
        ('"\\/"', "spelled otherwise"),
        ("1.0", "spelled otherwise"),
        ("1E3", "spelled otherwise"),
        ("-0", "spelled otherwise"),
        ("9007199254740993", "spelled otherwise"),
        ("NaN", "not finite"),
    ],
)
def test_one_spelling(text: str, why: str) -> None:
    with pytest.raises(DoesNotHoldError, match=why):
        parse(text.encode() + b"\n")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=12,
)


@given(json_values)
def test_canonical_bytes_are_those_of_the_library(value: Any) -> None:
    data = rfc8785.dumps(value)
    assert canonical(value).encode() == data
    assert canonical(parse(data + b"\n")).encode() == data


@given(st.binary(min_size=8, max_size=8))
def test_any_double(data: bytes) -> None:
    (value,) = struct.unpack(">d", data)
    if math.isfinite(value):
        assert canonical(value).encode() == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "value", [1e21, 1e20, 123456789012345680000.0, 5e-324, 1e-6, 1e-7, 0.1, -0.0, 1.79e308]
)
def test_known_doubles(value: float) -> None:
    assert canonical(value).encode() == rfc8785.dumps(value)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "a+b+c",
        "name+00000000+AQ==",
        LOG.vkey[:-1],
        LOG.vkey.replace("0123", "0124"),
        WITNESS_VKEY,
        LOG.private,
        "\ud800+1+2",
        "/no/such\nfile",
        "/",
    ],
)
def test_what_is_no_key(given: str) -> None:
    with pytest.raises(UncheckedError):
        key_of(given, LOG_KEY)


def test_it_imports_nothing_but_python_and_cryptography() -> None:
    source = Path(verify_proof.__file__).read_text("utf-8")
    named = {
        name.partition(".")[0]
        for each in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in each.names]
            if isinstance(each, ast.Import)
            else [str(each.module)]
            if isinstance(each, ast.ImportFrom)
            else []
        )
    }
    assert named - {"cryptography"} <= set(sys.stdlib_module_names)
    assert len(source.splitlines()) <= 400, "an auditor reads it in ten minutes"
