"""Who is told of new questions: a file, a command, a signed webhook; and what could not be told."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from runner import Runner
from runner.settings import load_settings
from runner.stores import telling

SECRET = b"k" * 32


@pytest.fixture
def ask(tmp_path: Path, work: Path, native: None):
    """Has something asked about, with these settings; the runner is closed by then."""
    profile = tmp_path / "asks.yaml"
    profile.write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - {id: t, match: {command: touch}, effect: ask, message: look at it}\n"
    )

    def asked(*words: str, **settings: object) -> list[dict]:
        stated = {"home": str(tmp_path / "home"), **settings}
        with Runner(settings=load_settings(stated)) as runner:
            denied = runner.run(["touch", *words], cwd=work, profile=str(profile), agent="bot")
            assert denied.status == 126
        with Runner(home=tmp_path / "home") as runner:
            return [
                json.loads(e.body)["data"]
                for e in runner.store.events()
                if e.kind == "approval.untold"
            ]

    return asked


@contextmanager
def listening(*answers: int) -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """A server that gives these answers in turn, the last one for ever; and what it was sent."""
    got: list[tuple[dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((headers, self.rfile.read(length)))
            self.send_response(answers[min(len(got), len(answers)) - 1])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/asked", got
    finally:
        server.shutdown()
        server.server_close()


def secret_file(folder: Path, mode: int = 0o600) -> Path:
    path = folder / "webhook.secret"
    path.write_text(f"whsec_{base64.b64encode(SECRET).decode()}\n")
    path.chmod(mode)
    return path


def test_a_file_and_a_command_get_each_question(ask, tmp_path):
    kept, taken = tmp_path / "asked.jsonl", tmp_path / "taken"
    command = {"command": ["/bin/sh", "-c", f"cat > {taken}"]}
    token = "ghp_" + "A1b2" * 9
    assert ask("x", token, approvals_to=[str(kept), command]) == []
    told = json.loads(kept.read_text())
    assert told == json.loads(taken.read_text())
    assert (told["type"], told["data"]["agent"], told["data"]["rules"]) == (
        "approval.asked",
        "bot",
        ["t"],
    )
    assert told["data"]["program"].startswith("touch x ")
    assert token not in kept.read_text()


def test_a_webhook_is_signed_and_tried_again(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(telling, "PAUSES_S", (0.01, 0.01))
    with listening(503, 200) as (url, got):
        assert ask("x", approvals_to=url, approvals_secret=str(secret_file(tmp_path))) == []
    assert len(got) == 2
    headers, body = got[-1]
    told = json.loads(body)
    assert headers["content-type"] == "application/json"
    assert headers["webhook-id"] == told["data"]["id"]
    # The signature, made here from the words of the specification.
    signed = b".".join([told["data"]["id"].encode(), headers["webhook-timestamp"].encode(), body])
    expected = base64.b64encode(hmac.new(SECRET, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def test_who_could_not_be_told_is_recorded(ask, monkeypatch):
    monkeypatch.setattr(telling, "PAUSES_S", (0.01, 0.01))
    with listening(500) as (url, got):
        (untold,) = ask("x", approvals_to=url)
    assert (untold["to"], untold["why"]) == (url, "it answered with status 500")
    assert len(got) == 3


@pytest.mark.parametrize("wrong", ["others may read it", "none", "short", "no prefix"])
def test_nothing_goes_unsigned_where_a_secret_is_stated(ask, tmp_path, monkeypatch, wrong):
    monkeypatch.setattr(telling, "PAUSES_S", ())
    path = secret_file(tmp_path, 0o644 if wrong == "others may read it" else 0o600)
    if wrong == "none":
        path.unlink()
    elif wrong == "short":
        path.write_text(f"whsec_{base64.b64encode(b'k' * 23).decode()}")
    elif wrong == "no prefix":
        path.write_text(base64.b64encode(SECRET).decode())
    with listening(200) as (url, got):
        (untold,) = ask("x", approvals_to=url, approvals_secret=str(path))
    assert got == []
    assert str(path) in untold["why"]


def test_a_destination_that_never_answers_holds_nobody_up(ask, tmp_path, monkeypatch):
    monkeypatch.setattr(telling, "CLOSE_WAIT_S", 0.2)
    (untold,) = ask("x", approvals_to={"command": ["/bin/sleep", "1000"]})
    assert "did not end" in untold["why"] or "ended before" in untold["why"]
