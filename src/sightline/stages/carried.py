"""What answers carry beside their words, so that every score can be computed again from them alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .. import plugins
from ..judging import Side
from ..recipe import Evaluate, Subgroup
from ..types import Prediction, Sample


def attributes_of(subgroups: Sequence[Subgroup] | None) -> dict[str, float]:
    """The attributes that subgroups are made by, each with the width of its bands; 0 where it is taken as it is."""
    found: dict[str, float] = {}
    for each in subgroups or ():
        found |= {each: 0.0} if isinstance(each, str) else each
    return found


def wanted(section: Evaluate) -> list[str]:
    """The attributes of samples that the scores of an evaluation depend on, sorted."""
    names = set(attributes_of(section.subgroups))
    for metric in section.metrics:
        for name, options in ({metric: {}} if isinstance(metric, str) else metric).items():
            names |= set(getattr(plugins.load("metrics", name), "attributes", ()))
            named = options.get("by") or ()
            names |= {word for each in named for word in str(each).split("+")}
    return sorted(names)


def carry(
    made: Mapping[Side, Sequence[Prediction]], samples: Iterable[Sample], section: Evaluate
) -> dict[Side, list[Prediction]]:
    """The same answers with the attributes that their scores need, beside those that they have."""
    names = wanted(section)
    known = {s.id: {name: s.attributes[name] for name in names if name in s.attributes} for s in samples}
    return {
        side: [replace(p, attributes={**known.get(p.sample, {}), **p.attributes}) for p in each]
        for side, each in made.items()
    }
