"""Results of tests as JUnit XML, the form that pipelines show."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from runner.policy.cases import Result

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What no document of XML 1.0 may hold (2.2, Char)."""


def junit_document(results: Sequence[Result]) -> bytes:
    """A `testsuites` element with a suite for each file, UTF-8 with a declaration."""
    by_file: dict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_file[result.suite].append(result)
    root = ET.Element("testsuites", _counts("runner policy test", results))
    for file, own in by_file.items():
        suite = ET.SubElement(root, "testsuite", _counts(file, own))
        for result in own:
            case = ET.SubElement(
                suite,
                "testcase",
                {
                    "classname": _text(file),
                    "name": _text(result.name),
                    "file": _text(result.place.source),
                    "line": str(result.place.line),
                },
            )
            for failure in result.failures:
                told = ET.SubElement(case, "failure", {"message": _text(failure)})
                told.text = _text(f"{result.place}: {failure}")
    ET.indent(root)
    document: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _counts(name: str, results: Sequence[Result]) -> dict[str, str]:
    failed = sum(not result.holds for result in results)
    return {
        "name": _text(name),
        "tests": str(len(results)),
        "failures": str(failed),
        "errors": "0",
    }


def _text(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
