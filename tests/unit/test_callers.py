"""Who may call without a key, as settings state it, and what a peer of the socket gets."""

from __future__ import annotations

import grp
import json
import os
import pwd

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.errors import SettingsError
from runner.model.callers import PeerRule
from runner.model.identity import AGENT_VERBS, ANY, NO_TENANT, Identity, Verb
from runner.schema.callers import read_issuers, read_peers
from runner.settings import load_settings

peer_rules = pytest.importorskip("runner.surfaces.http.peer_rules")
peers = pytest.importorskip("runner.surfaces.http.peers")

SCOPE = {"verbs": ["run"], "agents": ["*"], "profiles": ["*"]}
AGENT = {"agent": "bot", "verbs": ["run", "read"], "profiles": ["agent"]}
ISSUER = {
    "issuer": "https://login.example.org",
    "audience": "runner",
    "rules": [{"when": {"groups": "agents"}, **AGENT}],
}
OWN = 4_000


def peer(uid: int, gid: int = 7, groups: tuple[int, ...] = (), *, confined: bool = False):
    return peers.Peer(1, uid, gid, confined, groups)


def test_peers_are_named_by_number_or_name() -> None:
    me = pwd.getpwuid(os.getuid()).pw_name
    mine = grp.getgrgid(os.getgid()).gr_name
    rules = read_peers({"uid:1001": AGENT, "gid:50": SCOPE, f"group:{mine}": SCOPE})
    assert [(rule.uid, rule.gid) for rule in rules] == [
        (1001, None), (None, 50), (None, os.getgid())
    ]  # fmt: skip
    assert read_peers({me: AGENT})[0].uid == os.getuid()
    assert rules[0].identity == Identity(
        "", frozenset({Verb.RUN, Verb.READ}), "bot", (), (NO_TENANT,), ("agent",)
    )
    assert read_peers(json.dumps({"uid:1001": AGENT})) == rules[:1]
    assert read_peers({"uid:1": {**SCOPE, "tenants": []}})[0].identity.tenants == ()


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ([], "must be a mapping"),
        ("uid:1", "must be JSON"),
        ({"uid:1": None}, "must be a mapping"),
        ({"uid:-1": SCOPE}, "write uid:1000"),
        ({"uid:\u0661": SCOPE}, "write uid:1000"),
        ({"uid:4294967295": SCOPE}, "write uid:1000"),
        ({"uid:": SCOPE}, "write uid:1000"),
        ({"uid:65534": SCOPE}, "may be anybody"),
        ({"gid:65534": SCOPE}, "may be anybody"),
        ({"nobody-of-that-name": SCOPE}, "is no user here"),
        ({"group:none-of-that-name": SCOPE}, "is no user here"),
        ({"\0": SCOPE}, "is no user here"),
        ({"uid:1": SCOPE, "uid:01": SCOPE}, "twice"),
        ({"uid:1": {}}, "needs verbs"),
        ({"uid:1": {**SCOPE, "verbs": []}}, "needs verbs"),
        ({"uid:1": {**SCOPE, "verbs": ["*"]}}, "unknown verb"),
        ({"uid:1": {**SCOPE, "verbs": "run"}}, "must be a list"),
        ({"uid:1": {**SCOPE, "agents": []}}, "'agent: NAME'"),
        ({"uid:1": {"verbs": ["run"], "agents": ["*"]}}, "needs profiles"),
        ({"uid:1": {**SCOPE, "tenant": "a"}}, "unknown key 'tenant'"),
        ({"uid:1": {**AGENT, "verbs": ["approve"]}}, "can't be given the verb approve"),
        ({"uid:1": {**AGENT, "agents": ["*"]}}, "leave agents out"),
        ({"uid:1": {**AGENT, "tenants": ["*"]}}, "belongs to one tenant"),
        ({"uid:1": {**SCOPE, "agents": ["\0"]}}, "is no name"),
    ],
)
def test_peers_that_are_wrong(value, match) -> None:
    with pytest.raises(ValueError, match=match):
        read_peers(value)


def test_settings_tell_where_a_peer_is_wrong(tmp_path) -> None:
    (tmp_path / "config.yaml").write_text("server_peers:\n  uid:1: {verbs: [rnu], agents: ['*']}\n")
    with pytest.raises(SettingsError, match=r"config.yaml:1:1: server_peers: .*did you mean"):
        load_settings(env={"HOME": "/nowhere", "RUNNER_HOME": "/x"}, etc=tmp_path)
    (tmp_path / "config.yaml").write_text(f"server_issuers: [{json.dumps(ISSUER)}]\n")
    found = load_settings(env={"HOME": "/nowhere", "RUNNER_HOME": "/x"}, etc=tmp_path)
    assert found.server_issuers.value == read_issuers([ISSUER])
    assert found.server_peers.value == ()


def test_an_issuer_is_read() -> None:
    (issuer,) = read_issuers(json.dumps(ISSUER))
    assert (issuer.url, issuer.audiences, issuer.keys) == (ISSUER["issuer"], ("runner",), "")
    assert issuer.algorithms == ("RS256", "ES256", "EdDSA")
    assert issuer.rules[0].when == (("groups", "agents"),)
    claimed = {
        "when": {"iss": "x"}, "agent_claim": "azp", "tenant_claim": "org", "verbs": ["run"],
        "profiles": ["agent"],
    }  # fmt: skip
    (issuer,) = read_issuers({**ISSUER, "keys": "/etc/jwks.json", "rules": [claimed]})
    assert (issuer.rules[0].agent_claim, issuer.rules[0].tenant_claim) == ("azp", "org")
    assert issuer.rules[0].identity == Identity("", frozenset({Verb.RUN}), profiles=("agent",))


RULE = ISSUER["rules"][0]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"issuer": None}, "needs its URL"),
        ({"issuer": "http://login.example.org"}, "must be a URL"),
        ({"issuer": "https://"}, "must be a URL"),
        ({"issuer": "https://me:pw@login.example.org"}, "without a user"),
        ({"issuer": "https://login.example.org?x"}, "without"),
        ({"issuer": "https://login.example.org/\n"}, "must be a URL"),
        ({"audience": None}, "audience"),
        ({"audience": []}, "audience"),
        ({"audience": ""}, "audience"),
        ({"keys": 5}, "keys"),
        ({"keys": "jwks.json"}, "must be a URL"),
        ({"keys": "http://192.0.2.1/jwks"}, "must be a URL"),
        ({"algorithms": []}, "at least one"),
        ({"algorithms": ["none"]}, "unknown algorithm"),
        ({"algorithms": ["HS256"]}, "unknown algorithm"),
        ({"rules": []}, "needs 'rules'"),
        ({"rules": [{**RULE, "when": {}}]}, "needs 'when'"),
        ({"rules": [{**RULE, "when": {"a": 1}}]}, "must have a text"),
        ({"rules": [{**RULE, "when": {"a": ""}}]}, "must have a text"),
        ({"rules": [{**RULE, "agent_claim": "azp"}]}, "both agent and agent_claim"),
        ({"rules": [{**RULE, "tenant_claim": "a", "tenants": ["b"]}]}, "both tenants"),
        ({"rules": [{"when": {"a": "b"}, "agent_claim": "c", "verbs": ["kill"]}]}, "verb kill"),
        ({"rules": [{**RULE, "tenant_claim": ""}]}, "name of a claim"),
        ({"more": 1}, "unknown key"),
    ],
)  # fmt: skip
def test_issuers_that_are_wrong(change, match) -> None:
    with pytest.raises(ValueError, match=match):
        read_issuers([{**ISSUER, **change}])
    with pytest.raises(ValueError, match="twice"):
        read_issuers([ISSUER, ISSUER])


def test_the_servers_own_user_and_root_may_do_all() -> None:
    for uid in (OWN, 0):
        found = peer_rules.identity_of_peer(peer(uid), (), OWN)
        assert found == Identity(f"uid:{uid}", frozenset(Verb), None, ANY, ANY, ANY)
        # A program in a sandbox has its user's uid, and a container's root has root's.
        assert peer_rules.identity_of_peer(peer(uid, confined=True), (), OWN) is None
    assert peer_rules.identity_of_peer(peer(OWN + 1), (), OWN) is None


def test_a_peer_gets_what_its_rule_says() -> None:
    bot, service = (Identity("", AGENT_VERBS, name, (), (), ("x",)) for name in ("bot", "service"))
    rules = (
        PeerRule(None, 50, service), PeerRule(1001, None, bot), PeerRule(OWN, None, bot),
        PeerRule(None, 51, bot),
    )  # fmt: skip
    found = peer_rules.identity_of_peer
    assert found(peer(1001, 50), rules, OWN).agent == "bot"
    assert found(peer(1001, 50), rules, OWN).name == "uid:1001"
    assert found(peer(1002, 50), rules, OWN).agent == "service"
    assert found(peer(1002, 7, (8, 51)), rules, OWN).agent == "bot"
    assert found(peer(1002, 7, (51, 50)), rules, OWN).agent == "service"
    assert found(peer(1002, 7, (8,)), rules, OWN) is None
    # No rule takes anything from the server's user; a confined program of its gets no more.
    assert found(peer(OWN), rules, OWN).agent is None
    assert found(peer(OWN, confined=True), rules, OWN).agent == "bot"


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2), st.booleans())
def test_whoever_is_not_named_gets_nothing(uid, gid, confined) -> None:
    rules = read_peers({"uid:1001": AGENT, "gid:50": SCOPE})
    found = peer_rules.identity_of_peer(peer(uid, gid, confined=confined), rules, OWN)
    named = uid == 1001 or gid == 50 or (uid in (0, OWN) and not confined)
    assert (found is not None) == named


def test_the_socket_is_open_to_others_where_some_are_let_do_something() -> None:
    assert peer_rules.socket_mode(()) == 0o600
    assert peer_rules.socket_mode(read_peers({"uid:1001": AGENT})) == 0o666


def test_the_kernel_tells_a_peers_groups() -> None:
    import socket

    one, other = socket.socketpair()
    with one, other:
        found = peers.peer_of(one)
        assert (found.pid, found.uid, found.gid) == (os.getpid(), os.geteuid(), os.getegid())
        assert set(found.groups) == set(os.getgroups())
        assert not found.confined
    with socket.socket() as tcp:
        assert peers.peer_of(tcp) is None


def test_a_peer_that_has_ended_may_be_anybody(tmp_path) -> None:
    """Its number can be another process's by the time that is looked at."""
    import socket
    import subprocess
    import sys

    path = str(tmp_path / "s")
    text = f"import socket; s = socket.socket(socket.AF_UNIX); s.connect({path!r}); print(1)"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen()
        if not _tells_of_peers(server):
            pytest.skip("this kernel can't be asked (before Linux 6.5)")
        subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
        connection, _ = server.accept()
        with connection:
            assert peers.peer_of(connection).confined


def _tells_of_peers(sock) -> bool:
    import errno
    import socket

    try:
        os.close(sock.getsockopt(socket.SOL_SOCKET, 77))
    except OSError as error:
        return error.errno != errno.ENOPROTOOPT
    return True
