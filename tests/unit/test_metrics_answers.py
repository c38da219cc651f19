"""Yes, no or neither, out of free text; and the normal form of answers."""

import pytest

from sightline.metrics.answers import closed, normalise, overlap, yes_no

CASES = [
    ("Yes", "yes"),
    ("Yes.", "yes"),
    ("yes", "yes"),
    ("- Yes", "yes"),
    ("* **Yes**", "yes"),
    ("\n Yes, there is.", "yes"),
    ("Yes, no effusion on the right", "yes"),
    ("Yes, but it is not large", "yes"),
    ("Yes, although its size cannot be determined", "yes"),
    ("Y", "yes"),
    ("True", "yes"),
    ("Answer: yes", "yes"),
    ("The answer is: Yes.", "yes"),
    ("No doubt, the heart is enlarged", "yes"),
    ("There is a left effusion.", "yes"),
    ("A nodule is seen in the right lung", "yes"),
    ("The effusion is not only present but large", "yes"),
    ("I would say yes", "yes"),
    ("No", "no"),
    ("No.", "no"),
    ("- No", "no"),
    ("no!", "no"),
    ("N", "no"),
    ("No, there is no effusion", "no"),
    ("No, yes would be wrong", "no"),
    ("The answer is no.", "no"),
    ("I would say no", "no"),
    ("There is no evidence of pneumothorax.", "no"),
    ("There isn't any nodule", "no"),
    ("not seen", "no"),
    ("Not present.", "no"),
    ("absent", "no"),
    ("The effusion is absent", "no"),
    ("None", "no"),
    ("Neither side", "no"),
    ("Lungs without effusion", "no"),
    ("The lungs are free of nodules", "no"),
    ("cannot be determined", None),
    ("It can't be determined from this image", None),
    ("No, it cannot be determined", "no"),
    ("Not sure", None),
    ("Uncertain.", None),
    ("An effusion cannot be excluded", None),
    ("I don't know", None),
    ("possibly", None),
    ("yes or no", None),
    ("[yes, no]", None),
    ("Yes/No", None),
    ("Lungs", None),
    ("pleural effusion", None),
    ("Notable heart", None),
    ("Nodule", None),
    ("Yesterday's image", None),
    ("...", None),
    ("   ", None),
    ("", None),
]


@pytest.mark.parametrize(("text", "answer"), CASES)
def test_yes_no(text, answer):
    assert yes_no(text) == answer


@pytest.mark.parametrize("word", ["yes", "no"])
def test_case_bullets_and_stops_do_not_matter(word):
    forms = [word, word.upper(), word.title() + ".", f"- {word}", f"> {word}!", f'"{word}"', f"({word})"]
    assert {yes_no(form) for form in forms} == {word}


@pytest.mark.parametrize(
    ("question", "answer", "gold"),
    [
        ("Is there an effusion?\n<image>", "No, there is none.", "no"),
        ("What abnormality is seen?", "No acute abnormality.", None),
        ("<image>\nWhere are the kidneys?", "Not seen here", None),
        ("What do the two hyperintensities indicate?", "yes", "yes"),
        ("Which organ is shown?", "Liver", None),
        ("Are the lungs clear?", "Yes", "yes"),
    ],
)
def test_a_question_is_closed_by_its_answer_and_opened_by_its_first_word(question, answer, gold):
    assert closed(question, answer) == gold


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The Left Lung.", "left lung"),
        ("two nodules", "2 nodules"),
        ("1.5 cm", "1.5 cm"),
        ("T2-weighted", "t2 weighted"),
        ("Crohn's disease", "crohns disease"),
        ("A", "a"),
        ("an  X–ray", "x ray"),
        ("Twenty.", "20"),
        ("", ""),
        ("?!", ""),
    ],
)
def test_normalise(text, normal):
    assert normalise(text) == normal
    assert normalise(normalise(text)) == normal


def test_overlap_is_the_f1_of_token_bags():
    assert overlap("left lower lobe", "the left lobe") == pytest.approx(2 * 2 / 5)
    assert overlap("left left", "left") == pytest.approx(2 / 3)
    assert overlap("", "liver") == 0.0
    assert overlap("Liver.", "liver") == 1.0
