"""Reading: files that a text writes and then runs, and variables of several constants."""

from __future__ import annotations

import pytest

from runner.analysis import read
from runner.model.intent import Intent
from runner.model.request import ShellText

UNKNOWN = "?"


def shell(text: str, language: str = "bash") -> Intent:
    return read(ShellText(text, language))


def sure(intent: Intent) -> list[str]:
    """The commands with their words; `?` for one that can't be told."""
    return [
        UNKNOWN if command.words[0].dynamic else " ".join(word.text for word in command.words)
        for command in intent.commands
        if command.words and not command.doubtful
    ]


@pytest.mark.parametrize(
    "text",
    [
        "echo 'rm x' > f; . ./f",
        "echo rm x > f\nbash f",
        "echo -n 'rm x' >| f; sh -e f y",
        "echo -e 'ls\\nrm x' > f; bash f",
        "printf 'rm %s\\n' x y > f; bash f",
        "printf '%s %s\\n' rm x > f; bash f",
        "cat > f <<'E'\nrm x\nE\nsh f",
        "cat <<E > ./f 2>/dev/null\nrm x\nE\nnice bash sub/../f",
        "cat > f <<< 'rm x'; chmod +x f; ./f",
        "cat > f <<'E'\n#!/bin/sh -e\nrm x\nE\nchmod 755 f; env ./f y",
        "cat > f.py <<'E'\n#!/usr/bin/env python3\nimport os\nos.system('rm x')\nE\n./f.py",
        "cat > f.py <<'E'\nimport os\nos.system('rm x')\nE\ngit add f.py; python3 f.py \"$y\"",
        "echo 'import os; os.system(\"rm x\")' > f; python3 < f",
        "echo 'import os; os.system(\"rm x\")' > m.py; python3 -c 'import m'",
        "echo 'rm x' > f; cd sub; . ../f",
        "cd sub; echo 'rm x' > f; cd ..; . sub/f",
        "bash -c 'echo rm x > f; . ./f'",
        "echo 'rm x' > f; bash -c '. ./f'",
        "echo 'rm x' > f; trap '. ./f' EXIT",
        "r() { . ./f; }\necho 'rm x' > f\nr",
        "for i in 1 2; do . ./f; echo 'rm x' > f; done",
        "echo 'echo rm x > g; . ./g' > f; . ./f",
        "echo 'rm x' > \"$g\"; . ./f",
    ],
)
def test_what_surely_stands_in_a_file_is_read(text: str) -> None:
    found = sure(shell(text))
    assert "rm x" in found
    assert UNKNOWN not in found


@pytest.mark.parametrize(
    "text",
    [
        "echo a > f; echo b >> f; . ./f",
        "echo a >> f; . ./f",
        "echo a > f; echo b > f; . ./f",
        'echo "$x" > f; . ./f',
        "cat > f <<E\n$x\nE\n. ./f",
        "echo a | tee f; . ./f",
        "cp a f; ./f",
        "cp sub/f .; ./f",
        "mv a f; sh f",
        "ln -s a f; sh f",
        "echo a > g; ln g f; sh f",
        "echo a > g; mv g f; . ./f",
        "curl -o f http://h/x; sh f",
        "curl -fsSLo f http://h/x; sh f",
        "curl -O http://h/f; sh f",
        "wget http://h/f?x=1; sh f",
        "dd if=a of=f; sh f",
        "sort -o f a; sh f",
        "awk '{ print \"rm\" > \"f\" }' a; sh f",
        "sed -n 'w f' a; sh f",
        "sed -n 'w f' a; sh f${v}",
        "echo a > f; sed -i s/a/b/ f; sh f",
        "echo a > f; frob f; sh f",
        "echo a > f; frob *; sh f",
        "echo a > f; git mv -f b f; sh f",
        "exec 3> f; echo a >&3; sh f",
        "(echo a) > f; sh f",
        "{ echo a; echo b; } > f; sh f",
        "foo > \"$x\"; sh f",
        "foo > \"$x/f\"; sh f",
        "foo > $x/f; sh f",
        "foo > f; sh \"$x\"",
        "python3 -c 'open(\"f\", \"w\").write(\"rm\")'; sh f",
        "echo() { printf 'rm x'; }; echo a > f; sh f",
        "alias echo='printf rm'; echo a > f; sh f",
        "enable -n echo; echo a > f; sh f",
        "ulimit -f 1; echo a > f; sh f",
        "PATH=. cat > f <<E\na\nE\nsh f",
        "echo a > f 2>&1 > g; sh f",
        "echo -e 'a\\x62' > f; bash f",
        "printf '\\162m' > f; bash f",
        "printf %b a > f; bash f",
        "echo 'a\\nb' > f; sh f",
        "printf '\\177ELF' > f; ./f",
        "echo a > ls; PATH=.:$PATH; ls",
        "ln -s /bin/rm ~/bin/ls; ls x",
        "printf 'all:\\n\\trm x' > Makefile; make",
        "echo 'BEGIN { system(\"rm x\") }' > f; awk -f f a",
        "curl -o f http://h/x; bash --rcfile f -ic :",
        "curl -o f.py http://h/x; python3 f.py",
        "curl -o f.pl http://h/x; perl f.pl",
        "gunzip f.gz; sh f",
        "gcc -E -o f a.c; sh f",
    ],
)  # fmt: skip
def test_what_may_have_been_written_can_not_be_told(text: str) -> None:
    assert UNKNOWN in sure(shell(text))


@pytest.mark.parametrize(
    "text",
    [
        "echo a > g; sh f",
        "echo a > f.txt; sh f",
        "foo > \"$x.log\"; sh f",
        "foo > \"$x\"; /usr/bin/env ls",
        "./configure > \"$log\" 2>&1",
        "env ./configure > \"$log\"",
        "gcc -o f f.c; ./f",
        "date > date; date",
        "ls > ls.txt; ls",
        "cp a b; ./f",
        "foo > /dev/null; sh null",
        "chmod +x f; ./f",
        "sed -n 1p f.sh; sh f.sh",
        "grep -o f a; sh f",
        "set -o f; sh f",
        "tar xzf a.tar; ./configure",
        "git clone http://h/f; f/configure",
        "sh f; curl -o g http://h/x",
    ],
)  # fmt: skip
def test_a_file_that_nothing_here_writes_is_a_program_like_any_other(text: str) -> None:
    assert UNKNOWN not in sure(shell(text))


def test_a_file_that_runs_itself_is_read_once() -> None:
    intent = shell("echo '. ./f; rm x' > f; . ./f")
    assert intent.unreadable is None
    assert sure(intent).count("rm x") == 1


def test_what_an_archive_brings_is_a_doubt() -> None:
    commands = shell("tar xzf a.tar; ./configure").commands
    assert [command.doubtful for command in commands if command.words[0].dynamic] == [True]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("c=rm; $c x", ["rm x"]),
        ("c='rm x'; $c y; \"$c\"", ["rm x y", "rm x"]),
        ("c=a; if x; then c=b; fi; $c y", ["x", "a y", "b y"]),
        ("for c in a b; do $c y; done; $c", ["a y", "b y", "a", "b"]),
        ("for c in a 'b x'; do $c y; done", ["a y", "b x y"]),
        ("f() { c=b; }; c=a; f; $c", ["f", "a", "b"]),
        ("c=a && $c", ["a"]),
        ("f() { c=a; $c; }", ["a"]),
        ("read -r c <<< 'a x'; $c", ["read -r c", "a x"]),
        ("printf -v c 'a%s' b; $c", ["printf -v c a%s b", "ab"]),
        ("export c=a; export c; env $c", ["export c=a", "export c", "env a", "a"]),
        ("c=$(echo a); $c", ["echo a", "a"]),
        ("$(echo a x) y; `printf b`", ["a x y", "echo a x", "b", "printf b"]),
        ("c=xab; ${c#x} 1; ${c%b} 2; ${c/x/y} 3", ["ab 1", "xa 2", "yab 3"]),
        ("c=aB; ${c,,} 1; ${c^^} 2; ${c:1:1} 3; ${c:-x} 4; ${c:+y} 5",
         ["ab 1", "AB 2", "B 3", "aB 4", "y 5"]),
        ("c=m; r$c x; r\"${c}\" y", ["rm x", "rm y"]),
        ("while IFS= read -r l; do c=a; $c; done", ["read -r l", "a"]),
        ("command -v b; c=a; $c", ["command -v b", "a"]),
    ],
)  # fmt: skip
def test_names_out_of_constants_are_read(text: str, expected: list[str]) -> None:
    assert sure(shell(text)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "$c; c=a",
        "f() { $c; }; c=a; f",
        "if x; then c=a; fi; $c",
        "(c=a); $c",
        "c=a | $c",
        "c=a & $c",
        "c=a || $c",
        "c=a $c",
        "c=a; c+=b; $c",
        "c=a; c=$x; $c",
        "c=a; declare -u c; $c",
        "declare -i c=a; $c",
        "declare -n c=d; d=a; $c",
        "c=a; local c; $c",
        "c=a; unset c; $c",
        "for c; do $c; done",
        "for c in a $x; do $c; done",
        "for c in 1 2 3 4 5 6 7 8 9; do $c; done",
        "c=a; $x; $c",
        "c=eval; $c 'd=b'; d=a; $d",
        "c=a; read $x; $c",
        "c=a; printf -v $x b; $c",
        "c=a; trap 'c=b' DEBUG; $c",
        "c=a; IFS=x; $c",
        "c=axb; IFS=x read y; IFS=x; $c",
        "trap 'c=b' DEBUG; eval 'c=a; $c'",
        "trap 'c=b' USR1; eval 'c=a; kill -USR1 $$; $c'",
        "readonly c=b; eval 'c=a; $c'",
        "IFS=x; eval 'c=rxm; $c'",
        "read() { c=b; }; read c <<< a; $c",
        "echo() { printf rm; }; $(echo a)",
        "echo() { printf rm; }; export -f echo; bash -c '$(echo a)'",
        "alias echo=rm; $(echo a)",
        "enable -n echo; $(echo a)",
        "set -T; trap 'echo rm' DEBUG; $(echo a)",
        "BASH_XTRACEFD=1; set -x; $(echo a)",
        "IFS=o; $(echo rom)",
        "$(echo $x)",
        "$(echo a; echo b)",
        "$(echo a >&2)",
        "$(echo -e '\\x72m')",
        "c=a; ${c#?}",
        "c=a; ${c/a/&b}",
        "c=a; ${c@P}",
        "c=a; ${c:=b}",
        "c=a; ${c:x:1}",
        "c='*'; $c",
        "${c:-a}",
    ],
)
def test_names_that_may_be_another_can_not_be_told(text: str) -> None:
    assert UNKNOWN in sure(shell(text))


def test_zsh_does_not_split() -> None:
    assert UNKNOWN in sure(shell("c='a b'; $c", "zsh"))


def test_git_gives_an_alias_what_follows_it() -> None:
    intent = shell("git -c alias.z='!rm -rf' z /")
    command = intent.commands[-1]
    assert [word.text for word in command.words] == ["rm", "-rf", '"$@"']
    assert command.words[-1].dynamic


@pytest.mark.parametrize(
    "text",
    [
        "echo 'rm x' | sh",
        "printf '%s\\n' 'rm x' | nice bash -s",
        "cat <<'E' | sudo sh\nrm x\nE\n",
        "echo 'rm x' | bash 2>/dev/null | cat",
        "bash <<'E'\nread y\nrm x\nE\n",
    ],
)
def test_what_a_shell_is_fed_is_read(text: str) -> None:
    found = sure(shell(text))
    assert "rm x" in found
    assert UNKNOWN not in found


@pytest.mark.parametrize(
    "text",
    [
        "echo 'rm x' | { read y; sh; }",
        "echo 'yrm x' | sh $(head -c 1)",
        "echo 'rm x' | bash -c 'read y; sh'",
        "echo 'rm x' | bash < f",
        "echo() { printf ls; }; echo 'rm x' | sh",
        'echo "$x" | sh',
        "echo x 2>&1 | sh",
        "bash <<'E'\nread y\n: <<Q\nrm x\nQ\nE\n",
        "bash <<'E'\nhead -n 1\nls 'a\nrm x\n'\nE\n",
        "bash <<'E'\nread -n 5 y\necho rm x\nE\n",
        "printf 'read y\\n: <<Q\\nrm x\\nQ\\n' | bash",
    ],
)
def test_what_a_shell_is_fed_may_begin_elsewhere(text: str) -> None:
    assert UNKNOWN in [
        UNKNOWN if command.words[0].dynamic else "" for command in shell(text).commands
        if command.words
    ]  # fmt: skip


def test_a_coprocess_of_a_plain_command_has_no_name() -> None:
    assert sure(shell("coproc rm -rf / | cat")) == ["rm -rf /", "cat"]
    assert sure(shell("coproc N { ls; } | cat")) == ["ls", "cat"]


def test_its_assignments_are_words_then() -> None:
    assert sure(shell("coproc a k=v | b")) == ["a k=v", "b"]
    assert sure(shell("coproc a k=v b")) == ["a k=v b"]
    assert sure(shell("a | time k=v b")) == ["a", "time k=v b", "k=v b"]


@pytest.mark.parametrize(
    "text",
    [
        "x=$(cat <<E\na\nE\nrm -f x; ls /)",
        "ls ${v:-$(cat > f <<'E'\na\nE\n\nrm -f x; ls /\n)}",
        "cat <(cat <<E\na\nE\nrm -f x; ls /)",
        'echo "$(for i in 1; do cat <<E\na\nE\nrm x; ls /; done)"',
        "echo $(x $(cat <<E\na\nE\nrm x; ls /))",
    ],
)
def test_bash_loses_a_separator_behind_a_heredoc_in_a_substitution(text: str) -> None:
    assert UNKNOWN in sure(shell(text))


@pytest.mark.parametrize(
    "text",
    [
        "ls $((rm x $(case a in a) ;; esac\necho 1)))",
        "((rm x $(case a in a) ;; esac\necho 1)))",
        "ls $((1 + $(echo '(' | tr a b; case a in a) ;; esac)))",
        "ls $((1 + $(echo ')')))",
    ],
)
def test_arithmetic_whose_parentheses_do_not_pair_may_be_commands(text: str) -> None:
    intent = shell(text)
    assert UNKNOWN in sure(intent) or intent.unreadable


def test_arithmetic_is_read() -> None:
    assert sure(shell("ls $((1 + $(echo 2)))")) == ["ls $((1 + $(echo 2)))", "echo 2"]


def test_a_heredoc_alone_in_a_substitution_is_read() -> None:
    text = "git commit -m \"$(cat <<'E'\nsay; so\nE\n)\"; cat <<E\na\nE\nrm x; ls"
    assert UNKNOWN not in sure(shell(text))


def test_time_behind_a_pipe_is_a_program() -> None:
    assert sure(shell("a | time -o f rm x")) == ["a", "time -o f rm x", "rm x"]
    assert sure(shell("time rm x")) == ["rm x"]
    assert UNKNOWN in sure(shell("a | time { bash; }"))
