from __future__ import annotations

import os
from pathlib import Path

import pytest

from runner.errors import ProfileError
from runner.schema.problems import Mark
from runner.schema.yaml import MAX_DEPTH, parse, read_file


def data(text: str) -> object:
    return parse(text, "t.yaml", ProfileError).data


def refusal(text: str) -> str:
    with pytest.raises(ProfileError) as caught:
        parse(text, "t.yaml", ProfileError)
    return str(caught.value)


@pytest.mark.parametrize(
    ("plain", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("True", "True"),
        ("true", True),
        ("false", False),
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("2024-01-01", "2024-01-01"),
        ("0755", "0755"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("~", None),
        ("null", None),
        ("", None),
        ('"12"', "12"),
        ("'true'", "true"),
        ("!!str 12", "12"),
        ("5s", "5s"),
        ("9" * 31, "9" * 31),
    ],
)
def test_scalars_are_read_strictly(plain: str, value: object) -> None:
    found = data(f"key: {plain}\n")
    assert found == {"key": value}
    assert type(found["key"]) is type(value)  # type: ignore[index]


def test_special_floats_are_numbers_so_that_quantities_can_refuse_them() -> None:
    assert data("a: .inf\nb: -.inf") == {"a": float("inf"), "b": float("-inf")}
    assert str(data("a: .nan")["a"]) == "nan"  # type: ignore[index]


def test_places_of_keys_and_items() -> None:
    document = parse("a:\n  b: 1\n  list:\n    - x\n    - y\n", "t.yaml", ProfileError)
    assert document.marks[("a", "b")] == Mark(2, 3)
    assert document.marks[("a", "list", 1)] == Mark(5, 7)
    assert str(document.problem(("a", "missing"), "oh")) == "t.yaml:1:1: a.missing: oh"


def test_anchors_serve_honest_use() -> None:
    text = "base: &b [x, y]\none: *b\ntwo: *b\n"
    assert data(text) == {"base": ["x", "y"], "one": ["x", "y"], "two": ["x", "y"]}


def test_empty_file_has_no_data() -> None:
    assert data("") is None
    assert data("# only a comment\n") is None


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice, first on line 1"),
        ("a:\n  x: 1\n  'x': 2\n", 3, "'x' is given twice"),
        ("a: !!python/object:os.system x\n", 1, "tag"),
        ("a: !!int '3'\n", 1, "tag"),
        ("a: !thing {}\n", 1, "tag"),
        ("b: &x {q: 1}\na:\n  <<: *x\n", 3, "merge keys"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("? [a, b]\n: 1\n", 1, "a key must be a word"),
        ("a: *nope\n", 1, "'*nope'"),
        ("a: &x [*x]\n", 1, "'*x' names nothing"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ("a: \tb\n\t- c", 2, "not valid YAML"),
        ('a: "x\\0y"\n', 1, "NUL"),
    ],
)
def test_refusals_name_the_line(text: str, line: int, words: str) -> None:
    message = refusal(text)
    assert message.startswith(f"t.yaml:{line}:")
    assert words in message


def test_nesting_is_bounded_and_its_limit_is_usable() -> None:
    fits = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert data(fits) is not None
    assert f"more than {MAX_DEPTH} deep" in refusal("[" + fits + "]")
    assert "deep" in refusal("[" * 200_000)
    assert "deep" in refusal("{a: " * 100_000)


def test_aliases_that_multiply_are_refused() -> None:
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
    )
    assert "values after aliases" in refusal(bomb)


def test_aliases_that_nest_are_refused() -> None:
    tower = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 60))
    assert "deep by the alias" in refusal(tower)


def test_several_problems_come_together() -> None:
    message = refusal("a: 1\na: 2\nb: !x 3\n")
    assert message.count("\n") == 1


def test_files_that_are_no_text_files(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * ((1 << 20) + 1))
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    for path, words in (
        (fifo, "not a regular file"),
        (tmp_path, "not a regular file"),
        (large, "larger than"),
        (latin, "latin.yaml:2: not UTF-8"),
        (tmp_path / "none.yaml", "no such file"),
    ):
        with pytest.raises(ProfileError) as caught:
            read_file(path, ProfileError)
        assert words in str(caught.value)
    fits = tmp_path / "fits.yaml"
    fits.write_text("a: é\n", encoding="utf-8")
    assert read_file(fits, ProfileError) == "a: é\n"
