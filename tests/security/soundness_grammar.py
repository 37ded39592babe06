"""A grammar of shell texts for `soundness.py`, over a source of randomness.

What a text runs in the end are stubs, `p0` to `p15`, hidden in whatever a shell has for that. Every
text is one that bash can run to its end, or nearly: what does not parse would tell nothing. As a
hypothesis strategy (`texts`) it shrinks; by a seed (`generate`) it makes many in little time.
"""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator

from hypothesis import strategies as st

DEPTH = 3
"""Constructs inside each other."""
PLAIN = ("x", "-v", "--opt=1", "a.txt", "/etc/passwd", "sub/e", "k=v", "1", "a-b")
ODD = ("b c", "", "$x", "*", "a'b", 'q"r', "-", "--", "é", "a\tb", "{a,b}", "~", "!", "#", "a\nb")
VARIABLES = ("v", "w", "v1")
END = "\n"


def _escaped(text: str) -> str:
    return "".join("\\" + c if c.isascii() and c != "\n" else c for c in text) or "''"


def _ansi(text: str) -> str:
    return "$'" + "".join(f"\\x{byte:02x}" for byte in text.encode()) + "'"


def _octal(text: str) -> str:
    return "$'" + "".join(f"\\{byte:03o}" for byte in text.encode()) + "'"


def _unicode(text: str) -> str:
    return "$'" + "".join(f"\\u{ord(c):04x}" for c in text) + "'"


def _double(text: str) -> str:
    return '"' + "".join("\\" + c if c in '$`"\\' else c for c in text) + '"'


def _broken(text: str) -> str:
    half = len(text) // 2
    return f"{shlex.quote(text[:half])}\\\n{shlex.quote(text[half:])}" if text else "''"


def _emptied(text: str) -> str:
    return "".join(f'{shlex.quote(c)}""' for c in text) or "''"


QUOTES = (*[shlex.quote] * 6, _double, _double, _escaped, _ansi, _octal, _unicode, _broken,
          _emptied)  # fmt: skip
TEXT_QUOTES = (shlex.quote, shlex.quote, _double, _ansi)
WRAPPERS = (
    "env", "env -i PATH=$PATH A=1", "env -u B --", "timeout 5", "timeout -k 1 --signal=TERM 5s",
    "nice", "nice -n 3", "nice -5", "nohup", "setsid -w", "stdbuf -oL", "stdbuf -o 0 -e 0",
    "command", "command -p --", "exec", "exec -a zz", "time", "time -p", "!", "ionice -c 3",
    "taskset 1", "taskset -c 0", "chrt -o 0", "flock lock", "flock -n lock", "setpriv --nnp",
    "prlimit --nofile=100", "setarch x86_64", "setarch -R", "linux64", "xargs", "xargs -n1",
    "xargs -r -0", "xargs -I{}", "xargs -a a -n 1", "env -S 'nice -n 1'", "choom -n 10 --",
    "ssh-agent", "find . -maxdepth 0 -exec", "find . -name '*.txt' -exec", "find . -execdir",
    "env env env", "nice timeout 5 env", "\\env", "'env'", 'e"n"v', "busybox", "watch -n1",
    "start-stop-daemon --start --pidfile none --exec", "chroot /", "unshare", "uclampset",
    "coproc", "timeout --foreground 5", "xargs -L 1 -t", "env -C sub", "nice -n1 ionice -c3",
    "setsid -f", "find sub -type f -ok", "env --split-string='nice -n 1'", "strace -f -o /dev/null",
)  # fmt: skip


class Grammar:
    """Makes texts out of choices."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def pick(self, options: tuple) -> object:
        return options[self.chance.randrange(len(options))]

    def name(self) -> str:
        return f"p{self.chance.randrange(16)}"

    def literal(self) -> str:
        """A word that is known, quoted in one way or other."""
        odd = self.chance.randrange(3) == 0
        return self.pick(QUOTES)(self.pick(ODD if odd else PLAIN))

    def called(self) -> str:
        """A stub's name, seldom plain."""
        name = self.name()
        how = self.chance.randrange(20)
        odd = {
            12: "{" + name + ",x}", 13: f"p{{{name[1:]},x}}", 14: "$c",
            15: f"p${{n:-{name[1:]}}}", 16: f"$(echo {name})",
        }  # fmt: skip
        if how < 12:
            return name
        return odd[how] if how in odd else self.pick(QUOTES)(name)

    def word(self, depth: int) -> str:
        """An argument."""
        how = self.chance.randrange(30)
        if how < 12 or depth <= 0:
            return self.literal()
        variable = self.pick(VARIABLES)
        made = {
            12: lambda: f"${variable}",
            13: lambda: f'"${{{variable}}}"',
            14: lambda: f"$({self.command(depth - 1)}{END})",
            15: lambda: f'"$( {self.command(depth - 1)}{END} )"',
            16: lambda: f"<({self.command(depth - 1)}{END})",
            17: lambda: "*.txt",
            18: lambda: "{a,b{1..3}}",
            19: lambda: f"${{{variable}:-y}}",
            20: lambda: f"${{{variable}:-$({self.command(depth - 1)}{END})}}",
            21: lambda: f"$((1 + $({self.command(depth - 1)}{END}echo 1)))",
            22: lambda: '"$@"',
            23: lambda: "$((2 * 3))",
            24: lambda: f"pre${variable}post",
            25: lambda: "${a[0]}",
            26: lambda: '"${a[@]}"',
            27: lambda: "~/f",
            28: lambda: f"`p1 \\`{self.name()}\\``",
            29: lambda: f"${{{variable}%x}}",
        }
        return made[how]()

    def redirection(self, depth: int) -> str:
        how = self.chance.randrange(12)
        if how < 9:
            plain = (">out", ">>out", "2>&1", "< a", "<<< x", "&>out", '> "o$v"', "3< a", "2>&-")
            return plain[how]
        inner = self.command(depth - 1) + END if depth > 0 else "p0"
        return (f"> >({inner})", f"< <({inner})", f'<<< "$({inner})"')[how - 9]

    def simple(self, depth: int) -> str:
        """One command: assignments, name, words, redirections."""
        parts = []
        if self.chance.randrange(4) == 0:
            parts.append(self.pick(("A=1", "v=2", "A='b c'", "A[0]=1", "x+=y", "A=$v B=2")))
        parts.append(self.called())
        parts += [self.word(depth) for _ in range(self.chance.randrange(4))]
        if self.chance.randrange(4) == 0:
            parts.append(self.redirection(depth))
        return " ".join(parts)

    def plain(self, depth: int) -> str:
        """A command without anything in front and without redirections."""
        count = self.chance.randrange(4)
        return " ".join([self.called(), *(self.word(min(depth, 1)) for _ in range(count))])

    def wrapped(self, depth: int) -> str:
        """A command behind programs that run another."""
        wrapper = self.pick(WRAPPERS)
        inner = self.plain(depth)
        if self.chance.randrange(3) == 0:
            inner = self.text_run(depth)
        elif self.chance.randrange(4) == 0:
            inner = self.wrapped(depth - 1) if depth > 0 else inner
        if "\n" in inner and wrapper.startswith(("find", "start")):
            inner = self.name()
        if wrapper.startswith("find"):
            return f"{wrapper} {inner} {{}} {self.pick((chr(92) + ';', '+', QUOTED_END))}"
        if wrapper.startswith("start-stop"):
            return f"{wrapper} $(command -v {self.name()}) -- {inner}"
        return f"{wrapper} {inner} {{}} q{{}}" if wrapper.endswith("-I{}") else f"{wrapper} {inner}"

    def text_run(self, depth: int) -> str:
        """A text that is handed to a shell as one."""
        inner = self.list(depth - 1) if depth > 0 else self.plain(0)
        text = self.pick(TEXT_QUOTES)(inner)
        name = self.name()
        made = (
            f"bash -c {text}", f"sh -c {text} n a1 a2", f"dash -ec {text}", f"bash -xc -- {text}",
            f"eval {text}", f"eval eval {shlex.quote(text)}", f"bash <<'E1'\n{inner}\nE1\n",
            f"bash -s q <<< {text}", f"source /dev/stdin <<< {text}", f". <(echo {text})",
            f"echo {text} | sh", f"printf '%s\\n' {text} | bash -s",
            f"echo {text} | base64 | base64 -d | sh", f"builtin eval {text}",
            f"trap {text} EXIT", f"trap {text} ERR; false", f't={text}; eval "$t"',
            f't={text}; bash -c "$t"', f"export t={text}; sh -c 'eval \"$t\"'",
            f"flock lock -c {text}", f"script -qc {text} /dev/null",
            f"awk 'BEGIN {{ system(\"{name} x\") }}'", f"sed '1e {name} y' a",
            f"split --filter {text} a",
            f"tar cf /dev/null a --checkpoint=1 --checkpoint-action=exec={text}",
            f"git -c alias.zz={shlex.quote('!' + inner)} zz", f"bash <<E2\n{self.called()} x\nE2\n",
            f"env BASH_ENV=/dev/null bash -c {text}", f"bash -O extglob -c {text}",
            f"find . -maxdepth 0 -exec sh -c {text} \\;", f"bash -c '\"$@\"' _ {self.plain(depth)}",
            f"sh -c '$0 $1' {name} x", f"tar xf x.tar --to-command={text}", f"su -c {text}",
            f"awk '{{ print | \"{name} y\" }}' a", f"sed 's/^/{name} /e' a",
            f"sed -n '/b/{{e {name} z\n}}' a", f"xargs -a a sh -c {text} _",
            f"cat <<'E5' | bash\n{inner}\nE5\n", f"bash --norc -c {text}",
            f"BASH_ENV=a bash -c {text}",
            f"echo {name} > f2; bash < f2",
            f"env -S 'sh -c \"{name} x\"'", f"perl -e 'system(\"{name} x\")'",
            f"git -c core.fsmonitor={shlex.quote(name)} init -q . && git status",
            f"git bisect run {name}", f"make -s -f /dev/stdin <<< $'all:\\n\\t{name} x'",
            f"bash -c 'eval \"$1\"' _ {text}", f"bash -c 'eval \"$1 $2\"' _ {text} x",
            f"watch -n1 -t -x {name} x", f"printf -v t %s {text}; eval \"$t\"",
            f"read -r t <<< {shlex.quote(name + ' x')}; eval \"$t\"", f"set -- {text}; eval \"$1\"",
        )  # fmt: skip
        return made[self.chance.randrange(len(made))]

    def compound(self, depth: int) -> str:
        """What only the grammar of the shell has."""
        name, other, variable = self.name(), self.name(), self.pick(VARIABLES)
        literal = self.literal()

        def word() -> str:
            return self.word(1)

        def a() -> str:
            return self.list(depth - 1) + END

        def b() -> str:
            return self.command(depth - 1)

        made = (
            lambda: f"( {a()} )", lambda: f"{{ {a()} }}",
            lambda: f"if {b()}\nthen {a()}else {name}; fi",
            lambda: f"if ! {b()}\nthen :; elif {name}; then {a()}fi",
            lambda: f"for {variable} in {word()} {literal}; do {a()}done",
            lambda: f"for {variable} in {name} x; do ${variable} y; done",
            lambda: f"for ((i = 0; i < 2; i++)); do {a()}done",
            lambda: f"while {b()}\ndo {a()}break; done",
            lambda: f"until false; do {a()}break; done",
            lambda: f"case {word()} in {literal}) {a()};; *) {b()}\n;; esac",
            lambda: f"case x in y|x) {a()};& *) {b()}\n;;& z) : ;; esac",
            lambda: f"f() {{ {a()}}}; f {word()}",
            lambda: f"function g {{ $1 \"$2\"; }}; g {name} {literal}",
            lambda: f"f() {{ \"$@\"; }}; f {name} {word()}", lambda: f"f() ( {a()}); f & wait",
            lambda: f"coproc {{ {a()}}}; wait", lambda: f"coproc {name} x; wait",
            lambda: f"[[ -n $({b()}\n) && a == b ]]", lambda: f"(( $({b()}\necho 1) > 0 ))",
            lambda: f"cat <<E3\n$({b()}\n)\nE3\n",
            lambda: f"cat <<-'E4'\n\t$({name})\n\tE4\n{b()}",
            lambda: f"a=({word()} $({b()}\n)); \"${{a[@]}}\"",
            lambda: f"a=({name} x 'y z'); \"${{a[@]}}\"", lambda: f"c={name}; $c {word()}",
            lambda: f"c='{name} x'; $c y", lambda: f"c={name}; c={other}; $c",
            lambda: f"declare c={name}; \"$c\" {word()}", lambda: f"set -- {name} {word()}; \"$@\"",
            lambda: f"read c <<< '{name} x'; $c", lambda: f"printf -v c %s {name}; $c",
            lambda: f"shopt -s expand_aliases\nalias zz='{name} q'\nzz {word()}",
            lambda: f"shopt -s expand_aliases\nalias nn='env '\nalias mm={name}\nnn mm {word()}",
            lambda: f"{b()} &", lambda: f"{b()} | {{ {a()}}}",
            lambda: f"{name} |& while read -r {variable}; do {other} \"${variable}\"; done",
            lambda: f"cd sub && {b()}", lambda: f"echo a b | while read x y; do {a()}done",
            lambda: f"trap '{name} $?' EXIT INT; {b()}", lambda: f"trap '{name} d' DEBUG; {b()}",
            lambda: f"[[ -v 'z[$({name})]' ]]", lambda: f"x='z[$({name})]'; echo $((x))",
            lambda: f"PS4='$({name})'; set -x; :", lambda: f"x='$({name})'; echo \"${{x@P}}\"",
            lambda: f"declare -n r=c; r={name}; $c",
            lambda: f"c={name}; if {b()}\nthen c={other}; fi; $c",
            lambda: f"select s in {name}; do $s; break; done",
            lambda: f"mapfile -t a <<< {name}; ${{a[0]}}",
            lambda: f"for {variable}; do {a()}done", lambda: f"time {{ {a()}}}",
            lambda: f"let 'x=1'; {b()}", lambda: f"c={name}; f() {{ c={other}; }}; f; $c",
            lambda: f"f() {{ local c=$1; $c {word()}; }}; f {name}; f {other}",
            lambda: f"c={name}; for i in 1 2; do $c; c={other}; done",
            lambda: f"c={name}; trap 'c={other}' DEBUG; $c",
            lambda: f"c={name} $c; c={other} eval '$c'",
            lambda: f"c={name}; (c={other}; $c); $c", lambda: f"c={name}; c={other} | $c; $c",
            lambda: f"c={name}; : ${{c:={other}}} ${{d:={name}}}; $c $d; $d",
            lambda: f"IFS=:; c={name}:x; $c", lambda: f"c={name[1:]}; p$c; p\"$c\"",
            lambda: f"unset c; ${{c-{name}}} {word()}",
            lambda: f"c={name}; ${{c/x/y}} ${{c%z}} ${{#c}}",
            lambda: f"f() {{ f() {{ {name} \"$1\"; }}; {other}; }}; f; f {literal}",
            lambda: f"f() {{ [ $1 ] || return; {name} \"$1\"; shift; f \"$@\"; }}; f {literal} y",
            lambda: f"command() {{ {name}; }}; command {other}",
            lambda: f"alias {other}={name}; {other}",
            lambda: f"cd() {{ {name}; }}; cd {literal}",
            lambda: f"c={name}; readonly c; c={other}; $c",
            lambda: f"declare -i c=1; c={name}; $c; {other}",
            lambda: f"c={name}; unset c; $c {other}", lambda: f"export c={name}; bash -c '$c x'",
            lambda: f"for c in {name} {other}; do $c {word()}; done; $c",
            lambda: f"for c in {name} '{other} x'; do \"$c\" y; $c; done",
            lambda: f"while read c; do $c; done <<< {name}", lambda: f"exec 3>&1; {b()}",
            lambda: f"set -f; {name} *; set +f", lambda: f"f() {{ {name}; }} > >({other}); f",
            lambda: f"hash -p $(command -v {name}) zz; zz x", lambda: f"coproc N {{ {a()}}}",
            lambda: f"[[ $({name}) =~ $({other}) ]]",
            lambda: f"case $({name}) in $({other})) ;; esac",
            lambda: f"x=(); x[$({name})]=1; y=${{x[$({other})]}}",
            lambda: f"{name} ${{x:$({other}):1}}",
            lambda: f"enable -n echo; echo {literal}; {b()}", lambda: f"{name} # {other}\n{other}",
            lambda: f"f () {{ {name}; }}; export -f f; bash -c f",
            lambda: f"{name};{other}&{name}|{other}",
            lambda: f"wait $({name}); jobs -x {other} x", lambda: f"compgen -C {name} x",
            lambda: f"mapfile -C {name} -c 1 z < a", lambda: f"PROMPT_COMMAND={name}; {other}",
            lambda: f"PATH=$PATH:. {name}; {other}",
            lambda: f"{name} $'a' $\"{literal}\" \"$({other})\"",
        )  # fmt: skip
        return made[self.chance.randrange(len(made))]()

    def written(self, depth: int) -> str:
        """A script that is written, by one way of many, and then run, by another."""
        inner = self.list(depth - 1) if depth > 0 else self.plain(0)
        text, name = self.pick(TEXT_QUOTES)(inner), self.name()
        file = self.pick(("f5", "./f5", "sub/f5", "f5.sh", "$PWD/f5", "f${v}5", '"$g"'))
        other = self.pick(("f6", "sub/f6"))
        heads = ("", "", "", "#!/bin/sh\n", "#!/bin/bash\n", "#!/usr/bin/env bash\n")
        head = self.pick(heads)
        if '"$g"' in (file, other):
            head = ""
        ways = (
            f"echo {text} > {file}", f"echo {text} > {file}", f"printf '%s\\n' {text} > {file}",
            f"printf '{name} x\\n' > {file}", f"cat > {file} <<'E7'\n{head}{inner}\nE7\n",
            f"cat > {file} <<'E7'\n{head}{inner}\nE7\n", f"cat <<E7 > {file}\n{name} $v y\nE7\n",
            f"cat > {file} <<< {text}", f"echo {text} | tee {file}", f"tee {file} <<< {text}",
            f"echo '{head}' > {file}; echo {text} >> {file}", f"echo {name} >> {file}",
            f"echo {text} > {other}; mv {other} {file}",
            f"echo {text} > {other}; cp {other} {file}",
            f"echo {text} > {other}; ln -sf {other} {file}", f"(echo {text}) > {file}",
            f"{{ echo '{head}'; echo {text}; }} > {file}", f"exec 4> {file}; echo {text} >&4",
            f"echo {text} | dd of={file}", f"awk 'BEGIN {{ print \"{name} x\" > \"f5\" }}'",
            f"echo {text} | sed -n 'w f5'", f"sed -i '1i {name} w' a; cp a {file}",
            f"echo {name} > a; sort -o {file} a", f"f() {{ echo {text} > {file}; }}; f",
            f"cd sub; echo {text} > f5; cd ..; mv sub/f5 {file}", f"> {file} echo {text}",
            f"mkdir d; echo {text} > d/f5; mv d e; cp e/f5 {file}", f"echo -e {text} > {file}",
            f"bash -c {shlex.quote(f'echo {shlex.quote(inner)} > f5')}", f"echo {text} >| {file}",
            f"for v in {name} p9; do echo $v x > f5; done", f"echo {text} > {file} &\nwait",
            f"printf '\\160{name[1:]} x\\n' > {file}", f"echo {text} &> {file}",
            f"eval {shlex.quote(f'echo {name} y > f5')}", f"echo {name} | base64 > {other}; "
            f"base64 -d < {other} > {file}", f"split -b 999 a {file}; cp {file}aa {file}",
            f"env echo {text} > {file}", f"echo() {{ printf 'p9 z'; }}; echo {name} > {file}",
            f"set -C; echo {text} > {file}", f"v=; g=f5; echo {text} > {file}",
            f"echo {name} > f5; sed -i s/{name}/p8/ {file}", f"ulimit -f 1; echo {text} > {file}",
            f"yes {name} | head -n 2 > {file}", f"echo {name} > f5; rev f5 | rev > {file}",
            f"echo {text} > f5.x; for i in f5.x; do mv $i ${{i%.x}}; done",
        )  # fmt: skip
        runs = (
            f". {file}", f"source {file} x", f"bash {file}", f"sh {file} y", f"bash -x {file}",
            f"dash -e {file}", f"chmod +x {file}; {file} z", f"bash < {file}", f"cat {file} | sh",
            f"eval \"$(cat {file})\"", f"chmod 755 {file}; env {file}", f". $PWD/{file}",
            f"nice bash {file}", f"xargs bash {file} < a", f"bash -c '. {file}'",
            f"f7={file}; . $f7",
            f"cd sub; . ../{file}", f"ln -s {file} g5; bash g5", f"mv {file} g5; sh ./g5",
            f"chmod +x {file}; PATH=$PATH:. f5", "find . -name 'f5*' -exec sh {} \\;",
            f"(. {file})", f"bash -o errexit {file}", f"exec bash {file}",
            f"BASH_ENV={file} bash -c :",
            f"chmod +x {file}; find . -maxdepth 0 -exec {file} {{}} +", f"bash ./sub/../{file}",
            f"for f in {file}; do . $f; done", f"timeout 5 sh {file}", f"command . {file}",
            f"r() {{ sh \"$1\"; }}; r {file}", f"bash --rcfile {file} -ic :",
            f"sh -c '\"$0\"' {file}",
            f"trap '. {file}' EXIT", f"awk 'BEGIN {{ system(\"sh {file}\") }}'", f"sh -s < {file}",
            f"chmod +x {file}; $PWD/{file}", f"exec 5< {file}; . /dev/fd/5", "sh f5*; . f?",
        )  # fmt: skip
        way, run = self.pick(ways), self.pick(runs)
        if self.chance.randrange(6) == 0:
            return f"run() {{ {run}\n}}\n{way}\nrun"
        if self.chance.randrange(6) == 0:
            return f"for i in 1 2; do {run}\n{way}\ndone"
        return f"{way}{END if '<<' in way or way.endswith('&') else '; '}{run}"

    def command(self, depth: int) -> str:
        """Any one command."""
        how = self.chance.randrange(11)
        if how == 10:
            return self.written(depth)
        if depth <= 0 or how < 3:
            return self.simple(depth)
        if how < 5:
            return self.wrapped(depth)
        return self.text_run(depth) if how < 7 else self.compound(depth)

    def list(self, depth: int) -> str:
        """Commands one after the other, or through pipes."""
        text = self.command(depth)
        for _ in range(self.chance.randrange(2 if depth < DEPTH else 3)):
            joint = self.pick(("; ", "\n", " && ", " || ", " | ", " |& ", " &\n"))
            # A heredoc ends with a line of its own, and nothing may follow `&` but a command.
            open_end = "\n" in text or text.rstrip().endswith("&")
            text += (END if open_end else joint) + self.command(depth)
        return text


QUOTED_END = "';'"

texts = st.randoms(use_true_random=False).map(lambda chance: Grammar(chance).list(DEPTH))


def generate(count: int, seed: int) -> Iterator[str]:
    """`count` texts, no two alike, the same for the same `seed`."""
    grammar = Grammar(random.Random(seed))
    seen: set[str] = set()
    while len(seen) < count:
        text = grammar.list(DEPTH)
        if text not in seen:
            seen.add(text)
            yield text
