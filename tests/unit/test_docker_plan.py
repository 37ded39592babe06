"""What the engine is asked to create, from a spec alone."""

from __future__ import annotations

import base64
import errno
import json
import os
from dataclasses import replace

import pytest

from runner.backends.docker import boot, packing
from runner.backends.docker.bound import look
from runner.backends.docker.conversation import Heard
from runner.backends.docker.found import Found, statuses
from runner.backends.docker.inside.counters import Cgroup
from runner.backends.docker.inside.init import _check_identity
from runner.backends.docker.inside.wire import (
    PAYLOAD_MAX_BYTES,
    Decoder,
    Kind,
    WireError,
    encode,
    encode_json,
)
from runner.backends.docker.plan import (
    CAPABILITIES,
    INIT_MEMORY_BYTES,
    UID,
    Bound,
    Copied,
    plan,
    seccomp,
    unnamed,
)
from runner.backends.docker.result import ending
from runner.backends.guards import Guards
from runner.errors import BackendError
from runner.model.limits import UNLIMITED, LimitName
from runner.model.outcome import Change, ChangeKind, Termination
from runner.model.profile import Syscalls, WorkspaceMode
from runner.model.protection import Protection
from runner.model.spec import InjectedFile, SandboxSpec, Workspace
from runner.testing.backend_contract import BackendContract


class _Specs(BackendContract):
    __test__ = False

    def make_backend(self):
        raise NotImplementedError


def _spec(**overrides) -> SandboxSpec:
    return _Specs().base_spec(**overrides)


def _plan(spec, copied=Copied(), bound=None):  # noqa: B008  (frozen)
    return plan(
        spec,
        run_id="r1",
        owner="me",
        image="sha256:i",
        copied=copied,
        bound=bound,
        files_folder="/files",
        program_filter=b"12345678",
    )


def _host(spec, copied=Copied()):  # noqa: B008  (frozen)
    return _plan(spec, copied).create["HostConfig"]


WORKSPACE = Workspace(WorkspaceMode.COPY_ON_WRITE, "/home/dev/proj", "/home/dev/proj")


def test_the_container_is_closed_on_every_side():
    host = _host(_spec(workspace=WORKSPACE))
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert host["CapDrop"] == ["ALL"]
    assert host["IpcMode"] == "private"
    assert host["CgroupnsMode"] == "private"
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert host["LogConfig"]["Type"] == "none"
    assert host["Binds"] == []
    assert host["Mounts"] == []
    assert not {"SYS_ADMIN", "SYS_PTRACE", "NET_ADMIN", "NET_RAW", "MKNOD"} & set(CAPABILITIES)


def test_the_container_ends_with_its_supervisor_and_removes_itself():
    create = _plan(_spec()).create
    assert create["OpenStdin"] is create["StdinOnce"] is create["AttachStdin"] is True
    assert create["HostConfig"]["AutoRemove"] is True
    assert create["HostConfig"]["RestartPolicy"] == {"Name": "no"}
    assert create["Labels"] == {"runner.run": "r1", "runner.owner": "me"}


def test_nothing_of_the_run_is_in_what_the_program_can_read_of_init():
    spec = _spec(argv=("/bin/echo", "SECRET-WORD"), environment=(("TOKEN", "SECRET-WORD"),))
    create = dict(_plan(spec).create)
    assert "SECRET-WORD" not in json.dumps(create)
    assert create["Env"] == []
    config = _plan(spec).config
    assert config["argv"] == ["/bin/echo", "SECRET-WORD"]
    assert config["environment"] == [["TOKEN", "SECRET-WORD"]]
    assert (config["uid"], config["gid"]) == (UID, UID)


def test_memory_has_room_for_init_and_the_copy_on_top():
    copied = Copied(bytes=1 << 20, paths=10)
    host = _host(_spec(memory_bytes=64 << 20), copied)
    assert host["Memory"] == host["MemorySwap"]
    assert host["Memory"] >= (64 << 20) + (1 << 20) + INIT_MEMORY_BYTES
    assert _host(_spec(memory_bytes=UNLIMITED))["Memory"] == 0


def test_processes_and_cpus():
    host = _host(_spec(processes=20, cpus=1.5))
    assert (host["PidsLimit"], host["CpuQuota"], host["CpuPeriod"]) == (21, 150_000, 100_000)
    host = _host(_spec(processes=UNLIMITED, cpus=UNLIMITED))
    assert (host["PidsLimit"], host["CpuQuota"]) == (-1, -1)
    assert _host(_spec(cpus=0.001))["CpuQuota"] == 1000


def test_everything_writable_is_bounded():
    spec = _spec(workspace=WORKSPACE, workspace_bytes=1_000_000, workspace_inodes=500)
    tmpfs = _host(spec, Copied(bytes=8192, paths=3))["Tmpfs"]
    writable = {"/tmp", "/var/tmp", "/dev/shm", "/home/agent", "/home/dev/proj"}
    assert set(tmpfs) == writable | {"/run/runner"}
    for path in writable:
        options = dict(word.partition("=")[::2] for word in tmpfs[path].split(","))
        assert {"nosuid", "nodev"} <= set(options)
        # Whole pages, and the copy does not count.
        assert int(options["size"]) == 1_003_520 + (8192 if path == "/home/dev/proj" else 0)
        assert 500 <= int(options["nr_inodes"]) < 600
    unbounded = _host(_spec(workspace_bytes=UNLIMITED, workspace_inodes=UNLIMITED))["Tmpfs"]
    assert "size=" not in unbounded["/tmp"]
    assert "nr_inodes=" not in unbounded["/tmp"]


def test_a_workspace_below_tmp_has_a_file_system_of_its_own():
    workspace = Workspace(WorkspaceMode.COPY_ON_WRITE, "/tmp/w", "/tmp/w")
    assert {"/tmp", "/tmp/w"} <= set(_host(_spec(workspace=workspace))["Tmpfs"])


def test_files_below_the_run_folder_are_inits_to_write_and_others_are_mounted():
    inside = InjectedFile("/run/runner/x", b"\xff\x00")
    over = InjectedFile("/home/dev/proj/a/fix.py", b"print()", executable=True)
    made = _plan(_spec(workspace=WORKSPACE, files=(inside, over)))
    assert made.mounted == (over,)
    assert made.config["mounted"] == ["a/fix.py"]
    (file,) = made.config["files"]
    assert (file["path"], base64.b64decode(file["content"])) == ("/run/runner/x", b"\xff\x00")
    assert file["mode"] == 0o444
    (mount,) = made.create["HostConfig"]["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("/files/0", over.path)
    assert mount["ReadOnly"] is True


def test_paths_shown_are_read_only_and_alone():
    (mount,) = _host(_spec(read=("/opt/cache",)))["Mounts"]
    assert (mount["Source"], mount["Target"]) == ("/opt/cache", "/opt/cache")
    assert mount["ReadOnly"] is True
    assert mount["BindOptions"]["NonRecursive"] is True


def test_the_system_calls_that_are_refused():
    profile = seccomp(_spec(), own=False)
    assert profile["defaultAction"] == "SCMP_ACT_ALLOW"
    rules = {}
    for rule in profile["syscalls"]:
        assert rule["action"] == "SCMP_ACT_ERRNO"
        rules.setdefault(rule["names"][0], []).append(rule)
    for name in ("mount", "ptrace", "bpf", "unshare", "setns", "io_uring_setup", "keyctl"):
        (rule,) = rules[name]
        assert rule["errnoRet"] == errno.EPERM
        assert "args" not in rule
    assert rules["clone3"][0]["errnoRet"] == errno.ENOSYS
    new_user = 0x10000000
    arguments = [rule["args"][0] for rule in rules["clone"]]
    assert {"index": 0, "value": new_user, "valueTwo": new_user, "op": "SCMP_CMP_MASKED_EQ"} in (
        arguments
    )
    # AF_PACKET, with the mask that keeps `17 | 1 << 32` from slipping past.
    packet = {"index": 0, "value": 0xFFFFFFFF, "valueTwo": 17, "op": "SCMP_CMP_MASKED_EQ"}
    assert packet in [rule["args"][0] for rule in rules["socket"]]


def test_init_may_make_a_user_namespace_only_where_the_program_may_not():
    (rule,) = [r for r in seccomp(_spec(), own=True)["syscalls"] if r["names"] == ["unshare"]]
    assert rule["args"] == [{"index": 0, "value": 0x10000000, "op": "SCMP_CMP_NE"}]
    loosened = {r["names"][0] for r in seccomp(_spec(), own=True)["syscalls"]}
    assert loosened == {r["names"][0] for r in seccomp(_spec(), own=False)["syscalls"]}


def test_a_profiles_changes_of_the_system_calls():
    changed = replace(_spec(), syscalls=Syscalls(deny=("link",), allow=("bpf",)))
    names = {rule["names"][0] for rule in seccomp(changed, own=True)["syscalls"]}
    assert "link" in names
    assert "bpf" not in names
    assert set(unnamed(changed)).isdisjoint(names)


@pytest.mark.parametrize("piece", [1, 3, 7, 4096])
def test_frames_survive_any_cut(piece):
    sent = [(Kind.STDIN, b"x" * 5000), (Kind.GO, b""), (Kind.STDOUT, bytes(range(256)))]
    stream = b"".join(encode(kind, payload) for kind, payload in sent)
    decoder = Decoder()
    got = [
        frame
        for start in range(0, len(stream), piece)
        for frame in decoder.feed(stream[start : start + piece])
    ]
    assert got == sent


def test_what_is_no_frame_is_refused():
    for data in (b"\x63\x00\x00\x00\x00", b"\x01" + (PAYLOAD_MAX_BYTES + 1).to_bytes(4, "big")):
        with pytest.raises(WireError):
            list(Decoder().feed(data))


def test_names_that_are_no_text_survive_the_wire():
    ((_, payload),) = Decoder().feed(encode_json(Kind.CONFIG, "\udcff"))
    assert json.loads(payload) == "\udcff"


def test_every_module_of_init_is_sent_and_needs_only_the_standard_library():
    import ast
    import sys

    length, body = boot.sources()[:10], boot.sources()[10:]
    assert int(length) == len(body)
    sent = dict(json.loads(body))
    assert tuple(sent) == boot.MODULES
    for source in sent.values():
        for node in ast.walk(ast.parse(source)):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert (
                    name.startswith(boot.PACKAGE) or name.split(".")[0] in sys.stdlib_module_names
                )


def test_a_workspace_is_read_without_following_links(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    inside = tmp_path / "inside"
    (inside / "d").mkdir(parents=True)
    (inside / "d" / "f").write_bytes(b"x" * 5000)
    (inside / "link").symlink_to(outside)
    os.mkfifo(inside / "pipe")
    (inside / "tool").write_text("t")
    (inside / "tool").chmod(0o4755)
    found = packing.entries(str(inside))
    assert [(e.path, e.type) for e in found] == [
        ("d", "directory"),
        ("d/f", "file"),
        ("link", "symlink"),
        ("pipe", "fifo"),
        ("tool", "file"),
    ]
    assert {e.path: e.mode for e in found}["tool"] == 0o755
    assert packing.measured(found) == Copied(bytes=4 * 4096, paths=5)
    assert b"secret" not in b"".join(packing.frames(str(inside), found))


def test_a_file_that_grew_is_cut_to_the_size_that_was_seen(tmp_path):
    (tmp_path / "f").write_bytes(b"1234")
    found = packing.entries(str(tmp_path))
    (tmp_path / "f").write_bytes(b"123456789")
    frames = list(Decoder().feed(b"".join(packing.frames(str(tmp_path), found))))
    assert frames[1:] == [(Kind.CONTENT, b"1234")]


def test_a_workspace_that_is_not_there_is_said_so(tmp_path):
    with pytest.raises(BackendError, match=r"gone.*can't be read"):
        packing.entries(str(tmp_path / "gone"))


def _heard(stopped_for=None, **ended) -> Heard:
    usage = dict.fromkeys(("cpu_user_s", "cpu_system_s", "memory_peak_bytes", "processes"))
    told = {"status": 0, "limit": None, "failed_at": None, "errno": 0, **ended}
    told["usage"] = {"wall_s": 1.0, **usage}
    return Heard(ended=told, stopped_for=stopped_for, changes_cut=False)


@pytest.mark.parametrize(
    ("heard", "termination", "field", "value"),
    [
        (_heard(status=3 << 8), Termination.EXITED, "exit_code", 3),
        (_heard(status=139 << 8), Termination.EXITED, "exit_code", 139),
        (_heard(status=11), Termination.SIGNALED, "signal", 11),
        (_heard(status=11 | 0x80), Termination.SIGNALED, "signal", 11),
        (_heard(status=9, limit="wall"), Termination.LIMIT, "limit", LimitName.WALL),
        (_heard("output", limit="told", status=9), Termination.LIMIT, "limit", LimitName.OUTPUT),
        (_heard("output"), Termination.LIMIT, "limit", LimitName.OUTPUT),
        (_heard("cancelled", limit="told", status=9), Termination.CANCELLED, "exit_code", None),
        # It had ended by itself before init heard of the cancelling.
        (_heard("cancelled"), Termination.EXITED, "exit_code", 0),
        (_heard(failed_at="exec", errno=errno.ENOENT), Termination.EXITED, "exit_code", 127),
    ],
)
def test_what_init_tells_becomes_an_ending(heard, termination, field, value):
    made = ending(heard, "prog")
    assert made.termination is termination
    assert getattr(made, field) == value
    assert made.usage.cpu_user_s is None


def test_why_a_program_did_not_start():
    def failure(code):
        return ending(_heard(failed_at="exec", errno=code), "prog").failure

    assert failure(errno.ENOENT).code == failure(errno.EACCES).code == "program_not_found"
    assert failure(errno.ENOMEM).code == "program_not_started"
    with pytest.raises(BackendError):
        ending(_heard(failed_at="setup", errno=errno.EPERM), "prog")
    with pytest.raises(BackendError):
        ending(Heard(), "prog")


def test_changes_become_changes():
    heard = _heard()
    heard.changes.append({"path": "a", "kind": "deleted", "type": "file"})
    assert ending(heard, "prog").changes == (Change("a", ChangeKind.DELETED, "file"),)


FOUND = Found(True, True, False, 0, True, ("0", "0", "4294967295"), True, True, True, ("lo",))
ENGINE = {"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True, "CgroupVersion": "2"}


def test_protections_follow_from_what_was_found():
    def missing(found, info=ENGINE):
        return {one.protection for one in statuses(found, info) if not one.in_force}

    p = Protection
    assert missing(FOUND) == {p.USER_NAMESPACE, p.LANDLOCK}
    assert missing(replace(FOUND, uid_map=("0", "100000", "65536"))) == {p.LANDLOCK}
    assert missing(replace(FOUND, user_namespace=True, landlock_abi=1)) == set()
    assert p.SECCOMP in missing(replace(FOUND, seccomp=False))
    assert p.NETWORK_NAMESPACE in missing(replace(FOUND, interfaces=("eth0", "lo")))
    assert p.CGROUP in missing(FOUND, {**ENGINE, "PidsLimit": False})
    assert p.CGROUP in missing(replace(FOUND, counters=False))


def test_counters_of_both_versions(tmp_path):
    v2 = tmp_path / "v2"
    v2.mkdir()
    for name, text in {
        "cpu.stat": "usage_usec 30\nuser_usec 2000000\nsystem_usec 500000\n",
        "memory.current": "4096\n",
        "memory.events": "low 0\noom 3\noom_kill 2\n",
        "pids.current": "5\n",
        "pids.events": "max 7\n",
    }.items():
        (v2 / name).write_text(text)
    now = Cgroup(f"30 1 0:26 / {v2} ro - cgroup2 cgroup rw\n").read()
    assert (now.cpu_user_s, now.cpu_system_s, now.oom_kills, now.forks_refused) == (2.0, 0.5, 2, 7)
    assert (now.memory_bytes, now.memory_peak_bytes, now.processes) == (4096, None, 5)

    lines = ""
    for name in ("memory", "pids", "cpuacct"):
        (tmp_path / name).mkdir()
        lines += f"30 1 0:26 / {tmp_path}/{name} ro - cgroup cgroup rw,{name}\n"
    (tmp_path / "memory" / "memory.oom_control").write_text("oom_kill_disable 0\noom_kill 1\n")
    (tmp_path / "pids" / "pids.events").write_text("max 0\n")
    (tmp_path / "cpuacct" / "cpuacct.usage_user").write_text("1500000000\n")
    now = Cgroup(lines).read()
    assert (now.oom_kills, now.forks_refused, now.cpu_user_s) == (1, 0, 1.5)
    assert not Cgroup(lines).complete


def _bound_spec(**more) -> SandboxSpec:
    unheld = {"workspace_bytes": UNLIMITED, "workspace_inodes": UNLIMITED}
    workspace = Workspace(WorkspaceMode.BIND, "/home/dev/proj", "/home/dev/proj")
    return _spec(workspace=workspace, syscalls=Syscalls(set_id_bits=False), **unheld, **more)


def test_a_bound_folder_is_mounted_as_it_is_and_guards_over_it():
    guards = Guards((".git",), (".bashrc", ".git/hooks"))
    bound = Bound(1000, 100, guards, (("/home/dev/proj", 1, 2), ("/home/dev/proj/.git", 1, 3)))
    made = _plan(_bound_spec(), bound=bound)
    host = made.create["HostConfig"]
    assert [(m["Source"], m["Target"], m["ReadOnly"]) for m in host["Mounts"]] == [
        ("/home/dev/proj", "/home/dev/proj", False),
        ("/home/dev/proj/.git", "/home/dev/proj/.git", False),
        ("/home/dev/proj/.bashrc", "/home/dev/proj/.bashrc", True),
        ("/home/dev/proj/.git/hooks", "/home/dev/proj/.git/hooks", True),
    ]
    assert all(m["BindOptions"]["NonRecursive"] for m in host["Mounts"])
    assert "/home/dev/proj" not in host["Tmpfs"]
    assert "uid=1000,gid=100" in host["Tmpfs"]["/home/agent"]
    config = made.config
    assert (config["uid"], config["gid"], config["workspace"]) == (1000, 100, None)
    assert config["identities"] == [["/home/dev/proj", 1, 2], ["/home/dev/proj/.git", 1, 3]]
    # The program may write there; how full the host's file system is, is not the run's.
    assert "/home/dev/proj" in config["writable"]
    assert "/home/dev/proj" not in config["scratch"]
    assert _plan(_spec(workspace=WORKSPACE)).config["identities"] == []


def test_set_id_bits_need_both_conditions_in_the_engines_form():
    rules = [r for r in seccomp(_bound_spec(), own=False)["syscalls"] if r["names"] == ["openat"]]
    assert {(rule["args"][0]["value"], rule["args"][1]["value"]) for rule in rules} == {
        (flag, bit) for flag in (0o100, 0o20000000) for bit in (0o4000, 0o2000)
    }
    assert [argument["index"] for argument in rules[0]["args"]] == [2, 3]


def test_an_empty_workspace_is_told_of_and_nothing_is_mounted():
    workspace = Workspace(WorkspaceMode.TMPFS, None, "/home/dev/proj")
    made = _plan(_spec(workspace=workspace))
    assert made.config["workspace"] == "/home/dev/proj"
    assert made.create["HostConfig"]["Mounts"] == []
    assert "/home/dev/proj" in made.create["HostConfig"]["Tmpfs"]


def _owned(folder) -> None:
    if os.geteuid() == 0:
        os.chown(folder, 61001, 61001)


def test_a_folder_is_bound_as_its_owner_by_an_engine_that_maps_nobody(tmp_path):
    (tmp_path / ".git/hooks").mkdir(parents=True)
    _owned(tmp_path)
    found = look(str(tmp_path), {"SecurityOptions": ["name=seccomp,profile=default"]})
    owner = tmp_path.stat()
    assert (found.uid, found.gid) == (owner.st_uid, owner.st_gid)
    assert found.guards == Guards((".git",), (".git/hooks",))
    assert [path for path, _, _ in found.identities] == [
        str(tmp_path), f"{tmp_path}/.git", f"{tmp_path}/.git/hooks"
    ]  # fmt: skip
    assert found.identities[0][1:] == (owner.st_dev, owner.st_ino)
    for option in ("name=userns", "name=rootless"):
        with pytest.raises(BackendError, match="maps users"):
            look(str(tmp_path), {"SecurityOptions": [option]})


def test_a_folder_of_somebody_else_or_behind_a_link_is_not_bound(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    _owned(folder)
    (tmp_path / "link").symlink_to(folder)
    for path in (tmp_path / "link", tmp_path / "missing"):
        with pytest.raises(BackendError, match="can't be looked into"):
            look(str(path), {})
    with pytest.raises(BackendError, match="can't be bound: it belongs to"):
        look("/usr", {})
    (folder / ".vscode").symlink_to("/")
    with pytest.raises(BackendError, match="symbolic link"):
        look(str(folder), {})


def test_init_takes_no_other_file_than_was_looked_at(tmp_path):
    found = tmp_path.stat()
    _check_identity(os.fsencode(tmp_path), (found.st_dev, found.st_ino))
    other = tmp_path / "other"
    other.symlink_to(tmp_path)
    for identity in ((found.st_dev, found.st_ino), (found.st_dev + 1, other.lstat().st_ino)):
        with pytest.raises(WireError, match="replaced meanwhile"):
            _check_identity(os.fsencode(other), identity)
