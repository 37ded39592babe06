"""What callers of the API reach: each identity its own, and nothing tells of the rest."""

from __future__ import annotations

import asyncio
import base64
import re
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.routing import WebSocketRoute
from starlette.testclient import TestClient, WebSocketDenialResponse

sys.path.insert(0, str(Path(__file__).parents[1] / "security"))
from isolation import SOCKETS

from runner import Runner
from runner.errors import UnauthenticatedError
from runner.model.identity import AGENT_VERBS, Identity, Verb
from runner.surfaces.http import listing
from runner.surfaces.http.access import Needs
from runner.surfaces.http.app import create_app
from runner.surfaces.http.fresh import FreshWorkspaces
from runner.surfaces.http.jobs import Room

EVERYTHING = ("*",)
WHO = {
    "operator": Identity(
        "key:operator", frozenset(Verb), agents=EVERYTHING, tenants=EVERYTHING, profiles=EVERYTHING
    ),
    "one": Identity("key:one", AGENT_VERBS, agent="one", tenants=("t",), profiles=("agent",)),
    "two": Identity("key:two", AGENT_VERBS, agent="two", tenants=("t",), profiles=("agent",)),
    "team": Identity(
        "key:team", AGENT_VERBS, agents=("one", "two"), tenants=("t",), profiles=EVERYTHING
    ),
    "reader": Identity("key:reader", frozenset({Verb.READ}), agents=EVERYTHING, tenants=EVERYTHING),
}
READS = ("", "/events", "/changes", "/diff", "/output/stdout")


async def by_header(connection: HTTPConnection) -> Identity:
    who = WHO.get(connection.headers.get("who", ""))
    if who is None:
        raise UnauthenticatedError("nobody knows who calls")
    return who


@pytest.fixture
def served(runner: Runner) -> Callable[[Callable[..., Awaitable[None]]], None]:
    """Calls a test with a client, in a loop of its own."""

    def serve(test: Callable[..., Awaitable[None]]) -> None:
        async def all_of_it(fresh: FreshWorkspaces) -> None:
            app = create_app(runner, by_header, fresh, room=Room(2, 8))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
                await test(client)
            await app.state.service.jobs.stop(60, asyncio.Event())

        with FreshWorkspaces() as fresh:
            asyncio.run(all_of_it(fresh))

    return serve


async def ran(client: httpx.AsyncClient, who: str, **body: Any) -> httpx.Response:
    asked = {"argv": ["true"], "tenant": "t", **body}
    return await client.post("/v1/runs", json=asked, headers={"who": who})


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_every_route_says_what_it_needs(runner):
    async def nobody(connection: HTTPConnection) -> Identity:
        raise UnauthenticatedError("nobody")

    def verbs(route: APIRoute) -> list[Verb]:
        calls = [each.call for each in route.dependant.dependencies]
        return [call.verb for call in calls if isinstance(call, Needs)]

    with FreshWorkspaces() as fresh:
        app = create_app(runner, nobody, fresh, room=Room(1, 1))
    routes = [route for route in walked(app.router) if isinstance(route, APIRoute)]
    assert len(routes) > 15
    without = {route.path for route in routes if len(verbs(route)) != 1}
    assert without == {"/healthz"}
    page = (Path(__file__).resolve().parents[2] / "docs" / "api.md").read_text()
    told = set(re.findall(r"(?m)^\| `([A-Z]+) (/\S*)` \| (?:`(\w+)`|none) \|", page))
    assert told == {(*r.methods, r.path, *(verbs(r) or [""])) for r in routes}
    sockets = {r.path for r in walked(app.router) if isinstance(r, WebSocketRoute)}
    assert (
        sockets == set(SOCKETS) == set(re.findall(r"(?m)^\| `WebSocket (/\S*)` \| `run` \|", page))
    )
    writes = {r.path for r in routes if r.methods != {"GET"} and verbs(r) == [Verb.READ]}
    assert not writes

    async def asked() -> None:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
            for route in routes:
                path = route.path.replace("{run_id}", "run-x").replace("{stream}", "stdout")
                for method in route.methods:
                    answer = await client.request(method, path, content=b"\0")
                    if path != "/healthz":
                        assert code(answer) == (401, "unauthenticated"), path
                        assert answer.headers["www-authenticate"]

    asyncio.run(asked())
    with TestClient(app) as calls:
        for path in sockets:
            with pytest.raises(WebSocketDenialResponse) as caught:
                calls.websocket_connect(path.replace("{session_id}", "ses-x")).__enter__()
            assert code(caught.value) == (401, "unauthenticated"), path


def walked(router: Any) -> list[Any]:
    """Its routes, those of routers in it too."""
    found = []
    for route in router.routes:
        inner = getattr(route, "original_router", None) or getattr(route, "router", None)
        found += walked(inner) if inner is not None else [route]
    return found


def test_what_is_out_of_reach_is_as_what_is_not_there(served):
    async def test(client: httpx.AsyncClient) -> None:
        own = (await ran(client, "one", shell="echo > x", argv=None)).json()["run_id"]
        elsewhere = await ran(client, "operator", agent="one", tenant="other")
        for run_id, allowed, refused in (
            (own, ("one", "team", "operator", "reader"), ("two",)),
            (elsewhere.json()["run_id"], ("operator",), ("one", "team", "two")),
        ):
            for path in READS:
                for who in refused:
                    told = await client.get(f"/v1/runs/{run_id}{path}", headers={"who": who})
                    unknown = await client.get(f"/v1/runs/run-x{path}", headers={"who": who})
                    assert code(told) == (404, "not_found")
                    assert told.text.replace(run_id, "") == unknown.text.replace("run-x", "")
            for who in allowed:
                told = await client.get(f"/v1/runs/{run_id}", headers={"who": who})
                assert told.status_code == 200
            for who in refused:
                for method, path, body in (
                    ("DELETE", "", None), ("DELETE", "/changes", None), ("POST", "/apply", {}),
                ):  # fmt: skip
                    told = await client.request(
                        method, f"/v1/runs/{run_id}{path}", json=body, headers={"who": who}
                    )
                    assert code(told) == (404, "not_found")
                told = await client.get(f"/v1/audit/proofs/{run_id}", headers={"who": who})
                assert code(told) == (404, "not_found")
        applied = await client.post(f"/v1/runs/{own}/apply", json={}, headers={"who": "one"})
        assert applied.status_code == 200

        async def listed(who: str) -> set[str]:
            got = await client.get("/v1/runs", headers={"who": who})
            return {run["id"] for run in got.json()["runs"]}

        assert await listed("one") == await listed("team") == {own}
        assert await listed("two") == set()
        assert len(await listed("operator")) == 2

        async def audited(who: str) -> set[tuple[str, str]]:
            got = await client.get("/v1/audit/events", headers={"who": who})
            principals = [row["event"]["principal"] for row in got.json()["events"]]
            return {(p["agent"], p["tenant"]) if p else ("", "") for p in principals}

        # Who applied changes is told without a tenant; whose run it was decides who sees it.
        own = {("one", "t"), ("one", None)}
        assert await audited("one") == await audited("team") == own
        assert await audited("two") == set()
        assert {("", ""), ("one", "t"), ("one", "other")} <= await audited("operator")
        for who, status in (("one", 404), ("team", 404), ("operator", 200)):
            assert (await client.get("/metrics", headers={"who": who})).status_code == status

    served(test)


def test_an_agent_runs_under_its_own_name_alone(served):
    async def test(client: httpx.AsyncClient) -> None:
        assert (await ran(client, "one", agent="one")).status_code == 200
        for body in (
            {"agent": "two"}, {"tenant": "other"}, {"tenant": None}, {"parent": "two"},
            {"profile": "ci"},
        ):  # fmt: skip
            assert code(await ran(client, "one", **body)) == (403, "forbidden"), body
        asked = {"argv": ["true"], "tenant": "t", "agent": "two"}
        told = await client.post("/v1/decisions", json=asked, headers={"who": "one"})
        assert code(told) == (403, "forbidden")
        assert code(await ran(client, "reader")) == (403, "forbidden")
        # Nothing of those was run; that they asked is recorded.
        runs = await client.get("/v1/runs", headers={"who": "operator"})
        assert len(runs.json()["runs"]) == 1
        asked_for = {"kind": "request.refused"}
        kinds = await client.get("/v1/audit/events", params=asked_for, headers={"who": "operator"})
        assert {row["event"]["data"]["code"] for row in kinds.json()["events"]} == {"forbidden"}
        # Twins: who speaks for several names, and who may use the profile.
        assert (await ran(client, "team", agent="two")).status_code == 200
        assert (await ran(client, "team", agent="one", profile="ci")).status_code == 200

    served(test)


def test_names_that_the_log_writes_otherwise_are_still_told_apart(served):
    """The log writes one replacement character as two (`canonical.escape`)."""
    for who, name in (("short", "\ufffd"), ("long", "\ufffd\ufffd")):
        WHO[who] = Identity(f"key:{who}", AGENT_VERBS, agent=name, tenants=("t",), profiles=("*",))

    async def test(client: httpx.AsyncClient) -> None:
        own = (await ran(client, "short")).json()["run_id"]
        for who, seen in (("short", 1), ("long", 0)):
            listed = await client.get("/v1/runs", headers={"who": who})
            assert len(listed.json()["runs"]) == seen
            events = await client.get("/v1/audit/events", params={"run": own}, headers={"who": who})
            assert len(events.json()["events"]) == 3 * seen
            one = await client.get(f"/v1/runs/{own}", headers={"who": who})
            assert one.status_code == (200 if seen else 404)

    served(test)


def test_a_key_of_idempotency_is_its_callers_own(served):
    async def test(client: httpx.AsyncClient) -> None:
        asked = {"argv": ["true"], "tenant": "t"}
        ids = set()
        for who in ("one", "two", "one"):
            headers = {"who": who, "Idempotency-Key": "k"}
            answer = await client.post("/v1/runs", json=asked, headers=headers)
            ids.add(answer.json()["run_id"])
        assert len(ids) == 2

    served(test)


def test_profiles_and_budgets_are_the_callers_own(runner, tmp_path, monkeypatch, native):
    layers = tmp_path / "policy.d"
    layers.mkdir()
    (layers / "b.yaml").write_text(
        "budgets:\n- {id: own, of: agent, per: 1h, calls: 9}\n- {id: e, of: all, per: 1h, calls: 9}"
    )
    monkeypatch.setenv("RUNNER_POLICY_DIRS", str(layers))

    async def test(client: httpx.AsyncClient) -> None:
        for who in ("one", "two"):
            assert (await ran(client, who)).status_code == 200

        async def shown(who: str) -> set[str]:
            got = await client.get("/v1/budgets", headers={"who": who})
            return {budget["scope"] for budget in got.json()["budgets"]}

        assert await shown("one") == {"agent:one"}
        assert await shown("two") == {"agent:two"}
        assert await shown("team") == set()
        assert await shown("operator") == {"all", "agent:one", "agent:two"}
        profiles = await client.get("/v1/profiles", headers={"who": "one"})
        assert [each["name"] for each in profiles.json()["profiles"]] == ["agent"]
        for profile in ("ci", "/etc/passwd", "x.yaml"):
            told = await client.get(
                "/v1/budgets", params={"profile": profile}, headers={"who": "one"}
            )
            assert code(told) == (403, "forbidden")

    with Runner(home=tmp_path / "other") as made, FreshWorkspaces() as fresh:

        async def all_of_it() -> None:
            app = create_app(made, by_header, fresh, room=Room(1, 1))
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://r") as client:
                await test(client)
            await app.state.service.jobs.stop(60, asyncio.Event())

        asyncio.run(all_of_it())


def test_no_agent_answers_and_nobody_out_of_reach(runner, work, served, tmp_path):
    profile = tmp_path / "asks.yaml"
    profile.write_text(
        "extends: agent\nrules:\n  list:\n"
        "    - {id: t, match: {command: touch}, effect: ask, message: look at it}\n"
    )

    def ask(agent: str, tenant: str) -> str:
        denied = runner.run(
            ["touch", "x"], cwd=work, profile=str(profile), agent=agent, tenant=tenant
        )
        assert denied.status == 126
        return max(runner.approvals.waiting(), key=lambda each: each.asked_s).id

    own, elsewhere = ask("one", "t"), ask("one", "other")
    WHO["lead"] = Identity(
        "key:lead", frozenset({Verb.READ, Verb.APPROVE}), agents=("one",), tenants=("t",)
    )

    async def test(client: httpx.AsyncClient) -> None:
        async def seen(who: str) -> set[str]:
            got = await client.get("/v1/approvals", headers={"who": who})
            return {each["id"] for each in got.json()["approvals"]}

        assert await seen("one") == await seen("lead") == {own}
        assert await seen("two") == set()
        assert await seen("operator") == {own, elsewhere}

        async def say(who: str, which: str, **body: str) -> httpx.Response:
            body = {"answer": "approve", "reason": "fine", **body}
            return await client.post(f"/v1/approvals/{which}", json=body, headers={"who": who})

        for who in ("one", "team", "reader"):
            assert code(await say(who, own)) == (403, "forbidden")
        assert code(await say("lead", elsewhere)) == (404, "not_found")
        assert code(await say("lead", "ask-x")) == (404, "not_found")
        assert code(await say("lead", own, answer="maybe")) == (400, "bad_request")
        assert code(await say("lead", own, reason="")) == (400, "bad_request")
        said = await say("lead", own)
        assert (said.json()["state"], said.json()["answer"]["by"]) == ("approved", "key:lead")
        again = await say("lead", own)
        assert code(again) == (400, "bad_request")
        assert await seen("operator") == {elsewhere}
        every = await client.get("/v1/approvals?all=true", headers={"who": "one"})
        assert [each["state"] for each in every.json()["approvals"]] == ["approved"]
        one = await client.get(f"/v1/approvals/{own}", headers={"who": "two"})
        assert code(one) == (404, "not_found")

    served(test)


def test_who_kills_reaches_what_it_ends(served):
    WHO["guard"] = Identity(
        "key:guard", frozenset({Verb.READ, Verb.KILL}), agents=("one",), tenants=("t",)
    )

    async def test(client: httpx.AsyncClient) -> None:
        async def begun(agent: str) -> str:
            asked = {"argv": ["sleep", "1000"], "wait": False, "agent": agent}
            run_id = (await ran(client, "operator", **asked)).json()["id"]
            while (await client.get(f"/v1/runs/{run_id}", headers={"who": "operator"})).json()[
                "usage"
            ] is None:
                await asyncio.sleep(0.05)
            return str(run_id)

        async def kill(who: str, **body: str) -> httpx.Response:
            asked = {"reason": "enough", **body}
            return await client.post("/v1/kills", json=asked, headers={"who": who})

        own, others = await begun("one"), await begun("two")
        for who in ("one", "team", "reader"):
            assert code(await kill(who, scope="run", name=own)) == (403, "forbidden")
        assert code(await kill("guard", scope="run", name=others)) == (404, "not_found")
        for scope in ("agent", "session", "tenant", "all"):
            name = "" if scope == "all" else "one"
            assert code(await kill("guard", scope=scope, name=name)) == (403, "forbidden")
        ended = await kill("guard", scope="run", name=own)
        assert (ended.json()["runs"], ended.json()["alive"]) == ([own], [])
        assert code(await kill("guard", scope="run", name=own)) == (400, "bad_request")
        every = await kill("operator", scope="agent", name="two")
        assert every.json()["runs"] == [others]
        denied = await ran(client, "two")
        assert denied.json()["decision"]["rules"][0]["id"] == "kill-switch"
        held = (await client.get("/v1/kills", headers={"who": "operator"})).json()["kills"]
        assert [(each["name"], each["by"]) for each in held] == [("two", "key:operator")]
        seen = await client.get("/v1/kills", headers={"who": "guard"})
        assert seen.json() == {"kills": []}
        lifted = await client.post(
            "/v1/kills/lift",
            json={"scope": "agent", "name": "two", "reason": "mended"},
            headers={"who": "operator"},
        )
        assert lifted.json() == {"kills": []}
        assert (await ran(client, "two")).json()["termination"] == "exited"

    served(test)


def test_the_document_says_all_that_bodies_may_hold(served):
    async def test(client: httpx.AsyncClient) -> None:
        document = (await client.get("/openapi.json", headers={"who": "reader"})).json()
        names = document["components"]["schemas"]
        assert {"RunBody", "DecisionBody", "ApplyBody", "ErrorAnswer", "OutcomeDocument"} <= set(
            names
        )

        def references(value: Any) -> set[str]:
            if isinstance(value, dict):
                own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
                return own.union(*map(references, value.values()))
            if isinstance(value, list):
                return set().union(*map(references, value))
            return set()

        known = {f"#/components/schemas/{name}" for name in names}
        assert references(document) <= known
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                assert "422" not in operation["responses"], (method, path)
                assert operation.get("description"), (method, path)

    served(test)


def test_a_cursor_tells_nothing_of_runs_out_of_reach(served, monkeypatch):
    monkeypatch.setattr(listing, "_LOOKED_AT", 2)
    monkeypatch.setattr(listing, "_STEP", 1)

    async def test(client: httpx.AsyncClient) -> None:
        own = (await ran(client, "one")).json()["run_id"]
        others = [(await ran(client, "two")).json()["run_id"] for _ in range(5)]

        async def page(who: str, cursor: str | None) -> httpx.Response:
            asked = {} if cursor is None else {"cursor": cursor}
            return await client.get("/v1/runs", params=asked, headers={"who": who})

        WHO["lone"] = Identity("key:lone", AGENT_VERBS, agents=("one",), tenants=("t",))
        seen, cursors = [], [None]
        while len(seen) < 1:
            told = (await page("lone", cursors[-1])).json()
            seen += [run["id"] for run in told["runs"]]
            cursors.append(told["next"])
        assert (seen, len(cursors)) == ([own], 4)
        for cursor in cursors[1:]:
            inside = base64.urlsafe_b64decode(cursor)
            assert not any(run.encode() in inside for run in others)
            assert code(await page("two", cursor)) == (400, "bad_request")
        spoiled = cursors[1][:-6] + "AAAA" + cursors[1][-2:]
        assert code(await page("lone", spoiled)) == (400, "bad_request")

    served(test)
