"""One training run of a toy model in this process: order, curve, checkpoints, resume, errors."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sightline import runs
from sightline.errors import Interrupted, NonFinite, RunError
from sightline.losses.logps import IGNORE
from sightline.models.family import Bundle, Family
from sightline.settings import Full, Plan, Train
from sightline.train.arguments import Ordered
from sightline.train.fit import Job, data_ids, find, fit
from sightline.train.trainers import Answers, SupervisedTrainer

WORDS, LENGTH = 11, 6
ASKED: Mapping[str, Any] = {"language": Plan(full=Full(lr=0.05))}


@dataclass(frozen=True)
class Line:
    """A row: an id, token ids, and how many of them are learned."""

    id: str
    ids: tuple[int, ...]
    learned: int


class Net(nn.Module):
    """Next-token logits from the token alone."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(WORDS, WORDS)


class Toy(Answers):
    """Log-probabilities of learned tokens, and a place to do harm in the middle of a step."""

    harm: Callable[[int], float] = staticmethod(lambda call: 1.0)
    calls = 0

    def forward(self, batch: dict[str, Any]) -> Tensor:
        logps = self.bundle.model.net.table(batch["input_ids"][:, :-1]).log_softmax(-1)
        target = batch["labels"][:, 1:]
        picked = logps.gather(-1, target.clamp(min=0)[..., None]).squeeze(-1)
        self.calls += 1
        return torch.where(target == IGNORE, 0.0, picked).sum(-1) * self.harm(self.calls)


def bundle() -> Bundle:
    """A model with one part."""
    never: Any = None
    family = Family(
        name="toy", parts={"language": ("net",)}, placement="front", compose=never, encode_images=never,
        connect=never, hidden=never, head=never,
    )  # fmt: skip
    model = nn.Module()
    torch.manual_seed(0)
    model.net = Net()
    return Bundle(
        family=family, model=model, tokenizer=None, preprocess=never, image_token=0, tokens_per_image=0
    )


def collate(rows: list[Line]) -> dict[str, Any]:
    ids = torch.tensor([r.ids for r in rows])
    learned = torch.arange(LENGTH)[None] >= torch.tensor([[LENGTH - r.learned] for r in rows])
    labels = torch.where(learned, ids, IGNORE)
    return {
        "input_ids": ids, "labels": labels, "ids": [r.id for r in rows],
    }  # fmt: skip


ROWS = [
    Line(f"r{i}", tuple((i * 7 + j * (i % 3 + 1)) % WORDS for j in range(LENGTH)), 1 + i % 4)
    for i in range(12)
]


def job(answers: Toy | None = None, **train: Any) -> Job:
    made = bundle()
    answers = answers or Toy(made, made.model, given="features")
    section = Train(**{"steps": 6, "batch": 4, "save_every": 2, "warmup": 0.0} | train)
    return Job(
        answers=answers,
        asked=ASKED,
        rows=ROWS,
        ids=[r.id for r in ROWS],
        collator=collate,
        train=section,
        seed=4,
    )


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    work = tmp_path / ".taught.work"
    work.mkdir()
    return runs.Run(name="taught", folder=tmp_path / "taught", work=work, key="k", parents={})


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before, (
        "fit left a signal handler behind"
    )


def harmed(harm: Callable[[int], float]) -> Toy:
    made = bundle()
    toy = Toy(made, made.model, given="features")
    toy.harm = harm
    return toy


def table(asked: Job) -> Tensor:
    return asked.answers.bundle.model.net.table.weight.detach().clone()


def test_the_curve_has_every_step_and_the_loss_falls(run: runs.Run) -> None:
    curve = fit(run, job(steps=12), SupervisedTrainer)
    assert [entry["step"] for entry in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < curve[0]["loss"]
    assert all(list(entry) == sorted(entry) for entry in curve), "a resumed run must write the same bytes"
    assert {"loss", "learning_rate", "grad_norm"} <= set(curve[0])


def test_nothing_to_train_on_is_said(run: runs.Run) -> None:
    empty = job()
    with pytest.raises(RunError, match="there is nothing to train on") as caught:
        fit(run, Job(**{**vars(empty), "rows": [], "ids": []}), SupervisedTrainer)
    assert "set_aside.json" in caught.value.remedy


def test_accumulation_is_one_larger_batch_to_the_token(run: runs.Run, tmp_path: Path) -> None:
    """Rows differ in learned tokens: a mean of means would not agree."""
    whole = job(batch=4)
    one = fit(run, whole, SupervisedTrainer)
    other = runs.Run(name="taught", folder=tmp_path / "b", work=tmp_path / ".b.work", key="k", parents={})
    other.work.mkdir()
    parts = job(batch=2, accumulate=2)
    two = fit(other, parts, SupervisedTrainer)
    assert [e["loss"] for e in one] == pytest.approx([e["loss"] for e in two], rel=1e-5)
    assert torch.allclose(table(whole), table(parts), atol=1e-5)


def test_checkpoints_stay_until_the_result_stands_and_are_no_part_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "taught"
    with runs.start(folder, section={"stage": "sft"}, seed=0, version=1, parents={}) as run:
        fit(run, job(keep=1), SupervisedTrainer)
        assert [p.name for p in runs.numbered(run.work / runs.SCRATCH)] == ["checkpoint-6"]
        assert runs.faults(run.work / runs.SCRATCH / "checkpoint-6") == []
        (run.work / "result.txt").write_text("done")
    assert not (folder / runs.SCRATCH).exists()
    assert runs.faults(folder) == []
    assert not [e for e in runs.read_json(folder / "manifest.json")["files"] if "checkpoint" in e["path"]]


def test_a_run_cut_right_after_its_result_stood_leaves_no_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "taught"
    with runs.start(folder, section={"stage": "sft"}, seed=0, version=1, parents={}) as run:
        (run.work / "result.txt").write_text("done")
    (folder / runs.SCRATCH / "checkpoint-6").mkdir(parents=True)
    assert runs.faults(folder) == []
    runs.recover(folder)
    assert not (folder / runs.SCRATCH).exists()
    assert runs.faults(folder) == []


def test_a_loss_of_nan_names_its_records_and_the_next_start_resumes(run: runs.Run) -> None:
    bad = job(harmed(lambda call: float("nan") if call == 4 else 1.0))
    names = data_ids(Ordered(ROWS, [r.id for r in ROWS], 4, 24), 3, 4)
    with pytest.raises(NonFinite, match="the loss is nan at step 4") as caught:
        fit(run, bad, SupervisedTrainer)
    assert caught.value.where == f"records {', '.join(names)}"
    assert "the last checkpoint before this step is intact" in caught.value.remedy
    assert [p.name for p in runs.numbered(run.work / runs.SCRATCH)] == ["checkpoint-2"]
    mended = job()
    fit(run, mended, SupervisedTrainer)
    assert torch.isfinite(table(mended)).all()
    assert '"resumed_at": 2' in (run.work / "events.jsonl").read_text()


def test_a_gradient_norm_beyond_float32_stops_and_is_not_clipped_to_nothing(run: runs.Run) -> None:
    def explode(grad: Tensor) -> Tensor:
        return grad * 1e30

    bad = job()
    bad.answers.bundle.model.net.table.weight.register_hook(explode)
    before = table(bad)
    with pytest.raises(NonFinite, match="the norm of the gradients is inf at step 1") as caught:
        fit(run, bad, SupervisedTrainer)
    assert caught.value.where.startswith("records r")
    assert torch.equal(table(bad), before)


def test_a_signal_saves_and_the_same_call_goes_on(run: runs.Run, tmp_path: Path) -> None:
    def stop(call: int) -> float:
        if call == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return 1.0

    with pytest.raises(Interrupted, match="stopped after step 3 of 6; everything is saved") as caught:
        fit(run, job(harmed(stop)), SupervisedTrainer)
    assert caught.value.remedy == "give the same command again to go on"
    resumed = job()
    curve = fit(run, resumed, SupervisedTrainer)
    other = runs.Run(name="taught", folder=tmp_path / "b", work=tmp_path / ".b.work", key="k", parents={})
    other.work.mkdir()
    whole = job()
    assert fit(other, whole, SupervisedTrainer) == curve
    assert torch.equal(table(resumed), table(whole))


def test_damage_is_told_on_the_screen_and_in_the_events(
    run: runs.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    place = run.work / runs.SCRATCH
    for step in (2, 4):
        (place / f"checkpoint-{step}").mkdir(parents=True)
    runs.seal(place / "checkpoint-2")
    assert find(run, place) == place / "checkpoint-2"
    assert "checkpoint-4 is damaged" in capsys.readouterr().out
    (place / "checkpoint-2" / "manifest.json").write_text("{")
    assert find(run, place) is None
    assert "no checkpoint is left; training starts from the beginning" in capsys.readouterr().out
    events = (run.work / "events.jsonl").read_text().splitlines()
    assert [e.count("checkpoint_damaged") for e in events] == [1, 1, 1]
    assert sorted(p.name for p in place.iterdir()) == ["damaged-checkpoint-2-1", "damaged-checkpoint-4-0"]


def test_bfloat16_computes_in_bfloat16_and_keeps_weights_in_float32(run: runs.Run) -> None:
    seen = []

    class Watching(Toy):
        def forward(self, batch: dict[str, Any]) -> Tensor:
            seen.append(torch.is_autocast_enabled("cpu"))
            return super().forward(batch)

    made = bundle()
    asked = job(Watching(made, made.model, given="features"), precision="bfloat16", steps=1)
    fit(run, asked, SupervisedTrainer)
    assert seen == [True]
    assert table(asked).dtype == torch.float32
