"""The README of an exported folder: what it is, how it is opened, how far it answers from the model, sizes, gate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .. import NOTICE

MIB = 2**20
TRANSFORMERS = """```python
from PIL import Image
from transformers import AutoProcessor, AutoModelForImageTextToText

processor = AutoProcessor.from_pretrained(".")
model = AutoModelForImageTextToText.from_pretrained(".")
asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Is there an effusion?"}]}]
text = processor.apply_chat_template(asked, add_generation_prompt=True)
given = processor(images=Image.open("image.png").convert("RGB"), text=text, return_tensors="pt")
print(processor.decode(model.generate(**given, max_new_tokens=64)[0], skip_special_tokens=True))
```
"""
SCRIPT = """```sh
python generate.py image.png "Is there an effusion?"     # numpy, onnxruntime, tokenizers, pillow
```
"""
OWN = "transformers' LLaVA does not compute all of it: open it with Sightline (`model.yaml` says how).\n"
GATE = ("metric", "before", "after", "difference", "95 %", "patients", "allowed", "passed")
PASSED = {None: "", True: "yes", False: "no"}


def text(kind: str, told: Mapping[str, Any]) -> str:
    """The README as Markdown: how it is opened, how far it answers from the model, its sizes, the gate's table.

    Args:
        kind: of the export.
        told: what `export.json` says.
    """
    if "onnxruntime" in told["opens_with"]:
        how = SCRIPT
    else:
        how = TRANSFORMERS if "transformers" in told["opens_with"] else OWN
    size, before = sum(told["bytes"]["files"].values()) / MIB, told["bytes"]["float32"] / MIB
    answers = told["answers"]
    return (
        f"# {kind}\n\n**{NOTICE}**\n\n"
        f"{size:.1f} MiB; the weights in float32 are {before:.1f} MiB. On one made-up question, logits are "
        f"{answers['moved']:.1e} of their length away from the model's, the likeliest words are "
        f"{'the same' if answers['same'] else 'not all the same'}.\n\n{how}\n"
        f"{_calibration(told.get('calibration'))}"
        f"## The gate\n\n{_gate(told['gate'])}\n## Sizes\n\n{_sizes(told['bytes'])}"
    )


def _calibration(found: Mapping[str, Any] | None) -> str:
    """What it was calibrated on, in counts and hashes; nothing of a kind that is not calibrated."""
    if found is None:
        return ""
    return (
        f"## Calibration\n\nLayers of the language model are held in 4 bits ({found['scheme']}, one scale for "
        f"{found['group']} weights), calibrated on {found['samples']} samples of the {found['split']} split: "
        f"{found['patients']} patients, {found['images']} images, {found['tokens']} tokens. They were chosen by seed "
        f"{found['seed']}; the split's file has the SHA-256 `{found['data']}`.\n\n"
    )


def _gate(found: Mapping[str, Any] | None) -> str:
    """What the model answers, what the export answers, and what was allowed, as a table."""
    if found is None:
        return "None was asked for: how well the export answers was not measured.\n"
    rows = [
        [
            f"`{row['metric']}`", f"{row['before']:.4f}", f"{row['after']:.4f}", f"{row['difference']:+.4f}",
            "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}", str(row["patients"]),
            "" if row["allowed"] is None else f"{row['allowed']:g}", PASSED[row["passed"]],
        ]
        for row in sorted(found["rows"], key=lambda row: row["allowed"] is None)
    ]  # fmt: skip
    return (
        f"Both were asked about the same {found['samples']} samples. The worse end of the difference's 95 % "
        f"interval, over patients, may be as far as `allowed` below the model.\n\n{_table(GATE, rows)}"
    )


def _sizes(held: Mapping[str, Any]) -> str:
    """Every file with its size, the largest first, and the weights as they were."""
    files = sorted(held["files"].items(), key=lambda item: (-item[1], item[0]))
    rows = [[f"`{name}`", _mib(size)] for name, size in files]
    rows += [
        ["all", _mib(sum(held["files"].values()))],
        ["the model's weights in float32", _mib(held["float32"])],
    ]
    return _table(("file", "MiB"), rows)


def _mib(size: int) -> str:
    return f"{size / MIB:.3f}"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
