"""docs/profiles.md says what the models say, and its examples load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from runner.model.protection import Protection
from runner.schema.grants import CallBudgetFile, GrantFile
from runner.schema.limits import PARSERS
from runner.schema.matches import CallsFile, HoursFile, MatchFile
from runner.schema.policies import load_policy_file
from runner.schema.profile_file import PolicyFile, ProfileFile
from runner.schema.profiles import load_profile
from runner.schema.rules import AskFile, ExamplesFile, RewriteFile, RuleFile, RulesFile
from runner.settings import SETTING_NAMES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "profiles.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```yaml\n(.*?)```", TEXT, flags=re.DOTALL)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 5


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_loads(example: str, tmp_path: Path) -> None:
    path = tmp_path / "example.yaml"
    if "policy.d" in example.splitlines()[0]:
        path.write_text(example, encoding="utf-8")
        layer = load_policy_file(path)
        assert layer.profiles or layer.grants
        return
    base = "" if "extends:" in example else "extends: agent\n"
    path.write_text(base + example, encoding="utf-8")
    assert load_profile(str(path)) != load_profile("agent")


def test_every_key_is_told() -> None:
    rows = set(re.findall(r"`([a-z_.]+)`", "\n".join(re.findall(r"(?m)^\| (`.*?) \|", TEXT))))
    tops = {name.split(".")[0] for name in rows}
    for model in (ProfileFile, PolicyFile, GrantFile, RuleFile, RulesFile, MatchFile):
        keys = {field.alias or name for name, field in model.model_fields.items()}
        assert keys <= tops, model
    for model in (AskFile, CallBudgetFile, CallsFile, ExamplesFile, HoursFile, RewriteFile):
        for name, field in model.model_fields.items():
            assert f"`{field.alias or name}`" in TEXT
    assert set(PARSERS) <= rows
    assert set(SETTING_NAMES) <= {row.split(":")[0] for row in rows}
    for protection in Protection:
        assert f"`{protection.value}`" in TEXT
