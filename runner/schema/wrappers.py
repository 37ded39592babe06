"""Reading what people add to the table of wrappers: `/etc/runner/wrappers.d` and the user's."""

from __future__ import annotations

from pathlib import Path

from runner.analysis.wrappers.table import Table, load
from runner.errors import PolicyError
from runner.schema.owned import SUFFIXES, owned_texts
from runner.schema.yaml import Document, parse, read_file


def load_wrapper_dir(
    path: str | Path, kind: str, onto: Table | None = None, *, owner_uid: int | None = None
) -> Table:
    """The table with the rows of a folder's `*.yaml` and `*.yml` files, sorted by name.

    `kind`: `organisation` or `user`; folder and files are held to the same owners as policies.
    `onto`: the table that they are added to; the shipped one else. PolicyError: a line for each
    problem in a file.
    """
    table = onto if onto is not None else load()
    what = f"the {kind}'s wrappers"
    for source, text in owned_texts(path, kind, SUFFIXES, owner_uid, what=what):
        table = _extended(parse(text, source, PolicyError), table)
    return table


def load_wrapper_file(path: str | Path, onto: Table | None = None) -> Table:
    """The table with the rows of one file, whoever owns it (for tools and tests)."""
    return _extended(_document(path), onto if onto is not None else load())


def is_wrappers(path: str | Path) -> bool:
    """Whether a file holds rows of wrappers: it has the key for them."""
    try:
        data = _document(path).data
    except PolicyError:
        return False
    return isinstance(data, dict) and "wrappers" in data and "cases" not in data


def _document(path: str | Path) -> Document:
    return parse(read_file(path, PolicyError), str(path), PolicyError)


def _extended(document: Document, table: Table) -> Table:
    # Most machines have no such file: its model is made only where there is one.
    from runner.schema.base import validate  # noqa: PLC0415
    from runner.schema.wrapper_file import WrappersFile, checks  # noqa: PLC0415

    file = validate(document, WrappersFile, PolicyError, (checks(table),))
    return table.extended([row.to_model(document.source) for row in file.wrappers])
