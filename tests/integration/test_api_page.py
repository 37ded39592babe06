"""docs/api-reference.md is made from the server's own OpenAPI document, which is worth reading."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from runner.schema import api_bodies
from runner.surfaces.http.openapi import EXAMPLES, PARAMETERS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("api_docs", ROOT / "scripts" / "_api_docs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def document(script: Any) -> dict[str, Any]:
    return script.document()


def test_the_page_is_what_the_document_says_now(script, document):
    made = script.page(document)
    assert script.PAGE.read_text("utf-8") == made, "run scripts/api-docs"
    # What makes the page has to notice a change, of an address as of a bound.
    document["components"]["schemas"]["ApplyBody"]["properties"]["paths"]["maxItems"] = 123
    assert "at most 123 items" in script.page(document)
    del document["components"]["schemas"]["ApplyBody"]["properties"]["paths"]["maxItems"]
    assert script.page(document) == made


def test_every_link_into_the_page_leads_somewhere(script, document):
    made = script.page(document)
    names = set(document["components"]["schemas"])
    for line in made.splitlines():
        for name in names:
            if f"(#{name.lower()})" in line:
                assert f"\n### {name}\n" in made


def test_every_parameter_and_field_of_a_body_says_what_it_is(document):
    used = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert (path == "/healthz") == ("x-runner-verb" not in operation), path
            for each in operation.get("parameters", ()):
                assert each.get("description"), (method, path, each["name"])
                used.add(each["name"])
    assert set(PARAMETERS) <= used
    for name in EXAMPLES:
        for field, schema in document["components"]["schemas"][name]["properties"].items():
            assert schema.get("description") or field in ("answer", "scope", "reason"), (
                name,
                field,
            )


def test_the_examples_are_taken(document):
    for name, example in EXAMPLES.items():
        getattr(api_bodies, name).model_validate(example)
        assert document["components"]["schemas"][name]["examples"] == [example]
