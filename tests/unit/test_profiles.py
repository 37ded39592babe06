from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from runner.errors import ProfileError
from runner.model.decision import Effect
from runner.model.limits import UNLIMITED
from runner.model.profile import (
    CgroupMode,
    Isolation,
    NetworkMode,
    Profile,
    ProfileOrigin,
    WorkspaceMode,
)
from runner.model.protection import ALWAYS_IN_PROCESS_TIER, Protection
from runner.model.rule import Match, OnDoubt, OnUnknown, Rule
from runner.schema.outcome import outcome_json_schema
from runner.schema.profile_file import policy_json_schema, profile_json_schema
from runner.schema.profiles import list_profiles, load_profile, shipped_profiles
from runner.schema.yaml import parse

WHOLE = """\
name: whole
description: All of it
threat_model: Stops nothing.
workspace: none
network: none
cgroup: sampled
limits:
  {wall: 5s, cpu_time: 4s, cpus: 0.5, memory: 64MiB, processes: 10, output: 1M, workspace: 2MiB,
   inodes: 100, open_files: unlimited}
optional: [landlock]
environment:
  set: {A: "1"}
  inherit: [LANG]
  deny: ["X_*"]
syscalls: {deny: [getcwd], allow: [ptrace]}
read: [/data/, /srv/x]
image: example
rules:
  default: ask
  on_dynamic: defer
  on_unreadable: ask
  on_doubt: passes
  mode: observe
  list:
    - id: one
      effect: deny
      match:
        command: rm
        args: [-r]
        any_args: [a, b]
        paths: /x
        writes: /y
        hosts: evil.example
        environment: LD_*
        via: sudo
      message: |
        No.
      on_doubt: matches
    - {id: two, effect: allow, match: {command: [ls, cat]}}
"""


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(path: str, *search: Path) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(path, search)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_every_key_reaches_the_profile(tmp_path: Path) -> None:
    source = write(tmp_path / "whole.yaml", WHOLE)
    profile = load_profile(source)
    assert profile.name == "whole"
    assert profile.source == source
    assert profile.origin is ProfileOrigin.FILE
    assert (profile.description, profile.threat_model) == ("All of it", "Stops nothing.")
    assert profile.workspace is WorkspaceMode.NONE
    assert profile.network is NetworkMode.NONE
    assert profile.cgroup is CgroupMode.SAMPLED
    assert profile.limits.wall_s == 5.0
    assert profile.limits.cpus == 0.5
    assert profile.limits.output_bytes == 1_000_000
    assert profile.limits.open_files is UNLIMITED
    assert profile.requires == frozenset(Protection) - {Protection.LANDLOCK, Protection.CGROUP}
    assert profile.environment.set == (("A", "1"),)
    assert profile.environment.inherit == ("LANG",)
    assert profile.environment.deny == ("X_*",)
    assert (profile.syscalls.deny, profile.syscalls.allow) == (("getcwd",), ("ptrace",))
    assert profile.read == ("/data", "/srv/x")
    assert profile.image == "example"
    layer = profile.policy
    assert layer.name == "profile:whole"
    assert (layer.default, layer.on_dynamic) == (Effect.ASK, OnUnknown.DEFER)
    assert (layer.on_unreadable, layer.observe) == (OnUnknown.ASK, True)
    assert layer.on_doubt is OnDoubt.PASSES
    assert layer.rules == (
        Rule(
            "one",
            Effect.DENY,
            Match(
                commands=("rm",),
                args=("-r",),
                any_args=("a", "b"),
                paths=("/x",),
                writes=("/y",),
                hosts=("evil.example",),
                environment=("LD_*",),
                via=("sudo",),
            ),
            "No.",
            OnDoubt.MATCHES,
        ),
        Rule("two", Effect.ALLOW, Match(commands=("ls", "cat")), ""),
    )


def test_the_safe_choice_is_the_default(tmp_path: Path) -> None:
    text = re.sub(r"(?ms)^(cgroup|network|workspace|optional).*?$", "", WHOLE)
    text = re.sub(r"(?m)^  (on_dynamic|on_unreadable|on_doubt|mode).*$", "", text)
    profile = load_profile(write(tmp_path / "p.yaml", text))
    assert profile.cgroup is CgroupMode.REQUIRED
    assert profile.requires == frozenset(Protection)
    assert profile.network is NetworkMode.NONE
    assert profile.policy.on_dynamic is OnUnknown.DENY
    assert profile.policy.on_unreadable is OnUnknown.DENY
    assert profile.policy.on_doubt is OnDoubt.MATCHES
    assert not profile.policy.observe


def test_all_problems_come_at_once_with_file_and_line(tmp_path: Path) -> None:
    text = """\
nmae: x
extends: agent
network: nine
limits:
  wal: 5s
  memory: 12mib
rules:
  list:
    - id: A
      effect: forbid
      match: {commands: x}
    - id: b
      effect: deny
      match: {}
    - {id: b, effect: allow, match: {command: []}}
environment: {set: {A: 1, B C: x}}
read: [a, /b/../c, 3]
requires: [landlok]
description: 5
cgroup: true
"""
    path = write(tmp_path / "bad.yaml", text)
    lines = refusal(path).splitlines()
    expected = [
        (1, "nmae", "did you mean 'name'?"),
        (3, "network", "allowed: none"),
        (5, "limits.wal", "did you mean 'wall'?"),
        (6, "limits.memory", "did you mean 12MiB?"),
        (9, "rules.list[0].id", "small letters"),
        (10, "rules.list[0].effect", "allowed: allow, rewrite, ask, deny"),
        (11, "rules.list[0].match.commands", "did you mean 'command'?"),
        (12, "rules.list[1].message", "is missing"),
        (14, "rules.list[1].match", "no condition"),
        (15, "rules.list[2].id", "is the id of rules.list[1]"),
        (15, "rules.list[2].match.command", "empty list"),
        (16, "environment.set.A", "put it in quotes"),
        (16, "environment.set.B C", "variable's name"),
        (17, "read[0]", "absolute"),
        (17, "read[1]", "'..'"),
        (17, "read[2]", "must be text"),
        (18, "requires[0]", "did you mean 'landlock'?"),
        (19, "description", "must be text"),
        (20, "cgroup", "is true"),
    ]
    assert len(lines) == len(expected)
    for line, (number, key, words) in zip(lines, expected, strict=True):
        assert re.match(rf"{re.escape(path)}:{number}:\d+: {re.escape(key)}: ", line), line
        assert words in line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "limits: wall, cpu_time"),
        ("", "rules.default: is missing"),
        ("- a\n", "is a list, must be a mapping"),
        ("just text\n", "is text, must be a mapping"),
        ("extends: agent\nlimits: 5\n", "limits: is the number 5, must be a mapping"),
        ("extends: agent\nlimits:\n", "limits: is empty, must be a mapping"),
        ("extends: agent\nrequires: landlock\n", "requires: is text, must be a list"),
        ("extends: agent\nrules: {default: rewrite}\n", "allowed: allow, ask, deny"),
        ("extends: agent\nrules: {on_unreadable: defer}\n", "allowed: ask, deny"),
        ("extends: agent\nrules: {mode: dry}\n", "rules.mode"),
        ("extends: agent\nrules: {on_doubt: pass}\n", "did you mean 'passes'?"),
        ("extends: agent\nrules: {list: [{id: a, effect: allow, match: {via: x},"
         " on_doubt: matches}]}\n", "leave it out"),
        ("extends: agent\noptional: [seccomp]\nrequires: [seccomp]\n", "required and optional"),
        ("extends: agent\nrequires: [cgroup]\ncgroup: sampled\n", "say 'required' here"),
        ("extends: agent\noptional: [cgroup]\n", "cgroup: sampled"),
        ("extends: agent\nsyscalls: {deny: [bpf], allow: [bpf]}\n", "allowed and denied"),
        ("extends: agent\nsyscalls: {deny: ['a b']}\n", "system call"),
        ("extends: agent\nsyscalls: {allow: [ptrce]}\n", "did you mean 'ptrace'?"),
        ("extends: agent\nsyscalls: {deny: [mounts]}\n", "did you mean 'mount'?"),
        ("extends: agnet\n", "did you mean 'agent'?"),
        ("extends: ./none.yaml\n", "does not exist"),
        ("extends: agent\nrules: {list: [{id: privileges, effect: allow, match: {command: su}}]}\n",
         "choose another id"),
        ("extends: agent\nrules: {without: [privilege]}\n", "did you mean 'privileges'?"),
        ("extends: agent\nname: No Name\n", "small letters"),
        ("extends: agent\nimage: ''\n", "is empty"),
        ("extends: agent\nrules: {list: [{id: a, effect: ask, match: {via: x}, message: ' '}]}\n",
         "is missing"),
    ],
)  # fmt: skip
def test_refusals(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path / "p.yaml", text)
    message = refusal(path)
    assert words in message
    assert all(line.startswith(f"{path}:") for line in message.splitlines())


def test_extends_merges(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", WHOLE)
    child = """\
extends: base.yaml
limits: {wall: 9s}
requires: [landlock]
environment: {set: {B: "2"}, deny: [Y, "X_*"]}
syscalls: {deny: [ptrace, bpf]}
read: [/more]
rules:
  default: allow
  without: [two]
  list:
    - {id: three, effect: ask, match: {via: xargs}, message: why}
"""
    profile = load_profile(write(tmp_path / "child.yaml", child))
    assert profile.name == "child"
    assert profile.description == "All of it"
    assert (profile.limits.wall_s, profile.limits.cpu_time_s) == (9.0, 4.0)
    assert profile.requires == frozenset(Protection) - {Protection.CGROUP}
    assert profile.environment.set == (("A", "1"), ("B", "2"))
    assert profile.environment.deny == ("X_*", "Y")
    assert set(profile.syscalls.deny) == {"getcwd", "ptrace", "bpf"}
    assert profile.syscalls.allow == ()
    assert profile.read == ("/data", "/srv/x", "/more")
    assert [rule.id for rule in profile.policy.rules] == ["one", "three"]
    assert profile.policy.default is Effect.ALLOW
    assert profile.policy.on_dynamic is OnUnknown.DEFER
    assert profile.policy.on_doubt is OnDoubt.PASSES
    assert profile.policy.name == "profile:child"


def test_extends_in_a_circle_or_too_deep_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "extends: ./b.yaml\n")
    write(tmp_path / "b.yaml", "extends: ./a.yaml\n")
    assert "break the circle" in refusal(str(tmp_path / "a.yaml"))
    write(tmp_path / "self.yaml", "extends: self.yaml\n")
    assert "break the circle" in refusal(str(tmp_path / "self.yaml"))
    write(tmp_path / "d0.yaml", "extends: agent\n")
    for i in range(1, 12):
        write(tmp_path / f"d{i}.yaml", f"extends: ./d{i - 1}.yaml\n")
    assert load_profile(str(tmp_path / "d6.yaml")).limits == load_profile("agent").limits
    assert "files deep" in refusal(str(tmp_path / "d11.yaml"))


def test_an_error_in_a_base_names_the_base(tmp_path: Path) -> None:
    base = write(tmp_path / "base.yaml", "extends: agent\nlimits: {wall: never}\n")
    child = write(tmp_path / "child.yaml", "extends: base.yaml\n")
    assert refusal(child).startswith(f"{base}:2:")


def test_a_name_is_searched_in_order_then_among_the_shipped(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    write(mine / "agent.yaml", "extends: agent\ndescription: mine\n")
    write(other / "agent.yaml", "extends: agent\ndescription: other\n")
    write(other / "extra.yaml", "extends: locked\n")
    search = (mine, other, tmp_path / "missing")
    assert load_profile("agent", search).description == "mine"
    assert load_profile("agent", search).origin is ProfileOrigin.USER
    assert load_profile("agent", ()).origin is ProfileOrigin.SHIPPED
    assert load_profile("extra", search).workspace is WorkspaceMode.NONE
    message = refusal("agnt", *search)
    assert "did you mean 'agent'?" in message
    assert "agent, agent-process, ci, extra, locked" in message


def test_a_name_that_differs_from_its_file_is_refused_in_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "x.yaml", "extends: agent\nname: locked\n")
    assert "make both the same" in refusal("x", tmp_path)
    assert load_profile(str(tmp_path / "x.yaml")).name == "locked"


def test_the_list_shows_broken_profiles_too(tmp_path: Path) -> None:
    write(tmp_path / "broken.yaml", "extends: nothing\n")
    write(tmp_path / "good.yaml", "extends: agent\ndescription: Good\n")
    entries = {entry.name: entry for entry in list_profiles((tmp_path,))}
    assert list(entries) == ["agent", "agent-process", "broken", "ci", "good", "locked"]
    assert entries["good"].error is None
    assert entries["good"].description == "Good"
    assert "no shipped profile" in (entries["broken"].error or "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root can read everything")
def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    write(path, WHOLE)
    path.chmod(0)
    assert "permission denied" in refusal(str(path))


SHIPPED = sorted(path.stem for path in shipped_profiles())
EVERYWHERE = frozenset(Protection) - {
    Protection.USER_NAMESPACE,
    Protection.LANDLOCK,
    Protection.CGROUP,
    Protection.CGROUP_NAMESPACE,
}


def test_what_ships() -> None:
    assert SHIPPED == ["agent", "agent-process", "ci", "locked"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_says_what_it_stops_and_grants_no_more(name: str) -> None:
    profile = load_profile(name)
    path = Path(profile.source)
    own = parse(path.read_text(encoding="utf-8"), name, ProfileError).data
    assert isinstance(own, dict)
    for key in ("name", "description", "threat_model", "workspace", "network", "cgroup", "limits"):
        assert key in own, "a shipped profile states it itself"
    header = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    for word in ("Stops", "Does not stop"):
        assert word in header.replace("\n# ", " ")
    for word in ("Assumed", "Stopped", "Not stopped"):
        assert word in profile.threat_model
    lesser = profile.isolation is Isolation.PROCESS
    assert profile.requires >= (ALWAYS_IN_PROCESS_TIER if lesser else EVERYWHERE)
    assert lesser is (name == "agent-process")
    assert profile.network is NetworkMode.NONE
    assert UNLIMITED not in [getattr(profile.limits, f) for f in profile.limits.__slots__]
    assert profile.policy.on_dynamic is OnUnknown.DENY
    assert profile.policy.on_unreadable is OnUnknown.DENY
    assert not profile.policy.observe
    assert {"LD_*", "PYTHONSTARTUP", "BASH_ENV", "NODE_OPTIONS"} <= set(profile.environment.deny)
    assert {"GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF"} <= set(profile.environment.deny)
    assert all(len(rule.message) > 20 for rule in profile.policy.rules)
    assert profile.syscalls.allow == ()


def test_locked_holds_everything() -> None:
    locked = load_profile("locked")
    assert locked.requires == frozenset(Protection)
    own = parse(Path(locked.source).read_text(encoding="utf-8"), "locked", ProfileError).data
    assert isinstance(own, dict)
    assert set(own["requires"]) >= frozenset(Protection) - EVERYWHERE - {Protection.CGROUP}
    assert locked.policy.on_doubt is OnDoubt.MATCHES
    assert locked.cgroup is CgroupMode.REQUIRED
    assert locked.workspace is WorkspaceMode.NONE
    agent = load_profile("agent")
    for field in locked.limits.__slots__:
        assert getattr(locked.limits, field) < getattr(agent.limits, field)


def schema_errors(value: object, schema: dict[str, Any], root: dict[str, Any]) -> list[str]:
    """As much of JSON Schema as the published ones use; an unknown keyword is an error."""
    if "$ref" in schema:
        return schema_errors(value, root["$defs"][schema["$ref"].split("/")[-1]], root)
    known = {"$defs", "$schema", "$id", "title", "description", "default", "type", "enum", "const"}
    known |= {"properties", "required", "additionalProperties", "items", "anyOf", "pattern"}
    known |= {"exclusiveMinimum", "minLength", "minItems", "propertyNames"}
    errors = [f"keyword {key}" for key in schema.keys() - known]
    if "anyOf" in schema and all(schema_errors(value, s, root) for s in schema["anyOf"]):
        errors.append(f"{value!r}: none of anyOf")
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    kinds |= {"number": int | float, "integer": int}
    kind = schema.get("type")
    wrong_bool = isinstance(value, bool) and kind in {"number", "integer"}
    if kind and (not isinstance(value, kinds[kind]) or wrong_bool):
        return [*errors, f"{value!r}: not {kind}"]
    if "enum" in schema and value not in schema["enum"]:
        errors.append(f"{value!r}: not in enum")
    if "const" in schema and value != schema["const"]:
        errors.append(f"{value!r}: not const")
    if isinstance(value, str):
        if not re.search(schema.get("pattern", ""), value):
            errors.append(f"{value!r}: pattern")
        if len(value) < schema.get("minLength", 0):
            errors.append(f"{value!r}: short")
    if isinstance(value, list):
        errors += [e for item in value for e in schema_errors(item, schema.get("items", {}), root)]
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        errors += [f"missing {key}" for key in schema.get("required", ()) if key not in value]
        for key in value:
            errors += schema_errors(key, schema.get("propertyNames", {}), root)
        rest = schema.get("additionalProperties", True)
        for key, item in value.items():
            if key in properties:
                errors += schema_errors(item, properties[key], root)
            elif rest is False:
                errors.append(f"unknown {key}")
            elif isinstance(rest, dict):
                errors += schema_errors(item, rest, root)
    return errors


@pytest.mark.parametrize("path", shipped_profiles(), ids=lambda path: path.stem)
def test_the_schema_holds_for_shipped_profiles(path: Path) -> None:
    schema = profile_json_schema()
    data = parse(path.read_text(encoding="utf-8"), path.name, ProfileError).data
    assert schema_errors(data, schema, schema) == []


@pytest.mark.parametrize(
    "text",
    [
        "nmae: x",
        "limits: {wall: 12 parsecs}",
        "limits: {processes: 1.5}",
        "network: all",
        "rules: {list: [{id: a, effect: forbid, match: {command: x}}]}",
        "rules: {list: [{id: a, effect: deny}]}",
        "read: [relative]",
        "requires: [magic]",
        "environment: {set: {A: 1}}",
    ],
)
def test_the_schema_refuses_what_the_loader_refuses(tmp_path: Path, text: str) -> None:
    schema = profile_json_schema()
    data = parse(text, "t", ProfileError).data
    assert schema_errors(data, schema, schema)
    refusal(write(tmp_path / "p.yaml", f"extends: agent\n{text}\n"))


def test_the_schema_takes_all_keys() -> None:
    schema = profile_json_schema()
    assert schema_errors(parse(WHOLE, "t", ProfileError).data, schema, schema) == []


@pytest.mark.parametrize("make", [profile_json_schema, policy_json_schema, outcome_json_schema])
def test_schemas_are_published_as_draft_2020_12(make: Any) -> None:
    schema = make()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(".json")
    assert schema["additionalProperties"] is False
    assert json.loads(json.dumps(schema)) == schema


def test_profiles_are_values() -> None:
    first, second = load_profile("agent"), load_profile("agent")
    assert isinstance(first, Profile)
    assert first == second


@pytest.mark.parametrize("mode", [mode.value for mode in WorkspaceMode])
def test_every_mode_of_a_workspace_can_be_said(tmp_path: Path, mode: str) -> None:
    limits = "{workspace: unlimited, inodes: unlimited}"
    text = f"extends: agent\nworkspace: {mode}\nlimits: {limits}\n"
    assert load_profile(write(tmp_path / "p.yaml", text)).workspace.value == mode


def test_a_bound_workspace_needs_the_full_tier(tmp_path: Path) -> None:
    limits = "{workspace: unlimited, inodes: unlimited}"
    text = f"extends: agent-process\nworkspace: bind\nlimits: {limits}\n"
    assert "bind is not there with isolation: process" in refusal(write(tmp_path / "p.yaml", text))
    cow = f"extends: agent-process\nworkspace: cow\nlimits: {limits}\n"
    assert load_profile(write(tmp_path / "q.yaml", cow)).isolation is Isolation.PROCESS


@pytest.mark.parametrize("key", ["workspace", "inodes"])
def test_a_bound_workspace_says_that_nothing_bounds_it(tmp_path: Path, key: str) -> None:
    other = {"workspace": "inodes", "inodes": "workspace"}[key]
    text = f"extends: agent\nworkspace: bind\nlimits: {{{other}: unlimited}}\n"
    said = refusal(write(tmp_path / "p.yaml", text))
    assert f"'{key}' can't be held in a folder that is bound" in said
    assert "p.yaml" in said
    # What extends such a profile can take it back, and then has to bound it again or not.
    write(
        tmp_path / "base.yaml",
        "extends: agent\nworkspace: bind\nlimits: {workspace: unlimited, inodes: unlimited}\n",
    )
    back = load_profile(write(tmp_path / "b.yaml", "extends: ./base.yaml\nworkspace: copy\n"))
    assert back.workspace is WorkspaceMode.COPY
