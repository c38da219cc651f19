"""Ask a model that was exported to ONNX: `python generate.py IMAGE "QUESTION"`. For research, not for clinical use.

Needs numpy, onnxruntime, tokenizers and pillow, and the files beside this one; nothing else, and no network. Pictures
are prepared as they were while the model learned: filled up to a square, scaled in float32, normalised. The answer is
the likeliest word after word.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from tokenizers import Tokenizer

SETTINGS = "generate.json"
LENGTH = 64


class Model:
    """The graphs of a folder, their tokenizer, and how pictures and questions are prepared for them.

    Args:
        folder: the exported folder.
    """

    def __init__(self, folder: Path) -> None:
        self.told = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.vision, self.words, self.decoder = (
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in self.told["graphs"]
        )
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True  # what a person types is never a control word

    def answer(self, question: str, images: Sequence[Path], limit: int = LENGTH) -> str:
        """The answer to a question about pictures, which stand in front of it in this order."""
        pixels = np.stack([self.prepare(read(path)) for path in images])  # [n, 3, S, S]
        ids = self.greedy(self.prompt(question, len(images)), pixels, limit)
        return str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def prompt(self, question: str, images: int) -> list[int]:
        """The ids of a question about so many pictures, up to where the answer begins."""
        told = self.told["prompt"]
        anchor = len(self.ids(told["anchor"]))  # some vocabularies put a blank in front of what begins
        asked = self.ids(told["anchor"] + question.strip())[anchor:]
        return [*told["before"], *(told["image"] * images), *asked, *told["after"]]

    def ids(self, text: str) -> list[int]:
        """A text as ids."""
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids) if text else []

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels [H, W, 3] in [0, 1] -> float32 [3, S, S] as the tower takes them."""
        told = self.told["preprocess"]
        mean, std = (np.asarray(told[name], np.float32) for name in ("mean", "std"))
        if told["pad"]:
            pixels = square(pixels, told["mean"])
        edge, size = told["crop_from"] or told["size"], told["size"]
        height, width = pixels.shape[:2]
        short = min(height, width) if told["crop_from"] else 0
        target = (int(edge * height / short), int(edge * width / short)) if short else (edge, edge)
        pixels = scale(pixels, target, told["resample"])
        top, left = (pixels.shape[0] - size) // 2, (pixels.shape[1] - size) // 2
        pixels = pixels[top : top + size, left : left + size]
        made: np.ndarray = ((pixels - mean) / std).transpose(2, 0, 1).astype(np.float32)
        return made

    def greedy(self, ids: Sequence[int], pixels: np.ndarray, limit: int = LENGTH) -> list[int]:
        """The ids of the answer behind a prompt's.

        Args:
            ids: of the prompt; every image token is filled with what the tower makes of the pictures, in order.
            pixels: [n, 3, S, S], of all pictures of the prompt.
            limit: longest answer.
        """
        told = self.told
        embeds = self.embed(ids)  # [1, T, hidden]
        places = np.asarray(ids) == told["image_token"]
        if len(pixels):
            seen = self.vision.run(None, {"pixel_values": pixels})[0]  # [n, tokens, hidden]
            embeds[0, places] = seen.reshape(-1, seen.shape[-1])
        shape = (1, told["cache"]["heads"], 0, told["cache"]["size"])
        past = [np.zeros(shape, np.float32)] * (2 * told["cache"]["layers"])
        made: list[int] = []
        mask = np.ones((1, len(ids)), np.int64)
        while len(made) < limit:
            logits, *past = self.step(embeds, mask, past)
            scores = logits[0, -1]
            scores[told["never"]] = -np.inf
            word = int(scores.argmax())
            if word in told["ends"]:
                break
            made.append(word)
            embeds = self.embed([word])
            mask = np.ones((1, mask.shape[1] + 1), np.int64)
        return made

    def embed(self, ids: Sequence[int]) -> np.ndarray:
        """Rows of the table of words [1, T, hidden]."""
        made: np.ndarray = self.words.run(None, {"input_ids": np.asarray([ids], np.int64)})[0]
        return made

    def step(self, embeds: np.ndarray, mask: np.ndarray, past: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Read on: logits [B, T, vocabulary], then key and value of every layer [B, heads, P + T, size].

        Args:
            embeds: what is read now [B, T, hidden].
            mask: [B, P + T], 1 for what counts, of all that was read.
            past: key and value of every layer [B, heads, P, size].
        """
        names = [f"past_key_values.{i}.{side}" for i in range(len(past) // 2) for side in ("key", "value")]
        given = {"inputs_embeds": embeds, "attention_mask": mask, **dict(zip(names, past, strict=True))}
        return list(self.decoder.run(None, given))


def read(path: Path) -> np.ndarray:
    """A picture as float32 [H, W, 3] in [0, 1], turned as its EXIF says, transparency over black."""
    with Image.open(path) as opened:
        image = ImageOps.exif_transpose(opened)
        if image.mode.startswith("I;16"):
            grey = np.asarray(image).astype(np.float32) / np.float32(65535)
            return np.repeat(grey[:, :, None], 3, axis=2)
        if image.has_transparency_data:
            clear = np.asarray(image.convert("RGBA"), np.float32) / np.float32(255)
            return np.asarray(clear[:, :, :3] * clear[:, :, 3:], np.float32)
        return np.asarray(image.convert("RGB"), np.float32) / np.float32(255)


def square(pixels: np.ndarray, colour: Sequence[float]) -> np.ndarray:
    """The picture in the middle of a square of one colour, in steps of 1/255."""
    height, width = pixels.shape[:2]
    side = max(height, width)
    made = np.empty((side, side, 3), np.float32)
    made[:] = [int(min(max(value, 0.0), 1.0) * 255) / 255 for value in colour]
    top, left = (side - height) // 2, (side - width) // 2
    made[top : top + height, left : left + width] = pixels
    return made


def scale(pixels: np.ndarray, target: tuple[int, int], resample: str) -> np.ndarray:
    """Scale [H, W, 3] to a height and width, smoothed before shrinking, columns first, clipped after each pass."""
    if pixels.shape[:2] == target:
        return pixels
    rows, columns = (
        weights(pixels.shape[0], target[0], resample),
        weights(pixels.shape[1], target[1], resample),
    )
    wide = np.einsum("hwc,vw->hvc", pixels.astype(np.float64), columns, optimize=True).clip(0, 1)
    made = np.einsum("hvc,uh->uvc", wide, rows, optimize=True).clip(0, 1)
    return made.astype(np.float32)


def weights(old: int, new: int, resample: str) -> np.ndarray:
    """How much each of `old` pixels counts in each of `new` ones, [new, old]: Pillow's filters, as torch has them."""
    ratio = old / new
    if resample == "nearest":
        near = np.minimum((np.arange(new) + 0.5) * ratio, old - 1).astype(int)
        return np.eye(old)[near]
    wide = max(ratio, 1.0)  # of one pixel of the filter, in old pixels
    reach = (2.0 if resample == "bicubic" else 1.0) * wide
    centre = (np.arange(new) + 0.5) * ratio
    first = np.maximum((centre - reach + 0.5).astype(int), 0)
    last = np.minimum((centre + reach + 0.5).astype(int), old)
    place = np.arange(old)
    inside = (place >= first[:, None]) & (place < last[:, None])
    away = np.abs((place - centre[:, None] + 0.5) / wide)
    if resample == "bicubic":  # Keys' kernel with a = -0.5
        near = (1.5 * away - 2.5) * away**2 + 1
        far = ((-0.5 * away + 2.5) * away - 4) * away + 2
        made = np.where(away < 1, near, np.where(away < 2, far, 0.0))
    else:
        made = (1 - away).clip(0)
    made = np.where(inside, made, 0.0)
    result: np.ndarray = made / made.sum(axis=1, keepdims=True)
    return result


def main() -> None:
    """Answer the question on the command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="one picture or several, PNG or JPEG"
    )
    words.add_argument("question")
    words.add_argument("--folder", type=Path, default=Path(__file__).parent, help="of the exported model")
    words.add_argument("--max-new-tokens", type=int, default=LENGTH, help="longest answer")
    asked = words.parse_args()
    print(Model(asked.folder).answer(asked.question, asked.images, asked.max_new_tokens))


if __name__ == "__main__":
    main()
