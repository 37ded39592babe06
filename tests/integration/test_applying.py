"""What a run changed is kept, applied over nothing but what the run saw, and thrown away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from runner import Runner
from runner.changes.plan import Fate
from runner.errors import RequestError, StateError
from runner.settings import PolicyFolder, Setting, load_settings
from runner.stores.sqlite import SqliteStore
from runner.streams import CallbackSink

PROFILE = """
extends: agent
apply:
  allow: [{allowed}]
rules:
  default: allow
  without: [git-hooks]
  list:
    - id: no-secrets
      effect: deny
      match: {{ writes: "**/secrets/**" }}
      message: Leave the secrets alone.
"""


@pytest.fixture
def profile(tmp_path):
    def write(*allowed: str) -> str:
        path = tmp_path / "mine.yaml"
        listed = ", ".join(json.dumps(each) for each in allowed)
        path.write_text(PROFILE.format(allowed=listed))
        return str(path)

    return write


def ran(runner: Runner, work: Path, code: str, profile: str | None = None, **options) -> str:
    outcome = runner.run(code=code, language="python", cwd=work, profile=profile, **options)
    assert outcome.exit_code == 0, outcome.stderr.data
    return outcome.run_id


def fates(applied) -> dict[str, Fate]:
    return {result.change.path: result.fate for result in applied.results}


def tree(folder: Path) -> dict[str, object]:
    """Everything below, as far as applying keeps it."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        elif path.is_file():
            found[name] = (path.read_bytes(), bool(path.stat().st_mode & 0o100))
        else:
            found[name] = "folder"
    return found


EVERYTHING = """
import os, pathlib, shutil
p = pathlib.Path
p("new").write_text("new")
p("deep/er/est").mkdir(parents=True)
p("deep/er/est/file").write_bytes(bytes(range(256)) * 1000)
p("text").write_text("one\\nTWO\\nthree\\n")
p("same").write_text("same")
os.chmod("script", 0o6755)
os.remove("removed")
shutil.rmtree("folder")
os.remove("link"); os.symlink("text", "link")
os.remove("turns-folder"); os.mkdir("turns-folder"); p("turns-folder/in").write_text("x")
shutil.rmtree("turns-file"); p("turns-file").write_text("y")
open(b"\\xff\\n\\x1b[31m", "w").write("odd")
p("n" * 255).write_text("long")
"""


def fill(work: Path) -> None:
    (work / "text").write_text("one\ntwo\nthree\n")
    (work / "same").write_text("same")
    (work / "script").write_text("#!/bin/sh\n")
    (work / "removed").write_text("gone")
    (work / "folder" / "sub").mkdir(parents=True)
    (work / "folder" / "sub" / "file").write_text("gone too")
    (work / "link").symlink_to("same")
    (work / "turns-folder").write_text("a file")
    (work / "turns-file" / "sub").mkdir(parents=True)
    (work / "turns-file" / "sub" / "in").write_text("z")


def test_everything_is_applied_as_the_run_left_it(runner, work, tmp_path):
    fill(work)
    outside = tmp_path / "outside"
    shutil.copytree(work, outside, symlinks=True)
    subprocess.run([sys.executable, "-c", EVERYTHING], cwd=outside, check=True)
    before = tree(work)
    run_id = ran(runner, work, EVERYTHING)
    assert tree(work) == before
    view = runner.changes(run_id)
    assert view.gone is None
    assert len(view.left) == len(view.changes)
    dry = runner.apply(run_id, dry_run=True)
    assert tree(work) == before
    applied = runner.apply(run_id)
    assert set(fates(applied).values()) == {Fate.APPLIED}, applied.results
    # Of what a folder becomes a dry run can say only that it is not empty yet.
    assert {path for path, fate in fates(dry).items() if fate is Fate.APPLIED} | {
        "turns-folder/in"
    } >= set(fates(applied)) - {"turns-file"}
    assert (applied.status, applied.left) == (0, 0)
    assert tree(work) == tree(outside)
    # Only the right to execute is taken over, and nobody's leftovers lie about.
    assert stat.S_IMODE((work / "script").stat().st_mode) == 0o755
    assert runner.changes(run_id).gone == "its changes were applied"
    assert not (tmp_path / "home" / "changes" / run_id).exists()
    assert [event.kind for event in runner.store.events(run_id)][-3:] == [
        "run.ended",
        "changes.applying",
        "changes.applied",
    ]
    assert runner.store.verify().failure is None


def test_chosen_paths_are_applied_and_the_rest_stays(runner, work):
    fill(work)
    run_id = ran(runner, work, EVERYTHING)
    applied = runner.apply(run_id, ["deep", str(work / "text")])
    assert set(fates(applied)) == {"deep", "deep/er", "deep/er/est", "deep/er/est/file", "text"}
    assert applied.status == 0
    assert applied.left > 0
    with pytest.raises(RequestError):
        runner.apply(run_id, ["text"])
    left = runner.changes(run_id)
    assert "new" in {left.changes[number].path for number in left.left}
    assert not (work / "new").exists()
    assert runner.apply(run_id).left == 0
    assert (work / "new").read_text() == "new"


def test_the_diff_shows_original_and_change(runner, work):
    (work / "a").write_text("one\ntwo\n")
    run_id = ran(runner, work, "open('a', 'w').write('one\\nTWO\\n')")
    (shown,) = runner.diff(run_id)
    assert b"-two\n+TWO\n" in shown.text
    (work / "a").write_text("three\n")
    (shown,) = runner.diff(run_id)
    assert b"TWO" not in shown.text
    assert shown.note is not None


def change_content(work: Path) -> None:
    (work / "a").write_text("mine")


def change_mode(work: Path) -> None:
    (work / "a").chmod(0o755)


def remove(work: Path) -> None:
    (work / "a").unlink()


def become_folder(work: Path) -> None:
    (work / "a").unlink()
    (work / "a").mkdir()


def become_link(work: Path) -> None:
    (work / "a").rename(work / "b")
    (work / "a").symlink_to("b")


def touch(work: Path) -> None:
    os.utime(work / "a", (1, 1))


@pytest.mark.parametrize("what", ["open('a', 'w').write('new')", "__import__('os').remove('a')"])
@pytest.mark.parametrize(
    ("meanwhile", "fate"),
    [
        (change_content, Fate.CHANGED),
        (change_mode, Fate.CHANGED),
        (remove, None),
        (become_folder, Fate.CHANGED),
        (become_link, Fate.CHANGED),
        (touch, Fate.APPLIED),
    ],
)
def test_what_changed_meanwhile_is_left_alone(runner, work, what, meanwhile, fate):
    (work / "a").write_text("old")
    run_id = ran(runner, work, what)
    meanwhile(work)
    before = tree(work)
    applied = runner.apply(run_id)
    if fate is None:
        fate = Fate.ALREADY if "remove" in what else Fate.CHANGED
    assert fates(applied) == {"a": fate}
    assert applied.status == (1 if fate is Fate.CHANGED else 0)
    if fate is not Fate.APPLIED:
        assert tree(work) == before


def test_what_was_put_where_something_is_created_stays(runner, work):
    run_id = ran(runner, work, "open('a', 'w').write('new'); open('b', 'w').write('b')")
    (work / "a").write_text("mine")
    applied = runner.apply(run_id)
    assert fates(applied) == {"a": Fate.CHANGED, "b": Fate.APPLIED}
    assert (work / "a").read_text() == "mine"
    (work / "a").unlink()
    assert fates(runner.apply(run_id)) == {"a": Fate.APPLIED}


def test_a_folder_is_removed_only_when_it_is_empty(runner, work):
    (work / "d").mkdir()
    (work / "d" / "old").write_text("x")
    run_id = ran(runner, work, "import shutil; shutil.rmtree('d')")
    (work / "d" / "mine").write_text("mine")
    applied = runner.apply(run_id)
    assert fates(applied) == {"d": Fate.CHANGED, "d/old": Fate.APPLIED}
    assert (work / "d" / "mine").read_text() == "mine"


def test_an_original_that_changed_while_the_run_went_on_is_left_alone(runner, work):
    """The workspace lies under the run: what it saw of `a` nobody can tell."""
    for name in ("a", "b"):
        (work / name).write_text("old")
    reads, writes = os.pipe()

    def ready(_: bytes) -> None:
        time.sleep(0.05)  # past the tick of the clock that files are marked with
        (work / "a").write_text("mine")
        os.write(writes, b"x\n")

    try:
        run_id = ran(
            runner,
            work,
            "print('ready', flush=True); input()\nfor name in 'ab': open(name, 'w').write('new')",
            stdin=reads,
            stdout=CallbackSink(ready),
        )
    finally:
        os.close(reads)
        os.close(writes)
    assert fates(runner.apply(run_id)) == {"a": Fate.CHANGED, "b": Fate.APPLIED}
    assert (work / "a").read_text() == "mine"


def test_a_link_in_the_way_is_not_followed(runner, work, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "old").write_text("old")
    for name in ("d", "e"):
        (work / name).mkdir()
        (work / name / "old").write_text("old")
    code = "for d in 'de': open(d + '/x', 'w').write('x'); open(d + '/old', 'w').write('new')"
    run_id = ran(runner, work, code)
    (work / "d").rename(work / "was-d")
    (work / "d").symlink_to(outside)
    applied = runner.apply(run_id)
    assert fates(applied) == {
        "d/x": Fate.CHANGED, "d/old": Fate.CHANGED, "e/x": Fate.APPLIED, "e/old": Fate.APPLIED,
    }  # fmt: skip
    assert tree(outside) == {"old": (b"old", False)}


def test_a_folder_swapped_for_a_link_while_it_is_applied(runner, work, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (work / "d").mkdir()
    code = "for n in range(200): open(f'd/{n}', 'w').write(str(n))"
    run_id = ran(runner, work, code)
    (work / "link").symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        for _ in range(20_000):
            if stop.is_set():
                return
            os.rename(work / "d", work / "aside")
            os.rename(work / "link", work / "d")
            os.rename(work / "d", work / "link")
            os.rename(work / "aside", work / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        applied = runner.apply(run_id)
    finally:
        stop.set()
        thread.join()
    assert tree(outside) == {}
    assert set(fates(applied).values()) <= {Fate.APPLIED, Fate.CHANGED}
    if applied.left:
        assert runner.apply(run_id).left == 0
    assert {path.name for path in (work / "d").iterdir()} == {str(n) for n in range(200)}


def test_a_file_that_changes_at_the_last_moment_is_put_back(runner, work):
    """Somebody writes to the original all the time: what they wrote last is never lost."""
    (work / "a").write_text("0")
    stop = threading.Event()
    wrote = ["0"]

    def write() -> None:
        for number in range(1, 20_000):
            if stop.is_set():
                return
            fresh = work / "fresh"
            fresh.write_text(str(number))
            os.rename(fresh, work / "a")
            wrote.append(str(number))

    run_id = ran(runner, work, "open('a', 'w').write('new')")
    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(20):
            applied = runner.apply(run_id)
            if not applied.left:
                break
    finally:
        stop.set()
        thread.join()
    assert set(fates(applied).values()) <= {Fate.APPLIED, Fate.CHANGED}
    assert (work / "a").read_text() in (*wrote, "new")
    assert not [path for path in work.iterdir() if path.name.startswith(".runner-")]


def test_other_names_of_a_file_keep_the_original(runner, work, tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("old")
    os.link(outside, work / "a")
    run_id = ran(runner, work, "open('a', 'w').write('new')")
    assert fates(runner.apply(run_id)) == {"a": Fate.APPLIED}
    assert ((work / "a").read_text(), outside.read_text()) == ("new", "old")


def test_sparse_files_stay_sparse(runner, work, tmp_path):
    code = "f = open('s', 'wb'); f.seek(32 << 20); f.write(b'end'); f.truncate(48 << 20)"
    run_id = ran(runner, work, f"{code}\nopen('huge', 'wb').truncate(1 << 40)")
    kept = tmp_path / "home" / "changes" / run_id
    assert sum(path.stat().st_blocks for path in kept.iterdir()) * 512 < 1 << 20
    assert fates(runner.apply(run_id)) == {"s": Fate.APPLIED, "huge": Fate.WITHHELD}
    made = (work / "s").stat()
    assert (made.st_size, made.st_blocks * 512 < 1 << 20) == (48 << 20, True)
    with (work / "s").open("rb") as file:
        file.seek(32 << 20)
        assert file.read(4) == b"end\0"


def test_deep_trees(runner, work):
    code = "import os\nfor _ in range(200): os.mkdir('d'); os.chdir('d')\nopen('end', 'w')"
    run_id = ran(runner, work, code)
    applied = runner.apply(run_id)
    assert (applied.status, len(applied.results)) == (0, 201)
    assert (work / ("d/" * 200) / "end").exists()


HOOK = (
    "import os; d = open('where').read(); os.makedirs(d); open(d + '/pre-commit', 'w').write('x')"
)


def test_protected_paths_need_a_profile_that_says_so(runner, work, profile):
    (work / "where").write_text(".git/hooks")
    run_id = ran(runner, work, HOOK, profile())
    applied = runner.apply(run_id)
    assert set(fates(applied).values()) == {Fate.PROTECTED}
    assert applied.status == 126
    assert not (work / ".git").exists()
    run_id = ran(runner, work, HOOK, profile(".git", ".git/hooks/**"))
    assert set(fates(runner.apply(run_id)).values()) == {Fate.APPLIED}
    assert (work / ".git" / "hooks" / "pre-commit").exists()


def test_a_link_that_leads_out_needs_it_too(runner, work, profile):
    code = "import os; os.symlink('/etc/passwd', 'l'); os.symlink('where', 'k')"
    run_id = ran(runner, work, code, profile())
    assert fates(runner.apply(run_id)) == {"l": Fate.PROTECTED, "k": Fate.APPLIED}
    run_id = ran(runner, work, code.replace("'k'", "'m'"), profile("l"))
    assert fates(runner.apply(run_id)) == {"l": Fate.APPLIED, "m": Fate.APPLIED}


def test_a_run_does_not_rewrite_its_own_profile(runner, work, tmp_path):
    for name in ("mine.yaml", "other.yaml"):
        (work / name).write_text("extends: agent\n")
    code = "for n in ('mine', 'other'): open(n + '.yaml', 'a').write('apply: {allow: [\"**\"]}')"
    run_id = ran(runner, work, code, str(work / "mine.yaml"))
    assert fates(runner.apply(run_id)) == {
        "mine.yaml": Fate.PROTECTED, "other.yaml": Fate.APPLIED,
    }  # fmt: skip


def test_what_is_gone_already_needs_nothing(runner, work):
    """As after an attempt that was killed before it could note what it had done."""
    for name in ("d", "turns"):
        (work / name).mkdir()
        (work / name / "x").write_text("x")
    code = "import shutil; shutil.rmtree('d'); shutil.rmtree('turns'); open('turns', 'w')"
    run_id = ran(runner, work, code)
    shutil.rmtree(work / "d")
    shutil.rmtree(work / "turns")
    assert fates(runner.apply(run_id)) == {
        "d": Fate.ALREADY, "d/x": Fate.ALREADY, "turns/x": Fate.ALREADY, "turns": Fate.APPLIED,
    }  # fmt: skip


def test_the_rules_on_writing_decide(runner, work, profile):
    (work / "where").write_text("secrets")
    (work / "fine").write_text("x")
    code = HOOK + "; open('fine', 'w').write('new')"
    run_id = ran(runner, work, code, profile())
    applied = runner.apply(run_id)
    assert fates(applied) == {
        "fine": Fate.APPLIED, "secrets": Fate.DENIED, "secrets/pre-commit": Fate.DENIED,
    }  # fmt: skip
    assert applied.status == 126
    last = json.loads(list(runner.store.events(run_id))[-1].body)["data"]
    assert last["not_applied"]["count"] == 2
    assert last["not_applied"]["first"][0]["fate"] == "denied"


def test_a_layer_above_can_forbid_what_a_profile_allows(tmp_path, work, profile, native):
    folder = tmp_path / "policy.d"
    folder.mkdir(mode=0o755)
    (folder / "10.yaml").write_text('apply_deny: ["**/.git/**", "*.lock"]\n')
    settings = load_settings({"home": str(tmp_path / "home")})
    layers = Setting((*settings.policy_dirs.value[:1], PolicyFolder(folder, "user")), "test")
    with Runner(settings=replace(settings, policy_dirs=layers)) as runner:
        (work / "where").write_text(".git/hooks")
        code = HOOK + "; open('a.lock', 'w'); open('a', 'w')"
        run_id = ran(runner, work, code, profile("**"))
        found = fates(runner.apply(run_id))
    assert found["a"] is Fate.APPLIED
    assert {fate for path, fate in found.items() if path != "a"} == {Fate.DENIED}


def settings_with(tmp_path: Path, **values: object):
    settings = load_settings({"home": str(tmp_path / "home")})
    return replace(settings, **{k: Setting(v, "test") for k, v in values.items()})


def test_more_than_is_kept_is_withheld_and_says_so(tmp_path, work, native):
    with Runner(settings=settings_with(tmp_path, keep_changes_bytes=1000)) as runner:
        code = "open('a', 'w').write('x' * 900); open('b', 'w').write('x' * 900)"
        run_id = ran(runner, work, code)
        kept, withheld = runner.changes(run_id).changes
        assert (kept.withheld, withheld.sha256) == (None, kept.sha256)
        assert "keep_changes_bytes" in (withheld.withheld or "")
        applied = runner.apply(run_id)
        assert fates(applied) == {"a": Fate.APPLIED, "b": Fate.WITHHELD}
        assert applied.status == 1


def test_nothing_is_kept_where_nothing_is_to_be(tmp_path, work, native):
    with Runner(settings=settings_with(tmp_path, keep_changes_bytes=0)) as runner:
        outcome = runner.run(["touch", "a"], cwd=work)
        assert [c.path for c in outcome.changes if c.withheld] == ["a"]
        with pytest.raises(RequestError):
            runner.apply(outcome.run_id)


def test_old_changes_and_the_oldest_of_too_many_go(tmp_path, work, native):
    made = "open('a', 'w').write('x' * 9000)"
    with Runner(settings=settings_with(tmp_path, keep_changes_total_bytes=12_000)) as runner:
        old, new = ran(runner, work, made), ran(runner, work, made)
        assert f"changes of {old} (total)" in runner.sweep().removed
        assert runner.changes(old).gone == "its changes were discarded (total)"
        assert runner.changes(new).gone is None
    with Runner(settings=settings_with(tmp_path, keep_changes_days=0)) as runner:
        # Swept when it was opened, for nobody had done that for a minute.
        assert runner.changes(new).gone == "its changes were discarded (expired)"


def test_the_list_itself_counts(tmp_path, work, native):
    made = "[open(str(n) * 60, 'w') for n in range(100, 200)]"
    with Runner(settings=settings_with(tmp_path, keep_changes_total_bytes=30_000)) as runner:
        old, new = ran(runner, work, made), ran(runner, work, made)
        assert [runner.changes(each).gone is None for each in (old, new)] == [True, True]
        assert f"changes of {old} (total)" in runner.sweep().removed


def test_discarding(runner, work):
    run_id = ran(runner, work, "open('a', 'w')")
    assert runner.discard(run_id)
    assert not runner.discard(run_id)
    assert runner.changes(run_id).gone == "its changes were discarded (asked)"
    with pytest.raises(RequestError):
        runner.apply(run_id)
    assert not (work / "a").exists()


def test_what_is_kept_is_not_believed(runner, work, tmp_path):
    run_id = ran(runner, work, "open('a', 'w').write('good'); open('b', 'w').write('fine')")
    kept = tmp_path / "home" / "changes" / run_id
    content = next(path for path in kept.iterdir() if path.read_bytes() == b"good")
    content.write_bytes(b"evil")
    assert fates(runner.apply(run_id)) == {"a": Fate.WITHHELD, "b": Fate.APPLIED}
    manifest = kept / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"a"', b'"c"'))
    with pytest.raises(StateError):
        runner.apply(run_id)
    assert runner.discard(run_id)


def test_the_folder_must_be_the_one_that_was_decided_about(runner, work, tmp_path):
    run_id = ran(runner, work, "open('a', 'w')")
    work.rename(tmp_path / "aside")
    work.mkdir()
    with pytest.raises(RequestError):
        runner.apply(run_id)
    work.rmdir()
    work.symlink_to(tmp_path / "aside")
    with pytest.raises(RequestError):
        runner.apply(run_id)
    work.unlink()
    (tmp_path / "aside").rename(work)
    assert runner.apply(run_id).status == 0


def test_one_at_a_time(runner, work):
    run_id = ran(runner, work, "open('a', 'w')")
    with runner._archive.held(run_id):
        with pytest.raises(StateError):
            runner.apply(run_id)
        assert not runner._archive.discard(run_id)
    assert runner.apply(run_id).status == 0


@pytest.mark.root
def test_root_writes_as_the_folders_owner(runner, work, tmp_path):
    os.chown(work, 4242, 4243)
    secret = tmp_path / "of-root"
    secret.mkdir(mode=0o700)
    (work / "closed").mkdir(mode=0o755)  # root's, in the owner's folder
    (work / "old").write_text("old")
    os.chown(work / "old", 4242, 4243)
    run_id = ran(runner, work, "open('new', 'w'); open('old', 'w').write('new')")
    (work / "closed-file").write_text("x")
    applied = runner.apply(run_id)
    assert applied.status == 0, applied.results
    for name in ("new", "old"):
        found = (work / name).stat()
        assert (found.st_uid, found.st_gid) == (4242, 4243)
    assert os.geteuid() == 0
    secret.joinpath("still-root").write_text("x")


PROGRAM = """
import sys
from runner import Runner
with Runner(home=sys.argv[1]) as runner:
    {what}
"""


def killed_when(sign: Path, home: Path, what: str) -> None:
    """Run a process of its own and kill it as soon as the sign is there, or it is done."""
    code = PROGRAM.format(what=what)
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        for _ in range(200_000):
            if process.poll() is not None or sign.exists():
                break
            time.sleep(0.0005)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()


def test_killed_while_it_keeps(work, tmp_path, native):
    home = tmp_path / "home"
    code = "for n in range(500): open(str(n), 'w').write(str(n) * 1000)"
    killed_when(
        home / "changes", home, f"runner.run(code={code!r}, language='python', cwd={str(work)!r})"
    )
    with Runner(home=home) as runner:
        (run_id,) = {e.run_id for e in runner.store.events() if e.run_id is not None}
        runner.sweep()
        view = runner.changes(run_id)
        if view.gone is None:  # it was quicker than the kill
            assert len(view.changes) == len(view.left) == 500
        else:
            assert not [p for p in (home / "changes").iterdir() if p.name != ".swept"]
            with pytest.raises(RequestError):
                runner.apply(run_id)
        store = runner.store
        assert isinstance(store, SqliteStore)
        assert store.verify().failure is None


def test_killed_while_it_applies(work, tmp_path, native):
    home = tmp_path / "home"
    code = "for n in range(500): open(str(n), 'w').write(str(n) * 1000)"
    with Runner(home=home) as runner:
        for number in range(0, 500, 2):
            (work / str(number)).write_text("old")
        run_id = ran(runner, work, code)
    killed_when(work / "101", home, f"runner.apply({run_id!r})")
    for path in work.iterdir():
        if not path.name.startswith("."):
            assert path.read_text() in ("old", path.name * 1000)
    with Runner(home=home) as runner:
        kinds = [event.kind for event in runner.store.events(run_id)]
        assert "changes.applying" in kinds
        if runner.changes(run_id).gone is None:
            applied = runner.apply(run_id)
            assert set(fates(applied).values()) <= {Fate.APPLIED, Fate.ALREADY}
            assert applied.left == 0
    assert {p.name: p.read_text() for p in work.iterdir()} == {
        str(n): str(n) * 1000 for n in range(500)
    }
