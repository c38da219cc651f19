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
from functools import cached_property
from typing import Any, Literal, Protocol

from jinja2 import TemplateError

from ..errors import DataError
from ..types import Degrade, ImageRef, Message, View

ANCHOR = "\n"  # merges with nothing in a vocabulary that sets a blank in front of a text
OPEN, CLOSE = "\ue000", "\ue001"
TORN = "\ufffd"
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
        images: the sample's image index for every run of image tokens, in order; an image without tokens of its own
            has a run of none.
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
    wording: Any

    @property
    def prior(self) -> str:
        """What becomes of images of an earlier study: `stand`, `fuse` or `leave`."""

    def see(self, views: Sequence[View]) -> tuple[View, ...]:
        """The views of a row as the model takes them."""

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
            message's first text (" Yes" may be one token) and left out before an image, unless `kept`.
        kept: the opening stands before an image too.
        closing: what the template writes first behind an answer, before its end; part of the answer.
        end: what ends an answer where that is no control token; its first token is learned.
        mute: of a user's message only the images are written.
        see: the views of a row as the model takes them.
        pairs: the model compares each current image with at most one prior image.
    """

    tokenizer: Any
    image_token: int
    tokens_per_image: int = 0
    placement: Literal["front", "inline"] = "front"
    system: str = ""
    words: Callable[[tuple[int, ...]], tuple[int, ...]] | None = None
    around: tuple[str, str] = ("", "")
    opening: str = ""
    kept: bool = False
    closing: str = ""
    end: str = ""
    mute: bool = False
    see: Callable[[Sequence[View]], tuple[View, ...]] = tuple
    pairs: bool = False

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
            see=model.see,
            pairs=model.prior == "fuse",
            **{"opening": model.family.opening, **model.wording},
        )

    @property
    def pad(self) -> int:
        """The id that fills rows up; it is masked everywhere."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad not in (None, self.image_token) else self.tokenizer.eos_token_id)

    @property
    def ends(self) -> tuple[int, ...]:
        """The id that ends an answer where that is no control token."""
        return tuple(self._ids(self.end, special=False, goes_on=True)[:1])

    def begins(self, text: str) -> int:
        """The first id of an answer that begins with this text, as it stands in a conversation."""
        talk = [Message(role="user", parts=("?",)), Message(role="assistant", parts=(text,))]
        made = self.encode(talk)
        return made.ids[made.turns[-1].start]

    def views(self, shown: Sequence[View]) -> tuple[View, ...]:
        """The views of a row as the model takes them. See `Bundle.see`."""
        return self.see(shown)

    def lonely(self, refs: Sequence[ImageRef] | Degrade | None) -> bool:
        """Whether the model, which compares pairs, finds no current image for one of the prior ones."""
        if not self.pairs or refs is None or isinstance(refs, Degrade):
            return False
        return 2 * sum(ref.when == "prior" for ref in refs) > len(refs)

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
        messages = self._placed(messages, grids)
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
                new = self._ids(piece + self.around[0] * shown, special=True, goes_on=self._goes_on(ids))
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
                    ids += self._ids(part, special=False, goes_on=self._goes_on(ids))
                    learned += [speaks] * (len(ids) - len(learned))
            if speaks:
                turns.append(Turn(start, len(ids), piece))
                open_answer = True
        return Encoded(tuple(ids), tuple(learned), tuple(images), tuple(turns))

    def _opened(
        self, pieces: list[str | int], messages: list[Message]
    ) -> tuple[list[str | int], list[Message]]:
        """Pieces and messages, with what opens or closes a message taken from the template's piece to the text."""
        pieces, messages = list(pieces), list(messages)
        for at in range(1, len(pieces), 2):  # a piece, a message, a piece, ...
            piece, number, behind = str(pieces[at - 1]), int(pieces[at]), str(pieces[at + 1])
            first, rest = messages[number].parts[:1], messages[number].parts[1:]
            image = bool(first) and isinstance(first[0], int)
            if self.opening and piece.endswith(self.opening) and not (image and self.kept):
                pieces[at - 1] = piece.removesuffix(self.opening)
                if not image:
                    text = self.opening + "".join(map(str, first))
                    messages[number] = replace(messages[number], parts=(text, *rest))
            if self.closing and messages[number].role == "assistant" and behind.startswith(self.closing):
                pieces[at + 1] = behind.removeprefix(self.closing)
                *most, last = messages[number].parts
                messages[number] = replace(messages[number], parts=(*most, f"{last}{self.closing}"))
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

    def _placed(self, messages: Sequence[Message], grids: Sequence[tuple[int, ...]]) -> list[Message]:
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
        if self.mute:
            out = [replace(m, parts=()) if m.role == "user" else m for m in out]
        absent = {i for i in shown if not self.image(grids[i] if grids else ())}
        front = tuple(p for i in shown for p in ((i,) if self.mute or i in absent else (i, "\n")))
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

    @cached_property
    def _prefixed(self) -> bool:
        """Whether the vocabulary sets a blank in front of every text that it is given (Llama's first ones)."""
        first = self.tokenizer.convert_ids_to_tokens(self._ids("x", special=False)[:1])[0]
        return str(first).startswith("\u2581")

    @cached_property
    def _control(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    def _goes_on(self, ids: Sequence[int]) -> bool:
        """Whether what comes next goes on and does not begin: not first, nor behind an image or a control token."""
        return bool(ids) and ids[-1] != self.image_token and ids[-1] not in self._control

    def _ids(self, text: str, *, special: bool, goes_on: bool = False) -> list[int]:
        """Ids of a text; one that goes on gets no blank from the vocabulary: pieces then read as the whole would."""
        if not text:
            return []
        encode: Callable[..., Any] = self.tokenizer
        how = {"add_special_tokens": False, "split_special_tokens": not special}
        if goes_on and self._prefixed:
            return list(encode(ANCHOR + text, **how)["input_ids"][len(encode(ANCHOR, **how)["input_ids"]) :])
        return list(encode(text, **how)["input_ids"])

    def _check_end(self, new: list[int], piece: str) -> None:
        """What follows an answer must begin with a control token, or the model never learns to stop."""
        if self.end and piece.startswith(self.end):
            return
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
    out, count, held = [], 0, list[int]()
    for at, (token, learned) in enumerate([*zip(encoded.ids, encoded.learned, strict=True), (-1, False)]):
        if token == image_token:
            count += 1
            continue
        if count:
            out.append(f"\x1b[44m[image x{count}]\x1b[0m")
            count = 0
        if token >= 0:
            held.append(token)
            text = tokenizer.decode(held).replace("\n", "\\n\n")
            following = zip(encoded.ids[at + 1 : at + 2], encoded.learned[at + 1 : at + 2], strict=True)
            if text.endswith(TORN) and any(i != image_token and flag == learned for i, flag in following):
                continue  # a character of several tokens, such as Chinese ones in many vocabularies
            held = []
            out.append(f"\x1b[1;32m{text}\x1b[0m" if learned else f"\x1b[2m{text}\x1b[0m")
    return "".join(out)
