"""Questions to a model behind an address: several at once, every turn behind the model's own earlier answers.

Every answer is decoded, also to a question of yes or no: an address tells the likeliest tokens, and not at every place
how likely both words are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from .. import images
from ..data.chat import Encoded
from ..errors import MissingExtra, RunError
from ..images import degrade
from ..inference import Answer, Item, Ledger, predictions
from ..serve.backend import End, Failed, Picture, Question, Refused
from ..types import Message, Sample, View

if TYPE_CHECKING:
    from ..serve.remote import Remote
    from .answers import Asked, Desk

SLOTS = 8  # questions that are asked at the same time
TRIES = (1.0, 4.0, 16.0)  # seconds until a question that failed is asked again
NONE = Encoded((), (), (), ())


@dataclass(frozen=True)
class Far:
    """Whoever asks a model behind an address.

    Args:
        address: of its API.
        model: its name there.
        token: that it wants.
    """

    address: str
    model: str
    token: str = ""

    def ask(self, desk: Desk, asked: Asked, ledger: Ledger) -> None:
        """Answer the samples of a set, and note each at once.

        Raises:
            RunError: the server fails again and again, or refuses a question.
        """
        print(f"  {asked.name}")
        asyncio.run(self._all(desk, asked, ledger))

    async def _all(self, desk: Desk, asked: Asked, ledger: Ledger) -> None:
        remote = connect(self.address, self.model, self.token)
        await remote.open()
        todo = deque(asked.samples)

        async def work(bar: tqdm[None]) -> None:
            while todo:
                sample = todo.popleft()
                made = await _converse(remote, desk, asked, sample)
                ledger.add(sample.id, predictions(Item(sample, NONE, (), ()), made))
                bar.update()

        try:
            with tqdm(total=len(todo), desc="  answering", unit="study", disable=len(todo) < 2) as bar:
                async with asyncio.TaskGroup() as group:
                    for _ in range(SLOTS):
                        group.create_task(work(bar))
        except ExceptionGroup as wrong:
            raise wrong.exceptions[0] from None
        finally:
            await remote.close()


def connect(address: str, model: str, token: str) -> Remote:
    """Whoever speaks to an address.

    Raises:
        ModelError: the address is none.
        MissingExtra: httpx is not installed.
    """
    try:
        from ..serve.remote import Remote
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "httpx", "serve") from None
    return Remote(address, model, token, SLOTS)


async def _converse(remote: Remote, desk: Desk, asked: Asked, sample: Sample) -> list[Answer]:
    """The answers of one sample."""
    messages = asked.read(sample).messages
    shown = [asked.see(sample, i) for i in range(len(sample.images))]
    pictures = await asyncio.to_thread(_pictures, desk.root, shown)
    said: list[Message] = []
    made: list[Answer] = []
    for message in messages:
        if message.role != "assistant":
            said.append(message)
            continue
        question = Question(
            name=sample.id, messages=tuple(said), pictures=pictures, limit=desk.generate.max_new_tokens
        )
        answer = await _told(remote, question, asked.name)
        made.append(answer)
        said.append(Message(role="assistant", parts=(answer.text,)))
    return made


def _pictures(root: Path, shown: Sequence[View]) -> tuple[Picture, ...]:
    """The images that a sample shows, spoilt where they are to be."""
    made = []
    for view in shown:
        pixels: np.ndarray = images.read(root, view.image, record=view.record)
        if view.degrade is not None:
            pixels = degrade.apply(pixels, view.degrade, view.record)
        made.append(Picture(pixels=pixels, sha256=view.image.sha256, when=view.image.when))
    return tuple(made)


async def _told(remote: Remote, question: Question, what: str) -> Answer:
    """One answer; a server that is busy or was away for a moment is asked again.

    Raises:
        RunError: it cannot be had.
    """
    for pause in (*TRIES, None):
        try:
            ticket = await remote.ask(question)
            text, end = "", None
            async for piece in ticket.pieces():
                if isinstance(piece, End):
                    end = piece
                else:
                    text += piece.text
            return Answer(text.strip(), logp=None if end is None else end.logp)
        except Refused as error:
            raise RunError(
                f"the question cannot be asked there: {error.what}", where=what, found=question.name
            ) from None
        except Failed as error:
            if pause is None:
                raise RunError(
                    f"the server does not answer: {error.what}", where=what, found=question.name,
                    remedy="what was answered is kept; give the same command again once it is back",
                ) from None  # fmt: skip
            await asyncio.sleep(pause)
    raise AssertionError("the last try has raised")
