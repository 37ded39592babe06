"""`runner serve`: runs over HTTP, from their request to their record."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from serving import COMMAND, Server, events, serving

from runner.schema.api_answers import (
    AppliedAnswer,
    BudgetList,
    ChangesAnswer,
    CheckpointAnswer,
    DecisionAnswer,
    DiffAnswer,
    DiscardedAnswer,
    ErrorAnswer,
    EventList,
    ProfileList,
    RunAccepted,
    RunAnswer,
    RunList,
)
from runner.schema.outcome_model import OutcomeDocument

pytestmark = pytest.mark.usefixtures("native")


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


def refused(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    error = ErrorAnswer.model_validate_json(answer.content).error
    assert error.code == code
    return error.message


def ended(client: httpx.Client, run_id: str) -> RunAnswer:
    """The run, once its events have ended."""
    with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
        for _ in events(stream):
            pass
    return RunAnswer.model_validate_json(client.get(f"/v1/runs/{run_id}").content)


def test_runs_and_denials_are_answered_with_their_outcomes(home, tmp_path):
    with serving(home) as (server, client):
        assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
        assert client.get("/healthz").json()["status"] == "ok"
        assert client.get("/readyz").json()["status"] == "ok"
        asked = {
            "code": "import sys; print(open('a/b').read() + sys.stdin.read() + sys.argv[1])",
            "language": "python",
            "args": ["three"],
            "files": {"a/b": "one ", "c": {"base64": base64.b64encode(b"\xff").decode()}},
            "stdin": "two ",
            "agent": "builder",
            "labels": {"task": "7"},
            "limits": {"wall": "20s"},
        }
        answer = client.post("/v1/runs", json=asked)
        assert answer.status_code == 200, answer.text
        outcome = OutcomeDocument.model_validate_json(answer.content)
        assert (outcome.termination, outcome.exit_code) == ("exited", 0)
        assert outcome.stdout == "one two three\n"
        assert answer.headers["location"] == f"/v1/runs/{outcome.run_id}"
        found = RunAnswer.model_validate_json(client.get(answer.headers["location"]).content)
        assert found.outcome == outcome
        assert (found.status, found.agent) == ("ended", "builder")

        denied = client.post("/v1/runs", json={"shell": "sudo ls"})
        assert denied.status_code == 200
        told = OutcomeDocument.model_validate_json(denied.content)
        assert told.termination == "denied"
        assert told.decision.rules[0].message
        limited = client.post("/v1/runs", json={"argv": ["sleep", "60"], "limits": {"wall": "1s"}})
        assert (limited.json()["termination"], limited.json()["limit"]) == ("limit", "wall")
        checked = client.post("/v1/decisions", json={"shell": "sudo ls"})
        assert DecisionAnswer.model_validate_json(checked.content).decision == told.decision
        shown = server.cli("audit", "show", outcome.run_id).stdout
        assert "builder" in shown
        assert "task=7" in shown
        assert server.cli("audit", "verify").returncode == 0


def test_a_run_is_followed_and_its_reader_comes_back(home):
    with serving(home) as (_, client):
        text = "echo one; printf '\\377' >&2; sleep 1; echo two; touch new"
        answer = client.post("/v1/runs", json={"shell": text, "wait": False})
        assert answer.status_code == 202
        accepted = RunAccepted.model_validate_json(answer.content)
        where = f"/v1/runs/{accepted.id}"
        assert answer.headers["location"] == where
        with client.stream("GET", f"{where}/events") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            heard = list(events(stream))
        kinds = [kind for _, kind, _ in heard]
        assert (kinds[0], kinds[-1]) == ("decision", "outcome")
        assert {"output", "usage"} <= set(kinds)
        assert heard[0][2]["run_id"] == accepted.id
        told = [data for _, kind, data in heard if kind == "output"]
        assert "".join(d["data"] for d in told if d["stream"] == "stdout") == "one\ntwo\n"
        (error,) = [d for d in told if d["stream"] == "stderr"]
        assert (error["encoding"], base64.b64decode(error["data"])) == ("base64", b"\xff")
        assert [d["offset"] for d in told if d["stream"] == "stdout"] == [0, 4]
        assert heard[-1][2]["workspace"]["changes"][0]["path"] == "new"
        assert "stdout" not in heard[-1][2]

        middle = heard[2][0]
        with client.stream("GET", f"{where}/events", headers={"Last-Event-ID": middle}) as stream:
            assert list(events(stream)) == heard[3:]
        done = client.get(f"{where}/events", headers={"Last-Event-ID": heard[-1][0]})
        assert done.status_code == 204
        refused(client.get(f"{where}/events", headers={"Last-Event-ID": "x"}), 400, "bad_request")
        assert client.get(f"{where}/output/stdout").content == b"one\ntwo\n"
        assert client.get(f"{where}/output/stderr").content == b"\xff"
        refused(client.get(f"{where}/output/program"), 400, "bad_request")


def test_who_waits_for_a_while_is_told_that_it_goes_on(home):
    with serving(home) as (_, client):
        answer = client.post("/v1/runs", json={"shell": "sleep 2; echo end", "wait": 0.2})
        assert answer.status_code == 202
        run_id = answer.json()["id"]
        now = RunAnswer.model_validate_json(client.get(f"/v1/runs/{run_id}").content)
        assert (now.status, now.outcome) == ("running", None)
        listed = RunList.model_validate_json(client.get("/v1/runs?status=running").content)
        assert [run.id for run in listed.runs] == [run_id]
        outcome = ended(client, run_id).outcome
        assert outcome is not None
        assert outcome.stdout == "end\n"
        waited = client.post("/v1/runs", json={"argv": ["true"], "wait": 60})
        assert waited.status_code == 200


def test_a_run_is_cancelled_while_it_runs_and_while_it_waits(home):
    with serving(home, "--at-once", "1", "--queue", "1") as (_, client):
        asked = {"argv": ["sleep", "60"], "wait": False}
        first, second = (client.post("/v1/runs", json=asked).json()["id"] for _ in range(2))
        waiting = RunList.model_validate_json(client.get("/v1/runs?status=queued").content)
        assert [run.id for run in waiting.runs] == [second]
        for busy in (asked, {**asked, "wait": True}):
            answer = client.post("/v1/runs", json=busy)
            refused(answer, 429, "busy")
            assert int(answer.headers["retry-after"]) >= 1
        assert client.delete(f"/v1/runs/{second}").json()["status"] == "queued"
        assert client.delete(f"/v1/runs/{first}").status_code == 202
        for run_id in (first, second):
            outcome = ended(client, run_id).outcome
            assert outcome is not None
            assert outcome.termination == "cancelled"
        assert client.delete(f"/v1/runs/{first}").json()["status"] == "ended"
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0


def test_a_request_that_is_sent_again_gets_the_same_run(home):
    with serving(home) as (server, client):
        asked = {"shell": "sleep 1; echo once"}
        key = {"Idempotency-Key": "k1"}

        def send(_: int) -> dict[str, object]:
            with server.client() as own:
                return own.post("/v1/runs", json=asked, headers=key).json()

        with ThreadPoolExecutor(8) as threads:
            outcomes = list(threads.map(send, range(8)))
        assert len({outcome["run_id"] for outcome in outcomes}) == 1
        assert all(outcome == outcomes[0] for outcome in outcomes)
        assert len(client.get("/v1/runs").json()["runs"]) == 1
        # Spelled otherwise, and answered otherwise, it is the same request.
        again = client.post("/v1/runs", json={"env": {}, **asked, "wait": 5}, headers=key)
        assert again.json() == outcomes[0]
        other = client.post("/v1/runs", json={"shell": "echo other"}, headers=key)
        refused(other, 409, "conflict")
        wrong = client.post("/v1/runs", json={"shell": "x"}, headers={"Idempotency-Key": "a b"})
        refused(wrong, 400, "bad_request")
        # What could not begin holds no key.
        bad = {"argv": ["true"], "profile": "nowhere"}
        key = {"Idempotency-Key": "k2"}
        refused(client.post("/v1/runs", json=bad, headers=key), 400, "bad_profile")
        good = client.post("/v1/runs", json={"argv": ["true"]}, headers=key)
        assert good.status_code == 200


def test_a_slow_reader_neither_stops_the_run_nor_is_lied_to(home):
    with serving(home) as (server, client):
        text = "sleep 1; head -c 3000000 /dev/zero | tr '\\0' x; echo end >&2"
        run_id = client.post("/v1/runs", json={"shell": text, "wait": False}).json()["id"]
        with server.raw() as slow:
            ask = f"GET /v1/runs/{run_id}/events HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n"
            slow.sendall(ask.encode())
            # It reads nothing; the run ends all the same.
            with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
                *_, last = events(stream)
            assert (last[1], last[2]["exit_code"]) == ("outcome", 0)
            assert last[2]["stdout_bytes"] == 3_000_000
            read = b""
            while piece := slow.recv(1 << 20):
                read += piece
        assert len(read) < 3_000_000
        assert b"event: dropped\n" in read
        assert read.rstrip().count(b"event: outcome\n") == 1
        kept = client.get(f"/v1/runs/{run_id}/output/stdout").content
        assert kept == b"x" * len(kept)
        assert len(kept) == 1 << 20  # keep_output_bytes


def test_what_a_run_changed_is_looked_at_applied_and_discarded(home, tmp_path):
    work = tmp_path / "work"
    work.mkdir()
    (work / "old").write_text("before\n")
    with serving(home, "--folder", str(work)) as (_, client):
        asked = {"shell": "echo after > old; echo > new", "cwd": str(work)}
        run_id = client.post("/v1/runs", json=asked).json()["run_id"]
        found = ChangesAnswer.model_validate_json(client.get(f"/v1/runs/{run_id}/changes").content)
        assert [(c.path, c.kind, c.left) for c in found.changes] == [
            ("new", "created", True),
            ("old", "modified", True),
        ]
        diff = client.get(f"/v1/runs/{run_id}/diff", params={"path": "old"})
        (file,) = DiffAnswer.model_validate_json(diff.content).files
        assert "-before\n+after\n" in file.diff
        dry = client.post(f"/v1/runs/{run_id}/apply", json={"dry_run": True})
        assert AppliedAnswer.model_validate_json(dry.content).dry_run
        assert (work / "old").read_text() == "before\n"
        applied = client.post(f"/v1/runs/{run_id}/apply", json={"paths": ["old"]})
        assert AppliedAnswer.model_validate_json(applied.content).left == 1
        assert (work / "old").read_text() == "after\n"
        assert not (work / "new").exists()
        for discarded in (True, False):
            gone = client.delete(f"/v1/runs/{run_id}/changes")
            assert DiscardedAnswer.model_validate_json(gone.content).discarded is discarded
        # Where no run may be, whether there is such a folder or not, is told alike.
        told = []
        for cwd in (tmp_path, tmp_path / "nowhere", work / ".." / "home"):
            answer = client.post("/v1/runs", json={"argv": ["ls"], "cwd": str(cwd)})
            told.append(re.sub("'.*'", "", refused(answer, 400, "bad_request")))
        assert len(set(told)) == 1
        both = {**asked, "files": {"a": ""}}
        refused(client.post("/v1/runs", json=both), 400, "bad_request")


def test_the_log_the_profiles_and_the_budgets_are_read(home, tmp_path, monkeypatch):
    layers = tmp_path / "policy.d"
    layers.mkdir()
    (layers / "b.yaml").write_text("budgets: [{id: few, of: agent, per: 1h, calls: 3}]\n")
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(layers))
    with serving(home) as (server, client):
        ids = [
            client.post("/v1/runs", json={"argv": ["true"], "agent": agent}).json()["run_id"]
            for agent in ("a", "b", "a", "a", "a")
        ]
        assert client.get(f"/v1/runs/{ids[4]}").json()["outcome"]["termination"] == "denied"
        budgets = BudgetList.model_validate_json(client.get("/v1/budgets").content)
        assert [(b.scope, b.used) for b in budgets.budgets] == [("agent:a", 3), ("agent:b", 1)]
        profiles = ProfileList.model_validate_json(client.get("/v1/profiles").content)
        assert {"agent", "ci", "locked"} <= {profile.name for profile in profiles.profiles}

        seen: list[str] = []
        cursor = None
        while True:
            given = {"limit": 2, "agent": "a", **({"cursor": cursor} if cursor else {})}
            listed = RunList.model_validate_json(client.get("/v1/runs", params=given).content)
            seen += [run.id for run in listed.runs]
            if (cursor := listed.next) is None:
                break
        assert seen == [ids[4], ids[3], ids[2], ids[0]]
        refused(client.get("/v1/runs?cursor=x"), 400, "bad_request")

        for order in ("true", "false"):
            seqs: list[int] = []
            cursor = None
            while True:
                given = {"kind": "run.decided", "newest_first": order, "limit": 2}
                given |= {"cursor": cursor} if cursor else {}
                page = client.get("/v1/audit/events", params=given)
                listed = EventList.model_validate_json(page.content)
                seqs += [row.event["seq"] for row in listed.events]
                if (cursor := listed.next) is None:
                    break
            assert len(seqs) == len(set(seqs)) == 5
            assert seqs == sorted(seqs, reverse=order == "true")
        of_run = client.get("/v1/audit/events", params={"run": ids[0]}).json()["events"]
        assert [row["event"]["kind"] for row in of_run] == [
            "run.decided", "run.started", "run.ended",
        ]  # fmt: skip
        proof = tmp_path / "proof"
        proof.write_bytes(client.get(f"/v1/audit/proofs/{ids[0]}").content)
        point = CheckpointAnswer.model_validate_json(client.get("/v1/audit/checkpoint").content)
        assert server.cli("audit", "verify-proof", "--key", point.key, str(proof)).returncode == 0
        refused(client.get("/v1/audit/proofs/run-x"), 404, "not_found")
        metrics = client.get("/metrics").text
        assert 'runner_runs_total{effect="allow",termination="exited"} 4.0' in metrics
        assert 'route="/v1/runs/{run_id}"' in metrics
        assert client.get("/openapi.json").json()["openapi"].startswith("3.1")


def test_another_server_knows_what_the_first_one_ran(home):
    with serving(home) as (_, client):
        text = "echo kept; touch new"
        first = client.post("/v1/runs", json={"shell": text, "agent": "a"}).json()
        denied = client.post("/v1/runs", json={"shell": "sudo ls"}).json()
    with serving(home) as (_, client):
        found = RunAnswer.model_validate_json(client.get(f"/v1/runs/{first['run_id']}").content)
        assert found.outcome is not None
        told = json.loads(found.outcome.model_dump_json())
        assert told == first
        again = client.get(f"/v1/runs/{denied['run_id']}").json()["outcome"]
        for rule in denied["decision"]["rules"]:
            rule.update(message="", matched="")  # which the log does not have
        assert again["decision"] == denied["decision"]
        assert again["audit"] == denied["audit"]
        with client.stream("GET", f"/v1/runs/{first['run_id']}/events") as stream:
            heard = list(events(stream))
        assert [kind for _, kind, _ in heard] == ["decision", "dropped", "outcome"]
        behind = client.get(f"/v1/runs/{first['run_id']}/events", headers={"Last-Event-ID": "7"})
        assert [kind for _, kind, _ in events(behind)] == ["dropped", "outcome"]
        assert client.get(f"/v1/runs/{first['run_id']}/output/stdout").content == b"kept\n"
        for path in ("", "/events", "/changes", "/diff", "/output/stdout"):
            refused(client.get(f"/v1/runs/run-nowhere{path}"), 404, "not_found")


def test_a_killed_server_leaves_a_record_that_the_next_one_closes(home):
    server = Server(home)
    with server.client() as client:
        asked = {"argv": ["sleep", "60"], "wait": False}
        run_id = client.post("/v1/runs", json=asked).json()["id"]
        with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            assert next(events(stream))[1] == "decision"
        server.end(signal.SIGKILL)
    assert server.path.exists()
    with serving(home) as (_, client):
        found = RunAnswer.model_validate_json(client.get(f"/v1/runs/{run_id}").content)
        assert found.status == "ended"
        assert found.outcome is not None
        assert found.outcome.termination == "unknown"


@pytest.mark.parametrize("hurry", [False, True])
def test_a_server_that_ends_lets_runs_end_or_ends_them_recorded(home, hurry):
    server = Server(home, "--grace", "60s" if hurry else "3s", "--at-once", "2")
    with server.client() as client:
        short = client.post("/v1/runs", json={"shell": "sleep 1", "wait": False}).json()["id"]
        long, queued = (
            client.post("/v1/runs", json={"argv": ["sleep", "60"], "wait": False}).json()["id"]
            for _ in range(2)
        )
        server.signalled()
        while client.get("/readyz").status_code == 200:
            pass
        answer = client.post("/v1/runs", json={"argv": ["true"]})
        refused(answer, 503, "stopping")
        assert "retry-after" in answer.headers
        assert client.get(f"/v1/runs/{long}").json()["status"] == "running"
        assert ended(client, short).outcome.termination == "exited"  # type: ignore[union-attr]
        # With a second signal at once, else at the end of the grace.
        said = server.end(signal.SIGTERM if hurry else 0)
    assert said == ""
    assert server.process.returncode == 0
    told = server.cli("audit", "search", "--kind", "run.ended").stdout
    assert [line.split()[-1] for line in told.splitlines()].count("cancelled") == 2
    assert long in told
    assert queued in told


@pytest.mark.parametrize("cancels", [False, True])
def test_who_goes_away_cancels_nothing_unless_it_asked(home, cancels):
    with serving(home) as (server, client):
        body = {"shell": "sleep 3; echo end", "cancel_on_disconnect": cancels}
        data = json.dumps(body).encode()
        with server.raw() as leaving:
            head = "POST /v1/runs HTTP/1.1\r\nHost: r\r\nContent-Type: application/json\r\n"
            leaving.sendall(f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data)
            while not (runs := client.get("/v1/runs?status=running").json()["runs"]):
                pass
        outcome = ended(client, runs[0]["id"]).outcome
        assert outcome is not None
        assert outcome.termination == ("cancelled" if cancels else "exited")


BAD_BODIES = (
    b"", b"[", b"{}", b"[]", b"null", b'{"argv":[]}', b'{"argv":["\\ud800"]}', b'{"argv":"ls"}',
    b'{"argv":["a\\u0000"]}', b'{"shell":"x","code":"y"}', b'{"code":"x"}', b"\xff",
    b'{"code":"x","language":"cobol"}', b'{"argv":["ls"],"profile":"/etc/x.yaml"}',
    b'{"argv":["ls"],"profile":"x.yaml"}', b'{"argv":["ls"],"limits":{"wall":"1y"}}',
    b'{"argv":["ls"],"limits":{"wall":"9h"}}', b'{"argv":["ls"],"files":{"../x":""}}',
    b'{"argv":["ls"],"files":{"a":"","a/b":""}}', b'{"argv":["ls"],"files":{"a":{"base64":"*"}}}',
    b'{"argv":["ls"],"cwd":"/nowhere"}', b'{"argv":["ls"],"cwd":"x"}', b'{"argv":["ls"],"wait":-1}',
    b'{"argv":["ls"],"agent":"a\\nb"}', b'{"argv":["ls"],"wait":NaN}', b"[" * 100_000,
    b'{"argv":["ls"],"agent":"' + b"a" * 300 + b'"}', b'{"argv":["ls"],"cwd":"/etc"}',
)  # fmt: skip


def test_what_is_wrong_is_said_and_nothing_runs(home):
    kind = {"Content-Type": "application/json"}
    with serving(home) as (_, client):
        for body in BAD_BODIES:
            answer = client.post("/v1/runs", content=body, headers=kind)
            assert 400 <= answer.status_code < 404, (body, answer.text)
            ErrorAnswer.model_validate_json(answer.content)
        refused(client.post("/v1/runs", content=b"{}"), 400, "bad_request")
        refused(client.get("/nowhere"), 404, "not_found")
        refused(client.put("/v1/runs", json={}), 405, "bad_request")
        refused(client.get("/v1/runs?limit=0"), 400, "bad_request")
        assert client.get("/v1/runs").json() == {"runs": [], "next": None}
        # The allowed twin.
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0


def test_where_it_can_not_listen_it_says_why(home, tmp_path):
    with serving(home) as (server, _):
        again = server.cli("serve", "--listen", f"unix:{server.path}")
        assert (again.returncode, again.stdout) == (2, "")
        assert "another server listens" in again.stderr
    file = tmp_path / "file"
    file.write_text("")
    for listen, why in (
        ("0.0.0.0:8000", "--tls-cert"),
        ("127.0.0.1", "is not unix:PATH"),
        ("192.0.2.1:1 --tls-cert x", "both --tls-cert FILE and --tls-key FILE"),
        (f"unix:{file}", "no socket"),
        (f"unix:{tmp_path}/{'x' * 100}", "at most 107 bytes"),
        ("unix:/nowhere/x", "No such file"),
        ("unix:", "needs a path"),
    ):
        refusal = server.cli("serve", "--listen", *listen.split(" "))
        assert refusal.returncode == 2, refusal.stderr
        assert why in refusal.stderr
    assert file.read_text() == ""


def test_a_socket_that_is_passed_is_listened_at_and_left(home, tmp_path):
    path = tmp_path / "passed.sock"
    text = 'exec 3<&"$0"; export LISTEN_PID=$$ LISTEN_FDS="$1"; shift; exec "$@"'
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX) as mute:
        listening.bind(str(path))
        listening.listen()

        def started(passed: socket.socket, count: str) -> subprocess.Popen[str]:
            words = ["bash", "-c", text, str(passed.fileno()), count, *COMMAND, "serve"]
            return subprocess.Popen(
                words,
                pass_fds=[passed.fileno()],
                env={**os.environ, "RUNNER_HOME": str(home)},
                stderr=subprocess.PIPE,
                text=True,
            )

        for passed, count, why in ((mute, "1", "no unix stream socket"), (listening, "2", "give")):
            with started(passed, count) as refusing:
                assert why in refusing.communicate(timeout=120)[1]
                assert refusing.returncode == 2
        with started(listening, "1") as server:
            # It was connected to before the server was there.
            transport = httpx.HTTPTransport(uds=str(path))
            with httpx.Client(transport=transport, base_url="http://r", timeout=120) as client:
                assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0
            server.send_signal(signal.SIGTERM)
            _, said = server.communicate(timeout=120)
        assert (server.returncode, said) == (0, "runner: listening at the socket that was passed\n")
        assert path.exists()


def test_without_the_extra_it_says_what_to_install(home):
    text = (
        "import sys; sys.modules['fastapi'] = None; "
        "from runner.surfaces.cli.main import main; sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, "serve"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 125
    assert "pip install 'runner-sandbox[server]'" in done.stderr
    listed = subprocess.run(
        [*COMMAND[:2], "import sys; from runner.surfaces.cli.main import app; "
         "print([m for m in ('fastapi', 'uvicorn', 'pydantic') if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert listed.stdout == "[]\n"


def test_many_clients_lose_nothing(home):
    with serving(home, "--at-once", "4", "--queue", "100") as (server, client):
        barrier = threading.Barrier(16)

        def send(number: int) -> tuple[int, str]:
            with server.client() as own:
                barrier.wait(60)
                got = own.post("/v1/runs", json={"argv": ["echo", str(number)]})
                return number, got.json()["stdout"]

        with ThreadPoolExecutor(16) as threads:
            answers = list(threads.map(send, range(16)))
        assert answers == [(number, f"{number}\n") for number in range(16)]
        assert len(client.get("/v1/runs?status=ended").json()["runs"]) == 16


def test_a_yes_is_for_the_same_request_sent_again(home, tmp_path, monkeypatch):
    layers = tmp_path / "policy.d"
    layers.mkdir()
    (layers / "asks.yaml").write_text(
        "rules:\n  list:\n  - {id: asks, effect: ask, match: {command: touch}, message: May it?}\n"
    )
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(layers))
    work = tmp_path / "work"
    work.mkdir()
    with serving(home) as (server, client):
        asked = {"argv": ["touch", "x"], "cwd": str(work)}
        first = client.post("/v1/runs", json=asked).json()
        assert first["termination"] == "denied"
        assert first["decision"]["effect"] == "ask"
        (question,) = json.loads(server.cli("approvals", "list", "--json").stdout)
        said = server.cli("approvals", "approve", question["id"], "--reason", "r")
        assert said.returncode == 0, said.stderr
        second = client.post("/v1/runs", json=asked).json()
        assert (second["termination"], second["exit_code"]) == ("exited", 0)
        assert second["decision"]["approved"]["id"] == question["id"]
        assert client.post("/v1/runs", json=asked).json()["termination"] == "denied"
    with serving(home) as (_, client):
        again = client.get(f"/v1/runs/{second['run_id']}").json()["outcome"]
        assert again["decision"]["approved"] == second["decision"]["approved"]


def test_a_served_run_is_killed_from_the_command_line(home):
    with serving(home) as (server, client):
        asked = {"argv": ["sleep", "1000"], "agent": "bot", "wait": False}
        run_id = RunAccepted.model_validate_json(client.post("/v1/runs", json=asked).content).id
        with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
            told = events(stream)
            assert next(told)[1] == "decision"
            killed = server.cli("kill", "--agent", "bot", "--reason", "enough")
            assert killed.returncode == 0, killed.stderr
            *_, (_, kind, outcome) = told
        assert (kind, outcome["termination"]) == ("outcome", "cancelled")
        assert outcome["killed"]["reason"] == "enough"
        denied = client.post("/v1/runs", json={"argv": ["true"], "agent": "bot"}).json()
        assert denied["decision"]["rules"][0]["id"] == "kill-switch"
        assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0


def test_a_served_run_waits_for_its_answer(home, tmp_path, monkeypatch):
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "asks.yaml").write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - {id: t, match: {command: touch}, effect: ask, message: look at it}\n"
    )
    monkeypatch.setenv("RUNNER_PROFILE_DIRS", str(profiles))
    monkeypatch.setenv("RUNNER_ASK_WAIT", "5m")
    with serving(home) as (server, client):
        for answer, status in (("approve", "exited"), ("deny", "denied")):
            asked = {"argv": ["touch", "x"], "profile": "asks", "wait": False}
            run_id = RunAccepted.model_validate_json(client.post("/v1/runs", json=asked).content).id
            with client.stream("GET", f"/v1/runs/{run_id}/events") as stream:
                told = events(stream)
                _, kind, question = next(told)
                assert (kind, question["rules"]) == ("asked", ["t"])
                done = server.cli("approvals", answer, question["id"], "--reason", "looked at it")
                assert done.returncode == 0, done.stderr
                *_, (_, _, outcome) = told
            assert outcome["termination"] == status
