from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from runner.bound import check_bound
from runner.compile import (
    HOME,
    check_workspace,
    compile_spec,
    denied_environment,
    inherited_names,
    policy_layers,
    spec_digest,
    spec_document,
    tighten,
)
from runner.errors import BackendError, PolicyError, RequestError
from runner.model.limits import UNLIMITED, LimitOverrides, Limits
from runner.model.principal import Principal
from runner.model.profile import (
    CgroupMode,
    Environment,
    NetworkMode,
    Profile,
    ProfileOrigin,
    Restrictions,
    Syscalls,
    WorkspaceMode,
)
from runner.model.protection import Protection
from runner.model.request import Argv, ExecRequest, Script, ShellText
from runner.model.rule import PolicyLayer
from runner.model.spec import RUN_FOLDER, InjectedFile, Workspace

LIMITS = Limits(
    wall_s=60.0,
    cpu_time_s=UNLIMITED,
    cpus=2.0,
    memory_bytes=1 << 30,
    processes=64,
    output_bytes=1 << 20,
    workspace_bytes=1 << 26,
    workspace_inodes=1000,
    open_files=256,
)
PROFILE = Profile(
    name="agent",
    source="/usr/share/agent.yaml",
    description="",
    threat_model="",
    workspace=WorkspaceMode.COPY_ON_WRITE,
    network=NetworkMode.NONE,
    cgroup=CgroupMode.SAMPLED,
    limits=LIMITS,
    requires=frozenset({Protection.SECCOMP}),
    policy=PolicyLayer("profile:agent"),
    environment=Environment(set=(("MODE", "profile"),), inherit=("LC_ALL",), deny=("LD_*",)),
    syscalls=Syscalls(deny=("getcwd",), allow=("ptrace", "bpf")),
    read=("/data", "/opt/tools"),
    origin=ProfileOrigin.SHIPPED,
)
REQUEST = ExecRequest(
    principal=Principal(uid=1000), program=Argv(("ls", "-l")), directory="/home/bob/project"
)


def layer(**stated: Any) -> Restrictions:
    return Restrictions(policy=PolicyLayer("organisation:/etc/x.yaml"), **stated)


def spec_of(program: object = None, profile: Profile = PROFILE, **request: Any) -> Any:
    asked = replace(REQUEST, **({"program": program} if program else {}), **request)
    return compile_spec(asked, profile, (), {})


def environment(profile: Profile = PROFILE, inherited: Any = None, **request: Any) -> Any:
    return dict(compile_spec(replace(REQUEST, **request), profile, (), inherited).environment)


# --- tighten


def test_layers_only_tighten() -> None:
    found = tighten(
        PROFILE,
        [
            layer(limits=LimitOverrides(wall_s=90.0, memory_bytes=1 << 20, cpu_time_s=5.0)),
            layer(limits=LimitOverrides(wall_s=30.0, memory_bytes=UNLIMITED)),
            layer(requires=frozenset({Protection.LANDLOCK}), environment_deny=("AWS_*", "LD_*")),
            layer(syscalls_deny=("ptrace", "mount")),
        ],
    )
    assert found.limits == replace(LIMITS, wall_s=30.0, memory_bytes=1 << 20, cpu_time_s=5.0)
    assert found.requires == {Protection.SECCOMP, Protection.LANDLOCK}
    assert found.environment.deny == ("LD_*", "AWS_*")
    assert found.environment.set == PROFILE.environment.set
    assert found.syscalls == Syscalls(deny=("getcwd", "ptrace", "mount"), allow=("bpf",))
    assert found.cgroup is CgroupMode.SAMPLED
    assert found.policy == PROFILE.policy


def test_no_layer_changes_nothing() -> None:
    assert tighten(PROFILE, []) == PROFILE
    assert tighten(PROFILE, [layer()]) == PROFILE


@pytest.mark.parametrize(
    "stated", [{"cgroup": CgroupMode.REQUIRED}, {"requires": frozenset({Protection.CGROUP})}]
)
def test_a_cgroup_that_a_layer_wants_is_required(stated: dict[str, Any]) -> None:
    found = tighten(PROFILE, [layer(**stated)])
    assert found.cgroup is CgroupMode.REQUIRED
    assert Protection.CGROUP in found.requires


@pytest.mark.parametrize(
    ("permitted", "changes", "fine"),
    [
        (("agent",), {}, True),
        (("ag*", "ci"), {}, True),
        (("ci",), {}, False),
        ((), {}, False),
        (("agent",), {"origin": ProfileOrigin.SYSTEM}, True),
        (("agent",), {"origin": ProfileOrigin.USER}, False),
        (("agent", "*"), {"origin": ProfileOrigin.FILE}, False),
        (("/usr/share/*",), {"origin": ProfileOrigin.FILE}, True),
        (("/opt/*",), {"origin": ProfileOrigin.FILE}, False),
    ],
)
def test_permitted_profiles(
    permitted: tuple[str, ...], changes: dict[str, Any], fine: bool
) -> None:
    profile = replace(PROFILE, **changes)
    if fine:
        assert tighten(profile, [layer(profiles=permitted)]) == profile
    else:
        with pytest.raises(PolicyError, match=r"^organisation:/etc/x\.yaml: .*not permitted"):
            tighten(profile, [layer(profiles=permitted)])


@pytest.mark.parametrize(
    ("pattern", "fine"),
    [
        ("/data", False),
        ("/data/secret/*", False),
        ("/", False),
        ("/d*", False),
        ("/*/tools/x", False),
        ("/opt", False),
        ("/data2", True),
        ("/da", True),
        ("/opt/other", True),
        ("/srv/*", True),
    ],
)
def test_denied_paths_are_not_shown(pattern: str, fine: bool) -> None:
    if fine:
        assert tighten(PROFILE, [layer(read_deny=(pattern,))]) == PROFILE
    else:
        with pytest.raises(PolicyError, match="denied"):
            tighten(PROFILE, [layer(read_deny=(pattern,))])


def test_all_refusals_come_at_once() -> None:
    with pytest.raises(PolicyError) as caught:
        tighten(
            PROFILE,
            [
                layer(profiles=("x",), read_deny=("/data",)),
                layer(environment_deny=("MODE", "LC_*")),
            ],
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert "environment.set" in lines[2]
    assert "environment.inherit" in lines[3]


def test_policy_layers_stand_in_order() -> None:
    above = [layer(), Restrictions(policy=PolicyLayer("user:/x"))]
    names = [found.name for found in policy_layers(PROFILE, above)]
    assert names == ["organisation:/etc/x.yaml", "user:/x", "profile:agent"]


# --- compile_spec


def test_what_the_profile_says_reaches_the_spec() -> None:
    spec = spec_of()
    assert spec.argv == ("ls", "-l")
    assert spec.cwd == "/home/bob/project"
    assert spec.workspace == Workspace(
        WorkspaceMode.COPY_ON_WRITE, "/home/bob/project", "/home/bob/project"
    )
    assert spec.limits == LIMITS
    assert spec.files == ()
    assert (spec.read, spec.requires) == (PROFILE.read, PROFILE.requires)
    assert (spec.cgroup, spec.network) == (CgroupMode.SAMPLED, NetworkMode.NONE)
    assert spec.syscalls == PROFILE.syscalls
    assert spec.terminal is False


def test_without_a_workspace_it_starts_in_an_empty_home() -> None:
    spec = spec_of(profile=replace(PROFILE, workspace=WorkspaceMode.NONE))
    assert spec.workspace == Workspace(WorkspaceMode.NONE, None, HOME)
    assert spec.cwd == HOME


def test_an_empty_workspace_is_the_folders_path_and_nothing_of_the_host() -> None:
    spec = spec_of(profile=replace(PROFILE, workspace=WorkspaceMode.TMPFS))
    assert spec.workspace == Workspace(WorkspaceMode.TMPFS, None, "/home/bob/project")
    assert spec.cwd == "/home/bob/project"
    assert spec.syscalls.set_id_bits
    with pytest.raises(RequestError):
        spec_of(profile=replace(PROFILE, workspace=WorkspaceMode.TMPFS), directory="project")


BOUND = replace(
    PROFILE,
    workspace=WorkspaceMode.BIND,
    limits=replace(LIMITS, workspace_bytes=UNLIMITED, workspace_inodes=UNLIMITED),
)


def test_a_bound_folder_is_itself_without_set_id_bits() -> None:
    spec = spec_of(profile=BOUND)
    assert spec.workspace == Workspace(WorkspaceMode.BIND, "/home/bob/project", "/home/bob/project")
    assert spec.workspace.is_bound
    assert not spec.syscalls.set_id_bits
    assert (spec.syscalls.deny, spec.syscalls.allow) == (("getcwd",), ("ptrace", "bpf"))


def test_a_script_of_a_bound_folder_runs_from_where_nobody_can_replace_it() -> None:
    script = Script(b"x", "python", ("python3",), "a.py", "/home/bob/project/a.py")
    spec = spec_of(script, profile=BOUND)
    assert spec.argv[1] == spec.files[0].path == "/run/runner/a.py"
    with pytest.raises(ValueError, match="injected"):
        replace(spec, files=(InjectedFile("/home/bob/project/a.py", b"x"),))


@pytest.mark.parametrize("field", ["workspace_bytes", "workspace_inodes"])
def test_what_can_not_be_held_in_a_bound_folder_is_refused(field: str) -> None:
    bound: dict[str, Any] = {field: 900}
    with pytest.raises(RequestError, match="can't be held in a folder that is bound"):
        spec_of(profile=BOUND, limits=LimitOverrides(**bound))
    with pytest.raises(RequestError, match="can't be held"):
        spec_of(profile=replace(BOUND, limits=replace(BOUND.limits, **bound)))
    with pytest.raises(PolicyError, match=r"organisation:/etc/x\.yaml: bounds .* can't be held"):
        tighten(BOUND, [layer(limits=LimitOverrides(**bound))])
    with pytest.raises(ValueError, match="can't be held"):
        replace(spec_of(profile=BOUND), limits=replace(BOUND.limits, **bound))
    with pytest.raises(ValueError, match="set_id_bits"):
        replace(spec_of(profile=BOUND), syscalls=Syscalls())
    # Allowed: the same anywhere else, and others there.
    assert tighten(PROFILE, [layer(limits=LimitOverrides(**bound))]).limits != PROFILE.limits
    assert spec_of(profile=BOUND, limits=LimitOverrides(wall_s=1.0)).limits.wall_s == 1.0


def test_layers_say_what_a_workspace_may_be() -> None:
    cow, bind, tmpfs = WorkspaceMode.COPY_ON_WRITE, WorkspaceMode.BIND, WorkspaceMode.TMPFS
    assert tighten(BOUND, [layer(workspace_modes=(cow, bind)), layer()]) == BOUND
    assert tighten(PROFILE, [layer(workspace_modes=(cow,))]) == PROFILE
    for modes, said in (((cow, tmpfs), "cow, tmpfs"), ((), "none")):
        with pytest.raises(PolicyError) as caught:
            tighten(BOUND, [layer(workspace_modes=(bind,)), layer(workspace_modes=modes)])
        assert "workspace: bind, which is not permitted" in str(caught.value)
        assert str(caught.value).endswith(f"use a profile with one of: {said}")


def test_a_bound_folder_holds_nothing_that_decides_about_later_runs() -> None:
    check_bound("/home/bob/project", [("the profile", "/home/bob/profiles/p.yaml")])
    for directory, path in (
        ("/home/bob/project", "/home/bob/project/p.yaml"),
        ("/home/bob/project", "/home/bob/project"),
        ("/opt/runner/tests", "/opt/runner"),
    ):
        with pytest.raises(RequestError, match="the profile"):
            check_bound(directory, [("nothing", "/nowhere"), ("the profile", path)])


def test_a_request_tightens_limits() -> None:
    spec = spec_of(limits=LimitOverrides(wall_s=60.0, cpu_time_s=9.0, processes=3))
    assert spec.limits == replace(LIMITS, cpu_time_s=9.0, processes=3)


def test_a_request_that_asks_for_more_is_told_what_it_may_have() -> None:
    with pytest.raises(RequestError) as caught:
        spec_of(limits=LimitOverrides(wall_s=61.0, memory_bytes=UNLIMITED, cpus=1.0))
    wall, memory = str(caught.value).splitlines()
    assert wall.startswith("limit 'wall' asks for 61s, but profile 'agent' grants 60s;")
    assert memory.startswith("limit 'memory' asks for unlimited, but profile 'agent' grants 1GiB;")


@pytest.mark.parametrize("bound", [0, -1, float("nan"), float("inf"), "5s", True, 2**60])
@pytest.mark.parametrize("field", ["wall_s", "memory_bytes"])
def test_bounds_that_came_past_the_parsers(field: str, bound: Any) -> None:
    with pytest.raises(RequestError, match="limit '"):
        spec_of(limits=LimitOverrides(**{field: bound}))


def test_the_environment_is_built_from_nothing() -> None:
    found = environment(inherited={"LC_ALL": "C", "SECRET": "x", "TERM": "screen", "MODE": "host"})
    assert found == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/home/agent",
        "USER": "agent",
        "LOGNAME": "agent",
        "SHELL": "/bin/sh",
        "LANG": "C.UTF-8",
        "TMPDIR": "/tmp",
        "LC_ALL": "C",
        "MODE": "profile",
    }


def test_a_request_s_variables_come_last() -> None:
    found = environment(environment=(("MODE", "request"), ("PATH", "/bin"), ("N", "")))
    assert (found["MODE"], found["PATH"], found["N"]) == ("request", "/bin", "")


@pytest.mark.parametrize(
    ("given", "term"),
    [({"TERM": "xterm-256color"}, "xterm-256color"), ({}, "xterm"), ({"TERM": "../x"}, "xterm")],
)
def test_a_terminal_has_a_type(given: dict[str, str], term: str) -> None:
    assert environment(inherited=given, terminal=True)["TERM"] == term
    assert inherited_names(replace(REQUEST, terminal=True), PROFILE) == ("LC_ALL", "TERM")
    assert inherited_names(REQUEST, PROFILE) == ("LC_ALL",)


@pytest.mark.parametrize(
    ("name", "value"), [("", "x"), ("A=B", "x"), ("A\0", "x"), ("A", "\0"), ("A", "\ud800")]
)
def test_variables_that_can_not_be(name: str, value: str) -> None:
    with pytest.raises(RequestError, match="variable"):
        spec_of(environment=((name, value),))


def test_denied_variables_are_named_for_the_supervisor() -> None:
    asked = (("A", "1"), ("LD_PRELOAD", "x"), ("ld_preload", "y"), ("LD_AUDIT", "z"))
    request = replace(REQUEST, environment=asked)
    assert denied_environment(request, PROFILE) == ("LD_PRELOAD", "LD_AUDIT")
    assert denied_environment(REQUEST, PROFILE) == ()


def test_shell_text_goes_to_its_shell() -> None:
    spec = spec_of(ShellText("echo 1; echo 2", "sh"))
    assert (spec.argv, spec.files) == (("sh", "-c", "echo 1; echo 2"), ())


def test_shell_text_too_long_for_an_argument_goes_as_a_file() -> None:
    longest = ":" + " " * (128 * 1024 - 2)
    assert spec_of(ShellText(longest)).argv == ("bash", "-c", longest)
    spec = spec_of(ShellText(longest + "é"))
    path = f"{RUN_FOLDER}/command.sh"
    assert spec.argv == ("bash", path)
    assert spec.files == (InjectedFile(path, (longest + "é").encode()),)


SCRIPT = Script(
    content=b"print(1)\n",
    language="python",
    interpreter=("python3", "-u"),
    name="fix.py",
    path="/home/bob/project/tools/fix.py",
    args=("-v",),
)


def test_a_script_of_the_workspace_stands_over_itself() -> None:
    spec = spec_of(SCRIPT)
    assert spec.argv == ("python3", "-u", "/home/bob/project/tools/fix.py", "-v")
    assert spec.files == (
        InjectedFile("/home/bob/project/tools/fix.py", b"print(1)\n", executable=True),
    )


@pytest.mark.parametrize(
    "path",
    [None, "/home/bob/other/fix.py", "/home/bob/project2/fix.py", "/home/bob/project/../fix.py"],
)
def test_another_script_stands_in_the_run_folder(path: str | None) -> None:
    spec = spec_of(replace(SCRIPT, path=path))
    assert spec.argv == ("python3", "-u", f"{RUN_FOLDER}/fix.py", "-v")
    assert spec.files == (InjectedFile(f"{RUN_FOLDER}/fix.py", b"print(1)\n", executable=True),)


def test_without_a_workspace_a_script_of_it_stands_in_the_run_folder() -> None:
    spec = spec_of(SCRIPT, profile=replace(PROFILE, workspace=WorkspaceMode.NONE))
    assert spec.files[0].path == f"{RUN_FOLDER}/fix.py"


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("a b;$(x).py", "a_b___x_.py"),
        ("..", "script"),
        ("", "script"),
        ("-rf", "rf"),
        ("../../etc/passwd", "passwd"),
        ("é\n\udcff.sh", "___.sh"),
        ("x" * 300 + ".py", "x" * 97 + ".py"),
    ],
)
def test_names_of_scripts_are_made_plain(name: str, safe: str) -> None:
    assert spec_of(replace(SCRIPT, path=None, name=name)).files[0].path == f"{RUN_FOLDER}/{safe}"


@pytest.mark.parametrize(
    "program", [Argv(()), Argv(("",)), Argv(("a\0b",)), Argv(("\ud800",)), ShellText("\ud800")]
)
def test_programs_that_can_not_be(program: object) -> None:
    with pytest.raises(RequestError):
        spec_of(program)


def test_bytes_that_are_not_utf_8_pass() -> None:
    assert spec_of(Argv(("ls", "caf\udce9"))).argv == ("ls", "caf\udce9")


def test_obligations() -> None:
    with pytest.raises(BackendError, match="on_dynamic: deny"):
        compile_spec(REQUEST, PROFILE, ("decide_at_exec",), {})
    with pytest.raises(PolicyError, match="'sing'"):
        compile_spec(REQUEST, PROFILE, ("sing",), {})


# --- check_workspace


@pytest.mark.parametrize(
    "directory",
    [
        "/home/bob/project",
        "/home/bob/a/b",
        "/root/work",
        "/srv/app",
        "/opt/app",
        "/tmp/x",
        "/builds/x",
        "/usr/src/app",
        "/var/lib/jenkins",
        "/homework",
        "/etcetera/x",
    ],
)
def test_workspaces_that_are_fine(directory: str) -> None:
    check_workspace(directory, "/home/bob", "/home/bob/.local/state/runner")
    check_workspace(directory, None, "/state", ("/srv/other", "/home/bob/project2"))


@pytest.mark.parametrize(
    ("directory", "words"),
    [
        ("/", "whole machine"),
        ("/home/bob", "home folder"),
        ("/home/alice", "home folder"),
        ("/root", "home folder"),
        ("/home", "holds the home"),
        ("/people", "holds the home"),
        ("/people/bob", "home folder"),
        ("/etc", "/etc"),
        ("/etc/nginx", "/etc"),
        ("/usr", "/usr"),
        ("/usr/lib/python3", "/usr"),
        ("/usr/src", "/usr"),
        ("/var", "/var"),
        ("/var/lib", "/var"),
        ("/proc/1/root", "/proc"),
        ("/run/user/1000", "/run"),
        ("/lib64", "/lib64"),
        ("/tmp", "shared"),
        ("/opt", "shared"),
        ("/people/bob/.local", "holds runner's state"),
        ("/people/bob/.local/state/runner", "holds runner's state"),
        ("/people/bob/.local/state/runner/x", "lies in runner's state"),
        ("/srv/secret", "denies"),
        ("/srv/secret/x", "denies"),
        ("/srv", "denies"),
        ("relative", "resolved absolute"),
        ("/a/../b", "resolved absolute"),
        ("/a/", "resolved absolute"),
    ],
)
def test_workspaces_that_are_refused(directory: str, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_workspace(
            directory, "/people/bob", "/people/bob/.local/state/runner", ("/srv/secret",)
        )
    assert words in str(caught.value)
    assert repr(directory) in str(caught.value)
    assert "\n" not in str(caught.value)


# --- digest


def test_the_digest_tells_specs_apart() -> None:
    specs = [
        spec_of(),
        spec_of(Argv(("ls", "-l", ""))),
        spec_of(Argv(("ls", "caf\udce9"))),
        spec_of(Argv(("ls", "caf\\udce9"))),
        spec_of(Argv(("ls", "{'bytes': '636166e9'}"))),
        spec_of(SCRIPT),
        spec_of(replace(SCRIPT, content=b"print(2)\n")),
        spec_of(profile=replace(PROFILE, requires=frozenset())),
        spec_of(profile=replace(PROFILE, limits=replace(LIMITS, cpus=UNLIMITED))),
        spec_of(terminal=True),
    ]
    digests = [spec_digest(spec) for spec in specs]
    assert len(set(digests)) == len(specs)
    assert digests == [spec_digest(spec) for spec in specs]
    assert all(len(digest) == len("sha256:") + 64 for digest in digests)


def test_the_document_holds_no_contents() -> None:
    document = spec_document(spec_of(SCRIPT))
    assert document["files"] == [
        {
            "path": "/home/bob/project/tools/fix.py",
            "sha256": "cc42155088fca5730758db72b2a5bca33112a941dfaa2d43098ec422ce4ea213",
            "size_bytes": 9,
            "executable": True,
        }
    ]
    limits = document["limits"]
    assert isinstance(limits, dict)
    assert limits["cpu_time_s"] == "unlimited"
    assert document["requires"] == ["seccomp"]
    assert document["workspace"] == {
        "mode": "cow",
        "source": "/home/bob/project",
        "target": "/home/bob/project",
    }
