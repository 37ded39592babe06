"""Every address of the exec API against every kind of caller, by the server's own OpenAPI document.

Tenant A has runs (one goes on), a session, output, changes, questions and budgets. Nobody else sees
or changes any of it; what is out of reach is told word for word as what does not exist. An address
or a parameter that nobody has thought about here fails.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt
import pytest
import websockets.exceptions
import websockets.sync.client
from conftest import RUNNER_COMMAND, native_missing
from cryptography.hazmat.primitives.asymmetric import ed25519

sys.path.insert(0, str(Path(__file__).parent))
from isolation import (
    AGENT,
    ALL,
    ELSEWHERE,
    FILE,
    IDENTITIES,
    KEPT,
    LABEL,
    MARKS,
    OTHER,
    OUTPUT,
    ROUTES,
    SESSION,
    SOCKETS,
    TENANT,
    VALUES,
    Answer,
    Caller,
    Kind,
    Route,
    Wire,
    at_port,
    at_socket,
)  # fmt: skip

from runner import Runner
from runner.keys import Keys
from runner.model.api_key import written
from runner.model.identity import Identity, Verb
from runner.testing.fakes import FakeClock

STRANGER, NOBODYS = 54_321, 54_322
"""Users: one that a rule is about, one that none is."""
ISSUER, AUDIENCE = "https://login.example.org", "runner"
ASKS = (
    "extends: agent\ndescription: asks\nrules:\n  list:\n"
    "    - {id: asks, match: {command: touch}, effect: ask, message: look at it}\n"
)
BUDGETS = (
    "budgets:\n- {id: own, of: agent, per: 1h, calls: 900}\n- {id: of-s, of: session, per: 1h, "
    "calls: 900}\n- {id: of-t, of: tenant, per: 1h, calls: 900}\n"
)
PEER = {"verbs": sorted(ALL), "agents": ["*"], "tenants": [ELSEWHERE], "profiles": ["*"]}


@dataclass
class World:
    """Servers, tenant A's things, and who calls."""

    callers: list[Caller]
    run: str
    live: str
    question: str
    session: str

    def caller(self, name: str) -> Caller:
        (found,) = [each for each in self.callers if each.name == name]
        return found

    def path(self, template: str, run: str | None = None, question: str | None = None) -> str:
        found = template.replace("{run_id}", run or self.run).replace("{stream}", "stdout")
        found = found.replace("{approval_id}", question or self.question)
        session = "ses-x" if run == "run-x" else self.session
        found = found.replace("{session_id}", session).replace("{number}", "1")
        return f"{found}?path={FILE}" if found.endswith(("/files", "/files/stat")) else found


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    if why := native_missing():
        pytest.skip(why)
    with ExitStack() as stack:
        # In /tmp itself, so that another user can come to the socket.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir="/tmp")))
        folder.chmod(0o755)
        signer = ed25519.Ed25519PrivateKey.generate()
        environment = settings(folder, signer)
        port = serving(stack, environment, "127.0.0.1:0")
        serving(stack, environment, f"unix:{folder / 's'}")
        callers = [*keys(folder / "home", port), *tokens(port, signer), *peers(folder / "s")]
        stack.callback(lambda: [each.wire.close() for each in callers])
        found = made(callers)
        stack.callback(
            lambda: found.caller("operator").ask("DELETE", f"/v1/sessions/{found.session}")
        )
        yield found


def settings(folder: Path, signer: ed25519.Ed25519PrivateKey) -> dict[str, str]:
    for name, text in (("profiles/asks.yaml", ASKS), ("policy.d/b.yaml", BUDGETS)):
        (folder / name).parent.mkdir()
        (folder / name).write_text(text)
    public = jwt.algorithms.OKPAlgorithm.to_jwk(signer.public_key(), as_dict=True)
    (folder / "jwks").write_text(json.dumps({"keys": [public]}))
    rules = [
        {"when": {"role": "agent"}, "agent_claim": "azp", "tenant_claim": "org",
         "verbs": ["run", "read", "apply"], "profiles": ["*"]},
        {"when": {"role": "operator"}, "verbs": sorted(ALL), "agents": ["*"],
         "tenant_claim": "org", "profiles": ["*"]},
    ]  # fmt: skip
    issuer = {
        "issuer": ISSUER, "audience": AUDIENCE, "keys": str(folder / "jwks"), "rules": rules
    }  # fmt: skip
    kept = {name: text for name, text in os.environ.items() if not name.startswith("RUNNER_")}
    return {
        **kept,
        "XDG_CONFIG_HOME": str(folder),
        "RUNNER_HOME": str(folder / "home"),
        "RUNNER_PROFILE_DIRS": str(folder / "profiles"),
        "RUNNER_POLICY_DIRS": str(folder / "policy.d"),
        "RUNNER_SERVER_ISSUERS": json.dumps([issuer]),
        "RUNNER_SERVER_PEERS": json.dumps({f"uid:{STRANGER}": PEER}),
    }


def serving(stack: ExitStack, environment: dict[str, str], where: str) -> int:
    """A server there until the end, which has to be a clean one; its port, if it has one."""
    process = subprocess.Popen(
        [*RUNNER_COMMAND, "serve", "--grace", "0s", "--listen", where],
        env=environment, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def end() -> None:
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=120)[1]
        assert (process.returncode, said) == (0, "")

    assert process.stderr is not None
    first = process.stderr.readline()
    stack.callback(end)
    found = re.fullmatch(r"runner: listening at .*?(\d*)\n", first)
    assert found, first
    return int(found[1] or 0)


def keys(home: Path, port: int) -> list[Caller]:
    def caller(name: str, identity: Identity | None, *said: str) -> Caller:
        return Caller(name, identity, Wire(at_port(port)), dict(pairwise(said)))

    with Runner(home=home) as runner:
        made = {
            name: runner.keys.create(re.sub(r"\W", "-", name), identity, "1h")
            for name, identity in IDENTITIES.items()
        }
        long_ago = FakeClock(time.time() - 7200)
        everything = IDENTITIES["operator"]
        _, ended = Keys(runner.store, long_ago).create("ended", everything, "1h")
        _, revoked = runner.keys.create("revoked", everything, "1h")
        runner.keys.revoke("revoked")
    key, good = made["operator"]
    wrong = written(key.id, "A" * 32)
    unknown = written("rnk_" + "a" * 12, "A" * 32)
    strangers = {
        "no key": (), "garbage": ("Authorization", "Bearer x"),
        "half a key": ("Authorization", f"Bearer {good[:-1]}"),
        "no scheme": ("Authorization", good), "basic": ("Authorization", f"Basic {good}"),
        "ended key": ("Authorization", f"Bearer {ended}"),
        "revoked key": ("Authorization", f"Bearer {revoked}"),
        "wrong secret": ("Authorization", f"Bearer {wrong}"),
        "unknown key": ("Authorization", f"Bearer {unknown}"),
        "another header": ("X-Forwarded-User", "root"),
    }  # fmt: skip
    return [
        *(caller(name, None, *said) for name, said in strangers.items()),
        *(
            caller(name, IDENTITIES[name], "Authorization", f"Bearer {text}")
            for name, (_, text) in made.items()
        ),
    ]


def tokens(port: int, signer: ed25519.Ed25519PrivateKey) -> list[Caller]:
    now_s = int(time.time())
    claims = {
        "iss": ISSUER, "aud": AUDIENCE, "sub": "bob", "iat": now_s, "exp": now_s + 3600,
        "role": "agent", "azp": OTHER, "org": ELSEWHERE,
    }  # fmt: skip

    def caller(
        name: str, identity: Identity | None, key: Any = signer, granted: bool = True, **more: Any
    ) -> Caller:
        text = jwt.encode({**claims, **more}, key, "EdDSA")
        said = {"Authorization": f"Bearer {text}"}
        return Caller(f"token: {name}", identity, Wire(at_port(port)), said, granted)

    agent_of_b, all_of_b = IDENTITIES["agent of b"], IDENTITIES["all verbs of b"]
    as_a = {"azp": AGENT, "org": TENANT}
    return [
        caller("agent of b", agent_of_b),
        caller("all verbs of b", all_of_b, role="operator"),
        caller("ended", None, exp=now_s - 3600, **as_a),
        caller("another issuer", None, iss="https://other.example.org", **as_a),
        caller("another audience", None, aud="other", **as_a),
        caller("another signer", None, ed25519.Ed25519PrivateKey.generate(), **as_a),
        caller("no rule", replace(agent_of_b, verbs=frozenset()), granted=False, role="none"),
        caller("tenant is a pattern", agent_of_b, granted=False, role="operator", org="tenant-*"),
    ]


def peers(path: Path) -> list[Caller]:
    found = [Caller("peer: same user", IDENTITIES["operator"], Wire(at_socket(path)))]
    said = {"Authorization": "Bearer x"}
    found.append(Caller("peer: same user, bad key", None, Wire(at_socket(path)), said))
    if os.geteuid() == 0:
        ruled = IDENTITIES["all verbs of b"]
        found.append(Caller("peer: a rule's", ruled, Wire(at_socket(path, STRANGER))))
        found.append(Caller("peer: no rule's", None, Wire(at_socket(path, NOBODYS))))
    return found


def made(callers: list[Caller]) -> World:
    """Tenant A's things, and one run of B."""
    world = World(callers, "", "", "", "")
    own = world.caller("agent of a")
    common = {"session": SESSION, "labels": {"team": LABEL}}
    text = f"echo {OUTPUT}; echo {KEPT} > {FILE}"
    ran = own.ask("POST", "/v1/runs", {"shell": text, "tenant": TENANT, **common})
    assert json.loads(ran.text)["exit_code"] == 0, ran.text
    world.run = json.loads(ran.text)["run_id"]
    for who in (own, world.caller("all verbs of a")):
        asked = {"shell": f"echo > {FILE}", "tenant": TENANT, "agent": AGENT, **common}
        again = json.loads(own.ask("POST", "/v1/runs", asked).text)["run_id"]
        for path in ("apply", "changes"):
            method, body = ("POST", {}) if path == "apply" else ("DELETE", None)
            done = who.ask(method, f"/v1/runs/{again}/{path}", body)
            assert done.status == 200, done
    asked = {"argv": ["touch", FILE], "profile": "asks", "tenant": TENANT, **common}
    assert json.loads(own.ask("POST", "/v1/runs", asked).text)["termination"] == "denied"
    (question,) = json.loads(own.ask("GET", "/v1/approvals").text)["approvals"]
    world.question = question["id"]
    asked = {"argv": ["sleep", "1000"], "tenant": TENANT, "wait": False, **common}
    world.live = json.loads(own.ask("POST", "/v1/runs", asked).text)["id"]
    while not json.loads(own.ask("GET", f"/v1/runs/{world.live}").text)["usage"]:
        time.sleep(0.05)
    asked = {"tenant": TENANT, "files": {FILE: KEPT}, "lifetime": "30m", **common}
    begun = own.ask("POST", "/v1/sessions", asked)
    assert begun.status == 201, begun
    world.session = json.loads(begun.text)["id"]
    other = world.caller("agent of b").ask(
        "POST", "/v1/runs", {"argv": ["true"], "tenant": ELSEWHERE}
    )
    assert json.loads(other.text)["exit_code"] == 0, other.text
    return world


def state(world: World) -> dict[str, object]:
    """All of tenant A's that anybody could change, as the operator sees it."""
    told = world.caller("operator")
    seen: dict[str, object] = {}
    for run in (world.run, world.live):
        document = json.loads(told.ask("GET", f"/v1/runs/{run}").text)
        seen[run] = {**document, "usage": None}
    for path in (
        f"/v1/runs/{world.run}/changes", "/v1/approvals?all=true", "/v1/kills", "/v1/profiles",
        f"/v1/runs/{world.run}/output/stdout", f"/v1/sessions/{world.session}/files/list",
        f"/v1/sessions/{world.session}/processes",
    ):  # fmt: skip
        answer = told.ask("GET", path)
        assert answer.status == 200
        seen[path] = answer.text
    budgets = json.loads(told.ask("GET", "/v1/budgets").text)["budgets"]
    whose = {f"agent:{AGENT}", f"session:{SESSION}", f"tenant:{TENANT}"}
    held = [each for each in budgets if each["scope"] in whose]
    assert {each["scope"] for each in held} == whose
    seen["budgets"] = [(each["scope"], each["used"]) for each in held]
    rows = json.loads(told.ask("GET", "/v1/audit/events?limit=500").text)["events"]
    events = [row["event"] for row in rows]
    assert 0 < len(events) < 500
    # One that names A's agent and no tenant would be put down to it as well.
    whose = {(AGENT, TENANT), (AGENT, None)}
    seen["events"] = [
        event
        for event in events
        if (who := event["principal"])
        and (who["agent"], who["tenant"]) in whose
        # Looking at files is recorded, of those who may.
        and event["data"].get("do") not in ("read", "list", "stat")
    ]
    return seen


def document(world: World) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(world.caller("operator").ask("GET", "/openapi.json").text)
    return found


def operations(world: World) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in document(world)["paths"].items()
        for method, operation in methods.items()
    }


def test_every_address_is_thought_about(world):
    found = operations(world)
    assert set(found) == set(ROUTES)
    for place, operation in found.items():
        asked = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
        assert asked <= set(VALUES), place
        assert ("requestBody" in operation) == (place[0] in ("POST", "PUT")), place
        assert ROUTES[place].writes == (place[0] != "GET"), place


def expected(caller: Caller, route: Route) -> int | None:
    """What any call of it comes to, whatever it is about; None: that depends."""
    if route.verb is None:
        return 200
    if caller.identity is None:
        return 401
    if not caller.granted or not caller.identity.may(route.verb):
        return 403
    if route.kind is Kind.WHOLE:
        return 200 if caller.reaches_all else route.refusal
    return 200 if route.kind in (Kind.LIST, Kind.TOLD) else None


def unmarked(caller: Caller, answer: Answer, *said: str) -> None:
    """Nothing of A's is in it, but for what the caller said, or is called itself."""
    told = replace(answer, text=of_others(caller, answer.text)).without(*said)
    who = caller.identity
    own = set() if who is None else {who.agent, *who.tenants}
    for mark in MARKS:
        if not (caller.reaches or mark in own):
            assert mark not in str(told[1:]), (caller.name, answer)


def of_others(caller: Caller, text: str) -> str:
    """Without events of the caller's own refused requests, which have what it said itself."""
    if not text.startswith('{"events":'):
        return text

    def own(event: dict[str, Any]) -> bool:
        who, asked = event["principal"], caller.identity
        refused = event["kind"] == "request.refused"
        return bool(refused and asked and who and asked.reaches(who["agent"], who["tenant"]))

    rows = json.loads(text)["events"]
    return json.dumps([row for row in rows if not own(row["event"])])


def test_nobody_else_sees_or_changes_anything(world):
    before = state(world)
    refused = 0
    for caller, (place, route) in product(world.callers, ROUTES.items()):
        method, template = place
        if route.writes and caller.reaches and expected(caller, route) is None:
            continue  # those are the twins, below
        for body in route.bodies:
            status = expected(caller, route)
            if status is None and route.kind is Kind.BEGINS and is_own(caller, body):
                continue
            sent = None if method != "POST" else filled(body, world.run)
            # Whose it is would follow the run that goes on until it ends.
            live = world.run if caller.reaches else world.live
            answers = [
                caller.ask(method, world.path(template, run, question), sent)
                for run, question in (
                    (world.run, world.question), (live, world.question), ("run-x", "ask-x")
                )
            ]  # fmt: skip
            about = (caller.name, place, answers[0])
            for answer in answers:
                assert answer.status < 500, about
            if status is None and route.kind is Kind.THING:
                status = 200 if caller.reaches else 404
            if status is None and route.kind is Kind.KILLS:
                named = body["scope"] == "run" and template == "/v1/kills"
                status = 404 if named else 403
            if status is None:
                assert route.kind is Kind.BEGINS, about
                status = 403
            assert answers[0].status == status, about
            if status == 200 and (route.kind is not Kind.THING):
                if not caller.reaches and not caller.reaches_all:
                    for answer in answers:
                        unmarked(caller, answer)
                continue
            if status == 200:
                continue
            refused += 1
            codes = {401: "unauthenticated", 403: "forbidden", 404: "not_found"}
            assert answers[0].code == codes[status], about
            # Word for word as what is not there, of the run that goes on as well.
            ids = (
                world.run, world.live, world.question, world.session, "run-x", "ask-x", "ses-x"
            )  # fmt: skip
            first, second, absent = (answer.without(*ids) for answer in answers)
            assert first == second == absent, about
            unmarked(caller, answers[0], *said_in(sent))
    assert refused > 300
    assert state(world) == before


@pytest.mark.parametrize("template", SOCKETS)
def test_nobody_else_begins_anything_over_a_websocket(world, template):
    before, refused = state(world), 0
    route = ROUTES["POST", template]
    for caller, body in product(world.callers, route.bodies):
        status = expected(caller, route)
        own = route.kind is Kind.BEGINS and status is None and is_own(caller, body)
        if own or (status is None and caller.reaches):
            continue  # those are the twins: POST, and tests/e2e/test_serve_interactive.py
        sent = {k: v for k, v in filled(body, world.run).items() if k not in ("stdin", "wait")}
        told = [
            conversation(caller, world.path(template, run), sent) for run in (world.run, "run-x")
        ]
        refused += 1
        if status is not None:
            assert told[0][0] == status, (caller.name, told)
        else:
            code = "not_found" if route.kind is Kind.THING else "forbidden"
            assert told[0][:2] == (101, code), (caller.name, told)
        first, absent = (each[2].replace(world.session, "ses-x") for each in told)
        assert first == absent, caller.name
        unmarked(caller, Answer(told[0][0], (), told[0][2]), *said_in(sent))
    assert refused > 20
    assert state(world) == before


def conversation(caller: Caller, path: str, sent: object) -> tuple[int, str, str]:
    """The status of the handshake, and of what comes then the last event's code, and its text."""
    try:
        with websockets.sync.client.connect(
            f"ws://runner{path}",
            sock=caller.wire.dialled(),
            compression=None,
            additional_headers=caller.headers,
        ) as client:
            client.send(json.dumps(sent))
            last = json.loads(client.recv(timeout=60))
            return 101, last["data"].get("code", ""), json.dumps(last)
    except websockets.exceptions.InvalidStatus as error:
        body = (error.response.body or b"").decode()
        return error.response.status_code, json.loads(body)["error"]["code"], body


def is_own(caller: Caller, body: dict[str, object]) -> bool:
    who = caller.identity
    assert who is not None
    tenant, parent = body.get("tenant"), body.get("parent")
    names = (body.get("agent") or who.agent or "default", *([parent] if parent else []))
    return all(who.reaches(str(name), None if tenant is None else str(tenant)) for name in names)


def filled(body: dict[str, object], run: str) -> dict[str, object]:
    return {name: run if value == "{run_id}" else value for name, value in body.items()}


def said_in(sent: object) -> tuple[str, ...]:
    return tuple(str(value) for value in sent.values()) if isinstance(sent, dict) else ()


def test_asking_by_name_is_answered_as_for_what_is_not_there(world):
    """Each parameter of each list, by itself, with what picks A's things."""
    tried = 0
    for place, operation in operations(world).items():
        parameters = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]
        for caller in world.callers:
            who = caller.identity
            if who is None or not caller.granted or not who.may(Verb.READ) or caller.reaches:
                continue
            if ROUTES[place].verb is not Verb.READ:
                continue
            for name in parameters:
                theirs, absent = (value.replace("{run_id}", world.run) for value in VALUES[name])
                path = world.path(place[1]).partition("?")[0]
                one = caller.ask("GET", f"{path}?{urlencode({name: theirs})}")
                other = caller.ask("GET", f"{path}?{urlencode({name: absent})}")
                about = (caller.name, place, name, one, other)
                assert max(one.status, other.status) < 500, about
                said = (theirs, absent)
                one, other = (replace(a, text=of_others(caller, a.text)) for a in (one, other))
                if who.agent != AGENT:
                    unmarked(caller, one, *said)
                named = name in ("agent", "session", "label", "run", "host")
                if ROUTES[place].kind is Kind.THING or (named and who.agent != AGENT):
                    assert one.without(*said) == other.without(*said), about
                tried += 1
    assert tried > 100


def test_who_is_let_is_let(world):
    """The allowed twins; what ends A's things comes last."""
    own, all_of_a = world.caller("agent of a"), world.caller("all verbs of a")
    reading, operator = world.caller("reading agent of a"), world.caller("operator")
    used: set[tuple[str, str]] = set()

    def let(caller: Caller, method: str, template: str, body: object = None, **at: str) -> Any:
        used.add((method, template))
        answer = caller.ask(method, world.path(template, **at), body)
        assert answer.status in (200, 201, 202, 204), (method, template, answer)
        return json.loads(answer.text) if answer.text.startswith("{") else answer.text

    thing = "/v1/runs/{run_id}"
    for caller in (own, all_of_a, reading, operator, world.caller("peer: same user")):
        assert let(caller, "GET", thing)["agent"] == AGENT
        assert {each["id"] for each in let(caller, "GET", "/v1/runs")["runs"]} >= {world.run}
        assert OUTPUT in let(caller, "GET", f"{thing}/output/{{stream}}")
        assert FILE in json.dumps(let(caller, "GET", f"{thing}/changes"))
        assert KEPT in json.dumps(let(caller, "GET", f"{thing}/diff"))
        assert "event: outcome" in let(caller, "GET", f"{thing}/events")
        assert world.run in json.dumps(let(caller, "GET", "/v1/audit/events"))
        assert let(caller, "GET", "/v1/audit/proofs/{run_id}")
        assert let(caller, "GET", "/v1/approvals")["approvals"][0]["id"] == world.question
        assert let(caller, "GET", "/v1/approvals/{approval_id}")["agent"] == AGENT
    assert let(own, "GET", "/v1/budgets")["budgets"]
    counter = {"budget": "own", "scope": f"agent:{AGENT}", "reason": "r"}
    held = {"amounts": {"calls": "850"}, "lasting": "1h"}
    (told,) = let(operator, "POST", "/v1/budgets/set", {**counter, **held})["budgets"]
    assert (told["scope"], told["amount"]) == (counter["scope"], 850)
    (told,) = let(operator, "POST", "/v1/budgets/set", counter)["budgets"]
    assert told["amount"] == 900
    before = told["used"]
    left = let(operator, "POST", "/v1/budgets/reset", counter)["budgets"]
    assert sum(each["used"] for each in left) < before  # what open runs hold stays held
    for path in ("/v1/profiles", "/v1/audit/checkpoint", "/openapi.json", "/readyz", "/healthz"):
        let(own, "GET", path)
    metrics = let(operator, "GET", "/metrics")
    assert not any(mark in metrics for mark in MARKS)
    body = {"argv": ["true"], "tenant": TENANT}
    assert let(own, "POST", "/v1/decisions", body)["decision"]["effect"] == "allow"
    assert let(own, "POST", "/v1/runs", body)["exit_code"] == 0
    session = "/v1/sessions/{session_id}"
    for caller in (own, all_of_a, reading, operator):
        assert let(caller, "GET", session)["agent"] == AGENT
        assert world.session in {
            each["id"] for each in let(caller, "GET", "/v1/sessions")["sessions"]
        }
        assert let(caller, "GET", f"{session}/files") == KEPT
        assert let(caller, "GET", f"{session}/files/stat")["name"] == FILE
        assert FILE in json.dumps(let(caller, "GET", f"{session}/files/list"))
        assert let(caller, "GET", f"{session}/processes") == {"processes": []}
    left = let(own, "POST", f"{session}/runs", {"shell": "sleep 1000 &"})
    assert left["exit_code"] == 0
    (process,) = let(own, "GET", f"{session}/processes")["processes"]
    used.add(("DELETE", f"{session}/processes/{{number}}"))
    ended = f"/v1/sessions/{world.session}/processes/{process['number']}"
    assert own.ask("DELETE", ended).status == 204
    assert let(own, "PUT", f"{session}/files", {"n": 7})["path"] == FILE
    let(own, "DELETE", f"{session}/files")
    assert let(own, "DELETE", session)["termination"] == "exited"
    again = let(own, "POST", "/v1/sessions", {"tenant": TENANT, "lifetime": "30m"})
    assert own.ask("DELETE", f"/v1/sessions/{again['id']}").status == 200
    yes = {"answer": "approve", "reason": "it is fine"}
    approver = world.caller("approver of a")
    assert let(approver, "POST", "/v1/approvals/{approval_id}", yes)["state"] == "approved"
    assert let(own, "POST", f"{thing}/apply", {"dry_run": True})
    assert let(own, "DELETE", f"{thing}/changes")["discarded"]
    assert let(own, "DELETE", thing, run=world.run)["status"] == "ended"
    # A tenant's own key stops it as a whole, and lets it begin again; not what others stopped.
    stop = {"scope": "tenant", "name": TENANT, "reason": "it runs away"}
    assert world.live in let(all_of_a, "POST", "/v1/kills", stop)["runs"]
    (kill,) = let(all_of_a, "GET", "/v1/kills")["kills"]
    assert kill["name"] == TENANT
    assert let(world.caller("all verbs of b"), "GET", "/v1/kills") == {"kills": []}
    assert let(own, "POST", "/v1/runs", body)["termination"] == "denied"
    assert let(all_of_a, "POST", "/v1/kills/lift", stop) == {"kills": []}
    assert let(own, "POST", "/v1/runs", body)["exit_code"] == 0
    let(operator, "POST", "/v1/kills", stop)
    for place in ("/v1/kills", "/v1/kills/lift"):
        refused = all_of_a.ask("POST", place, stop)
        assert (refused.status, refused.code) == (403, "forbidden")
    assert let(own, "POST", "/v1/runs", body)["termination"] == "denied"
    assert let(operator, "POST", "/v1/kills/lift", stop) == {"kills": []}
    assert used == set(ROUTES)
