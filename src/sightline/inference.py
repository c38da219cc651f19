"""Samples to predictions: batched, turn by turn with the model's own earlier answers, resumable.

A conversation is read in pieces. Before each answer the model sees everything so far, its own answers included.
A yes/no question is answered by comparing log p(yes) and log p(no) at that place; any other by greedy decoding or by
beams, unless a `Manner` says otherwise. Equal inputs (a black image under the same questions, say) are computed once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from .data.chat import Chat, Encoded
from .data.rows import GridOf, plain
from .data.turns import exchanges
from .errors import ModelError
from .images.seen import Seen
from .metrics.answers import closed
from .metrics.chinese import HAN
from .models import device
from .models.beams import search
from .models.chance import Chance
from .models.context import Context
from .models.family import Bundle
from .settings import Generate
from .types import Prediction, Sample, View, to_plain

WORDS = {"yes": ("Yes", "yes", "YES"), "no": ("No", "no", "NO")}
REPORT = "report"
Look = Callable[[View], Seen]


@dataclass(frozen=True)
class Item:
    """One sample ready to be asked: its ids, its images as the model will see them, and which turns are yes/no.

    `encoded` may hold more than `sample` says, such as retrieved reports in front of the first question.
    """

    sample: Sample
    encoded: Encoded
    views: tuple[View, ...]
    closed: tuple[bool, ...]


@dataclass
class Answer:
    """One answer: its text, its ids, and log-probabilities: of yes and no, or the mean of its tokens where decoded."""

    text: str
    choices: dict[str, float] = field(default_factory=dict)
    ids: tuple[int, ...] = ()
    logp: float | None = None


@dataclass
class _Row:
    """Where one conversation of a batch stands."""

    item: Item
    unread: list[int]
    views: list[View]
    answers: list[Answer] = field(default_factory=list)


@dataclass(frozen=True)
class Manner:
    """How a conversation is led.

    Args:
        right: read the right answer behind each question instead of the model's own, so that every turn is asked
            after right answers only.
        chance: how tokens of open answers are drawn; None takes the likeliest.
    """

    right: bool = False
    chance: Chance | None = None


PLAIN = Manner()


def items(
    samples: Iterable[Sample],
    chat: Chat,
    see: Callable[[Sample, int], View],
    grid: GridOf = plain,
    read: Callable[[Sample], Sample] | None = None,
) -> list[Item]:
    """Encode samples for asking.

    Args:
        samples: conversations with their right answers.
        chat: how the model writes them.
        see: (sample, image index) -> the view that is shown in its place.
        grid: what the model must know of an image's size.
        read: what the model reads of a sample, with the reports that were retrieved for it, say; None: what it says.
    """
    out = []
    for sample in samples:
        shown = [see(sample, i) for i in range(len(sample.images))]
        messages = read(sample).messages if read else sample.messages
        encoded = chat.encode(messages, [grid(view.image) for view in shown])
        views = chat.views([shown[i] for i in encoded.images])
        flags = tuple(t != REPORT and _is_choice(q, a) for q, a, t in exchanges(sample))
        out.append(Item(sample, encoded, views, flags))
    return out


def _is_choice(question: str, answer: str) -> bool:
    """Whether an answer is picked from yes and no; in Chinese it is decoded, for no one word there means yes."""
    return closed(question, answer) is not None and not HAN.search(answer)


def ask(
    bundle: Bundle,
    todo: Sequence[Item],
    look: Look,
    settings: Generate,
    done: Callable[[Item, list[Answer]], None],
    manner: Manner = PLAIN,
) -> None:
    """Answer every turn of every item, longest first, equal inputs once.

    Args:
        bundle: the model; its connector and language model should already be in the precision of `settings`.
        todo: what to ask.
        look: a view to features of the frozen tower, [tokens, width].
        settings: batch size and longest answer.
        done: called with each item and its answers as soon as they are known.
        manner: whose answers stand before the next question, and how tokens are picked.

    Raises:
        ModelError: the family cannot be asked.
    """
    if "generation" in bundle.family.cannot:
        raise ModelError(
            f"models of the family '{bundle.family.name}' are not asked by Sightline yet",
            remedy="training and alignment work; generate with transformers from the merged model",
        )  # fmt: skip
    same: dict[str, list[Item]] = {}
    for item in todo:
        same.setdefault(_fingerprint(item, look, manner), []).append(item)
    firsts = sorted(
        (group[0] for group in same.values()), key=lambda i: (i.closed, -len(i.encoded.ids), i.sample.id)
    )
    groups = {id(group[0]): group for group in same.values()}
    with tqdm(total=len(todo), desc="  answering", unit="study", disable=len(todo) < 2) as bar:
        for batch in _batches(firsts, settings.batch):
            for item, answers in zip(batch, _converse(bundle, batch, look, settings, manner), strict=True):
                for twin in groups[id(item)]:
                    done(twin, answers)
                    bar.update()


def in_precision(bundle: Bundle, settings: Generate) -> None:
    """Put connector and language model into the precision of `settings`, and all of it on the GPU where there is one.

    The tower stays in its own precision.
    """
    device.place(bundle, torch.bfloat16 if settings.precision == "bfloat16" else torch.float32)


def _fingerprint(item: Item, look: Look, manner: Manner) -> str:
    """All that decides an item's answers: the ids that are read, its images' values, and its name where it counts."""
    asked: Any = _chunks(item.encoded)
    if manner.right:
        asked = item.encoded.ids[: item.encoded.turns[-1].start], item.encoded.turns
    name = item.sample.id if manner.chance else ""
    mixed = hashlib.sha256(repr((asked, item.closed, name)).encode())
    for view in item.views:
        mixed.update(look(view).values.contiguous().numpy().tobytes())
    return mixed.hexdigest()


def _batches(ordered: Sequence[Item], size: int) -> Iterable[list[Item]]:
    """Consecutive items that ask alike (same pattern of closed and open turns)."""
    batch: list[Item] = []
    for item in ordered:
        if batch and (len(batch) == size or item.closed != batch[0].closed):
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def _chunks(encoded: Encoded) -> list[tuple[int, ...]]:
    """The ids between answers: from the end of one answer to the start of the next."""
    ends = [0, *(t.stop for t in encoded.turns)]
    return [encoded.ids[end : turn.start] for end, turn in zip(ends, encoded.turns, strict=False)]


def _right(encoded: Encoded, turn: int) -> tuple[int, ...]:
    """The ids of a right answer, without its end."""
    return encoded.ids[encoded.turns[turn].start : encoded.turns[turn].stop]


@torch.no_grad()
def _converse(
    bundle: Bundle, batch: Sequence[Item], look: Look, settings: Generate, manner: Manner
) -> list[list[Answer]]:
    """Answer all turns of a batch of items that ask alike."""
    context = Context(bundle, len(batch))
    rows = [_Row(item, [], list(item.views)) for item in batch]
    chunks = [_chunks(item.encoded) for item in batch]
    for turn, is_closed in enumerate(batch[0].closed):
        pieces = [row.unread + list(chunks[i][turn]) for i, row in enumerate(rows)]
        logits = context.read(pieces, _connected(bundle, rows, pieces, look))
        for row in rows:
            row.unread = []
        before = context.length
        if is_closed:
            _choose(bundle, rows, logits)
        else:
            _decode(bundle, rows, context, logits, settings, manner)
        said = [_right(row.item.encoded, turn) for row in rows]
        if manner.right:
            context.rewind(before)
            for row, right in zip(rows, said, strict=True):
                row.unread = list(right)
        else:
            _taken(bundle, rows, said, look)  # the images of right answers are not shown
    return [row.answers for row in rows]


def _taken(
    bundle: Bundle, rows: Sequence[_Row], pieces: Sequence[Sequence[int]], look: Look
) -> list[list[Seen]]:
    """The images that stand in these pieces, per row; the next ones of each conversation."""
    taken: list[list[Seen]] = []
    for row, piece in zip(rows, pieces, strict=True):
        mine: list[Seen] = []
        count = piece.count(bundle.image_token)
        while count > 0:
            mine.append(look(row.views.pop(0)))
            count -= bundle.words(mine[-1].grid).count(bundle.image_token)
        taken.append(mine)
    return taken


def _connected(
    bundle: Bundle, rows: Sequence[_Row], pieces: Sequence[Sequence[int]], look: Look
) -> list[list[Seen]]:
    """Connected tokens [tokens, hidden] of the images that stand in these pieces, per row."""
    shown = _taken(bundle, rows, pieces, look)
    flat = [seen for mine in shown for seen in mine]
    if not flat:
        return shown
    connector = bundle.family.module(bundle.model, bundle.family.parts["connector"][0])
    like = next(connector.parameters())
    values = [seen.values.to(like.device, like.dtype) for seen in flat]
    made = iter(bundle.tokens(values, [seen.grid for seen in flat], "features"))
    return [[Seen(next(made), seen.grid) for seen in mine] for mine in shown]


def _choose(bundle: Bundle, rows: Sequence[_Row], logits: Tensor) -> None:
    """Take yes or no, whichever is likelier, and leave its token to be read next."""
    logps = logits.float().log_softmax(-1)  # [B, vocabulary]
    ids = choices_of(bundle)
    for i, row in enumerate(rows):
        choices = {word: float(logps[i, own].logsumexp(-1)) for word, own in ids.items()}
        word = max(choices, key=lambda w: choices[w])
        token = ids[word][int(logps[i, ids[word]].argmax())]
        row.unread = [token]
        row.answers.append(Answer(bundle.tokenizer.decode([token]).strip(), choices, (token,)))


def choices_of(bundle: Bundle) -> dict[str, list[int]]:
    """The ids that begin yes and those that begin no, as an answer of this family opens.

    Where an answer opens with a blank, " Yes" may be a token of its own, or begin with one that " No" begins with too:
    that one says neither.

    Raises:
        ModelError: to this tokenizer both words begin alike.
    """
    chat = Chat.of(bundle)
    found = {word: list(dict.fromkeys(chat.begins(f) for f in forms)) for word, forms in WORDS.items()}
    both = set(found["yes"]) & set(found["no"])
    found = {word: [i for i in ids if i not in both] for word, ids in found.items()}
    if not all(found.values()):
        raise ModelError(
            "yes and no begin with the same token, so that the next token tells them not apart",
            found=str(sorted(both)), remedy="use a tokenizer that knows both words",
        )  # fmt: skip
    return found


def _decode(
    bundle: Bundle, rows: Sequence[_Row], context: Context, logits: Tensor, how: Generate, manner: Manner
) -> None:
    """Greedy decoding, sampling, or the best of several beams, until an end token or the limit.

    The image token is never said: it is no word, and would stand for an image that is not there.
    """
    ends = end_tokens(bundle)
    if how.beams > 1 and manner.chance is None:
        best = search(context, logits, how, ends, bundle.image_token)
        for row, (ids, logp) in zip(rows, best, strict=True):
            row.unread = list(ids)  # none of it was read in this context
            row.answers.append(Answer(_words(bundle, ids), ids=ids, logp=logp))
        return
    made: list[list[int]] = [[] for _ in rows]
    sums = [0.0] * len(rows)
    open_rows = set(range(len(rows)))
    for step in range(how.max_new_tokens):
        logits[:, bundle.image_token : bundle.image_token + 1] = -torch.inf  # a head may not even know it
        picked = _picked(rows, logits, step, manner.chance)
        whole = logits.float().logsumexp(-1).tolist()  # [B]
        for i in sorted(open_rows):
            sums[i] += float(logits[i, picked[i]]) - whole[i]
            if picked[i] in ends:
                open_rows.discard(i)
            else:
                made[i].append(picked[i])
        if not open_rows or step == how.max_new_tokens - 1:
            break
        logits = context.read([[made[i][-1]] if i in open_rows else [] for i in range(len(rows))])
    for i, row in enumerate(rows):
        row.unread = made[i][-1:] if i in open_rows else []
        logp = sums[i] / max(1, len(made[i]) + (i not in open_rows))
        row.answers.append(Answer(_words(bundle, made[i]), ids=tuple(made[i]), logp=logp))


def _words(bundle: Bundle, ids: Sequence[int]) -> str:
    """The text of an open answer."""
    return str(bundle.tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _picked(rows: Sequence[_Row], logits: Tensor, step: int, chance: Chance | None) -> list[int]:
    """The next token of every row."""
    if chance is None:
        return list(logits.argmax(-1).tolist())
    names = [(row.item.sample.id, str(len(row.answers)), str(step)) for row in rows]
    return [chance.pick(name, row) for name, row in zip(names, logits, strict=True)]


def end_tokens(bundle: Bundle) -> set[int]:
    """Ids that end an answer: the tokenizer's, the generation config's, and that of the conversation format."""
    config = getattr(bundle.model, "generation_config", None)
    own = config.eos_token_id if config is not None else None
    named = [bundle.tokenizer.eos_token_id, *(own if isinstance(own, list) else [own]), *Chat.of(bundle).ends]
    return {i for i in named if i is not None}


def predictions(item: Item, answers: Sequence[Answer]) -> list[Prediction]:
    """One prediction per answered turn of a sample, not yet named by model and image."""
    return [
        Prediction(
            sample=item.sample.id, patient=item.sample.patient, turn=turn, question=question, answer=right,
            text=answer.text, topic=topic, choices=answer.choices, logp=answer.logp,
        )
        for turn, ((question, right, topic), answer) in enumerate(zip(exchanges(item.sample), answers, strict=True))
    ]  # fmt: skip


@dataclass
class Ledger:
    """Predictions on disk, one JSON line per sample, appended as they come; a torn last line is dropped.

    Args:
        path: the file.
    """

    path: Path
    known: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) != len(data):
            self.path.write_bytes(whole)
        for line in whole.split(b"\n")[:-1]:
            entry = json.loads(line)
            self.known[entry["sample"]] = entry["predictions"]

    def add(self, sample: str, made: Sequence[Prediction]) -> None:
        """Append one sample's predictions."""
        plain = [to_plain(p) for p in made]
        self.known[sample] = plain
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"sample": sample, "predictions": plain}, ensure_ascii=False) + "\n")

    def all(self, order: Sequence[str]) -> list[Prediction]:
        """The predictions of the samples asked for, in their order."""
        return [Prediction(**p) for sample in order for p in self.known[sample]]
