"""What tests of deciding share: rules, layers and actions made short, and strategies for them."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from hypothesis import strategies as st

from runner.analysis import read
from runner.model.action import Connect, Exec, Facts, Request, Tool
from runner.model.decision import AskTerms, Decision, Effect
from runner.model.intent import Access, Construct, Intent, PathUse, SimpleCommand, Word
from runner.model.principal import Principal
from runner.model.request import ShellText
from runner.model.rule import (
    CountOf,
    Frequency,
    Hours,
    Match,
    OnDoubt,
    OnUnknown,
    PolicyLayer,
    Rewrite,
    Rule,
)
from runner.policy.engine import create

ME = Principal(1000)
ALLOW, REWRITE, ASK, DENY = Effect
HOUR = Frequency(CountOf.AGENT, 3600.0, 3)


def rule(effect: Effect, match: Match, name: str = "", **more: object) -> Rule:
    rewrite = Rewrite(("other", "{args}")) if effect is REWRITE else None
    made = Rule(name or f"{effect}-rule", effect, match, "do something else", rewrite=rewrite)
    return replace(made, **more)  # type: ignore[arg-type]


def layer(*rules: Rule, name: str = "profile:test", **more: object) -> PolicyLayer:
    stated = {"default": ALLOW, "on_dynamic": OnUnknown.DENY, "on_unreadable": OnUnknown.DENY}
    return PolicyLayer(name, rules, **{**stated, **more})  # type: ignore[arg-type]


def action(text: str, **more: object) -> Exec:
    made = Exec(ME, read(ShellText(text)), "/srv/ws")
    return replace(made, **more)  # type: ignore[arg-type]


def decide(each: str | Exec, *layers: PolicyLayer) -> Decision:
    return create(layers).decide(action(each) if isinstance(each, str) else each)


def denied(each: str | Exec, match: Match, **more: object) -> bool:
    """Whether a rule that denies matches."""
    return decide(each, layer(rule(DENY, match, **more))).effect is DENY


def allowed(each: str | Exec, match: Match) -> bool:
    """Whether a rule that allows matches, where nothing else allows."""
    return decide(each, layer(rule(ALLOW, match), default=DENY)).effect is ALLOW


_COMMANDS = (
    ["ls", "rm -rf /", "rm $x", "sudo rm x", "cat < /etc/x", "$x", "git push -f", "echo > a",
     "A=1 ls", "curl https://a.com", 'curl "$x"', "x=1", "rm *.o", "ls; )", "cd /; rm x",
     "find $x", "rm /*", 'sh -c "ls $x"', "/usr/bin/git push", "./ls -la", "PATH=. ls",
     "python3 -c \"open('/x', 'w')\"", 'rm -rf "$x/build"', "cp /etc/x b", 'git "$x" -vf',
     "tee .git/hooks/x",
     "cp a --mode fast", 'ls --mode "$x" --force', 'ls "--$x" fast',
     "cd /srv; tee ws/out/x", "rm -rf ./*", "ls /usr/*", "ln -s / l; rm l/x", "ln -s $x l; ls l/*",
     "env LD_PRELOAD=x ls", "git -c a=b pull --force"]
)  # fmt: skip
_CHANCE = random.Random(3)
_TEXTS = _COMMANDS + ["; ".join(_CHANCE.sample(_COMMANDS, k)) for k in (2, 3) for _ in range(25)]
INTENTS = st.sampled_from([read(ShellText(text)) for text in _TEXTS])
"""Read once: starting the parser for every example would take minutes."""


def _some(*patterns: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.one_of(
        st.just(()),
        st.just(()),
        st.just(()),
        st.lists(st.sampled_from(patterns), min_size=1, max_size=2, unique=True).map(tuple),
    )


FLAT_MATCHES = st.builds(
    Match,
    commands=_some("rm", "ls", "*", "r*", "git", "/bin/ls", "/usr/bin/*", "*m", "l[sx]"),
    args=_some("-r", "push", "x", "-r*", "*build", "--force", "-f", "-?", "https://*",
               "--mode=fast", "--mode=*", "--mode=f*"),
    any_args=_some("-r", "push", "-l", "*"),
    ordered_args=_some("push", "-f", "*", "a=b", "--mode=fast"),
    paths=_some("/", "/srv/**", "/etc/*", "**/hooks/**", "**/*.o", "/usr", "/srv/ws/x", "**/build",
                "./**", "./x", ".", "./.git/**", "./*"),
    reads=_some("/etc/*", "/srv/ws/*", "./x", "./[!a]"),
    writes=_some("/srv/**", "**/.git/**", "/x", "./out/**"),
    hosts=_some("a.com", "*.com", "*"),
    environment=_some("LD_*", "PATH", "A"),
    via=_some("sudo", "env", "sh", "s*"),
    agents=_some("default", "bob", "b*"),
    sessions=_some("s"),
    tenants=_some("t*"),
    uids=st.sampled_from([(), (), (), (1000,), (0, 5)]),
    labels=st.sampled_from([(), (), (("env", "p*"),)]),
    hours=st.sampled_from([(), (), (Hours(0, 720),), (Hours(720, 1440), Hours(0, 1))]),
    frequency=st.sampled_from([None, None, HOUR]),
    when=st.sampled_from(
        [None, None, None, "command.name == 'rm'", "command.nothing == 1", "paths.size() > 1",
         "principal.agent == 'bob'", "now.getHours() < 12"]
    ),
)  # fmt: skip
CONSTRUCT_MATCHES = st.builds(
    Match, constructs=st.sampled_from([("shell:*",), ("python:import:*", "shell:function")])
)


def _deeper(inner: st.SearchStrategy[Match]) -> st.SearchStrategy[Match]:
    parts = st.lists(inner, min_size=1, max_size=2).map(tuple)
    empty: st.SearchStrategy[tuple[Match, ...]] = st.just(())
    return st.builds(
        lambda own, any_of, all_of, none_of: replace(
            own, any_of=any_of, all_of=all_of, none_of=none_of
        ),
        FLAT_MATCHES,
        st.one_of(empty, parts),
        st.one_of(empty, parts),
        st.one_of(empty, parts),
    )


MATCHES = st.recursive(st.one_of(FLAT_MATCHES, FLAT_MATCHES, CONSTRUCT_MATCHES), _deeper)
ASKS = st.builds(
    AskTerms,
    st.lists(st.sampled_from([("a",), ("b", "c*")]), max_size=1).map(tuple),
    st.sampled_from([60.0, 900.0]),
)


@st.composite
def rules(draw: st.DrawFn, effects: tuple[Effect, ...] = tuple(Effect)) -> Rule:
    effect = draw(st.sampled_from(effects))
    return Rule(
        draw(st.sampled_from(["a", "b", "c", "d", "e", "f"])),
        effect,
        draw(MATCHES),
        draw(st.sampled_from(["", "m"])),
        draw(st.sampled_from([None, *OnDoubt])),
        draw(ASKS) if effect is ASK else None,
        draw(st.sampled_from([Rewrite(("o",)), Rewrite(("p", "{args}"), ("-f",))]))
        if effect is REWRITE
        else None,
    )


def layers(most_rules: int = 6) -> st.SearchStrategy[PolicyLayer]:
    return st.builds(
        PolicyLayer,
        name=st.sampled_from(["p", "q"]),
        rules=st.lists(rules(), max_size=most_rules, unique_by=lambda each: each.id).map(tuple),
        default=st.sampled_from([None, ALLOW, ASK, DENY]),
        on_dynamic=st.sampled_from([None, *OnUnknown]),
        on_unreadable=st.sampled_from([None, *OnUnknown]),
        on_doubt=st.sampled_from(list(OnDoubt)),
        observe=st.booleans(),
    )


PRINCIPALS = st.sampled_from(
    [ME, Principal(0, "bob", "default", "s", "t1"), Principal(5, "eve", "bob", None, "u")]
)
RUNS: list[Mapping[tuple[CountOf, float], int]] = [
    {},
    {(CountOf.AGENT, 3600.0): 2},
    {(CountOf.AGENT, 3600.0): 3},
]
FACTS = st.builds(Facts, st.sampled_from([None, 0.0, 50_000.0, 1e300, float("nan")]),
                  st.sampled_from(RUNS),
                  st.sampled_from([{}, {}, {"x": "/etc/x", "/srv/ws/.git": "/usr"}]))  # fmt: skip
ACTIONS = st.builds(
    Exec,
    PRINCIPALS,
    INTENTS,
    st.sampled_from(["/srv/ws", None]),
    st.sampled_from([(), ("LD_X",)]),
    st.sampled_from([(), (("env", "prod"),)]),
    st.just("agent"),
    FACTS,
)
_HOSTS = st.one_of(st.sampled_from(["a.com", "A.com.", "[::1]", "x.com", ""]), st.text(max_size=5))
OTHER_ACTIONS = st.one_of(
    st.builds(Connect, PRINCIPALS, _HOSTS, st.integers(0, 65535)),
    st.builds(
        Request,
        PRINCIPALS,
        st.sampled_from(["GET", "POST"]),
        _HOSTS,
        st.just(443),
        st.one_of(st.sampled_from(["/", "/etc/x", "//srv/../x", "/usr?/etc"]), st.text(max_size=5)),
    ),
    st.builds(
        Tool, PRINCIPALS, st.text(max_size=3), st.text(max_size=3), st.just({"path": "/etc/x"})
    ),
)
"""What is decided beside programs."""
WORDS = st.builds(
    Word,
    st.one_of(st.text(max_size=6), st.sampled_from(["rm", "-rf", "/", "git", "a.com", "~/x"])),
    st.booleans(),
    st.text(max_size=2),
    st.text(max_size=2),
    st.booleans(),
)
RAW_INTENTS = st.builds(
    Intent,
    st.sampled_from(["bash", "argv", "python", "node"]),
    st.lists(
        st.builds(
            SimpleCommand,
            st.lists(WORDS, max_size=4).map(tuple),
            redirects=st.lists(
                st.builds(PathUse, WORDS, st.sampled_from(list(Access))), max_size=2
            ).map(tuple),
            via=st.sampled_from([(), ("sudo",), ("python",)]),
            doubtful=st.booleans(),
        ),
        max_size=3,
    ).map(tuple),
    st.lists(st.builds(PathUse, WORDS, st.sampled_from(list(Access))), max_size=2).map(tuple),
    st.lists(WORDS, max_size=2).map(tuple),
    st.sampled_from([None, "line 1"]),
    st.lists(
        st.builds(
            Construct,
            st.sampled_from(["shell:function", "python:import:os", "\udcff"]),
            advice=st.booleans(),
        ),
        max_size=2,
    ).map(tuple),
)
