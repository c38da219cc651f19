"""The README of an export: sizes of all files, and the gate's table, as `export.json` has them."""

from __future__ import annotations

from typing import Any

from sightline.export import card

MIB = 2**20


def told(**change: Any) -> dict[str, Any]:
    """What `export.json` says of an export of two files."""
    return {
        "opens_with": ["onnxruntime"],
        "answers": {"moved": 2e-6, "same": True},
        "bytes": {"float32": 40 * MIB, "files": {"generate.json": MIB // 4, "decoder.onnx": 10 * MIB}},
        "gate": None,
        **change,
    }


def row(metric: str, **change: Any) -> dict[str, Any]:
    return {
        "metric": metric, "before": 0.875, "after": 0.8625, "difference": -0.0125, "low": -0.03, "high": 0.004,
        "patients": 100, "allowed": None, "passed": None, **change,
    }  # fmt: skip


def section(text: str, title: str) -> list[str]:
    """The lines below a heading, up to the next one."""
    return text.split(f"\n## {title}\n\n")[1].partition("\n## ")[0].strip().splitlines()


def test_every_file_stands_with_its_size() -> None:
    text = card.text("onnx", told())
    assert section(text, "Sizes") == [
        "| file | MiB |",
        "| --- | --- |",
        "| `decoder.onnx` | 10.000 |",
        "| `generate.json` | 0.250 |",
        "| all | 10.250 |",
        "| the model's weights in float32 | 40.000 |",
    ]
    assert "10.2 MiB; the weights in float32 are 40.0 MiB." in text
    assert 'python generate.py image.png "Is there an effusion?"' in text


def test_the_gates_table_begins_with_what_was_asked_for() -> None:
    rows = [
        row("accuracy"),
        row("balanced_accuracy", allowed=0.05, passed=True),
        row("bleu", allowed=0.5, passed=False, before=12.0, after=10.0, difference=-2.0, low=-3.0, high=-1.0),
        row("ece", low=None, high=None),
    ]
    text = card.text("onnx_int8", told(gate={"samples": 640, "allow": {}, "rows": rows}))
    lines = section(text, "The gate")
    assert lines[0].startswith("Both were asked about the same 640 samples.")
    assert lines[2:] == [
        "| metric | before | after | difference | 95 % | patients | allowed | passed |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        "| `balanced_accuracy` | 0.8750 | 0.8625 | -0.0125 | -0.0300 to +0.0040 | 100 | 0.05 | yes |",
        "| `bleu` | 12.0000 | 10.0000 | -2.0000 | -3.0000 to -1.0000 | 100 | 0.5 | no |",
        "| `accuracy` | 0.8750 | 0.8625 | -0.0125 | -0.0300 to +0.0040 | 100 |  |  |",
        "| `ece` | 0.8750 | 0.8625 | -0.0125 |  | 100 |  |  |",
    ]


def test_without_a_gate_it_says_so() -> None:
    assert section(card.text("merged", told(opens_with=["transformers"])), "The gate") == [
        "None was asked for: how well the export answers was not measured."
    ]
