"""align: preference training from the parent merged, with a fresh adapter on top; the reference never drifts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from torch import Tensor

from .. import plugins
from ..data import prepare
from ..data.chat import Chat
from ..data.collate import PairCollator, Plan, one_of_each
from ..data.rows import encode_pairs, select
from ..errors import RecipeError, RunError
from ..images import degrade
from ..losses.pairs import PairLogps, PairLoss
from ..models import checkpoint, trainable
from ..models.features import gridder, looker
from ..recipe import Align
from ..runs import Run, write_json
from ..settings import Model
from ..train.fit import Job, fit
from ..train.processes import turns
from ..train.reference import reference
from ..train.trainers import Answers, PairTrainer
from ..types import Degrade, Preference

VERSION = 2


def run(run: Run, section: Align, seed: int) -> None:
    """Encode the pairs, find the reference's log-probabilities, train, save."""
    plugin: PairLoss = plugins.load("losses", section.loss.name)
    third = third_image(section, plugin, seed)
    data = prepare.load(run.parents[section.data])
    asked = chosen(run, section, data.preferences("train"))
    if isinstance(section.model, Model):
        parent, bundle = None, checkpoint.compose(section.model.model_dump(), seed)
    else:
        parent = checkpoint.folder_of(run.parents[section.model])
        bundle = checkpoint.load(parent)
    bundle.attend(section.speed.attention)
    chat = Chat.of(bundle)
    pairs, aside = encode_pairs(asked, chat, section.max_tokens, third, gridder(bundle, data.root))
    run.set_aside(aside, len(pairs), "pairs")
    views = [v for p in pairs for v in p.views]
    frozen = trainable.frozen(bundle, section.trainable)
    apart = plugin.third == "imagined"
    with turns():
        look = looker(bundle, data.root, run.folder.parent / ".features", views, frozen, section.speed)
        look.prepare(views, what="images of pairs")
        known = reference(run, section, bundle, pairs, look, apart=apart) if plugin.needs_reference else {}

    trained = trainable.apply(bundle, section.trainable, seed)
    trainable.silence(bundle.model)
    print(trainable.text(trainable.table(bundle, section.trainable)))
    job = Job(
        answers=Answers(bundle, trained, given=look.given),
        asked=section.trainable,
        rows=pairs,
        ids=[p.id for p in pairs],
        collator=PairCollator(Plan.of(chat, look, section.speed, one_of_each(views)), known, apart=apart),
        train=section.train,
        seed=seed,
    )
    free = section.reference == "none"
    curve = fit(run, job, PairTrainer, loss=formula(section, plugin), reference_free=free)
    write_json(run.work / "curve.json", curve)
    plan = section.model_dump(mode="json")["trainable"]
    home = run.folder / "model"
    checkpoint.save(run.work / "model", bundle, trained, parent=parent, trained=plan, home=home)


def chosen(run: Run, section: Align, known: Sequence[Preference]) -> list[Preference]:
    """The pairs that `where` asks for.

    Raises:
        RunError: there is none.
    """
    asked = select(known, section.where)
    if not asked:
        kinds = Counter(pair.why for pair in known)
        wanted = "; ".join(f"{key}: {_either(values)}" for key, values in section.where.items())
        raise RunError(
            "there is no pair to align with", where=f"stage {run.name}",
            found=", ".join(f"{count} {kind} pairs" for kind, count in kinds.items()) or f"no pair in '{section.data}'",
            expected=f"at least one pair with {wanted}" if wanted else "at least one pair",
            remedy=f"change `where`, or `kinds`, `topics`, `limit` or `judge` of stage '{section.data}': where its"
            " model errs in no such way there is nothing to make a pair of, and this stage can be left out",
        )  # fmt: skip
    return asked


def _either(values: str | Sequence[str]) -> str:
    return values if isinstance(values, str) else " or ".join(values)


def third_image(section: Align, plugin: PairLoss, seed: int) -> Degrade | None:
    """The degraded image of a loss that wants a third answer.

    Raises:
        RecipeError: the loss wants none, the kind swaps images, or the reference cannot score imagined answers.
    """
    asked = section.loss.degrade
    if not plugin.third:
        if asked is not None:
            raise RecipeError(
                f"the loss '{section.loss.name}' shows no degraded image of its own", where="loss.degrade",
                remedy="leave it out; `prefer` makes pairs with degraded images",
            )  # fmt: skip
        return None
    if plugin.third == "imagined" and section.reference == "base":
        raise RecipeError(
            f"the loss '{section.loss.name}' asks the reference about tokens that are not known before the step",
            where="reference", found="base", expected="parent or none",
            remedy="only the parent is at hand in every step: it is the model with its adapter off",
        )  # fmt: skip
    kind, strength = (asked.kind, asked.strength) if asked else (plugin.degrade, 1.0)
    if degrade.find(kind).swaps:
        raise RecipeError(
            f"'{kind}' shows another patient's image", where="loss.degrade.kind",
            expected="a degradation of the pair's own image", remedy="make such pairs with `prefer`",
        )  # fmt: skip
    return Degrade(kind=kind, strength=strength, seed=seed)


def formula(section: Align, plugin: PairLoss) -> Callable[[PairLogps], Tensor]:
    """The loss with its options, and the supervised term where one is asked for."""
    options = plugins.bind("losses", section.loss.name, section.loss.options)

    def loss(logps: PairLogps) -> Tensor:
        value = plugin.loss(logps, **options)
        return value - section.loss.sft * logps.chosen_mean if section.loss.sft else value

    return loss
