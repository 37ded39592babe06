"""Sessions over the exec API: a real server, real keepers, real sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
from serving import Server, events, serving

from runner import AsyncRunner, Runner, RunnerError, connect
from runner.errors import ForbiddenError, NotFoundError, RequestError, TooLargeError
from runner.model.identity import Identity, Verb
from runner.model.session import FileDeed, FileTask
from runner.schema.api_answers import (
    ErrorAnswer,
    FileList,
    FileRow,
    ProcessList,
    RunAnswer,
    SessionAnswer,
    SessionList,
)
from runner.schema.outcome_model import OutcomeDocument
from runner.streams import CallbackSink
from runner.surfaces.http.app import create_app
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.jobs import Room

pytestmark = pytest.mark.usefixtures("native")

PUT = "PUT /v1/sessions/{}/files?path={} HTTP/1.1\r\nHost: r\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A state folder; fresh workspaces stand beside it."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    return tmp_path / "home"


def folders(home: Path) -> list[Path]:
    return list((home.parent / "tmp").glob("runner-session-*"))


@contextlib.contextmanager
def begun(client: httpx.Client, **body: Any) -> Iterator[str]:
    """The address of a session, which is stopped at the end."""
    answer = client.post("/v1/sessions", json={"lifetime": "10m", **body})
    assert answer.status_code == 201, answer.text
    told = SessionAnswer.model_validate_json(answer.content)
    where = f"/v1/sessions/{told.id}"
    assert answer.headers["location"] == where
    try:
        yield where
    finally:
        assert client.delete(where).status_code in (200, 404)


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = ErrorAnswer.model_validate_json(answer.content).error
    assert error.code == code
    return error.message


def ran(client: httpx.Client, where: str, shell: str, **body: Any) -> OutcomeDocument:
    answer = client.post(f"{where}/runs", json={"shell": shell, **body})
    assert answer.status_code == 200, answer.text
    return OutcomeDocument.model_validate_json(answer.content)


def listed(client: httpx.Client, where: str, path: str = ".") -> dict[str, FileRow]:
    answer = client.get(f"{where}/files/list", params={"path": path})
    assert answer.status_code == 200, answer.text
    found = FileList.model_validate_json(answer.content)
    assert not found.truncated
    return {row.name: row for row in found.entries}


def test_a_session_from_its_start_to_its_end(home):
    with serving(home) as (_, client):
        with begun(
            client, agent="a", files={"in/x": "sent"}, env={"GIVEN": "g"}, labels={"k": "v"}
        ) as where:
            session_id = where.rpartition("/")[2]
            first = ran(client, where, "cat in/x; echo $GIVEN; echo kept > y; sleep 1000 &")
            assert (first.termination, first.stdout) == ("exited", "sentg\n")
            assert ran(client, where, "cat y").stdout == "kept\n"
            state = SessionAnswer.model_validate_json(client.get(where).content)
            assert (state.agent, state.profile, state.processes) == ("a", "agent", 1)
            assert not state.runs
            assert state.session == session_id
            page = SessionList.model_validate_json(client.get("/v1/sessions").content)
            assert [each.id for each in page.sessions] == [session_id]
            assert page.next is None
            found = ProcessList.model_validate_json(client.get(f"{where}/processes").content)
            (process,) = found.processes
            assert process.argv == ("sleep", "1000")
            ended = f"{where}/processes/{process.number}"
            refused(client.delete(ended, params={"signal": 65}), 400, "bad_request")
            assert client.delete(ended, params={"signal": 9}).status_code == 204
            while client.get(f"{where}/processes").json()["processes"]:
                time.sleep(0.02)
            refused(client.delete(ended), 404, "not_found")
            run = RunAnswer.model_validate_json(client.get(f"/v1/runs/{session_id}").content)
            assert run.status == "running"
            (folder,) = folders(home)
            assert state.directory == str(folder / "work")
            assert folder.stat().st_mode & 0o077 == 0
            stopped = client.delete(where)
            outcome = OutcomeDocument.model_validate_json(stopped.content)
            assert stopped.headers["location"] == f"/v1/runs/{session_id}"
            assert (outcome.termination, outcome.exit_code) == ("exited", 0)
            assert [each.path for each in outcome.workspace.changes] == ["y"]
        unknown = "ses-" + 20 * "0"
        for path in ("", "/processes", "/files?path=y", "/files/list", "/files/stat?path=y"):
            told = refused(client.get(where + path), 404, "not_found")
            other = refused(client.get(f"/v1/sessions/{unknown}{path}"), 404, "not_found")
            assert told.replace(session_id, unknown) == other
        refused(client.post(f"{where}/runs", json={"argv": ["true"]}), 404, "not_found")
        assert client.get("/v1/sessions").json()["sessions"] == []
        # What it changed can be looked at while the server remembers it.
        diff = client.get(f"/v1/runs/{session_id}/diff").json()["files"]
        assert [each["path"] for each in diff] == ["y"]
        assert "+kept" in diff[0]["diff"]
    assert folders(home) == []


def test_commands_are_runs_like_any_other(home):
    with serving(home) as (_, client), begun(client) as where:
        runs = f"{where}/runs"
        assert ran(client, where, "sudo ls").termination == "denied"
        assert ran(client, where, "cat", stdin="read").stdout == "read"
        limited = ran(client, where, "sleep 1000", limits={"wall": "1s"})
        assert (limited.termination, limited.limit) == ("limit", "wall")
        for wrong in (
            {"shell": "true", "limits": {"memory": "1GiB"}}, {"shell": "true", "argv": ["true"]},
            {"shell": "true", "cwd": "/"}, {"shell": "true", "agent": "b"}, {},
            {"shell": "true", "profile": "ci"},
        ):  # fmt: skip
            refused(client.post(runs, json=wrong), 400, "bad_request")
        answer = client.post(
            runs, json={"shell": "echo one; sleep 1000 & echo two; exit 3", "wait": False}
        )
        assert answer.status_code == 202
        with client.stream("GET", answer.headers["location"] + "/events") as stream:
            heard = list(events(stream))
        text = "".join(data["data"] for _, kind, data in heard if kind == "output")
        assert text == "one\ntwo\n"
        assert (heard[0][1], heard[-1][1]) == ("decision", "outcome")
        assert heard[-1][2]["exit_code"] == 3
        # Who begins it and follows it gets all, at the pace of reading it.
        asked = {"shell": "seq 200000; printf '\\377' >&2"}
        with client.stream("POST", runs, json=asked, headers={"Accept": "text/event-stream"}) as s:
            heard = list(events(s))
        out = [data for _, kind, data in heard if kind == "output" and data["stream"] == "stdout"]
        assert "".join(data["data"] for data in out) == "".join(f"{n + 1}\n" for n in range(200000))
        assert heard[-1][2]["exit_code"] == 0
        # One that is cancelled is ended, with what it started; the session is not.
        answer = client.post(runs, json={"shell": "sleep 2000 & sleep 3000", "wait": False})
        run = answer.headers["location"]
        while answer.json()["id"] not in client.get(where).json()["runs"]:
            time.sleep(0.02)
        assert client.delete(run).status_code == 202
        with client.stream("GET", run + "/events") as stream:
            assert list(events(stream))[-1][2]["termination"] == "cancelled"
        argvs = [each["argv"] for each in client.get(f"{where}/processes").json()["processes"]]
        assert argvs == [["sleep", "1000"]]
        # A key is for one command of one session.
        key = {"Idempotency-Key": "k"}
        made = [client.post(runs, json={"shell": "echo >> n"}, headers=key) for _ in range(2)]
        assert made[0].json()["run_id"] == made[1].json()["run_id"]
        assert ran(client, where, "wc -l < n").stdout.strip() == "1"
        refused(client.post(runs, json={"shell": "id"}, headers=key), 409, "conflict")
        with begun(client) as other:
            again = client.post(f"{other}/runs", json={"shell": "echo >> n"}, headers=key)
            refused(again, 409, "conflict")
            asked = {"lifetime": "5m"}
            twice = [client.post("/v1/sessions", json=asked, headers={"Idempotency-Key": "s"})
                     for _ in range(2)]  # fmt: skip
            assert twice[0].json()["id"] == twice[1].json()["id"] != other
            assert client.delete(twice[0].headers["location"]).status_code == 200


def test_what_a_session_is_begun_with_is_held_against_the_caller(home, tmp_path):
    shared = tmp_path / "shared"
    (shared / "w").mkdir(parents=True)
    with serving(home, "--folder", str(shared)) as (server, client):

        def key(name: str, *words: str) -> dict[str, str]:
            made = server.cli("keys", "create", name, *words)
            assert made.returncode == 0, made.stderr
            return {"Authorization": f"Bearer {made.stdout.strip()}"}

        own = ("--tenant", "t", "--profile", "agent")
        one, two = key("one", "--agent", "one", *own), key("two", "--agent", "two", *own)
        reader = key("reader", "--agents", "*", "--tenant", "*", "--verb", "read")
        for wrong, status in (
            ({"agent": "two"}, 403), ({"tenant": "other"}, 403), ({}, 403),
            ({"tenant": "t", "parent": "two"}, 403),
            ({"tenant": "t", "profile": "ci"}, 403), ({"tenant": "t", "cwd": "/usr"}, 400),
            ({"tenant": "t", "cwd": str(shared / "w"), "files": {"a": "b"}}, 400),
            ({"tenant": "t", "lifetime": "10d"}, 400), ({"tenant": "t", "idle": 0}, 400),
            ({"tenant": "t", "files": {"../a": "b"}}, 400), ({"tenant": "t", "shell": "id"}, 400),
        ):  # fmt: skip
            code = "forbidden" if status == 403 else "bad_request"
            refused(client.post("/v1/sessions", json=wrong, headers=one), status, code)
        refused(
            client.post("/v1/sessions", json={"agent": "one"}, headers=reader), 403, "forbidden"
        )
        assert client.get("/v1/sessions").json()["sessions"] == []
        assert folders(home) == []

        answer = client.post(
            "/v1/sessions", json={"tenant": "t", "cwd": str(shared / "w")}, headers=one
        )
        where = answer.headers["location"]
        session_id = answer.json()["id"]
        assert answer.json()["directory"] == str(shared / "w")
        assert client.put(f"{where}/files?path=f", content=b"own", headers=one).status_code == 200
        calls: tuple[tuple[str, str, dict[str, Any]], ...] = (
            ("GET", "", {}), ("GET", "/processes", {}), ("GET", "/files?path=f", {}),
            ("GET", "/files/list", {}), ("GET", "/files/stat?path=f", {}),
            ("PUT", "/files?path=f", {"content": b"x"}), ("DELETE", "/files?path=f", {}),
            ("POST", "/runs", {"json": {"shell": "id"}}), ("DELETE", "/processes/2", {}),
            ("DELETE", "", {}),
        )  # fmt: skip
        for method, path, options in calls:
            told = client.request(method, where + path, headers=two, **options)
            assert session_id in refused(told, 404, "not_found")
            told = client.request(method, where + path, headers=reader, **options)
            if method == "GET":
                assert told.status_code == 200
            else:
                refused(told, 403, "forbidden")
        assert client.get("/v1/sessions", headers=two).json()["sessions"] == []
        for who in (one, reader):
            (row,) = client.get("/v1/sessions", headers=who).json()["sessions"]
            assert row["id"] == session_id
        ran_by_one = client.post(f"{where}/runs", json={"argv": ["true"]}, headers=one).json()
        for run_id in (session_id, ran_by_one["run_id"]):
            got = client.get("/v1/audit/events", params={"run": run_id, "kind": "run.decided"})
            (event,) = [row["event"] for row in got.json()["events"]]
            assert event["data"]["caller"].startswith("key:")
        # A profile that one may not use is not used by way of a session either.
        asked = {"agent": "one", "tenant": "t", "profile": "ci"}
        other = client.post("/v1/sessions", json=asked).headers["location"]
        refused(client.post(f"{other}/runs", json={"shell": "id"}, headers=one), 403, "forbidden")
        for put in (client.put(f"{other}/files?path=f", content=b"x", headers=one),
                    client.delete(f"{other}/files?path=f", headers=one),
                    client.delete(other, headers=one)):  # fmt: skip
            refused(put, 403, "forbidden")
        # Pages.
        first = client.get("/v1/sessions", params={"limit": 1}).json()
        assert [each["id"] for each in first["sessions"]] == [other.rpartition("/")[2]]
        query = {"limit": 1, "cursor": first["next"]}
        second = client.get("/v1/sessions", params=query).json()
        assert ([each["id"] for each in second["sessions"]], second["next"]) == ([session_id], None)
        refused(client.get("/v1/sessions", params={"cursor": "x"}), 400, "bad_request")
        agents = client.get("/v1/sessions", params={"agent": "two"}).json()["sessions"]
        assert agents == []
        for each in (other, where):
            assert client.delete(each).status_code == 200
    assert list((shared / "w").iterdir()) == []


def test_files_go_in_and_out_and_never_lead_out(home, tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_PROFILE_DIRS", str(tmp_path))
    (tmp_path / "guarded.yaml").write_text(
        "extends: agent\ndescription: d\nrules:\n  list:\n"
        "    - {id: no-key, match: {reads: '**/*.key'}, effect: deny, message: it is secret}\n"
        "    - {id: no-lock, match: {writes: '**/*.lock'}, effect: deny, message: it is kept}\n"
    )
    shared = tmp_path / "shared"
    shared.mkdir()
    secret = tmp_path / "secret"
    secret.write_text("host")
    (shared / "out").symlink_to(secret)
    (shared / "up").symlink_to("..")
    (shared / "a.key").write_text("k")
    os.mkfifo(shared / "fifo")
    with (
        serving(home, "--folder", str(shared)) as (_, client),
        begun(client, cwd=str(shared), profile="guarded") as where,
    ):
        files = f"{where}/files"

        def get(path: str, **query: Any) -> httpx.Response:
            return client.get(files, params={"path": path, **query})

        def put(path: str, content: bytes = b"x", **query: Any) -> httpx.Response:
            return client.put(files, params={"path": path, **query}, content=content)

        large = os.urandom(3 << 20)
        answer = put("deep/er/large", large)
        assert answer.json() == {"path": "deep/er/large", "size_bytes": len(large)}
        assert get("deep/er/large").content == large
        assert get("deep/er/large", offset=5, length=7).content == large[5:12]
        assert get("deep/er/large", offset=len(large)).content == b""
        assert get("deep/er/large", length=0).content == b""
        assert put("tool", b"#!/bin/sh\necho ran\n", executable=True).status_code == 200
        assert ran(client, where, "./tool").stdout == "ran\n"
        assert put("empty", b"").status_code == 200
        assert get("empty").content == b""
        row = FileRow.model_validate_json(
            client.get(f"{files}/stat", params={"path": "tool"}).content
        )
        assert (row.name, row.type, row.mode & 0o111) == ("tool", "file", 0o111)
        assert {"tool", "deep", "out", "empty"} <= set(listed(client, where))
        assert client.delete(files, params={"path": "empty"}).status_code == 204
        refused(client.delete(files, params={"path": "empty"}), 404, "not_found")
        refused(client.delete(files, params={"path": "deep"}), 400, "bad_request")
        assert not (shared / "deep").exists()

        # What the rules deny, and what is not there, are told apart.
        assert "no-key" in refused(get("a.key"), 403, "forbidden")
        assert "no-lock" in refused(put("x.lock"), 403, "forbidden")
        refused(client.delete(files, params={"path": "y.lock"}), 403, "forbidden")
        assert get("tool").status_code == 200

        # Links and paths lead where they lead in the sandbox: nowhere out.
        assert listed(client, where)["out"].target == str(secret)
        for path in ("out", "up/secret", "../secret", str(secret), f"up/{home.name}/audit.db",
                     "none"):  # fmt: skip
            refused(get(path), 404, "not_found")
        refused(get(f"/proc/1/root{secret}"), 400, "bad_request")
        for path in ("fifo", "/dev/zero", "/dev/null", ".", "deep", "/proc/1/mem", "tool/x"):
            answer = get(path)
            assert answer.status_code in (400, 403, 404), (path, answer.text)
        for path in ("/usr/x", "/etc/passwd", "/dev/x", "/proc/x", "..", ".", "x/", "\0"):
            assert put(path).status_code in (400, 403, 404), path
        assert put("out", b"mine").status_code == 200  # the link itself is replaced
        assert get("out").content == b"mine"
        assert secret.read_text() == "host"
        assert (shared / "out").is_symlink()
        for wrong in (get(""), get("x" * 5000), get("tool", offset=-1), get("tool", length="x"),
                      client.get(files), get("tool", offset=1 << 70)):  # fmt: skip
            refused(wrong, 400, "bad_request")
        made = ran(
            client, where, "mkdir many; cd many; seq 10050 | xargs touch; touch -d @-9e15 old"
        )
        assert made.termination == "exited"
        answer = client.get(f"{files}/list", params={"path": "many"})
        found = FileList.model_validate_json(answer.content)
        assert (len(found.entries), found.truncated) == (10_000, True)
        ran(
            client,
            where,
            "mkdir odd; cd odd; touch $'\\xff' '\U0001f600'; touch -d @99999999999999 t",
        )
        rows = listed(client, where, "odd")
        assert len(rows) == 3
        assert rows["t"].modified is None or rows["t"].modified.startswith("9")


def test_an_upload_that_is_cut_leaves_nothing(home):
    with serving(home) as (server, client), begun(client, files={"f": "old"}) as where:
        session_id = where.rpartition("/")[2]
        for sent in (b"", b"a" * 70_000, b"a" * 3_000_000):
            with server.raw() as leaving:
                head = PUT.format(session_id, "f", 4_000_000).encode()
                leaving.sendall(head + sent)
        while any(name != "f" for name in listed(client, where)):
            time.sleep(0.05)
        assert client.get(f"{where}/files?path=f").text == "old"
        most = 16 << 20
        with server.raw() as large:
            large.sendall(PUT.format(session_id, "f", most + 1).encode())
            assert large.recv(65536).split()[1] == b"413"
        with server.raw() as endless:
            head = f"PUT {where}/files?path=f HTTP/1.1\r\nHost: r\r\n"
            endless.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            assert endless.recv(65536).split()[1] == b"400"
        assert client.get(f"{where}/files?path=f").text == "old"
        whole = b"b" * most
        assert client.put(f"{where}/files?path=f", content=whole).status_code == 200
        assert client.get(f"{where}/files?path=f").content == whole


def test_a_download_that_is_left_or_cut_ends(home):
    with serving(home, "--at-once", "1") as (server, client), begun(client) as where:
        assert ran(client, where, "truncate -s 300M large").termination == "exited"
        head = f"GET {where}/files?path=large HTTP/1.1\r\nHost: r\r\n\r\n"
        for _ in range(20):  # more than may be on their way at once
            with server.raw() as leaving:
                leaving.sendall(head.encode())
                assert (said := leaving.recv(1000)).startswith(b"HTTP/1.1 200"), said
        while (
            client.get(f"{where}/files", params={"path": "large", "length": 1}).status_code != 200
        ):
            time.sleep(0.05)
        assert client.get(f"{where}/files/stat?path=large").json()["size_bytes"] == 300 << 20
        # Cut in the middle, because the session ends: it is not taken for all of it.
        count = 0
        address = f"{where}/files?path=large"
        with server.client() as other, client.stream("GET", address) as stream:
            pieces = stream.iter_bytes()
            count += len(next(pieces))
            assert other.delete(where).status_code == 200
            with pytest.raises(httpx.HTTPError):
                count += sum(map(len, pieces))
        assert count < 300 << 20


def test_sessions_outlive_a_server_that_is_killed(home):
    server = Server(home)
    with server.client() as client:
        asked = {"files": {"f": "sent"}, "lifetime": "10m"}
        session_id = client.post("/v1/sessions", json=asked).json()["id"]
        where = f"/v1/sessions/{session_id}"
        assert ran(client, where, "echo more >> f; sleep 1000 &").termination == "exited"
        lost = client.post(f"{where}/runs", json={"shell": "sleep 1000", "wait": False}).json()[
            "id"
        ]
        while lost not in client.get(where).json()["runs"]:
            time.sleep(0.02)
        short = client.post("/v1/sessions", json={"files": {"g": ""}, "lifetime": "3s"}).json()[
            "id"
        ]
        with server.raw() as uploading:
            uploading.sendall(PUT.format(session_id, "g", 9_000_000).encode() + b"g" * 200_000)
            while "g" not in "".join(each[1:2] for each in listed(client, where)):
                time.sleep(0.02)
            server.end(signal.SIGKILL)
    server.path.unlink()
    with serving(home) as (_, client):
        # Its keeper ends it in time, whoever is there.
        while client.get(f"/v1/runs/{short}").json()["status"] == "running":
            time.sleep(0.1)
        outcome = client.get(f"/v1/runs/{short}").json()["outcome"]
        assert (outcome["termination"], outcome["limit"]) == ("limit", "wall")
        refused(client.get(f"/v1/sessions/{short}"), 404, "not_found")
        (row,) = client.get("/v1/sessions").json()["sessions"]
        assert row["id"] == session_id
        assert ran(client, where, "cat f").stdout == "sentmore\n"
        # What was not whole is gone, and the command that nobody waits for is ended.
        while set(listed(client, where)) != {"f"}:
            time.sleep(0.05)
        while (ended := client.get(f"/v1/runs/{lost}").json()["outcome"]) is None:
            time.sleep(0.05)
        assert ended["termination"] == "cancelled"
        while client.get(where).json()["runs"]:
            time.sleep(0.05)
    # And outlive one that ends.
    (left,) = folders(home)
    with serving(home) as (_, client):
        assert ran(client, where, "cat f").stdout == "sentmore\n"
        assert str(left / "work") == client.get(where).json()["directory"]
        assert client.delete(where).status_code == 200
    assert folders(home) == []


def test_more_than_it_takes_is_told_to_come_again(home):
    with serving(home, "--at-once", "1", "--queue", "1") as (_, client), begun(client) as where:
        runs = f"{where}/runs"
        asked = {"shell": "sleep 1000", "wait": False}
        taken = [client.post(runs, json=asked) for _ in range(2)]
        assert [each.status_code for each in taken] == [202, 202]
        answer = client.post(runs, json=asked)
        refused(answer, 429, "busy")
        assert answer.headers["retry-after"]
        for each in taken:
            run = each.headers["location"]
            client.delete(run)
            while client.get(run).json()["outcome"] is None:
                time.sleep(0.02)
        assert ran(client, where, "echo on").stdout == "on\n"
        # A session that ends while its command waits takes that with it.
        first = client.post(runs, json=asked)
        second = client.post(runs, json={"shell": "true", "wait": False})
        while first.json()["id"] not in client.get(where).json()["runs"]:
            time.sleep(0.02)
        assert client.delete(where).status_code == 200
        with client.stream("GET", second.headers["location"] + "/events") as stream:
            told = list(events(stream))
        _, kind, data = told[-1]  # it may have been about to begin
        assert kind in ("error", "outcome"), told
        ended = data["code"] if kind == "error" else data["termination"]
        assert ended in ("not_found", "unreachable", "runner_failed", "cancelled"), told
        with client.stream("GET", first.headers["location"] + "/events") as stream:
            told = list(events(stream))
        assert told[-1][1] == "outcome", told[-1]


def test_there_is_room_for_so_many_sessions(home):
    own = Identity("key:o", frozenset(Verb), agents=("*",), tenants=("*",), profiles=("*",))

    async def everybody(_: object) -> Identity:
        return own

    async def asked(runner: Runner, fresh: FreshWorkspaces) -> None:
        app = create_app(runner, everybody, fresh, room=Room(1, 1, sessions=1))
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
            both = await asyncio.gather(*(client.post("/v1/sessions", json={}) for _ in range(2)))
            assert sorted(each.status_code for each in both) == [201, 429]
            (made,) = [each for each in both if each.status_code == 201]
            refused(await client.post("/v1/sessions", json={}), 429, "busy")
            assert (await client.delete(made.headers["location"])).status_code == 200
            again = await client.post("/v1/sessions", json={})
            assert again.status_code == 201
            assert len(folders(home)) == 2  # that of the last one is kept
            assert (await client.delete(again.headers["location"])).status_code == 200
        service = app.state.service
        await service.jobs.stop(60, asyncio.Event())
        refused(
            await httpx.AsyncClient(transport=transport, base_url="http://r").post(
                "/v1/sessions", json={}
            ),
            503,
            "stopping",
        )
        service.sessions.close()

    with Runner(home=home) as runner, FreshWorkspaces() as fresh:
        asyncio.run(asked(runner, fresh))
    assert folders(home) == []


def test_a_servers_sessions_from_python(home):
    with serving(home) as (server, _), connect(f"unix:{server.path}") as runner:
        with runner.sessions.start(agent="a", files={"x": b"\xff\x00"}, idle=600) as session:
            assert session.principal.agent == session.state().principal.agent == "a"
            assert session.state().idle_limit_s == 600
            assert session.read("x", offset=1) == b"\x00"
            session.write("d/y", "text", executable=True)
            outcome = session.run(shell="cat d/y; sleep 1000 & exit 3")
            assert (outcome.exit_code, outcome.stdout.data) == (3, b"text")
            pieces: list[bytes] = []
            session.run(["seq", "3"], stdout=CallbackSink(pieces.append))
            assert b"".join(pieces) == b"1\n2\n3\n"
            target = io.BytesIO()
            told = session.do(FileTask(FileDeed.LIST, "."), target=target)
            assert told == {"entries": 2, "truncated": False}
            rows = [json.loads(line) for line in target.getvalue().splitlines()]
            assert [row["name"] for row in rows] == ["d", "x"]
            assert session.do(FileTask(FileDeed.STAT, "d/y"))["size_bytes"] == 4
            with pytest.raises(RequestError, match="none"):
                session.read("none")
            with pytest.raises(NotFoundError, match="none"):
                session.do(FileTask(FileDeed.STAT, "none"))
            with pytest.raises(TooLargeError):
                session.write("large", b"x" * ((16 << 20) + 1))
            with pytest.raises(ForbiddenError):
                session.write("/home/x/.ssh/authorized_keys", b"x")
            (process,) = session.processes()
            assert session.end_process(process.number, signal.SIGKILL)
            assert not session.end_process(9999)
            assert [each.id for each in runner.sessions.all()] == [session.id]
            assert runner.sessions.get(session.id).profile == session.profile
        with pytest.raises(NotFoundError):
            session.state()
        with pytest.raises(NotFoundError):
            session.end_process(1)

        async def asynchronously() -> None:
            async with await AsyncRunner.connect(f"unix:{server.path}") as other:
                async with await other.sessions.start() as made:
                    await made.write("f", b"x")
                    assert await made.read("f") == b"x"
                    assert (await made.state()).id == made.id
                    assert [each.id for each in await other.sessions.all()] == [made.id]
                    assert (await (await other.sessions.get(made.id)).run(["true"])).ok
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(made.run(["sleep", "1000"]), 2)
                    assert (await made.state()).runs == ()
                    assert await made.processes() == ()
                    assert not await made.end_process(9999)
                    done = await made.do(FileTask(FileDeed.REMOVE, "f"))
                    assert done == {}
                with pytest.raises(RunnerError):
                    await made.stop()

        asyncio.run(asynchronously())
