"""The report as text, JSON and HTML."""

import json

import pytest

from atlaswriter.report import Report


@pytest.fixture
def report():
    report = Report("out/<atlas>", "cellucid v1", contents={"cells": 12345, "genes": ["a"] * 14, "edges": {"k": 2}})
    report.contents["graph"] = []
    with report.phase("read", 7):
        pass
    report.warnings.append("<script>alert('x')</script>")
    report.renamed.append(("gene", "a&b", "a&b-1"))
    report.bytes_in, report.bytes_out, report.files = 10**9, 2048, 3
    report.close()
    return report


def test_text(report):
    text = str(report)
    rows = {line.split("  ")[0]: line for line in text.splitlines()}
    assert rows["cells"].endswith("12,345")
    assert rows["genes"].endswith("a, a and 2 more")
    assert rows["edges"].endswith("k 2")
    assert rows["graph"].endswith("none")
    assert rows["written"].endswith("2 KiB in 3 files")
    assert rows["renamed gene"].endswith("a&b → a&b-1")
    assert "read 0.00 s" in rows["phases"]
    assert "MB/s" in rows["time"]
    assert "<script>" in rows["warning"]
    assert len({line.index(line.split("  ", 1)[1].lstrip()) for line in text.splitlines()}) == 1


def test_json_is_one_object_with_everything(report):
    parsed = json.loads(report.to_json())
    assert parsed["output"] == "out/<atlas>"
    assert parsed["contents"]["cells"] == 12345
    assert parsed["phases"] == [{"name": "read", "seconds": parsed["phases"][0]["seconds"], "bytes": 7}]
    assert parsed["renamed"] == [["gene", "a&b", "a&b-1"]]
    assert parsed["seconds"] > 0
    assert parsed["peak_memory"] > 0
    assert set(parsed) == set(Report.__dataclass_fields__)


def test_html_escapes_what_comes_from_the_data(report):
    html = report._repr_html_()
    assert html.startswith("<table>")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "out/&lt;atlas&gt;" in html
    assert "a&amp;b-1" in html


def test_phase_is_kept_when_it_fails():
    report = Report("x", "y")
    with pytest.raises(KeyError), report.phase("write") as phase:  # noqa: PT012
        phase.bytes = 5
        raise KeyError
    assert [(phase.name, phase.bytes) for phase in report.phases] == [("write", 5)]


def test_nothing_measured_yet_can_be_shown():
    assert "0 MB/s" in str(Report("x", "y"))
