"""`runner serve` as others see it: keys, other users, a port, TLS."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))
from serving import COMMAND, serving
from test_listening import make_tls

pytestmark = pytest.mark.usefixtures("native")
STRANGER = 54_321


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "state"


def cli(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "RUNNER_HOME": str(home)}
    return subprocess.run(
        [*COMMAND, *words], env=environment, capture_output=True, text=True, check=False
    )


def key(home: Path, name: str, *words: str) -> dict[str, str]:
    made = cli(home, "keys", "create", name, *words)
    assert made.returncode == 0, made.stderr
    return {"Authorization": f"Bearer {made.stdout.strip()}"}


@contextlib.contextmanager
def at_port(home: Path, *options: str) -> Iterator[int]:
    process = subprocess.Popen(
        [*COMMAND, "serve", *options],
        env={**os.environ, "RUNNER_HOME": str(home)},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        first = process.stderr.readline()
        found = re.fullmatch(r"runner: listening at 127\.0\.0\.1:(\d+)\n", first)
        assert found, first
        yield int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")


def calling(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120)


def test_an_agents_key_is_one_agents(home, tmp_path):
    own = key(home, "bot", "--agent", "bot", "--profile", "agent")
    other = key(home, "other", "--agent", "other", "--profile", "agent")
    with at_port(home, "--listen", "127.0.0.1:0") as port, calling(port) as client:
        assert client.post("/v1/runs", json={"argv": ["true"]}).status_code == 401
        run = client.post("/v1/runs", json={"argv": ["true"]}, headers=own)
        assert run.json()["exit_code"] == 0
        place = f"/v1/runs/{run.json()['run_id']}"
        assert client.get(place, headers=own).json()["agent"] == "bot"
        assert client.get(place, headers=other).status_code == 404
        for body in (
            {"agent": "other"}, {"tenant": "t"}, {"parent": "other"}, {"profile": "ci"}
        ):  # fmt: skip
            refused = client.post("/v1/runs", json={"argv": ["true"], **body}, headers=own)
            assert refused.status_code == 403, body
        # A run is the server's user's, so its folders are not for others to name.
        for cwd in (tmp_path, Path("/"), Path("/nowhere")):
            body = {"argv": ["true"], "cwd": str(cwd)}
            assert client.post("/v1/runs", json=body, headers=own).status_code == 400
        assert cli(home, "keys", "revoke", "bot").returncode == 0
        while client.get(place, headers=own).status_code == 200:
            pass
        answer = client.get(place, headers=own)
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "unauthenticated")
        assert answer.headers["www-authenticate"].startswith("Bearer realm=")
    (bot,) = [
        json.loads(line)
        for line in cli(home, "audit", "show", "--last", "0", "--json").stdout.splitlines()
        if '"kind":"run.decided"' in line
    ]
    assert bot["principal"]["agent"] == "bot"
    assert bot["data"]["caller"].startswith("key:rnk_")
    assert "auth.failed" in cli(home, "audit", "show").stdout
    assert cli(home, "audit", "verify").returncode == 0


def test_over_tls_and_no_other_way(home, tmp_path):
    tls = make_tls(tmp_path)
    files = ("--tls-cert", str(tls.cert), "--tls-key", str(tls.key))
    refused = cli(home, "serve", "--listen", "0.0.0.0:0", *files)
    assert (refused.returncode, "runner keys create" in refused.stderr) == (2, True)
    own = key(home, "bot", "--agent", "bot", "--profile", "agent")
    refused = cli(home, "serve", "--listen", "0.0.0.0:0")
    assert (refused.returncode, "--tls-cert" in refused.stderr) == (2, True)
    context = ssl.create_default_context(cafile=str(tls.cert))
    with at_port(home, "--listen", "127.0.0.1:0", *files) as port:
        url = f"https://127.0.0.1:{port}"
        with httpx.Client(base_url=url, verify=context, timeout=120) as client:
            assert client.post("/v1/runs", json={"argv": ["true"]}).status_code == 401
            run = client.post("/v1/runs", json={"argv": ["true"]}, headers=own)
            assert run.json()["exit_code"] == 0
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")


def test_the_same_user_may_name_any_folder(home, tmp_path):
    with serving(home) as (server, client):
        assert server.path.stat().st_mode & 0o777 == 0o600
        (tmp_path / "work").mkdir()
        body = {"argv": ["true"], "cwd": str(tmp_path / "work")}
        assert client.post("/v1/runs", json=body).json()["exit_code"] == 0


@pytest.mark.root
def test_another_user_is_who_the_settings_say(home, monkeypatch):
    peers = {f"uid:{STRANGER}": {"agent": "bot", "verbs": ["run", "read"], "profiles": ["agent"]}}
    monkeypatch.setenv("RUNNER_SERVER_PEERS", json.dumps(peers))
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    try:
        with serving(folder / "state") as (server, client):
            assert client.post("/v1/runs", json={"argv": ["true"]}).json()["exit_code"] == 0

            def call(uid: int, body: str) -> str:
                words = ["curl", "-s", "--unix-socket", str(server.path), "-d", body, "-H",
                         "Content-Type: application/json", "http://runner/v1/runs"]  # fmt: skip
                done = subprocess.run(
                    words, user=uid, group=uid, extra_groups=[], cwd="/", capture_output=True,
                    text=True, check=True, timeout=120,
                )  # fmt: skip
                return done.stdout

            assert json.loads(call(STRANGER, '{"argv": ["true"]}'))["exit_code"] == 0
            assert '"forbidden"' in call(STRANGER, '{"argv": ["true"], "agent": "x"}')
            assert '"unauthenticated"' in call(STRANGER + 1, '{"argv": ["true"]}')
    finally:
        shutil.rmtree(folder)


def test_a_stream_ends_with_its_key(home):
    own, other = (
        key(home, name, "--agents", "*", "--profile", "agent", "--verb", "run", "--verb", "read")
        for name in ("own", "other")
    )
    with at_port(home, "--listen", "127.0.0.1:0") as port, calling(port) as client:
        body = {"shell": "while :; do echo x; sleep 0.05; done", "wait": False}
        place = f"/v1/runs/{client.post('/v1/runs', json=body, headers=own).json()['id']}"
        follows = {**own, "Accept": "text/event-stream"}
        began = {"shell": body["shell"], "cancel_on_disconnect": True}
        with (
            client.stream("POST", "/v1/runs", json=began, headers=follows) as begun,
            client.stream("GET", f"{place}/events", headers=own) as stream,
            client.stream("GET", f"{place}/events", headers=other) as twin,
        ):
            told, goes_on = stream.iter_lines(), twin.iter_lines()
            owned = begun.iter_lines()
            assert "event: output" in told
            assert "event: output" in owned
            assert cli(home, "keys", "revoke", "own").returncode == 0
            rest = list(told)  # it ends, although the run does not
            assert "event: outcome" not in [*rest, *owned]
            assert client.delete(place, headers=other).status_code == 202
            assert "event: outcome" in goes_on
        place = begun.headers["location"]
        while (found := client.get(place, headers=other).json())["status"] != "ended":
            time.sleep(0.05)
        assert found["outcome"]["termination"] == "cancelled"
