from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import PolicyError
from runner.model.decision import Effect
from runner.model.limits import LimitOverrides
from runner.model.profile import CgroupMode, WorkspaceMode
from runner.model.protection import Protection
from runner.model.rule import OnUnknown
from runner.schema.policies import (
    PolicyKind,
    load_policy_dir,
    load_policy_file,
    load_policy_texts,
)

LAYER = """\
description: What everybody here is held to
rules:
  default: deny
  on_dynamic: ask
  list:
    - {id: no-curl, effect: deny, match: {command: curl}, message: There is no network.}
limits: {wall: 1m}
requires: [landlock]
cgroup: required
environment: {deny: [AWS_*]}
syscalls: {deny: [ptrace]}
read_deny: [/srv/*/secrets/, '/etc/x/**']
workspace_modes: [cow, none]
profiles: [agent, locked, /opt/profiles/*]
"""
ME = os.geteuid()


def load(folder: Path, kind: PolicyKind = "organisation") -> object:
    return load_policy_dir(folder, kind, owner_uid=ME)


def refusal(folder: Path, kind: PolicyKind = "organisation", owner_uid: int = ME) -> str:
    with pytest.raises(PolicyError) as caught:
        load_policy_dir(folder, kind, owner_uid=owner_uid)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "policy.d"
    found.mkdir(mode=0o755)
    return found


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_every_key_reaches_the_restrictions(folder: Path) -> None:
    path = write(folder / "10.yaml", LAYER)
    (found,) = load_policy_dir(folder, "organisation", owner_uid=ME)
    assert found.policy.name == f"organisation:{path}"
    assert (found.policy.default, found.policy.on_dynamic) == (Effect.DENY, OnUnknown.ASK)
    assert found.policy.on_unreadable is None
    assert not found.policy.observe
    assert [rule.id for rule in found.policy.rules] == ["no-curl"]
    assert found.limits == LimitOverrides(wall_s=60.0)
    assert found.requires == {Protection.LANDLOCK}
    assert found.cgroup is CgroupMode.REQUIRED
    assert found.environment_deny == ("AWS_*",)
    assert found.syscalls_deny == ("ptrace",)
    assert found.read_deny == ("/srv/*/secrets", "/etc/x")
    assert found.workspace_modes == (WorkspaceMode.COPY_ON_WRITE, WorkspaceMode.NONE)
    assert found.profiles == ("agent", "locked", "/opt/profiles/*")


def test_an_empty_layer_says_nothing(folder: Path) -> None:
    write(folder / "10.yaml", "# nothing yet\n")
    (found,) = load_policy_dir(folder, "user", owner_uid=ME)
    assert found.profiles is None
    assert found.workspace_modes is None
    assert found.limits == LimitOverrides()
    assert found.policy.default is None
    assert found.policy.rules == ()


def test_files_come_sorted_and_others_are_left_alone(folder: Path) -> None:
    for name in ("20-b.yaml", "10-a.yml", "README", "30.yaml.disabled", ".hidden.yaml"):
        write(folder / name, "rules: {default: ask}\n" if name[0].isdigit() else "][")
    write(folder / "30.yaml.disabled", "][")
    names = [found.policy.name for found in load_policy_dir(folder, "user", owner_uid=ME)]
    assert names == [f"user:{folder}/10-a.yml", f"user:{folder}/20-b.yaml"]


def test_no_folder_is_no_layer(tmp_path: Path) -> None:
    assert load_policy_dir(tmp_path / "none", "organisation") == []


def test_what_others_could_write_is_refused(folder: Path) -> None:
    path = write(folder / "10.yaml", LAYER)
    assert load(folder)
    for mode in (0o664, 0o646):
        path.chmod(mode)
        assert f"{path} can be written" in refusal(folder)
        assert f"{path} can be written" in refusal(folder, "user")
    path.chmod(0o644)
    folder.chmod(0o777)
    assert f"{folder} can be written" in refusal(folder)


def test_what_belongs_to_another_is_refused(folder: Path) -> None:
    write(folder / "10.yaml", LAYER)
    message = refusal(folder, owner_uid=ME + 1)
    assert f"belongs to uid {ME}" in message
    assert f"uid {ME + 1}" in message


@pytest.mark.skipif(ME == 0, reason="root's files may be the organisation's")
def test_an_organisation_s_layer_must_be_root_s(folder: Path) -> None:
    write(folder / "10.yaml", LAYER)
    with pytest.raises(PolicyError, match="give it to uid 0"):
        load_policy_dir(folder, "organisation")
    assert load_policy_dir(folder, "user")


def test_an_organisation_s_layer_is_no_link(folder: Path, tmp_path: Path) -> None:
    target = write(tmp_path / "target.yaml", LAYER)
    (folder / "10.yaml").symlink_to(target)
    assert "10.yaml can't be read" in refusal(folder)
    assert load(folder, "user")
    link = tmp_path / "link.d"
    link.symlink_to(folder)
    assert "can't be read" in refusal(link)


@pytest.mark.skipif(ME == 0, reason="root can read everything")
def test_a_layer_that_can_not_be_read_is_never_skipped(folder: Path) -> None:
    write(folder / "10.yaml", LAYER, 0o000)
    assert "permission denied" in refusal(folder)
    folder.chmod(0o000)
    try:
        assert "permission denied" in refusal(folder)
    finally:
        folder.chmod(0o755)


def test_a_folder_named_like_a_layer_is_refused(folder: Path) -> None:
    (folder / "10.yaml").mkdir(mode=0o755)
    assert "not a regular file" in refusal(folder)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rules: {mode: observe}\n", "unknown key 'mode'"),
        ("rules: {without: [a]}\n", "no rule 'a' to leave out"),
        ("cgroup: sampled\n", "cgroup"),
        ("read_deny: [data]\n", "absolute"),
        ("read_deny: ['/**/x']\n", "'**'"),
        ("environment: {set: {A: b}}\n", "unknown key 'set'"),
        ("extends: agent\n", "unknown key 'extends'"),
        ("rules: {list: [{id: a, effect: deny, match: {command: x}}]}\n", "message"),
        ("rules: {list: [{id: a, effect: allow, match: {}}]}\n", "no condition"),
    ],
)
def test_refusals_name_file_and_line(folder: Path, text: str, words: str) -> None:
    path = write(folder / "10.yaml", text)
    message = refusal(folder)
    assert message.startswith(f"{path}:1:")
    assert words in message


def test_one_file_by_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "layer.yaml", LAYER, 0o666)
    assert load_policy_file(path).policy.name == f"user:{path}"
    with pytest.raises(PolicyError, match="no such file"):
        load_policy_file(tmp_path / "none.yaml")


def test_policies_in_other_languages_are_one_for_each_language(folder: Path) -> None:
    for name in ("20.cedar", "10.cedar", "10.rego", "10.yaml", "README", ".hidden.rego"):
        write(folder / name, "rules: {}\n" if name.endswith("yaml") else f"// {name}")
    cedar, rego = load_policy_texts(folder, "organisation", owner_uid=ME)
    assert (cedar.language, cedar.name) == ("cedar", f"organisation:{folder}")
    assert cedar.files == (
        (f"organisation:{folder}/10.cedar", "// 10.cedar"),
        (f"organisation:{folder}/20.cedar", "// 20.cedar"),
    )
    assert (rego.language, rego.files) == (
        "rego",
        ((f"organisation:{folder}/10.rego", "// 10.rego"),),
    )
    (layer,) = load_policy_dir(folder, "organisation", owner_uid=ME)
    assert layer.policy.name == f"organisation:{folder}/10.yaml"
    assert load_policy_texts(folder / "none", "organisation") == []


@pytest.mark.parametrize("name", ["1.cedar", "1.rego"])
def test_policies_in_other_languages_are_held_to_the_same_owners(folder: Path, name: str) -> None:
    path = write(folder / name, "text")
    assert load_policy_texts(folder, "organisation", owner_uid=ME)
    with pytest.raises(PolicyError, match=f"belongs to uid {ME}"):
        load_policy_texts(folder, "organisation", owner_uid=ME + 1)
    path.chmod(0o666)
    with pytest.raises(PolicyError, match="can be written"):
        load_policy_texts(folder, "user", owner_uid=ME)
    path.unlink()
    path.symlink_to(write(folder / "elsewhere", "text"))
    with pytest.raises(PolicyError, match="can't be read"):
        load_policy_texts(folder, "organisation", owner_uid=ME)
    path.unlink()
    path.mkdir()
    with pytest.raises(PolicyError, match="not a regular file"):
        load_policy_texts(folder, "user", owner_uid=ME)
