"""Runs over a WebSocket: input as it comes, a terminal, and clients that mean harm."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

sys.path.insert(0, str(Path(__file__).parent))
from serving import Server, serving

pytestmark = pytest.mark.usefixtures("native")

RUNS = "/v1/runs"
END = json.dumps({"say": "end"})
CANCEL = json.dumps({"say": "cancel"})


@pytest.fixture
def server(runner_home: Path) -> Iterator[Server]:
    with serving(runner_home) as (server, _):
        yield server


@contextlib.contextmanager
def talk(server: Server, body: Any, path: str = RUNS, **options: Any) -> Iterator[ClientConnection]:
    """A client that has sent what is to be run; `body` None: nothing yet."""
    options = {"compression": None, "max_size": None, **options}
    with unix_connect(str(server.path), f"ws://runner{path}", **options) as client:
        if body is not None:
            client.send(json.dumps(body))
        yield client


def told(client: ClientConnection) -> Iterator[tuple[str, Any]]:
    """Kind and data of each event, to the end."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            event = json.loads(client.recv(timeout=60))
            assert set(event) == {"id", "event", "data"}
            yield event["event"], event["data"]


def data(event: Any) -> bytes:
    raw: str = event["data"]
    return raw.encode() if event["encoding"] == "utf-8" else base64.b64decode(raw)


def output(events: list[tuple[str, Any]], stream: str = "stdout") -> bytes:
    return b"".join(data(d) for kind, d in events if kind == "output" and d["stream"] == stream)


def outcome(events: list[tuple[str, Any]]) -> Any:
    kind, last = events[-1]
    assert kind == "outcome", events[-1]
    return last


def until(client: ClientConnection, wanted: bytes) -> bytes:
    """Read output until it holds that."""
    seen = b""
    while wanted not in seen:
        event = json.loads(client.recv(timeout=60))
        assert event["event"] not in ("outcome", "error"), (seen, event)
        if event["event"] == "output":
            seen += data(event["data"])
    return seen


def refused(client: ClientConnection) -> tuple[str, int | None]:
    """The code of the error that is the last event, and the close code."""
    (*_, (kind, error)) = told(client)
    assert kind == "error"
    return error["code"], client.close_code


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def terminations(server: Server) -> list[str]:
    with server.client() as client:
        found = client.get(RUNS, params={"limit": 200}).json()["runs"]
    return [run["termination"] for run in found]


def test_input_comes_while_it_runs(server):
    with talk(server, {"argv": ["cat"], "agent": "a"}) as client:
        client.send(b"one\n")
        assert until(client, b"one\n") == b"one\n"
        raw = bytes(range(256)) * 900
        client.send(raw)
        client.send([raw[:10], b"", raw[10:]])  # one message in fragments
        client.send(END)
        events = list(told(client))
        assert client.close_code == 1000
    assert output(events) == raw * 2
    found = outcome(events)
    assert (found["termination"], found["exit_code"]) == ("exited", 0)
    assert found["stdout_bytes"] == 4 + 2 * len(raw)
    with server.client() as other:
        assert other.get(f"{RUNS}/{found['run_id']}").json()["agent"] == "a"


def test_stderr_is_told_apart(server):
    with talk(server, {"shell": "read x; echo out; echo $x >&2"}) as client:
        client.send(b"err\n")
        events = list(told(client))
    assert (output(events), output(events, "stderr")) == (b"out\n", b"err\n")


def test_a_terminal_and_its_size(server):
    body = {
        "shell": "stty -echo; tty; stty size; read x; stty size; cat",
        "terminal": {"rows": 31, "columns": 97},
    }
    with talk(server, body) as client:
        assert b"/dev/pts/0\r\n31 97\r\n" in until(client, b"31 97\r\n")
        for rows in range(1000, 1, -1):
            client.send(json.dumps({"say": "resize", "size": {"rows": rows, "columns": 5}}))
        client.send(json.dumps({"say": "resize", "size": {"rows": 12, "columns": 34}}))
        time.sleep(0.2)  # the size follows within some tenths of a second
        client.send(b"go\r")
        assert b"12 34\r\n" in until(client, b"12 34\r\n")
        client.send(b"\x03")
        found = outcome(list(told(client)))
        # Whether it ends the shell or what that has just started is the kernel's to say.
        assert found["signal"] == signal.SIGINT or found["exit_code"] == 130


def test_a_terminal_s_input_ends(server):
    with talk(server, {"argv": ["cat"], "terminal": {"rows": 2, "columns": 9}}) as client:
        client.send(b"x\n")
        client.send(END)
        events = list(told(client))
    assert outcome(events)["exit_code"] == 0
    assert output(events) == b"x\r\nx\r\n"


def test_what_is_denied_and_what_is_wrong(server):
    with talk(server, {"shell": "sudo id"}) as client:
        events = list(told(client))
        assert client.close_code == 1000
    assert outcome(events)["termination"] == "denied"
    for body in (
        {"argv": ["true"], "stdin": "x"},
        {"argv": ["true"], "wait": False},
        {"argv": ["true"], "profile": "nope"},
        {"argv": ["true"], "terminal": {"rows": 0, "columns": 1}},
        {"argv": ["true"], "terminal": {"rows": 1, "columns": 5000}},
        {"argv": []},
        [],
    ):
        with talk(server, body) as client:
            code, closed = refused(client)
            assert code in ("bad_request", "bad_profile"), (body, code)
            assert closed == 1008
    for first in (b'{"argv": ["true"]}', "{", "null", "\0"):
        with talk(server, None) as client:
            client.send(first)
            assert refused(client) == ("bad_request", 1008)


def test_what_is_no_message_ends_it(server):
    for said in ("{}", '{"say": "resize"}', '{"say": "x"}', "x", '{"say": "end", "more": 1}'):
        with talk(server, {"argv": ["sleep", "60"]}) as client:
            client.send(said)
            assert refused(client) == ("bad_request", 1008)
    wait_for(lambda: terminations(server).count("cancelled") == 5)


def test_it_is_cancelled(server):
    with talk(server, {"argv": ["sleep", "60"]}) as client:
        json.loads(client.recv(timeout=60))
        client.send(CANCEL)
        assert outcome(list(told(client)))["termination"] == "cancelled"
        assert client.close_code == 1000


def test_who_goes_away_cancels_it_or_does_not(server):
    with talk(server, {"argv": ["sleep", "60"]}) as client:
        client.recv(timeout=60)
    wait_for(lambda: terminations(server) == ["cancelled"])
    body = {"shell": "cat > seen; echo done", "cancel_on_disconnect": False}
    with talk(server, body) as client:
        run_id = json.loads(client.recv(timeout=60))["data"]["run_id"]
        client.send(b"some")
    with server.client() as other:
        wait_for(lambda: other.get(f"{RUNS}/{run_id}").json()["status"] == "ended")
        found = other.get(f"{RUNS}/{run_id}").json()["outcome"]
        assert (found["termination"], found["stdout"]) == ("exited", "done\n")
        (change,) = found["workspace"]["changes"]
        assert (change["path"], change["size_bytes"]) == ("seen", 4)


def test_a_program_waits_for_a_slow_client(server):
    body = {"code": "import sys\nfor n in range(400): print('x' * 9999)", "language": "python"}
    with talk(server, body, max_queue=1) as client:
        time.sleep(1)
        with server.client() as other:
            (run,) = other.get(RUNS, params={"status": "running"}).json()["runs"]
        events = list(told(client))
    assert len(output(events)) == 4_000_000
    assert outcome(events)["run_id"] == run["id"]
    assert "dropped" not in {kind for kind, _ in events}


def test_a_client_waits_for_a_slow_program(server):
    body = {"shell": "sleep 2; wc -c"}
    sent = threading.Event()
    with talk(server, body) as client:

        def send() -> None:
            for _ in range(256):
                client.send(b"y" * (128 << 10))
            client.send(END)
            sent.set()

        thread = threading.Thread(target=send)
        thread.start()
        before = memory_bytes(server)
        time.sleep(1)
        assert not sent.is_set(), "a program that does not read has no pipe without end"
        assert memory_bytes(server) - before < 16 << 20
        events = list(told(client))
        thread.join()
    assert output(events).strip() == str(32 << 20).encode()


def test_input_that_nobody_reads_goes_with_the_run(server):
    with talk(server, {"shell": "exec <&-; sleep 1; echo over"}) as client:

        def send() -> None:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    client.send(b"z" * (128 << 10))

        thread = threading.Thread(target=send)
        thread.start()
        events = list(told(client))
        thread.join()
    assert output(events) == b"over\n"


def memory_bytes(server: Server) -> int:
    pages = Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def test_messages_have_a_bound(runner_home):
    with serving(runner_home, "--body", "100KiB") as (server, _):
        with talk(server, None) as client:
            client.send(json.dumps({"argv": ["true"], "labels": {"x": "y" * 200_000}}))
            assert list(told(client)) == []
            assert client.close_code == 1009
        with talk(server, {"argv": ["cat"]}) as client:
            client.recv(timeout=60)
            with contextlib.suppress(ConnectionClosed):
                client.send(b"x" * ((256 << 10) + 1))
            list(told(client))
            assert (client.close_code, "262144" in client.close_reason) == (1009, True)
        wait_for(lambda: terminations(server) == ["cancelled"])


def test_nothing_is_compressed_and_no_page_calls(server):
    with talk(server, {"argv": ["true"]}, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers
        list(told(client))
    with pytest.raises(InvalidStatus) as caught, talk(server, None, origin="https://e.org"):
        raise AssertionError
    assert caught.value.response.status_code == 403
    assert json.loads(caught.value.response.body)["error"]["code"] == "forbidden"


def test_a_key_that_could_not_hold_is_refused(server):
    with (
        pytest.raises(InvalidStatus) as caught,
        talk(server, None, additional_headers={"Idempotency-Key": "k"}),
    ):
        raise AssertionError
    assert caught.value.response.status_code == 400


def test_where_there_is_no_websocket(server):
    for path in ("/", "/v1/profiles", "/v1/runs/x", "/v1/sessions", "/metrics"):
        with pytest.raises(InvalidStatus) as caught, talk(server, None, path):
            raise AssertionError
        assert caught.value.response.status_code == 403
    with talk(server, {"argv": ["true"]}, "/v1/sessions/ses-x/runs") as client:
        assert refused(client) == ("not_found", 1008)


def test_in_a_session(server):
    with server.client() as other:
        session = other.post("/v1/sessions", json={"files": {"a": "text"}}).json()["id"]
        body = {
            "shell": "cat a; tty; read x; echo $x; sleep 60",
            "terminal": {"rows": 9, "columns": 9},
        }
        with talk(server, body, f"/v1/sessions/{session}/runs") as client:
            assert b"text" in until(client, b"/dev/pts/")
            client.send(b"yes\r")
            until(client, b"yes\r\nyes\r\n")
            client.send(CANCEL)
            assert outcome(list(told(client)))["termination"] == "cancelled"
        with talk(server, {"argv": ["true"], "cwd": "/"}, f"/v1/sessions/{session}/runs") as client:
            assert refused(client) == ("bad_request", 1008)
        assert other.delete(f"/v1/sessions/{session}").status_code == 200


def test_fifty_at_once_and_a_stop(runner_home):
    options = ("--at-once", "4", "--queue", "46", "--grace", "1s")
    with serving(runner_home, *options) as (server, _), contextlib.ExitStack() as stack:
        body = {"shell": "read x; sleep 0.2$x"}
        clients = [stack.enter_context(talk(server, body)) for _ in range(50)]
        first = [json.loads(each.recv(timeout=60)) for each in clients[:4]]
        assert {each["event"] for each in first} == {"decision"}
        with talk(server, body) as late:
            assert refused(late) == ("busy", 1013)
        server.signalled()
        ended = [outcome(list(told(each)))["termination"] for each in clients]
        assert ended == ["cancelled"] * 50
    assert server.process.returncode == 0


def test_a_flood_of_pings_holds_nothing(server):
    """A client that pings and reads nothing: what answers it is not kept."""
    raw = handshake(server)
    before = memory_bytes(server)
    raw.settimeout(0.5)
    pings = (b"\x89\xfd" + bytes(4) + b"p" * 125) * 500
    with contextlib.suppress(TimeoutError):
        for _ in range(1000):
            raw.sendall(pings)
    assert memory_bytes(server) - before < 32 << 20
    raw.close()
    with talk(server, {"argv": ["true"]}) as client:
        assert outcome(list(told(client)))["exit_code"] == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"\x81\x02{}",  # not masked
        b"\xc1\x82" + bytes(4) + b"{}",  # a reserved bit
        b"\x83\x80" + bytes(4),  # a reserved opcode
        b"\x80\x82" + bytes(4) + b"{}",  # the rest of nothing
        b"\x89\xfe\x01\x00" + bytes(260),  # a ping that is too long
        b"\x81\x82" + bytes(4) + b"\xff\xff",  # a text that is none
        b"\x81\xff" + b"\xff" * 8 + bytes(4),  # so long as there can be no message
        b"\x88\x81" + bytes(4) + b"x",  # a close with half a code
    ],
)
def test_what_is_no_websocket_frame_ends_it(server, frame):
    raw = handshake(server)
    raw.sendall(frame)
    with contextlib.suppress(ConnectionResetError):
        while raw.recv(4096):
            pass
    raw.close()


def handshake(server: Server) -> socket.socket:
    raw = server.raw()
    raw.sendall(
        b"GET /v1/runs HTTP/1.1\r\nhost: r\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
        b"sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += raw.recv(1)
    assert answer.startswith(b"HTTP/1.1 101 ")
    return raw


def test_keys_and_what_is_not_theirs(runner_home, run_cli):
    def key(name: str, *words: str) -> str:
        made = run_cli("keys", "create", name, "--json", *words)
        text: str = json.loads(made.stdout)["key"]
        return text

    own = key("own", "--agent", "one", "--profile", "agent")
    reader = key("reader", "--verb", "read", "--agents", "*")
    other = key("other", "--agent", "two", "--profile", "agent")
    with serving(runner_home) as (server, client):

        def talking(text: str | None, body: Any, path: str = RUNS) -> Any:
            headers = {} if text is None else {"Authorization": f"Bearer {text}"}
            return talk(server, body, path, additional_headers=headers)

        for text, status in ((reader, 403), ("rk_nonsense", 401)):
            with pytest.raises(InvalidStatus) as caught, talking(text, None):
                raise AssertionError
            assert caught.value.response.status_code == status
        with talking(own, {"argv": ["true"], "agent": "two"}) as ws:
            assert refused(ws) == ("forbidden", 1008)
        session = client.post(
            "/v1/sessions", json={"agent": "one"}, headers={"Authorization": f"Bearer {own}"}
        ).json()["id"]
        path = f"/v1/sessions/{session}/runs"
        with talking(other, {"argv": ["true"]}, path) as ws:
            assert refused(ws) == ("not_found", 1008)
        # A key that is revoked while it goes on ends that.
        with talking(own, {"argv": ["sleep", "60"]}, path) as ws:
            ws.recv(timeout=60)
            assert run_cli("keys", "revoke", "own").returncode == 0
            assert refused(ws) == ("unauthenticated", 1008)
        wait_for(lambda: "cancelled" in terminations(server))
        client.delete(f"/v1/sessions/{session}")


def test_a_server_that_is_killed_cuts_it(runner_home):
    server = Server(runner_home)
    with talk(server, {"argv": ["sleep", "60"]}) as client:
        client.recv(timeout=60)
        server.end(signal.SIGKILL)
        assert list(told(client)) in ([], [("usage", {})]) or client.close_code == 1006
    assert server.cli("clean").returncode == 0
    assert "run.recovered" in server.cli("audit", "show").stdout
