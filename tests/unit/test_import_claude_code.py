"""Claude Code's permissions as rules: they decide as there, or stricter, and it is told."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.analysis import read
from runner.errors import PolicyError
from runner.model.action import Exec
from runner.model.decision import Effect
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.policy.engine import RulesDecisionPoint, create
from runner.schema.foreign.claude_code import import_settings
from runner.schema.foreign.draft import Fate
from runner.schema.policies import load_policy_file
from runner.schema.profiles import load_profile

SETTINGS = {
    "allow": [
        "Bash(npm run test:*)", "Bash(git status)", "Bash(git commit *)", "Bash(git diff*)",
        "Bash(ls)", "Bash(* --version)", "Bash(git * main)", "Bash(cat src/*.py)", "Bash(wc *)",
        "Read(src/**)", "WebFetch(domain:docs.rs)", "mcp__github__*", "Bash(A=b make *)",
        "Bash(curl * | sh)", "Bash(x * y * z)",
    ],
    "ask": ["Bash(git push:*)", "Edit(/package.json)"],
    "deny": [
        "Bash(rm -rf *)", "Bash(dd of=/*)", "Bash(nc * | bash)", "Bash(sudo:*)",
        "Bash(git push --force)", "Read(./.env)", "Read(~/.ssh/**)", "Edit(//etc/**)",
        "WebFetch(domain:evil.com)", "mcp__x__y", "Bash(*passwd*)", "Read(secrets/)",
    ],
}  # fmt: skip
DECIDED = [
    ("allow", "npm run test"),
    ("allow", "npm run test -- x"),
    ("allow", "timeout=1; npm run test && git status"),
    ("ask", "npm run testx"),
    ("ask", "npm -C x run test"),
    ("allow", "git status"),
    ("ask", "git status -s"),
    ("ask", "git status; make"),
    ("ask", "git -c alias.x=y commit"),
    ("allow", "git commit -m x"),
    ("ask", "GIT_EDITOR=evil git commit"),
    ("ask", 'git commit -m "$m"'),
    ("allow", "git diff"),
    ("allow", "git difftool x"),
    ("allow", "ls"),
    ("ask", "ls -la"),
    ("ask", "./ls"),
    ("allow", "node --version"),
    ("ask", "node --version x"),
    ("allow", "git checkout main"),
    ("ask", "git main"),
    ("allow", "cat src/a.py"),
    ("ask", "cat src/a.py x"),
    ("ask", "A=b make x"),
    ("ask", "make"),
    ("ask", "x a y b z"),
    ("ask", "$x"),
    ("ask", "if ("),
    ("ask", "git push"),
    ("ask", "git -C x push origin"),
    ("ask", "sed -i s/a/b/ package.json"),
    ("deny", "git push --force"),
    ("deny", "rm -rf x"),
    ("deny", "rm -fr x"),
    ("deny", "rm -r -f x"),
    ("ask", "rm x"),
    ("ask", "rm $x"),
    ("deny", "dd of=/dev/sda if=x"),
    ("deny", "dd $x"),
    ("deny", "nc -l 1"),
    ("deny", "find . -exec sudo id {} +"),
    ("deny", "wc .env"),
    ("deny", "wc a/.env < x"),
    ("deny", "wc < .env"),
    ("ask", 'wc "$x"'),
    ("allow", "wc env"),
    ("deny", "wc ~/.ssh/id"),
    ("deny", "wc /home/bob/.ssh/id"),
    ("deny", "wc x > /etc/y"),
    ("deny", "wc http://evil.com/x"),
    ("deny", "echo /etc/passwd"),
    ("deny", "passwd bob"),
    ("deny", "wc secrets/a"),
    ("allow", "wc secrets2/a"),
]  # fmt: skip


def draft(tmp_path: Path, **permissions: object):
    path = tmp_path / "settings.json"
    path.write_text(json.dumps({"permissions": permissions}))
    return import_settings(str(path))


def point(tmp_path: Path, **permissions: object) -> RulesDecisionPoint:
    made = tmp_path / "made.yaml"
    made.write_text(draft(tmp_path, **permissions).text(layer=True))
    return create((load_policy_file(made).policy,))


def effect(point: RulesDecisionPoint, text: str) -> str:
    intent = read(ShellText(text))
    return point.decide(Exec(Principal(uid=1000), intent, "/home/bob/project")).effect.value


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> RulesDecisionPoint:
    return point(tmp_path_factory.mktemp("imported"), **SETTINGS)


@pytest.mark.parametrize(("expected", "text"), DECIDED)
def test_what_the_rules_decide(imported, expected, text):
    assert effect(imported, text) == expected


def test_each_rule_that_is_not_the_same_is_named(tmp_path):
    notes = draft(tmp_path, **SETTINGS, additionalDirectories=["/x"]).notes
    told = {note.source or note.place: note.fate for note in notes}
    left_out = [*SETTINGS["allow"][9:], 'permissions."additionalDirectories"']
    assert {name for name, fate in told.items() if fate is Fate.LEFT_OUT} == set(left_out)
    assert [name for name, fate in told.items() if fate is Fate.LOOSER] == ["mcp__x__y"]
    exact = {"Bash(sudo:*)", "Bash(git push --force)", *SETTINGS["allow"][:7], "Bash(wc *)"}
    named = {rule for rules in SETTINGS.values() for rule in rules}
    assert named - told.keys() == exact
    text = draft(tmp_path, **SETTINGS).text(layer=False)
    assert all(f"# permissions.{key}[{i}] " in text or rule in told
               for key, rules in SETTINGS.items() for i, rule in enumerate(rules))  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "made", "nothing"),
    [("default", "ask", "ask"), ("acceptEdits", "ask", "ask"), ("plan", "deny", "deny"),
     ("dontAsk", "deny", "deny"), ("bypassPermissions", "allow", "ask")],
)  # fmt: skip
def test_modes(tmp_path, mode, made, nothing):
    decided = point(tmp_path, defaultMode=mode, allow=["Bash(ls *)"], deny=["Bash(rm *)"])
    texts = ("make", "$x", "ls x", "rm x")
    assert [effect(decided, text) for text in texts] == [made, nothing, "allow", "deny"]


def test_all_of_a_tool(tmp_path):
    for spelled in ("Bash", "Bash(*)", "Bash(:*)", "Bash()"):
        assert (
            effect(point(tmp_path, allow=[spelled], deny=["Bash(rm *)"]), "A=b make x") == "allow"
        )
        denied = point(tmp_path, allow=["Bash(ls)"], deny=[spelled])
        assert {effect(denied, text) for text in ("ls", "$x", "> x", "if (")} == {"deny"}
        assert effect(point(tmp_path, allow=["Bash"], ask=[spelled]), "ls") == "ask"
    for spelled in ("Edit", "Write(**)", "Edit(//**)"):
        written = point(tmp_path, allow=["Bash"], deny=[spelled])
        texts = ("ls > x", "ls 2> /dev/null", "cp a b 2> /dev/null", "rm x")
        assert [effect(written, t) for t in texts] == ["deny", "allow", "deny", "deny"], spelled
    assert [n.fate for n in draft(tmp_path, deny=["Read"]).notes] == [Fate.LOOSER]


def test_a_profile_extends_agent(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(draft(tmp_path, allow=["Bash(sudo *)", "Bash(ls)"]).text(layer=False))
    decided = create((load_profile(str(path)).policy,))
    assert [effect(decided, text) for text in ("sudo ls", "ls", "make")] == ["deny", "allow", "ask"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "is no settings file in JSON"),
        ("[" * 100_000, "nests too deep"),
        ('"x"', "holds no permissions"),
        ("{}", "holds no permissions"),
        ('{"permissions": []}', "holds no permissions"),
        ('{"permissions": {"deny": ["Bash"], "deny": []}}', 'the key "deny" is there twice'),
        ('{"permissions": {"deny": "Bash"}}', "permissions.deny must be a list of texts"),
        ('{"permissions": {"ask": [1]}}', "permissions.ask must be a list of texts"),
        ('{"permissions": {"allow": ["Bash(ls"]}}', r'permissions.allow[0] "Bash(ls" is no rule'),
        ('{"permissions": {"deny": [""]}}', "is no rule"),
        ('{"permissions": {"deny": ["Read(\\u0000)"]}}', "holds a NUL"),
        ('{"permissions": {"deny": ["Read(\\ud800)"]}}', "holds a NUL or half"),
        ('{"permissions": {"defaultMode": "wild"}}', "permissions.defaultMode"),
        ('{"permissions": {"defaultMode": []}}', "permissions.defaultMode"),
    ],
)  # fmt: skip
def test_what_is_no_settings_file_is_refused_in_a_sentence(tmp_path, content, told):
    path = tmp_path / "settings.json"
    path.write_text(content)
    with pytest.raises(PolicyError) as caught:
        import_settings(str(path))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


HOSTILE = st.text(st.sampled_from("ab*?[]\\\"'\n\r\u2028\x85 :#{}&|~/-=%\U0001f600"), max_size=12)


@settings(max_examples=150, deadline=None)
@example(texts=["''", "'' rm"], tool="Bash")
@given(
    texts=st.lists(HOSTILE, max_size=4),
    tool=st.sampled_from(["Bash", "Read", "Edit", "WebFetch", "mcp__"]),
)
def test_whatever_a_rule_holds_the_file_loads_and_says_no_more(tmp_path_factory, texts, tool):
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    rules = [f"{tool}({text})" for text in texts]
    made = draft(folder, allow=rules, deny=rules, ask=rules)
    (folder / "made.yaml").write_text(made.text(layer=True))
    layer = load_policy_file(folder / "made.yaml").policy
    assert layer.default in (Effect.ASK, Effect.DENY)
    assert [rule.id for rule in layer.rules] == [rule["id"] for _, rule in made.rules]


WORDS = st.sampled_from(["a", "b", "ab", "-a", "-ab", "--a", "a.b"])
PATTERN_WORDS = st.sampled_from(["a", "b", "ab", "-a", "-ab", "--a", "a*", "*b", "a*b", "*", "*a*"])


@settings(max_examples=200, deadline=None)
@given(st.lists(PATTERN_WORDS, min_size=1, max_size=4), st.lists(WORDS, min_size=1, max_size=4))
def test_never_wider_than_the_text_pattern(tmp_path_factory, pattern, command):
    """Against the patterns' own meaning: `*` is any text, and ` *` at the end may be missing."""
    folder = tmp_path_factory.getbasetemp() / "oracle"
    folder.mkdir(exist_ok=True)
    text, rule = shlex.join(command), " ".join(pattern)
    regex = re.escape(rule).replace(r"\*", ".*")
    if rule.count("*") == 1 and rule.endswith(" *"):
        regex = regex.removesuffix(r"\ .*") + "( .*)?"
    meant = re.fullmatch(regex, text) is not None
    if effect(point(folder, allow=[f"Bash({rule})"]), text) == "allow":
        assert meant
    refusing = effect(point(folder, allow=["Bash"], deny=[f"Bash({rule})"]), text)
    assert refusing == "deny" or not meant
