"""Signed notes and checkpoints: what others wrote is read, and nothing is read leniently."""

from __future__ import annotations

import pytest

from runner.audit.checkpoint import Checkpoint, parse_checkpoint
from runner.audit.note import NoteError, Signer, open_note, parse_note, parse_vkey, sign
from runner.audit.vouching import kept_notes

# The example in the documentation of Go's golang.org/x/mod/sumdb/note.
VKEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
PRIVATE = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
NOTE = (
    f"{TEXT}\n\u2014 PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
ROOT = bytes(range(32))


def test_what_go_signed() -> None:
    assert open_note(NOTE, [VKEY]) == TEXT
    assert Signer.parse(PRIVATE).vkey == VKEY
    assert Signer.parse(PRIVATE).private == PRIVATE
    assert sign(TEXT, [Signer.parse(PRIVATE)]) == NOTE  # Ed25519 is deterministic


def test_every_named_key_must_have_signed_and_others_are_passed_over() -> None:
    first, second = Signer("example.org/log", bytes(32)), Signer("example.org/log", b"1" * 32)
    note = sign(TEXT, [Signer.parse(PRIVATE), first])
    assert open_note(note, [VKEY, first.vkey]) == TEXT
    assert open_note(note, [first.vkey]) == TEXT
    with pytest.raises(NoteError, match="has not signed it"):
        open_note(note, [first.vkey, second.vkey])


@pytest.mark.parametrize(
    "forged",
    [
        NOTE.replace("answer", "Answer"),
        NOTE.replace("nAM=", "nAQ="),
        NOTE.replace("x08go", "x08gp"),
        NOTE + NOTE[NOTE.index("\u2014") :].replace("nAM=", "nAQ="),
        NOTE.replace("\u2014", "-"),
        NOTE.rstrip("\n"),
        NOTE.replace("\n\n", "\n"),
        NOTE.replace("\n\n", "\r\n\r\n"),
        NOTE.replace("then", "\x00then"),
        NOTE.replace("then", "\udcffthen"),
        NOTE.replace("nAM=", "nAN="),  # the same bytes, spelled otherwise
        NOTE.replace("PeterNeumann", "Peter Neumann"),
        "",
        "\n\n",
        TEXT,
    ],
)
def test_what_is_not_exactly_a_signed_note(forged: str) -> None:
    with pytest.raises(NoteError):
        open_note(forged, [VKEY])


@pytest.mark.parametrize(
    "vkey",
    [
        "",
        "PeterNeumann",
        VKEY.replace("c74f20a3", "c74f20a4"),
        VKEY.replace("10TW", "10TX"),
        VKEY.replace("+AR", "+BR"),
        VKEY[:-4],
        VKEY.replace("Peter", "Peter "),
        f"{VKEY}\n",
    ],
)
def test_what_is_no_key(vkey: str) -> None:
    with pytest.raises(NoteError):
        parse_vkey(vkey)


@pytest.mark.parametrize(
    "private", ["", VKEY, PRIVATE.replace("c74f", "c74e"), PRIVATE[:-4], PRIVATE + "AAAA"]
)
def test_what_is_no_private_key(private: str) -> None:
    with pytest.raises(NoteError) as caught:
        Signer.parse(private)
    assert "AYEKFALV" not in str(caught.value)  # not in an error either


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u2003b"])
def test_what_can_be_no_name(name: str) -> None:
    with pytest.raises(NoteError):
        Signer(name, bytes(32))


def test_a_checkpoint() -> None:
    signer = Signer("runner.log/ab", bytes(32))
    note = sign(Checkpoint(signer.name, 7, ROOT).text, [signer])
    assert parse_checkpoint(note) == Checkpoint(signer.name, 7, ROOT)
    assert note.splitlines()[:3] == [
        "runner.log/ab",
        "7",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ]
    more = sign(Checkpoint(signer.name, 7, ROOT).text + "of others\n", [signer])
    assert parse_checkpoint(more).size == 7


@pytest.mark.parametrize(
    "text",
    [
        "o\n7\n",
        "o\n07\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n-7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n7\nAAEC\n",
        "o\n7\nno base64\n",
        "\n7\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
        "o\n9999999999999999999\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n",
    ],
)
def test_what_is_no_checkpoint(text: str) -> None:
    with pytest.raises(ValueError, match="it"):
        parse_checkpoint(sign(text, [Signer("o", bytes(32))]))


def test_a_file_of_kept_checkpoints() -> None:
    signer, witness = Signer("runner.log/ab", bytes(32)), Signer("witness", b"1" * 32)
    notes = [sign(Checkpoint(signer.name, n, ROOT).text, [signer, witness]) for n in (5, 2, 9)]
    for between in ("", "\n", "\n\n\n"):
        found = kept_notes(between.join(notes))
        assert [(each.size, each.kept) for each in found] == [(2, True), (5, True), (9, True)]
        assert sorted(str(each.note) for each in found) == sorted(notes)
    for text in ("", "\n", "x", f"x\n{notes[0]}", f"{notes[0]}x", notes[0][:-9]):
        with pytest.raises(ValueError, match="checkpoint"):
            kept_notes(text)
    assert parse_note(notes[0]).signatures[1].name == "witness"
