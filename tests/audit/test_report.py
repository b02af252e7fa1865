"""The report's section on audits: what failed is said at the top, and no file breaks the page."""

import json
from pathlib import Path
from typing import Any

import pytest

from lora_kit.artifacts.run_dir import RunDir
from lora_kit.report.audit import audit_view
from lora_kit.report.plots import layer_bars
from lora_kit.report.write import write_report

HOSTILE = "<script>alert(1)</script> | \x1b[31m"


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"start": 3, "end": []},
        {
            "start": {"findings": {"a": 1}, "seconds": "x"},
            "end": {"layers": [1, {"norm": "x"}, {"norm": None}]},
        },
        {"end": {"findings": [None, {}, {"level": ["failed"]}], "layers": "x"}},
    ],
    ids=["nothing", "numbers", "other-types", "no-texts"],
)
def test_what_no_audit_writes_shows_no_layers(content: dict[str, Any]) -> None:
    view = audit_view(content)
    assert view.layers == ()
    assert view.alarms == ()


def test_matrices_of_a_layer_come_together() -> None:
    layers = [
        {
            "module": f"model.layers.{at}.self_attn.{name}",
            "norm": norm,
            "largest": norm / 2,
            "effective_rank": 2.0,
        }
        for at, name, norm in (
            (0, "q_proj", 3.0),
            (0, "v_proj", 4.0),
            (11, "q_proj", 1.0),
            (2, "q_proj", 1.0),
        )
    ]
    assert audit_view({"end": {"layers": layers}}).layers == (
        ("0", "5", "2", "2.0"),
        ("2", "1", "0.5", "2.0"),
        ("11", "1", "0.5", "2.0"),
    )


def test_hostile_text_stays_text(finished: Path) -> None:
    finding = {"name": HOSTILE, "level": "failed", "found": HOSTILE, "cure": HOSTILE}
    layer = {"module": HOSTILE, "norm": 1.0, "largest": 1.0, "effective_rank": 1.0}
    content = {"end": {"seconds": 1.0, "findings": [finding], "layers": [layer]}}
    (finished / "audit.json").write_text(json.dumps(content))
    write_report(RunDir(finished))
    page, text = ((finished / f"report.{kind}").read_text() for kind in ("html", "md"))
    assert "<script>alert" not in page
    assert "Audit, the adapter: &lt;script&gt;" in page
    assert "\\<script\\>" in text
    assert "\x1b" not in page + text
    assert "<script>" not in layer_bars([(HOSTILE, 1.0)], HOSTILE)
