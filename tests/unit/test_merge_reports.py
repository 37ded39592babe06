"""CI's last word: a test that ran nowhere is found, and so is an exception nobody needs."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "_merge_reports.py"
HERE = "tests.unit.test_merge_reports"
THIS = "tests/unit/test_merge_reports.py"
RAN = ""
SKIPPED = '<skipped type="pytest.skip" message="no engine"/>'
FAILED = '<failure message="boom"/>'
XFAILED = '<skipped type="pytest.xfail" message="known"/>'


def report(path, cases):
    inside = "".join(
        f'<testcase classname="{where}" name="{name}">{result}</testcase>'
        for (where, name), result in cases.items()
    )
    path.write_text(f"<testsuites><testsuite>{inside}</testsuite></testsuites>")
    return path


def merge(tmp_path, never, *runs):
    (tmp_path / "never.txt").write_text(never)
    reports = [report(tmp_path / f"run{i}.xml", cases) for i, cases in enumerate(runs)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "never.txt"), *map(str, reports)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


A, B = (HERE, "test_a"), (HERE, "test_b[x.y]")


@pytest.mark.parametrize(
    ("never", "first", "second", "status", "says"),
    [
        ("", {A: RAN}, {A: SKIPPED}, 0, "1 of them ran"),
        ("", {A: SKIPPED}, {A: SKIPPED}, 1, f"ran nowhere: {THIS}::test_a (no engine)"),
        ("", {A: RAN, B: XFAILED}, {A: RAN}, 0, "2 of them ran"),
        ("", {A: FAILED}, {A: RAN}, 1, f"failed in run0: {THIS}::test_a"),
        (f"{THIS}::test_a  no arm", {A: SKIPPED}, {B: RAN}, 0, "1 of them ran"),
        (f"{THIS}::test_b[*]  no arm", {B: SKIPPED}, {A: RAN}, 0, "1 of them ran"),
        (f"{THIS}::test_b[*]  no arm", {B: SKIPPED}, {B: RAN}, 1, "ran, so take"),
        ("# nothing\ntests/x.py::gone  no arm", {A: RAN}, {A: RAN}, 1, "no test of this name"),
        (f"{THIS}::test_a", {A: SKIPPED}, {A: SKIPPED}, 2, "has no reason"),
        ("", {A: RAN}, {}, 2, "it holds no test"),
        ("", {("", HERE): SKIPPED}, {A: RAN}, 0, "1 of them ran"),
        ("", {("", HERE): SKIPPED}, {("", HERE): SKIPPED}, 1, f"ran nowhere: {THIS}"),
    ],
)
def test_merging(tmp_path, never, first, second, status, says):
    code, text = merge(tmp_path, never, first, second)
    assert code == status, text
    assert says in text


def test_missing_report_is_no_success(tmp_path):
    (tmp_path / "never.txt").write_text("")
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path / "never.txt"), str(tmp_path / "gone.xml")],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
