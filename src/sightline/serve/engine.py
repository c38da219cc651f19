"""Continuous batching of our own generation: one thread, one step for all, and a door between steps.

    step      1    2    3    4    5    6
    A         p a  a    a    E                 all rows share one decode step; A leaves when it ends,
    B              p b  b    b    b    b       B and C join between two steps, and whoever is no longer
    C                        p c  c    c       waited for leaves at the next one

What is drawn for a question depends on its seed and its own words alone, never on who else is being answered. Numbers
of a row agree with those of the row alone to rounding.
"""

from __future__ import annotations

import copy
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..errors import ModelError
from ..images.seen import Seen
from ..inference import choices_of, end_tokens
from ..models.chance import Chance
from ..models.family import Bundle
from ..models.flow import Flow
from .backend import End, Failed, Piece, Reason, Token
from .spelling import Spelling

REMEMBERED = 16  # images whose tokens are kept for the next question about them
Told = Piece | End | Failed


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompt:
    """A question as the model reads it.

    Args:
        ids: token ids, up to where the answer begins.
        shown: the tower's input for each image with tokens of its own, in reading order.
        names: one for each of them: equal names, equal images.
        limit: most tokens of the answer.
        chance: how tokens are drawn; None takes the likeliest.
        top: how many likely tokens are told beside each one.
    """

    ids: tuple[int, ...]
    shown: tuple[Seen, ...] = ()
    names: tuple[str, ...] = ()
    limit: int = 256
    chance: Chance | None = None
    top: int = 0


@dataclass(eq=False)
class Job:
    """A prompt on its way: where its answer goes, and how far it is.

    Args:
        prompt: what is asked.
        tell: called by the engine's thread with what is new; must not wait.
    """

    prompt: Prompt
    tell: Callable[[Told], None]
    gone: bool = False
    spelling: Spelling | None = None
    made: list[int] = field(default_factory=list)
    logps: float = 0.0
    choices: dict[str, float] = field(default_factory=dict)

    def cancel(self) -> None:
        """It leaves before the next step."""
        self.gone = True


class Engine:
    """Answers jobs, at most `slots` of them in one step.

    Args:
        bundle: the model, in its precision and on its device; used by the engine's thread alone from now on.
        slots: how many rows share a step.
    """

    def __init__(self, bundle: Bundle, slots: int) -> None:
        self.bundle, self.slots = bundle, slots
        self.ends, self.choices = end_tokens(bundle), _choices(bundle)
        self.tokenizer = copy.deepcopy(bundle.tokenizer)  # one in use cannot be set up anew by another thread
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self.steps = self.tokens = self.failures = 0
        self.busy = 0.0
        self.fault = ""  # the kind of the latest failure; its text may hold anything
        self._remembered: OrderedDict[str, Tensor] = OrderedDict()
        self._news = threading.Condition()
        self._over = False
        self._thread = threading.Thread(target=self._live, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that is being made; jobs that are not done fail."""
        with self._news:
            self._over = True
            self._news.notify()
        if self._thread.is_alive():
            self._thread.join()

    def submit(self, job: Job) -> None:
        """Take a job; it is answered as soon as a row is free.

        Raises:
            Failed: the engine has stopped.
        """
        with self._news:
            if self._over:
                raise Failed("the server is stopping")
            self.waiting.append(job)
            self._news.notify()

    def _live(self) -> None:
        """The thread: let in, make a step, let out."""
        flow = Flow(self.bundle)
        logits = torch.zeros(0)
        while self._await():
            start = time.monotonic()
            new: list[Job] = []
            try:
                logits = self._leave(flow, logits)
                new = self._admitted()
                if new:
                    logits = self._enter(flow, logits, new)
                logits = self._step(flow, logits)
            except Exception as error:  # the thread must go on: nobody else answers
                self.fault = type(error).__name__
                flow, logits = Flow(self.bundle), torch.zeros(0)
                self._fail([*self.running, *new])
                self.running = []
            self.busy += time.monotonic() - start
        self._fail([*self.running, *self.waiting])
        self.running = []
        self.waiting.clear()

    def _await(self) -> bool:
        """Wait until there is something to do; false where it is over."""
        with self._news:
            while not (self._over or self.waiting or self.running):
                self._news.wait()
            return not self._over

    def _fail(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if not job.gone:
                self.failures += 1
                job.gone = True
                job.tell(Failed("the answer could not be made"))

    def _leave(self, flow: Flow, logits: Tensor) -> Tensor:
        """Drop the rows that are done or that nobody waits for."""
        kept = [i for i, job in enumerate(self.running) if not job.gone]
        if len(kept) < len(self.running):
            self.running = [self.running[i] for i in kept]
            flow.keep(kept)
            logits = logits[kept]
        return logits

    def _admitted(self) -> list[Job]:
        """The jobs that begin now."""
        new: list[Job] = []
        alone = self.bundle.family.beside
        with self._news:
            if any(job.gone for job in self.waiting):  # whoever left takes their images along
                self.waiting = deque(job for job in self.waiting if not job.gone)
            while self.waiting and len(self.running) + len(new) < (1 if alone else self.slots):
                new.append(self.waiting.popleft())
        return new

    @torch.no_grad()
    def _enter(self, flow: Flow, logits: Tensor, new: list[Job]) -> Tensor:
        """Read the prompts of new jobs together; where that fails, one by one, so that one cannot spoil the others."""
        groups = [new]
        while groups:
            group = groups.pop(0)
            try:
                other = Flow(self.bundle, len(group))
                pieces = [job.prompt.ids for job in group]
                first = other.read(pieces, [self._connected(job.prompt) for job in group])
            except (RuntimeError, ValueError, IndexError):
                groups += [[job] for job in group] if len(group) > 1 else []
                self._fail(group if len(group) == 1 else [])
                continue
            for job in group:
                job.spelling = Spelling(self.tokenizer)
            flow.join(other)
            self.running += group
            logits = torch.cat([logits, first]) if len(logits) else first
        return logits

    def _connected(self, prompt: Prompt) -> list[Seen]:
        """Connected tokens [tokens, hidden] of a prompt's images."""
        return [
            Seen(self._tokens(name, seen), seen.grid)
            for name, seen in zip(prompt.names, prompt.shown, strict=True)
        ]

    def _tokens(self, name: str, seen: Seen) -> Tensor:
        """Tokens of one image; the latest ones are remembered."""
        if name in self._remembered:
            self._remembered.move_to_end(name)
            return self._remembered[name]
        bundle, family = self.bundle, self.bundle.family
        like = next(family.module(bundle.model, family.parts["vision"][0]).parameters())
        features = family.encode_images(bundle.model, [seen.values.to(like.device, like.dtype)], [seen.grid])
        joint = next(family.module(bundle.model, family.parts["connector"][0]).parameters())
        made = family.connect(bundle.model, [f.to(joint.device, joint.dtype) for f in features], [seen.grid])
        self._remembered[name] = made[0]
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return made[0]

    @torch.no_grad()
    def _step(self, flow: Flow, logits: Tensor) -> Tensor:
        """Say one token of every row, let go who is done, and read the tokens of the others."""
        if not self.running:
            return logits
        image = self.bundle.image_token
        logits = logits.float()
        opening = [i for i, job in enumerate(self.running) if not job.made]
        before = logits[opening].log_softmax(-1) if opening else logits[:0]
        logits[
            :, image : image + 1
        ] = -torch.inf  # it is no word, and would stand for an image that is not there
        picked = self._picked(logits)
        logps = logits.log_softmax(-1)  # [rows, vocabulary]
        said = logps.gather(1, torch.tensor(picked, device=logits.device)[:, None])[:, 0].tolist()
        for at, i in enumerate(opening):
            self._open(self.running[i], picked[i], before[at])
        for i, job in enumerate(self.running):
            if not job.gone:
                self._say(job, picked[i], said[i], logps[i])
        self.steps += 1
        rows = [i for i, job in enumerate(self.running) if not job.gone]
        self.running = [self.running[i] for i in rows]
        flow.keep(rows)
        return flow.read([[picked[i]] for i in rows]) if rows else logits[:0]

    def _picked(self, logits: Tensor) -> list[int]:
        """The next token of every row."""
        picked: list[int] = logits.argmax(-1).tolist()
        for i, job in enumerate(self.running):
            chance = job.prompt.chance
            if chance is not None:
                picked[i] = chance.pick(["served", str(len(job.made))], logits[i])
        return picked

    def _open(self, job: Job, token: int, logps: Tensor) -> None:
        """Note how likely yes and no are where an answer begins with one of them."""
        if any(token in ids for ids in self.choices.values()):
            job.choices = {word: float(logps[ids].logsumexp(-1)) for word, ids in self.choices.items()}

    def _say(self, job: Job, token: int, logp: float, logps: Tensor) -> None:
        """Tell one token; the last one ends the job."""
        assert job.spelling is not None, "a running job spells"
        job.logps += logp
        ended = token in self.ends
        if not ended:
            job.made.append(token)
            self.tokens += 1
            top = logps.topk(job.prompt.top) if job.prompt.top else None
            others = () if top is None else tuple(
                (self.tokenizer.decode([i]), p)
                for i, p in zip(top.indices.tolist(), top.values.tolist(), strict=True)
            )  # fmt: skip
            text = job.spelling.add(token)
            job.tell(Piece(text, (Token(self.tokenizer.decode([token]), logp, others),)))
        if ended or len(job.made) >= job.prompt.limit:
            rest = job.spelling.rest()
            if rest:
                job.tell(Piece(rest))
            job.gone = True
            mean = job.logps / max(1, len(job.made) + ended)
            reason: Reason = "stop" if ended else "length"
            job.tell(End(reason, len(job.prompt.ids), len(job.made), mean, job.choices))


def _choices(bundle: Bundle) -> dict[str, list[int]]:
    """The ids that begin yes and no; none where the vocabulary cannot tell them apart."""
    try:
        return choices_of(bundle)
    except ModelError:
        return {}
