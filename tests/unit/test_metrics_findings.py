"""Findings out of reports: negation, scope, sides."""

import pytest

from sightline.metrics.findings import LEXICON, Term, findings

PHANTOM = (
    "Moderate left effusion. No right effusion. Heart enlarged. No nodule. Left pneumothorax. "
    "Device in place."
)

CASES = [
    (PHANTOM, dict(zip(LEXICON, (1, 0, 1, 0, 1, 1), strict=True))),
    ("No left effusion.", {"effusion_left": 0}),
    ("No effusion or pneumothorax.", {"effusion_left": 0, "effusion_right": 0, "pneumothorax": 0}),
    ("Bilateral pleural effusions, larger on the left.", {"effusion_left": 1, "effusion_right": 1}),
    ("Left and right effusions.", {"effusion_left": 1, "effusion_right": 1}),
    ("Effusions on both sides.", {"effusion_left": 1, "effusion_right": 1}),
    ("Effusion is present on the left.", {"effusion_left": 1}),
    ("No left effusion but a right effusion is seen.", {"effusion_left": 0, "effusion_right": 1}),
    ("Small right effusion, no left effusion.", {"effusion_left": 0, "effusion_right": 1}),
    ("Left effusion is absent, right effusion present.", {"effusion_left": 0, "effusion_right": 1}),
    ("Pneumothorax on the left and effusion on the right.", {"pneumothorax": 1, "effusion_right": 1}),
    ("Effusion on the left and pneumothorax on the right.", {"pneumothorax": 1, "effusion_left": 1}),
    ("Left effusion cannot be excluded.", {}),
    ("Pleural effusion.", {}),
    ("No change in the left effusion.", {"effusion_left": 1}),
    ("Costophrenic angles are clear.", {"effusion_left": 0, "effusion_right": 0}),
    ("Heart size is normal.", {"cardiomegaly": 0}),
    ("Heart size normal.", {"cardiomegaly": 0}),
    ("Normal heart size.", {"cardiomegaly": 0}),
    ("The heart is not enlarged.", {"cardiomegaly": 0}),
    ("The heart is mildly enlarged.", {"cardiomegaly": 1}),
    ("Enlarged cardiac silhouette.", {"cardiomegaly": 1}),
    ("No cardiomegaly.", {"cardiomegaly": 0}),
    ("No pneumothorax, heart enlarged.", {"pneumothorax": 0, "cardiomegaly": 1}),
    ("No effusion and the heart is enlarged.", {"effusion_left": 0, "effusion_right": 0, "cardiomegaly": 1}),
    ("Lungs are clear.", {"nodule": 0}),
    ("Right upper lobe nodule.", {"nodule": 1}),
    ("Nodules not seen.", {"nodule": 0}),
    ("No evidence of nodule.", {"nodule": 0}),
    ("Pneumothorax is absent and there is a nodule.", {"pneumothorax": 0, "nodule": 1}),
    ("There is a nodule and pneumothorax is absent.", {"pneumothorax": 0, "nodule": 1}),
    ("Nodule and pneumothorax are absent.", {"pneumothorax": 0, "nodule": 0}),
    ("Nodule: none.", {"nodule": 0}),
    ("A 1.5 cm nodule without pneumothorax.", {"nodule": 1, "pneumothorax": 0}),
    ("Pacemaker in place, without pneumothorax.", {"device": 1, "pneumothorax": 0}),
    ("The lungs are clear of nodule or pneumothorax.", {"nodule": 0, "pneumothorax": 0}),
    ("No nodule, effusion, or pneumothorax is identified.",
     {"nodule": 0, "effusion_left": 0, "effusion_right": 0, "pneumothorax": 0}),
    ("No nodule, pneumothorax is present.", {"nodule": 0, "pneumothorax": 1}),
    ("The device has been removed.", {"device": 0}),
    ("", {}),
    ("Unremarkable.", {}),
]  # fmt: skip


@pytest.mark.parametrize(("report", "said"), CASES)
def test_findings(report, said):
    expected = dict.fromkeys(LEXICON) | said
    assert findings(report) == expected
    assert findings(report.upper().replace(". ", ".\n")) == expected


def test_an_affirmation_outweighs_a_denial_elsewhere():
    assert findings("Left effusion. Costophrenic angles are clear.")["effusion_left"] == 1
    assert findings("Costophrenic angles are clear. Left effusion.")["effusion_left"] == 1


def test_a_lexicon_of_ones_own():
    fundus = {"glaucoma": Term(says=("glaucoma",), denies=("normal disc",))}
    assert findings("No glaucoma.", fundus) == {"glaucoma": 0}
    assert findings("Normal disc.", fundus) == {"glaucoma": 0}
    assert findings("Advanced glaucoma.", fundus) == {"glaucoma": 1}
