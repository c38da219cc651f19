"""What cached features of a frozen tower save: one training step with stored features against pixels.

A small model is composed from configs (no weights are needed): a CLIP-shaped tower, LLaVA's connector, a
Llama of a few layers with LoRA. Both ways take the same rows through forward, backward and optimizer.

    python bench/steps.py [--steps 12] [--layers 6]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from sightline import runs
from sightline.data.chat import Chat
from sightline.data.collate import Plan as Layout
from sightline.data.collate import SupervisedCollator, Together
from sightline.data.rows import encode_samples
from sightline.losses.logps import answer_logps
from sightline.models import checkpoint, trainable
from sightline.models.family import Bundle
from sightline.models.features import Features, Pixels
from sightline.settings import Full, Lora, Plan
from sightline.types import ImageRef, Message, Sample

THREADS, BATCH, WARMUP = 1, 8, 2
CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<empty_output>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] "
    "+ '<|im_end|>\n' }}{% endfor %}"
)


def language(folder: Path) -> Path:
    """A small Llama with random weights and a tokenizer of bytes."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={w: i for i, w in enumerate([*CONTROL, *letters])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(word, special=True) for word in CONTROL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=192, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=3, num_key_value_heads=3, bos_token_id=0, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def compose(folder: Path, layers: int) -> Bundle:
    """The base model of the benchmark."""
    vision = {
        "model_type": "clip_vision_model", "image_size": 224, "patch_size": 32, "hidden_size": 384,
        "intermediate_size": 1536, "num_hidden_layers": layers, "num_attention_heads": 6,
        "projection_dim": 64,
    }  # fmt: skip
    section = {
        "family": "llava",
        "vision": vision,
        "language": str(language(folder / "language")),
        "system": "",
    }
    rest = {"connector": "mlp2x_gelu", "select_layer": -2, "select": "default", "path": None}
    return checkpoint.compose(section | rest, 0)


def samples(root: Path, count: int) -> list[Sample]:
    """Pictures of noise with one question each."""
    rng = np.random.default_rng(0)
    made = []
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (224, 224), dtype=np.uint8)).save(root / f"{i}.png")
        ref = ImageRef(path=f"{i}.png", sha256=runs.hash_file(root / f"{i}.png"))
        turns = (
            Message(role="user", parts=(0, "Is there a left effusion?")),
            Message(role="assistant", parts=("Yes",)),
        )
        made.append(Sample(id=str(i), patient=str(i), images=(ref,), messages=turns))
    return made


def seconds(step: Callable[[int], None], count: int) -> list[float]:
    """Wall-clock seconds of each step after a few that are not counted."""
    found = []
    for i in range(WARMUP + count):
        start = time.perf_counter()
        step(i)
        found.append(time.perf_counter() - start)
    return found[WARMUP:]


def measure(layers: int, count: int) -> dict[str, Any]:
    """Time both ways on equal rows.

    Returns:
        Median seconds per step and their ratio, and the seconds spent once on the features of an image.
    """
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        bundle = compose(root, layers)
        rows, _ = encode_samples(samples(root, BATCH), Chat.of(bundle), 512)
        cached, pixels = Features(bundle, root, root / "features"), Pixels(bundle, root)
        start = time.perf_counter()
        cached.prepare([v for r in rows for v in r.views], what="benchmark images")
        once = (time.perf_counter() - start) / BATCH
        plans: dict[str, Any] = {"connector": Plan(full=Full(lr=1e-3)), "language": Plan(lora=Lora(lr=1e-4))}
        model = trainable.apply(bundle, plans, 0)
        # A rate of zero does all the work of a step and leaves both ways the same weights.
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.0)
        losses: dict[str, float] = {}

        def step(look: Features | Pixels, name: str) -> Callable[[int], None]:
            collator = SupervisedCollator(
                Layout(look=look, pad=Chat.of(bundle).pad, image_token=bundle.image_token)
            )

            def once_more(_: int) -> None:
                batch = collator([Together((r,)) for r in rows])
                hidden = bundle.forward(batch, given=look.given)
                loss = -answer_logps(hidden, batch["labels"], bundle.head).mean()
                loss.backward()
                losses.setdefault(name, loss.item())
                optimizer.step()
                optimizer.zero_grad()

            return once_more

        times = {n: seconds(step(look, n), count) for n, look in (("features", cached), ("pixels", pixels))}
    assert abs(losses["features"] - losses["pixels"]) < 1e-3, losses
    medians = {name: statistics.median(found) for name, found in times.items()}
    ratio = medians["pixels"] / medians["features"]
    return {
        "layers": layers,
        "batch": BATCH,
        "seconds": medians,
        "ratio": ratio,
        "feature_seconds_per_image": once,
    }


def main() -> None:
    """Print the table and write `bench/results/steps.json`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--layers", type=int, default=6)
    asked = parser.parse_args()
    torch.set_num_threads(THREADS)
    found = measure(asked.layers, asked.steps) | {"machine": runs.machine(), "versions": runs.versions()}
    print(f"{'step of ' + str(BATCH) + ' rows':<24}{'seconds':>10}")
    for name, value in found["seconds"].items():
        print(f"{name:<24}{value:>10.4f}")
    print(
        f"pixels cost {found['ratio']:.2f} times as much;"
        f" features cost {found['feature_seconds_per_image']:.4f} s an image, once"
    )
    folder = Path(__file__).parent / "results"
    folder.mkdir(exist_ok=True)
    runs.write_json(folder / "steps.json", found)


if __name__ == "__main__":
    main()
