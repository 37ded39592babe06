from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner import places
from runner.errors import SettingsError
from runner.settings import (
    PolicyFolder,
    Setting,
    Settings,
    host_environment,
    load_settings,
    passed_sockets,
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    found = tmp_path / "home"
    (found / ".config" / "runner").mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    return found


def load(home: Path, flags: dict[str, object] | None = None, **env: str) -> Settings:
    return load_settings(flags, {"HOME": str(home), **env}, etc=home.parent / "etc")


def refusal(home: Path, flags: dict[str, object] | None = None, **env: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(home, flags, **env)
    return str(caught.value)


def user_file(home: Path) -> Path:
    return home / ".config" / "runner" / "config.yaml"


def test_defaults(home: Path) -> None:
    found = load(home)
    config, etc = home / ".config" / "runner", home.parent / "etc"
    assert found.home == Setting(home / ".local" / "state" / "runner", "default")
    assert found.profile == Setting("agent", "default")
    assert found.backend == Setting("native", "default")
    assert found.keep_output_bytes == Setting(1 << 20, "default")
    assert found.policy_dirs.value == (
        PolicyFolder(etc / "policy.d", "organisation"),
        PolicyFolder(config / "policy.d", "user"),
    )
    assert found.profile_dirs.value == (config / "profiles", etc / "profiles")
    assert found.user_home == home


def test_each_source_beats_those_below_it(home: Path) -> None:
    etc = home.parent / "etc" / "config.yaml"
    etc.write_text("profile: from-etc\n")
    assert load(home).profile == Setting("from-etc", str(etc))
    user_file(home).write_text("profile: from-user\n")
    assert load(home).profile == Setting("from-user", str(user_file(home)))
    variable = {"RUNNER_PROFILE": "from-env"}
    assert load(home, **variable).profile == Setting("from-env", "environment RUNNER_PROFILE")
    found = load(home, {"profile": "from-flag", "backend": None}, **variable)
    assert found.profile == Setting("from-flag", "flag")
    assert found.backend.origin == "default"
    assert load(home, RUNNER_PROFILE="").profile.value == "from-user"


def test_values_are_read_by_their_kind(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user_file(home).write_text(
        "home: ~/state\nkeep_output_bytes: 2MiB\nprofile_dirs: [~/p, /q]\nbackend: docker\n"
    )
    found = load(home)
    assert found.home.value == home / "state"
    assert found.keep_output_bytes.value == 2 << 20
    assert found.profile_dirs.value == (home / "p", Path("/q"))
    assert found.backend.value == "docker"
    monkeypatch.chdir(home)
    found = load(home, RUNNER_HOME="rel/./x", RUNNER_KEEP_OUTPUT_BYTES="0")
    assert found.home.value == home / "rel" / "x"
    assert found.keep_output_bytes.value == 0
    assert load(home, {"home": Path("/a")}).home.value == Path("/a")


def test_the_organisation_s_layer_can_not_be_set_aside(home: Path) -> None:
    organisation = PolicyFolder(home.parent / "etc" / "policy.d", "organisation")
    user_file(home).write_text("policy_dirs: [/mine]\n")
    for found in (
        load(home),
        load(home, RUNNER_POLICY_DIRS="/mine"),
        load(home, {"policy_dirs": ["/mine"]}),
    ):
        assert found.policy_dirs.value == (organisation, PolicyFolder(Path("/mine"), "user"))


def test_all_problems_come_at_once(home: Path) -> None:
    user_file(home).write_text("profil: x\nkeep_output_bytes: much\nbackend: 5\n")
    lines = refusal(home, {"hme": "x"}, RUNNER_HOME="a\0b").splitlines()
    assert len(lines) == 5
    text = "\n".join(lines)
    assert "did you mean 'home'?" in text
    assert "RUNNER_HOME: " in text
    assert f"{user_file(home)}:1:1: profil: unknown key 'profil'; did you mean 'profile'?" in text
    assert f"{user_file(home)}:2:1: keep_output_bytes: 'much' is no size" in text
    assert f"{user_file(home)}:3:1: backend: 5 must be text" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a\n", "mapping"),
        ("a: [\n", "not valid YAML"),
        ("keep_output_bytes: unlimited\n", "fill"),
    ],
)
def test_a_bad_file_is_named(home: Path, text: str, words: str) -> None:
    user_file(home).write_text(text)
    message = refusal(home)
    assert message.startswith(f"{user_file(home)}:")
    assert words in message


def test_a_folder_in_the_file_s_place(home: Path) -> None:
    user_file(home).mkdir()
    assert "not a regular file" in refusal(home)


def test_xdg_folders(home: Path, tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "s"), "XDG_CONFIG_HOME": str(tmp_path / "c")}
    found = load(home, **env)
    assert found.home.value == tmp_path / "s" / "runner"
    assert found.profile_dirs.value[0] == tmp_path / "c" / "runner" / "profiles"
    relative = load(home, XDG_STATE_HOME="s")
    assert relative.home.value == home / ".local" / "state" / "runner"


def test_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr(places.pwd, "getpwuid", unknown)
    with pytest.raises(SettingsError, match="set RUNNER_HOME"):
        load_settings(env={}, etc=tmp_path)
    with pytest.raises(SettingsError, match="set RUNNER_HOME"):
        load_settings(env={"HOME": "relative"}, etc=tmp_path)
    found = load_settings(env={"RUNNER_HOME": "/state"}, etc=tmp_path)
    assert found.home.value == Path("/state")
    assert found.user_home is None
    assert found.policy_dirs.value == (PolicyFolder(tmp_path / "policy.d", "organisation"),)
    with pytest.raises(SettingsError, match="needs a home folder"):
        load_settings(env={"RUNNER_HOME": "~/x"}, etc=tmp_path)


def test_without_home_the_user_database_tells_it(tmp_path: Path) -> None:
    try:
        known = places.pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        pytest.skip("this user is not in the user database")
    if not Path(known).is_dir():
        pytest.skip("this user's home does not exist")
    assert load_settings(env={}, etc=tmp_path).user_home == Path(known)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_as_root_another_s_home_does_not_count(home: Path, tmp_path: Path) -> None:
    os.chown(home, 12345, 12345)
    user_file(home).write_text("profile: planted\n")
    roots = Path(places.pwd.getpwuid(0).pw_dir)
    found = load(home, XDG_STATE_HOME=str(home / "deep" / "below"))
    assert found.user_home == roots
    assert found.profile.value != "planted"
    assert found.home.value == roots / ".local" / "state" / "runner"
    assert load(home, RUNNER_HOME=str(home / "x")).home.value == home / "x"


def test_host_environment_takes_only_what_is_named() -> None:
    env = {"A": "1", "B": "2", "EMPTY": ""}
    assert host_environment(["A", "C", "EMPTY"], env) == {"A": "1", "EMPTY": ""}
    assert host_environment(["PATH"]) == {"PATH": os.environ["PATH"]}


def test_folders_of_wrappers_stand_where_policies_do(home):
    found = load(home).wrapper_dirs
    assert [each.kind for each in found.value] == ["organisation", "user"]
    assert [each.path.name for each in found.value] == ["wrappers.d", "wrappers.d"]
    named = load(home, {"wrapper_dirs": ["/mine"]}).wrapper_dirs.value
    assert (named[0], named[1]) == (found.value[0], PolicyFolder(Path("/mine"), "user"))


def test_sockets_are_this_process_own_or_none():
    mine = str(os.getpid())
    for pid, count, passed in (
        (mine, "1", 1), (mine, "2", 2), (mine, "x", 0), (mine, "-1", 0), (mine, "", 0),
        ("1", "1", 0), ("", "1", 0),
    ):  # fmt: skip
        assert passed_sockets({"LISTEN_PID": pid, "LISTEN_FDS": count}) == passed
    assert passed_sockets({}) == 0
