"""The backend that answers with a saved model in this process: conversations to prompts, and the engine behind."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace

import torch

from ..data.chat import Chat
from ..errors import DataError, ImageError, ModelError
from ..images import degrade
from ..images.seen import Seen
from ..images.volume_input import VolumeInput
from ..models.chance import Chance
from ..models.family import ABSENT, Bundle, Grid
from ..types import Degrade, ImageRef, View
from .backend import End, Failed, Identity, Picture, Piece, Question, Refused, Ticket
from .engine import Engine, Job, Prompt, Told

BLIND = Degrade(kind="black")


class Post:
    """Carries what the engine's thread tells into the loop that asked: all that lies there at each call.

    To wake the loop costs both threads a turn of the interpreter, and a step tells as many pieces as it has rows.

    Args:
        loop: where the answers are waited for.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, self._called = loop, False
        self._told: deque[tuple[asyncio.Queue[Told], Told]] = deque()

    def put(self, where: asyncio.Queue[Told], told: Told) -> None:
        """Called by the engine's thread; a loop that is closed has nobody left who waits."""
        self._told.append((where, told))
        if not self._called and not self._loop.is_closed():
            self._called = True
            self._loop.call_soon_threadsafe(self._carry)

    def _carry(self) -> None:
        """Called by the loop; what is put from now on calls again, whether it is still seen here or not."""
        self._called = False
        while self._told:
            where, told = self._told.popleft()
            where.put_nowait(told)


class Answer:
    """A job of the engine as a ticket."""

    def __init__(self, prompt: Prompt, post: Post) -> None:
        self._told: asyncio.Queue[Told] = asyncio.Queue()
        self.job = Job(prompt, lambda told: post.put(self._told, told))

    async def pieces(self) -> AsyncIterator[Piece | End]:
        """Its pieces, and an `End` last. See `Ticket`."""
        while True:
            told = await self._told.get()
            if isinstance(told, Failed):
                raise told
            yield told
            if isinstance(told, End):
                return

    def cancel(self) -> None:
        """It leaves before the next step."""
        self.job.cancel()


class Local:
    """Answers with a model that is open in this process.

    Args:
        bundle: the model.
        identity: what it is called.
        slots: how many answers are made at the same time.

    Raises:
        ModelError: the model reads volumes, or its family cannot be asked.
    """

    def __init__(self, bundle: Bundle, identity: Identity, slots: int) -> None:
        if isinstance(bundle.preprocess, VolumeInput):
            raise ModelError(
                "a model that reads volumes cannot be served yet: only PNG and JPEG images are taken",
                remedy="`sightline evaluate` asks it",
            )
        if "generation" in bundle.family.cannot:
            raise ModelError(f"models of the family '{bundle.family.name}' are not asked by Sightline yet")
        self.bundle, self.identity = bundle, identity
        self.slots = 1 if bundle.family.beside else slots
        self.chat, self._writing = Chat.of(bundle), threading.Lock()
        self.engine = Engine(bundle, slots)
        config = bundle.family.language(bundle.model).config
        self.longest = int(getattr(config, "max_position_embeddings", 0) or 2**31)

    async def open(self) -> None:
        """Start the engine."""
        self.post = Post(asyncio.get_running_loop())
        self.engine.start()

    async def ask(self, question: Question) -> Ticket:
        """Write the question as the model reads it, and hand it to the engine.

        Raises:
            Refused: it does not fit, or the model cannot be asked like this.
        """
        prompt = await asyncio.to_thread(self.prompt, question)
        made = Answer(prompt, self.post)
        self.engine.submit(made.job)
        return made

    def prompt(self, question: Question) -> Prompt:
        """A question as ids and images.

        Raises:
            Refused: it does not fit, or the model cannot be asked like this.
        """
        if self.bundle.prior == "leave" and any(p.when == "prior" for p in question.pictures):
            raise Refused(400, "prior", "this model takes current images only", field="messages")
        pictures = [_shown(p, question) for p in question.pictures]
        try:
            grids = [self._grid(p) for p in pictures]
            with self._writing:  # a tokenizer is told anew for each text what counts as special
                encoded = self.chat.encode(question.messages, grids, prompt=True)
            refs = [
                ImageRef(path=str(i), sha256=p.sha256, when=p.when) for i, p in enumerate(pictures)
            ]  # fmt: skip
            views = self.chat.views([View(refs[i], "") for i in encoded.images])
            shown = tuple(self._seen(view, pictures) for view in views)
        except (DataError, ImageError) as error:
            raise Refused(400, "cannot_be_asked", error.what, field="messages") from None
        self._check_length(len(encoded.ids), question.limit)
        chance = (
            None if question.temperature == 0 else Chance(question.seed, temperature=question.temperature)
        )
        names = tuple(f"{question.sight} {' '.join(view.sight)}" for view in views)
        return Prompt(
            ids=encoded.ids, shown=shown, names=names, limit=question.limit, chance=chance, top=question.top
        )

    def _grid(self, picture: Picture) -> Grid:
        """What the model must know of an image; a prior one that is compared with another has no tokens of its own."""
        if picture.when == "prior" and self.bundle.prior != "stand":
            return ABSENT
        return () if self.bundle.fixed else self.bundle.preprocess.grid(*picture.pixels.shape[:2])

    def _seen(self, view: View, pictures: Sequence[Picture]) -> Seen:
        """One view as tower input; a view and its prior image stacked, as `models.features.pixels` has them."""
        if view.prior is not None:
            both = [self._seen(each, pictures) for each in view.each]
            return Seen(torch.stack([seen.values for seen in both]), both[0].grid)
        array = pictures[int(view.image.path)].pixels
        return Seen(self.bundle.preprocess(array), self.bundle.preprocess.grid(*array.shape[:2]))

    def _check_length(self, prompt: int, answer: int) -> None:
        """Refuse what is longer than the model can read."""
        if prompt + answer > self.longest:
            raise Refused(
                400, "context_length_exceeded",
                f"the conversation has {prompt} tokens, its answer up to {answer}, and this model reads {self.longest}",
                field="messages",
            )  # fmt: skip

    def state(self) -> Mapping[str, float]:
        """Rows, steps and tokens of the engine."""
        engine = self.engine
        return {
            "rows": len(engine.running), "waiting": len(engine.waiting), "steps_total": engine.steps,
            "tokens_total": engine.tokens, "failures_total": engine.failures, "busy_seconds_total": engine.busy,
        }  # fmt: skip

    async def close(self) -> None:
        """Stop the engine."""
        await asyncio.to_thread(self.engine.stop)


def _shown(picture: Picture, question: Question) -> Picture:
    """The image that is shown in a picture's place."""
    if question.sight == "clean":
        return picture
    return replace(picture, pixels=degrade.apply(picture.pixels, BLIND, question.name))
