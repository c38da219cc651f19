"""The README of an exported folder: what it is, how it is opened, how far it answers from the model."""

from __future__ import annotations

from collections.abc import Mapping
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


def text(kind: str, told: Mapping[str, Any]) -> str:
    """The README as Markdown.

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
        f"{'the same' if answers['same'] else 'not all the same'}.\n\n{how}"
    )
