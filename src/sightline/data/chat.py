r"""Messages to token ids, through the model's own chat template, with a mask of what is learned.

The template is rendered once with a private mark in the place of every message's text. The template's own
pieces are tokenised with special tokens, the texts of people without: a user who types `<|im_end|>` or
`<image>` gets its letters, never a control id. Nothing is ever added to the vocabulary.

    ids     <|im_start|> user \n IMG IMG IMG \n Is it ? <|im_end|> \n <|im_start|> assistant \n Yes <|im_end|> \n
    learned       .        .   .   .   .   .  .  .  .  .      .      .       .          .      .  *       *      .
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from jinja2 import TemplateError

from ..errors import DataError
from ..types import Message

OPEN, CLOSE = "\ue000", "\ue001"
MARK = re.compile(f"{OPEN}(\\d+){CLOSE}")


@dataclass(frozen=True)
class Turn:
    """One answer among the ids: its text stands at [start, stop), its end token at stop."""

    start: int
    stop: int
    message: int


@dataclass(frozen=True)
class Encoded:
    """A conversation as ids.

    Args:
        ids: token ids.
        learned: one flag per id; true on the assistant's tokens and their end token only.
        images: the sample's image index for every run of image tokens, in order.
        turns: the answers.
    """

    ids: tuple[int, ...]
    learned: tuple[bool, ...]
    images: tuple[int, ...]
    turns: tuple[Turn, ...]


class Speaks(Protocol):
    """What a chat must know of a model; `models.family.Bundle` is one."""

    tokenizer: Any
    image_token: int
    family: Any
    system: str

    def words(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The ids that stand for one image of this grid."""


@dataclass(frozen=True, kw_only=True)
class Chat:
    """How one model's conversations are written.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        image_token: id of the token that stands for one image token; part of the vocabulary already.
        tokens_per_image: how many of them stand for one image, where all take the same number.
        placement: `front` puts all images of a conversation in front of its first user turn, each followed by
            a line break (LLaVA); `inline` leaves them where the message has them.
        system: a system text for conversations that have none; "" for none.
        words: grid -> the ids that stand for one image, where they depend on its size or hold more than the
            image token.
        around: texts in front of and behind every image. They are read as one with the texts beside them: one
            line break in front of two may be one token, not two.
        opening: what the template writes last before a message, such as a blank. It is read as one with the
            message's first text (" Yes" may be one token) and left out before an image.
    """

    tokenizer: Any
    image_token: int
    tokens_per_image: int = 0
    placement: Literal["front", "inline"] = "front"
    system: str = ""
    words: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    around: tuple[str, str] = ("", "")
    opening: str = ""

    @classmethod
    def of(cls, model: Speaks) -> Chat:
        """How a model (a `Bundle`, or anything that speaks like one) writes conversations."""
        return cls(
            tokenizer=model.tokenizer,
            image_token=model.image_token,
            placement=model.family.placement,
            system=model.system,
            words=model.words,
            around=model.family.around,
            opening=model.family.opening,
        )

    @property
    def pad(self) -> int:
        """The id that fills rows up; it is masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def last_only(self, encoded: Encoded) -> Encoded:
        """The same row, with only the last answer learned."""
        last = encoded.turns[-1]
        learned = tuple(flag and i >= last.start for i, flag in enumerate(encoded.learned))
        return replace(encoded, learned=learned)

    def image(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """The ids that stand for one image of this grid."""
        return self.words(grid) if self.words else (self.image_token,) * self.tokens_per_image

    def encode(
        self, messages: Sequence[Message], grids: Sequence[tuple[int, ...]] = (), *, prompt: bool = False
    ) -> Encoded:
        """Write a conversation; with `prompt`, end where the assistant is to speak.

        Args:
            messages: the conversation; an image is the number of a sample's image.
            grids: of the sample's images; may be left out where all images are written alike.
            prompt: end where the assistant is to speak.

        Raises:
            DataError: the template drops or reorders a message, or ends an answer without an end token.
        """
        messages = self._placed(messages)
        pieces, messages = self._opened(self._render(messages, prompt), messages)
        ids: list[int] = []
        learned: list[bool] = []
        images: list[int] = []
        turns: list[Turn] = []
        open_answer = False
        for at, piece in enumerate(pieces):
            if isinstance(piece, str):
                opens = [p for i in pieces[at + 1 : at + 2] for p in messages[int(i)].parts[:1]]
                shown = any(isinstance(p, int) for p in opens)  # an image begins the next message
                new = self._ids(piece + self.around[0] * shown, special=True)
                if open_answer:
                    self._check_end(new, piece)
                ids += new
                learned += [open_answer and i == 0 for i in range(len(new))]
                open_answer = False
                continue
            start, speaks = len(ids), messages[piece].role == "assistant"
            for part in self._beside(messages[piece].parts):
                if isinstance(part, int):
                    images.append(part)
                    ids += self.image(grids[part] if grids else ())
                    learned += [False] * (len(ids) - len(learned))  # a head may not even know its token
                else:
                    ids += self._ids(part, special=False)
                    learned += [speaks] * (len(ids) - len(learned))
            if speaks:
                turns.append(Turn(start, len(ids), piece))
                open_answer = True
        return Encoded(tuple(ids), tuple(learned), tuple(images), tuple(turns))

    def _opened(
        self, pieces: list[str | int], messages: list[Message]
    ) -> tuple[list[str | int], list[Message]]:
        """Pieces and messages, with what opens a message taken from the template's piece to the text."""
        if not self.opening:
            return pieces, messages
        pieces, messages = list(pieces), list(messages)
        for at in range(1, len(pieces), 2):  # a piece, a message, a piece, ...
            piece, number = str(pieces[at - 1]), int(pieces[at])
            first, rest = messages[number].parts[:1], messages[number].parts[1:]
            if not piece.endswith(self.opening):
                continue
            pieces[at - 1] = piece.removesuffix(self.opening)
            if not (first and isinstance(first[0], int)):
                text = self.opening + "".join(map(str, first))
                messages[number] = replace(messages[number], parts=(text, *rest))
        return pieces, messages

    def _beside(self, parts: Sequence[int | str]) -> list[int | str]:
        """A message's parts, with what stands around images in the texts; what opens it is the template's."""
        before, behind = self.around
        out: list[int | str] = []
        for part in parts:
            text = behind if out and isinstance(out[-1], int) else ""
            if isinstance(part, str):
                out.append(text + part)
                continue
            if out and isinstance(out[-1], str):
                out[-1] = f"{out[-1]}{before}"
            elif out:
                out.append(text + before)
            out.append(part)
        return [*out, behind] if out and isinstance(out[-1], int) else out

    def _placed(self, messages: Sequence[Message]) -> list[Message]:
        """The conversation with its system text, images where the family wants them, and texts stripped."""
        out = [
            replace(m, parts=tuple(p.strip() if isinstance(p, str) else p for p in m.parts)) for m in messages
        ]
        if self.system and out[0].role != "system":
            out.insert(0, Message(role="system", parts=(self.system,)))
        if self.placement == "inline":
            return out
        shown = [p for m in out for p in m.parts if isinstance(p, int)]
        out = [replace(m, parts=tuple(p for p in m.parts if isinstance(p, str))) for m in out]
        first = next(i for i, m in enumerate(out) if m.role == "user")
        front = tuple(part for image in shown for part in (image, "\n"))
        out[first] = replace(out[first], parts=front + out[first].parts)
        return out

    def _render(self, messages: Sequence[Message], prompt: bool) -> list[str | int]:
        """The template's own pieces, and between them the numbers of the messages."""
        plain = [{"role": m.role, "content": f"{OPEN}{i}{CLOSE}"} for i, m in enumerate(messages)]
        shows = any(isinstance(p, int) for m in messages for p in m.parts)
        try:  # images are not written by the template, but some templates write another opening for them
            text = self.tokenizer.apply_chat_template(
                plain, tokenize=False, add_generation_prompt=prompt, shows_images=shows
            )
        except TemplateError as error:
            raise DataError("the chat template refuses this conversation", found=str(error)) from None
        found = MARK.split(text)
        pieces = [int(p) if i % 2 else p for i, p in enumerate(found)]
        numbers = [p for p in pieces if isinstance(p, int)]
        if numbers != list(range(len(messages))):
            raise DataError(
                "the chat template does not write every message once and in order",
                found=f"messages {numbers}",
                expected=f"0 to {len(messages) - 1}",
                remedy="use a template that keeps all turns, or other roles",
            )
        return pieces

    def _ids(self, text: str, *, special: bool) -> list[int]:
        if not text:
            return []
        encode: Callable[..., Any] = self.tokenizer
        return list(encode(text, add_special_tokens=False, split_special_tokens=not special)["input_ids"])

    def _check_end(self, new: list[int], piece: str) -> None:
        """What follows an answer must begin with a control token, or the model never learns to stop."""
        if not new or (
            new[0] not in self.tokenizer.all_special_ids and new[0] not in self.tokenizer.added_tokens_decoder
        ):
            raise DataError(
                "the chat template ends an answer without an end token",
                found=repr(piece[:40]),
                expected="a control token right after the answer",
                remedy="set the tokenizer's chat_template",
            )


def fit(encoded: Encoded, limit: int, image_token: int) -> Encoded | None:
    """Cut a conversation to `limit` ids by dropping whole turns from its end.

    Image tokens are never cut and at least one whole answer stays.

    Returns:
        The conversation, shortened if need be; None where that is impossible.
    """
    if len(encoded.ids) <= limit:
        return encoded if encoded.turns else None
    kept = [t for t in encoded.turns if t.stop + 1 <= limit]
    if not kept:
        return None
    end = kept[-1].stop + 1
    if image_token in encoded.ids[end:]:
        return None
    return Encoded(encoded.ids[:end], encoded.learned[:end], encoded.images, tuple(kept))


def paint(encoded: Encoded, tokenizer: Any, image_token: int) -> str:
    """One conversation for a terminal: learned tokens green, image tokens as a blue count, the rest dim."""
    out, count = [], 0
    for token, learned in [*zip(encoded.ids, encoded.learned, strict=True), (-1, False)]:
        if token == image_token:
            count += 1
            continue
        if count:
            out.append(f"\x1b[44m[image x{count}]\x1b[0m")
            count = 0
        if token >= 0:
            text = tokenizer.decode([token]).replace("\n", "\\n\n")
            out.append(f"\x1b[1;32m{text}\x1b[0m" if learned else f"\x1b[2m{text}\x1b[0m")
    return "".join(out)
