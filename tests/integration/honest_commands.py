"""Everyday work for `honest_work.py`: each a folder of files and a shell text that works on it.

Output and files must be the same outside and inside, but for what is named in `varies`: files that
hold a time or an inode number, which no two runs share.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement


@dataclass(frozen=True)
class Work:
    """One piece of work."""

    text: str
    """For bash, with `set -e`."""
    needs: tuple[str, ...]
    """Programs without which it is skipped."""
    files: Mapping[str, str] = field(default_factory=dict)
    varies: Mapping[str, str] = field(default_factory=dict)
    """Glob over a path -> why its content differs from run to run; that it is there is compared."""
    pytest: bool = False
    """Whether it needs pytest and xdist in a virtual environment in the workspace."""


GIT = """
export GIT_AUTHOR_DATE='2024-05-01T12:00:00Z' GIT_COMMITTER_DATE='2024-05-01T12:00:00Z'
export GIT_AUTHOR_NAME=Dev GIT_COMMITTER_NAME=Dev
export GIT_AUTHOR_EMAIL=dev@example.org GIT_COMMITTER_EMAIL=dev@example.org
git init -q -b main repo && cd repo
printf 'one\\n' > a && mkdir sub && printf 'two\\n' > sub/b && ln -s a link
git add -A && git commit -q -m first
git switch -q -c topic && printf 'three\\n' >> a && git commit -q -am topic
git switch -q main && printf 'four\\n' > c && git add c && git commit -q -m main
git merge -q --no-ff -m merged topic
git switch -q -c other HEAD~1 && printf 'five\\n' > d && git add d && git commit -q -m other
git rebase -q main
git mv c renamed && git commit -q -m renamed
git stash list && printf 'six\\n' >> a && git stash -q && git stash pop -q && git checkout -q -- a
git worktree add -q ../second main && git -C ../second status --short
git worktree remove ../second
git log --format='%H %an %s' --graph --all
git diff --stat main other && git tag -a -m v1 v1 && git describe
git gc -q && git fsck --full --strict && git status --porcelain=v2 --branch
git clone -q --no-local . ../clone && git -C ../clone log --oneline
"""

C = {
    "main.c": """
#include <dlfcn.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
int twice(int);
static void *work(void *p) { *(int *)p = twice(*(int *)p); return 0; }
int main(void) {
    int n = 21;
    pthread_t t;
    if (pthread_create(&t, 0, work, &n) || pthread_join(t, 0)) return 1;
    void *library = dlopen("./libplus.so", RTLD_NOW);
    if (!library) return 2;
    int (*plus)(int) = (int (*)(int))dlsym(library, "plus");
    printf("%d %d %.3f\\n", n, plus(n), sqrt(n));
    return 0;
}
""",
    "twice.c": "int twice(int n) { return 2 * n; }\n",
    "plus.c": "int plus(int n) { return n + 1; }\n",
}

CC = """
cc -O2 -Wall -c main.c twice.c
ar rcsD libtwice.a twice.o && cc -shared -fPIC -o libplus.so plus.c
cc -o main main.o -L. -ltwice -lm -lpthread -ldl
./main && file=$(mktemp) && cc -S -o "$file" twice.c && test -s "$file"
cc -fsyntax-only -Wall - <<'END' || echo "refused with $?"
int main(void) { return undeclared; }
END
"""

MAKEFILE = """
OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
.PHONY: all check clean
all: main libplus.so
main: main.o twice.o
\tcc -o $@ $^ -lm -lpthread -ldl
libplus.so: plus.o
\tcc -shared -o $@ $^
%.o: %.c
\tcc -fPIC -O1 -c -o $@ $<
check: all
\t@./main
clean:
\trm -f $(OBJECTS) main libplus.so
"""

NODE = {
    "main.js": """
const fs = require('fs'), os = require('os'), path = require('path'), net = require('net');
const { spawnSync, fork } = require('child_process');
const { Worker, isMainThread, parentPort, workerData } = require('worker_threads');

if (!isMainThread) {
  let sum = 0;
  for (let n = 0; n < workerData; n++) sum += n;
  parentPort.postMessage(sum);
} else if (process.argv[2] === 'child') {
  process.on('message', (n) => { process.send(n * 2); process.disconnect(); });
} else {
  main();
}

async function main() {
  fs.mkdirSync('out/deep', { recursive: true });
  fs.writeFileSync('out/deep/a.txt', 'hello');
  fs.symlinkSync('deep/a.txt', 'out/link');
  fs.renameSync('out/deep/a.txt', 'out/deep/b.txt');
  fs.copyFileSync('out/deep/b.txt', 'out/c.txt');
  const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'x-'));
  fs.rmSync(scratch, { recursive: true });
  console.log(fs.readdirSync('out').sort().join(' '));
  console.log(spawnSync('sh', ['-c', 'echo from sh; exit 3']).status);
  const sums = await Promise.all([1000, 2000].map((n) => new Promise((done, fail) => {
    const worker = new Worker(__filename, { workerData: n });
    worker.on('message', done).on('error', fail);
  })));
  console.log(sums.join(' '));
  const child = fork(__filename, ['child']);
  child.send(21);
  console.log(await new Promise((done) => child.once('message', done)));
  const seen = new Promise((done) => {
    const watcher = fs.watch('out', (_, name) => { watcher.close(); done(name); });
  });
  fs.writeFileSync('out/watched', 'x');
  console.log(await seen);
  const server = net.createServer((s) => s.end('over loopback')).listen(0, '127.0.0.1', () => {
    const socket = net.connect(server.address().port, '127.0.0.1');
    socket.on('data', (data) => console.log(String(data))).on('close', () => server.close());
  });
}
""",
}

NPM = {
    "package.json": """{
  "name": "example", "version": "1.0.0", "private": true,
  "scripts": {
    "pretest": "node build.js",
    "test": "node --test",
    "hello": "echo $npm_package_name $npm_lifecycle_event"
  }
}
""",
    "build.js": "require('fs').writeFileSync('built.json', JSON.stringify({ answer: 42 }));\n",
    "test/one.test.js": """
const test = require('node:test'), assert = require('node:assert'), fs = require('fs');
test('the answer', () => {
  assert.strictEqual(JSON.parse(fs.readFileSync('built.json')).answer, 42);
  fs.writeFileSync('tested', 'yes');
});
""",
}

PYTEST = {
    "test_many.py": """
import multiprocessing, os, socket, sqlite3, subprocess, sys, threading
import pytest

@pytest.mark.parametrize("n", range(20))
def test_arithmetic(n):
    assert sum(range(n + 1)) == n * (n + 1) // 2

def test_files(tmp_path):
    (tmp_path / "x").write_text("y")
    assert (tmp_path / "x").read_text() == "y"

def test_program():
    assert subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True).stdout == b"1\\n"

def test_processes():
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert pool.map(abs, [-1, -2]) == [1, 2]

def test_loopback():
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"x")

def test_database():
    with sqlite3.connect("test.db") as db:
        db.execute("create table t (n)")

def test_of_the_repository():
    with open("tested.txt", "w") as file:
        file.write("yes")
""",
    "test_failing.py": "def test_wrong():\n    assert 1 == 2\n",
}

TAR = """
mkdir tree && cp -a one.txt tree/ && mkdir tree/deep && cp two.txt tree/deep/
ln -s one.txt tree/link && ln tree/one.txt tree/hard && chmod 640 tree/deep/two.txt
touch -d '2024-05-01 12:00 UTC' -h tree/* tree/deep/* tree/deep tree
tar --sort=name --mtime='2024-05-01 12:00 UTC' --owner=0 --group=0 --numeric-owner \\
    -cJf t.tar.xz tree
tar -tvJf t.tar.xz && mkdir out && tar -xJf t.tar.xz -C out
diff -r --no-dereference tree out/tree
xz -k -9 one.txt && xz -dc one.txt.xz | cmp - one.txt && xz -t t.tar.xz
gzip -nk two.txt && gzip -dc two.txt.gz | cmp - two.txt
find tree -xdev -type f -printf '%p %s %m %n\\n' | sort
stat -c '%n %A %F' out/tree/link out/tree/deep && du -s --apparent-size --inodes tree
"""

PATCH = """
patch -p1 --backup < change.patch && cat src/a.txt src/new.txt
patch -p1 -R < change.patch && patch -p1 --dry-run < change.patch
patch -p1 < wrong.patch || echo "refused with $?"
sed -i s/two/TWO/ src/a.txt && install -m 600 src/a.txt installed && ls -l installed | cut -c1-10
"""

PATCH_FILES = {
    "src/a.txt": "one\ntwo\nthree\n",
    "change.patch": """--- a/src/a.txt
+++ b/src/a.txt
@@ -1,3 +1,3 @@
 one
-two
+2
 three
--- /dev/null
+++ b/src/new.txt
@@ -0,0 +1 @@
+new
""",
    "wrong.patch": """--- a/src/a.txt
+++ b/src/a.txt
@@ -1,3 +1,3 @@
 one
-nothing like it
+2
 three
""",
}

SQLITE = """
sqlite3 a.db 'pragma journal_mode=wal; create table t (k integer primary key, v text);'
sqlite3 a.db "insert into t(v) select 'row ' || value from generate_series(1, 1000);"
sqlite3 a.db 'begin immediate; update t set v = upper(v) where k % 2; commit; vacuum;'
sqlite3 a.db 'select count(*), min(v), max(v) from t; pragma integrity_check;'
sqlite3 a.db .dump > dump.sql && sqlite3 b.db < dump.sql && sqlite3 b.db 'select sum(k) from t'
sqlite3 a.db ".backup c.db" && sqlite3 c.db 'select count(*) from t'
"""

SHELL = """
for n in 1 2 3; do (sleep 0.1; echo "$n" > "n$n") & done; wait; cat n1 n2 n3
mkfifo pipe && (echo through > pipe &) && cat pipe && rm pipe
exec 9> lock && flock -n 9 && (flock -n 9.lock true; echo "locked: $?") && exec 9>&-
trap 'echo caught' USR1; kill -USR1 $$; id -un > /dev/null; test -w . && test -d "$HOME"
timeout 5 sh -c 'echo in time'; seq 1 5 | xargs -P 2 -n 1 true && echo ran
printf '%s\\n' c a b | sort | tee sorted | head -n 1; ulimit -n 256 && ulimit -n
script -qec 'test -t 1 && echo a terminal' /dev/null < /dev/null | tr -d '\\r'
date -u -d @0 +%F; nproc > /dev/null; getent passwd "$(id -u)" > /dev/null && echo known
exec 3<> /dev/shm/x.$$ && rm /dev/shm/x.$$ && echo shared
"""

_INDEX = "the index holds each file's times and inode number (gitformat-index(5))"

WORKS: dict[str, Work] = {
    "git": Work(GIT, ("git",), varies={"*/.git/index": _INDEX}),
    "cc": Work(CC, ("cc", "ar"), C),
    "make": Work(
        "make -j2 check > log; tail -n 1 log; make -q && touch twice.c && make -j2 -s check;"
        " make -s clean; make -j2 -s main",
        ("make", "cc"),
        {**C, "Makefile": MAKEFILE},
        varies={"log": "two jobs print in any order"},
    ),
    "node": Work("node main.js", ("node",), NODE),
    "npm": Work(
        # It would ask the registry whether there is a newer npm.
        "export npm_config_update_notifier=false;"
        " npm test > log; tail -n 1 built.json; npm run hello --silent",
        ("node", "npm"),
        NPM,
        varies={"log": "it says how long each test took"},
    ),
    "pytest": Work(
        ".venv/bin/python -m pytest -n 2 -q -rA --junitxml=r.xml"
        ' -p no:cacheprovider > log || echo "ended with $?";'
        " grep -o '^[A-Z]* test_[^ ]*' log | sort",
        ("python3",),
        PYTEST,
        varies={
            "log": "it says how long it took, and workers report in any order",
            "r.xml": "it holds times",
            "*.pyc": "it holds its source's time (PEP 552)",
        },
        pytest=True,
    ),
    "tar": Work(
        TAR, ("tar", "xz", "gzip", "diff"), {"one.txt": "one\n" * 5000, "two.txt": "two\n" * 50}
    ),
    "patch": Work(PATCH, ("patch", "sed"), PATCH_FILES),
    "sqlite3": Work(SQLITE, ("sqlite3",)),
    "shell": Work(SHELL, ("flock", "script", "xargs")),
}


def missing(work: Work) -> tuple[str, ...]:
    """The programs that it needs and that are not here."""
    return tuple(name for name in work.needs if shutil.which(name) is None)


def make_environment(folder: Path) -> None:
    """A virtual environment with pytest and xdist, copied from the one that this runs in."""
    python = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True)
    site = next((folder / "lib").glob("python3*/site-packages"))
    wanted, seen = ["pytest", "pytest-xdist"], set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        _copy(found, site)
        for text in found.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                wanted.append(requirement.name)


def _copy(found: Distribution, site: Path) -> None:
    for file in found.files or ():
        if ".." not in file.parts and "__pycache__" not in file.parts:
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)
