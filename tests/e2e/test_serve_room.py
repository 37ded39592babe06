"""`runner serve --sessions`, the setting behind it, and what a service manager is told."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from serving import COMMAND, serving

from runner.errors import SettingsError
from runner.settings import load_settings, notify_socket

pytestmark = pytest.mark.usefixtures("native")


def test_a_server_holds_as_many_sessions_as_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("RUNNER_SERVER_SESSIONS", "0")
    with serving(tmp_path / "home") as (_, client):
        refused = client.post("/v1/sessions", json={"agent": "a"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "busy")
        assert "0 sessions" in refused.json()["error"]["message"]
    # The option goes before the setting.
    with serving(tmp_path / "home", "--sessions", "1") as (_, client):
        began = client.post("/v1/sessions", json={"agent": "a"})
        assert began.status_code == 201
        assert client.post("/v1/sessions", json={"agent": "a"}).status_code == 429
        assert client.delete(f"/v1/sessions/{began.json()['id']}").status_code == 200


def test_the_setting_has_a_bound():
    assert load_settings(env={**os.environ}).server_sessions.value == 32
    stated = load_settings(env={**os.environ, "RUNNER_SERVER_SESSIONS": "1000"})
    assert stated.server_sessions.value == 1000
    for wrong in ("1001", "-1", "unlimited", "many"):
        with pytest.raises(SettingsError, match="RUNNER_SERVER_SESSIONS"):
            load_settings(env={**os.environ, "RUNNER_SERVER_SESSIONS": wrong})


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told_when_it_serves_and_when_it_ends(tmp_path, abstract):
    name = f"@runner-test-{os.getpid()}" if abstract else str(tmp_path / "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if abstract else name)
        manager.settimeout(60)
        env = {**os.environ, "RUNNER_HOME": str(tmp_path / "home"), "NOTIFY_SOCKET": name}
        with subprocess.Popen(
            [*COMMAND, "serve", "--listen", f"unix:{tmp_path}/s"], env=env, stderr=subprocess.PIPE
        ) as server:
            assert manager.recv(100) == b"READY=1"
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(f"{tmp_path}/s")
            server.terminate()
            assert manager.recv(100) == b"STOPPING=1"
            assert server.wait(60) == 0


def test_a_manager_that_can_not_be_told_is_said_so(tmp_path):
    env = {**os.environ, "RUNNER_HOME": str(tmp_path / "home"), "NOTIFY_SOCKET": "/nowhere/x"}
    done = subprocess.run(
        [*COMMAND, "serve", "--listen", f"unix:{tmp_path}/s"],
        env=env, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 125
    assert "NOTIFY_SOCKET" in done.stderr
    assert "Traceback" not in done.stderr


def test_only_sockets_are_told():
    assert notify_socket({}) is None
    assert notify_socket({"NOTIFY_SOCKET": ""}) is None
    assert notify_socket({"NOTIFY_SOCKET": "vsock:2:1"}) is None
    assert notify_socket({"NOTIFY_SOCKET": "/run/x"}) == "/run/x"
