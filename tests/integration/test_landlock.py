"""The least Landlock that a profile asks for holds, in the profile, in layers and at the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from runner import Runner
from runner.backends.native import create
from runner.backends.native.launcher import kernel, landlock
from runner.compile import compile_spec, tighten
from runner.errors import ProfileError, ProtectionMissingError
from runner.model.profile import Restrictions
from runner.model.protection import LANDLOCK_NEWEST, Protection
from runner.model.rule import PolicyLayer
from runner.ports import Backend
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile
from runner.testing.backend_harness import BackendHarness

ABOVE_ALL = 1000


@pytest.fixture
def abi(native: None) -> int:
    try:
        return kernel.landlock_abi()
    except OSError:
        pytest.skip("this kernel has no Landlock")


def profile(tmp_path: Path, text: str):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return load_profile(str(file))


class Native(BackendHarness):
    def __init__(self, cache: Path) -> None:
        self.cache = cache

    def make_backend(self) -> Backend:
        return create(self.cache)


def test_a_minimum_makes_landlock_required(tmp_path: Path) -> None:
    assert Protection.LANDLOCK not in load_profile("agent").requires
    found = profile(tmp_path, "extends: agent\nlandlock: {minimum: 3}\n")
    assert (found.landlock_minimum, Protection.LANDLOCK in found.requires) == (3, True)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("landlock: {minimum: 0}", "landlock.minimum"),
        (f"landlock: {{minimum: {LANDLOCK_NEWEST + 1}}}", "landlock.minimum"),
        ("landlock: {minimum: '3'}", "landlock.minimum"),
        ("landlock: {least: 3}", "unknown key"),
        ("landlock: {minimum: 3}\noptional: [landlock]", "can't be optional"),
    ],
)
def test_what_is_no_minimum_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ProfileError) as refused:
        profile(tmp_path, f"extends: agent\n{text}\n")
    assert says in str(refused.value)


def test_layers_only_tighten(tmp_path: Path) -> None:
    found = profile(tmp_path, "extends: agent\nlandlock: {minimum: 3}\n")
    for asked, holds in ((0, 3), (2, 3), (5, 5)):
        layer = Restrictions(PolicyLayer("layer"), landlock_minimum=asked)
        assert tighten(found, [layer]).landlock_minimum == holds
    file = tmp_path / "layer.yaml"
    file.write_text("landlock: {minimum: 4}\n")
    layer = load_policy_file(file)
    tightened = tighten(load_profile("agent"), [layer])
    from runner.intake import build_request

    spec = compile_spec(build_request(argv=["true"], cwd=str(tmp_path)), tightened)
    assert (spec.landlock_minimum, Protection.LANDLOCK in spec.requires) == (4, True)


def test_less_than_the_minimum_does_not_run(abi: int, tmp_path: Path) -> None:
    with Native(tmp_path).backend() as backend:
        spec = Native(tmp_path).base_spec(
            requires=frozenset({Protection.LANDLOCK}), landlock_minimum=ABOVE_ALL
        )
        with pytest.raises(ProtectionMissingError, match=f"ABI {abi}, .* {ABOVE_ALL}") as refused:
            backend.acquire(spec, "too-old")
        assert (refused.value.protection, refused.value.exit_code) == ("landlock", 125)
        twin = Native(tmp_path)
        ran = twin.run(
            "/bin/true",
            backend=backend,
            requires=frozenset({Protection.LANDLOCK}),
            landlock_minimum=min(abi, LANDLOCK_NEWEST),
        )
        ran.exited()


def test_the_refusal_is_recorded(
    abi: int, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.compile._walls", lambda p: (p.requires | {"landlock"}, ABOVE_ALL))
    with Runner(home=tmp_path / "home", backend="native") as runner:
        with pytest.raises(ProtectionMissingError) as refused:
            runner.run(["true"], cwd=str(workspace))
        outcome = refused.value.outcome
        assert outcome is not None
        assert outcome.failure.code == "protection_missing"
        assert outcome.status == 125


def test_the_probe_tells_what_it_covers(abi: int, tmp_path: Path) -> None:
    with Native(tmp_path).backend() as backend:
        found = {status.protection: status for status in backend.probe()}
    assert found[Protection.LANDLOCK].detail == f"ABI {abi}: {landlock.covers(abi)}"


def test_what_each_abi_covers() -> None:
    assert landlock.covers(1) == "files"
    assert "signals" in landlock.covers(6)
    assert "signals" not in landlock.covers(5)
