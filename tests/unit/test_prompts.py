"""Reports in prompts: the exact words of MMed-RAG and RULE, the short ones, and what stays as it was."""

from __future__ import annotations

import pytest

from sightline.data.prompts import with_reports
from sightline.settings import Template
from sightline.types import ImageRef, Message, Sample

CAUTION = (
    "It should be noted that the diagnostic information in the reference reports cannot be directly used as the basis "
    "for diagnosis, but should only be used for reference and comparison."
)
SUMMARIES = CAUTION.replace("reports", "summaries")
TWO = ("Small effusion.", "Clear lungs.\n")
FUNDUS = {"role": "ophthalmologist", "image": "fundus image"}


def sample(question: str, answer: str, topic: str = "", references: tuple[str, ...] = ()) -> Sample:
    return Sample(
        id="s",
        patient="p",
        images=(ImageRef(path="a.png"),),
        messages=(
            Message(role="user", parts=(0, question)),
            Message(role="assistant", parts=(answer,), topic=topic),
        ),
        references=references,
    )


def asked(made: Sample) -> tuple[str | int, ...]:
    return made.messages[0].parts


def report(references: tuple[str, ...] = (), **template: str) -> tuple[str | int, ...]:
    given = sample("Describe the findings.", "Small effusion.", "report", references)
    return asked(with_reports(given, Template.model_validate(template)))


def question(
    references: tuple[str, ...] = (),
    text: str = "Is there an effusion?",
    answer: str = "Yes.",
    **template: str,
) -> tuple[str | int, ...]:
    return asked(with_reports(sample(text, answer, "", references), Template.model_validate(template)))


def test_mmed_rag_asks_for_a_report_in_its_words() -> None:
    assert report(TWO[:1]) == (
        0,
        "You are a professional radiologist. You are provided with an X-ray image and 1 reference report(s): "
        "1. Small effusion. \nPlease generate a report based on the image. "
        + CAUTION
        + " Please only include the "
        "content of the report in your response.",
    )
    assert report(TWO, **FUNDUS) == (
        0,
        "You are a professional ophthalmologist. You are provided with a fundus image and 2 reference report(s): "
        "1. Small effusion. 2. Clear lungs. \nPlease generate a report based on the image. "
        + CAUTION
        + " Please only "
        "include the content of the report in your response.",
    )
    assert report() == (
        0,
        "You are a professional radiologist. You are provided with an X-ray image. Please generate a report based on "
        "the image. Please only include the content of the report in your response.",
    )


def test_mmed_rag_asks_a_question_in_its_words() -> None:
    assert question(TWO) == (
        0,
        "You are provided with a chest X-ray image, a image-related question and 2 reference report(s): "
        "1. Small effusion. 2. Clear lungs. \nPlease answer the question based on the image and report and choose from "
        "the following two options: [yes, no]. " + CAUTION + " Question: Is there an effusion?",
    )
    assert question(TWO[:1], **FUNDUS) == (
        0,
        "You are provided with a fundus image, a image-related question and 1 reference report(s): "
        "1. Small effusion. \nPlease answer the question based on the image and report and choose from the following "
        "two options: [yes, no]. " + CAUTION + " Question: Is there an effusion?",
    )
    assert question() == (
        0,
        "Is there an effusion? Please answer the question based on the image and choose from the following two "
        "options: [yes, no].",
    )


def test_an_open_question_offers_no_options() -> None:
    assert question(text="What is seen?", answer="A nodule.") == (
        0,
        "What is seen? Please answer the question based on the image.",
    )
    assert "[yes, no]" not in str(question(TWO, text="What is seen?", answer="A nodule."))
    assert "[yes, no]" not in str(question(TWO, text="What is seen?", answer="A nodule.", name="rule"))


def test_rule_puts_the_image_last_and_one_report_without_a_number() -> None:
    assert question(TWO[:1], name="rule") == (
        "You are provided with a chest X-ray image, a image-related question and 1 reference report(s): "
        "Small effusion.\nPlease answer the question based on the image and report and choose from the following two "
        "options: [yes, no]. " + CAUTION + " Question: Is there an effusion?",
        0,
    )
    assert question(TWO, name="rule", **FUNDUS) == (
        "You are provided with a fundus image, a image-related question and 2 reference summary(s): "
        "1. Small effusion. 2. Clear lungs. \nPlease answer the question based on the image and the reference "
        "summaries and choose from the following two options: [yes, no]. "
        + SUMMARIES
        + " Question: Is there an "
        "effusion?",
        0,
    )
    assert report(name="rule") == ("Please generate a report based on the input medical image.", 0)
    assert report(TWO, name="rule", **FUNDUS) == (
        "You are provided with a fundus image, a image-related question and 2 reference summary(s): "
        "1. Small effusion. 2. Clear lungs. \nPlease generate a summary based on the fundus image and the reference "
        "summaries. " + SUMMARIES,
        0,
    )
    assert question(name="rule")[0] == (
        "Is there an effusion? Please answer the question based on the image and choose from the following two "
        "options: [yes, no]."
    )


def test_plain_puts_one_line_in_front_and_changes_nothing_without_reports() -> None:
    assert question(("Small\neffusion.", "Clear."), name="plain") == (
        0,
        "Reports of similar images: 1. Small effusion. 2. Clear.\nIs there an effusion?",
    )
    alone = sample(" Is there an effusion? ", "Yes")
    assert with_reports(alone, Template(name="plain")) is alone
    behind = Message(role="user", parts=("Is it?", 0))
    given = sample("", "Yes", references=TWO[:1])
    moved = Sample(
        id="s", patient="p", images=given.images, messages=(behind, given.messages[1]), references=TWO[:1]
    )
    assert asked(with_reports(moved, Template(name="plain"))) == (
        "Reports of similar images: 1. Small effusion.\nIs it?",
        0,
    )


def test_plain_speaks_the_language_of_the_question_where_asked_to() -> None:
    asks = "左侧有胸腔积液吗？"
    assert question(TWO, text=asks, name="plain", language="auto") == (
        0,
        f"相似图像的报告：1. Small effusion. 2. Clear lungs.\n{asks}",
    )
    assert str(question(TWO, text=asks, name="plain")[1]).startswith("Reports of similar images: 1. Small")
    english = "Reports of similar images: 1. Small effusion. 2. Clear lungs.\nIs there an effusion?"
    assert question(TWO, name="plain", language="auto") == (0, english)
    assert question((), text=asks, name="plain", language="auto") == (0, asks)
    assert "language" not in Template(name="plain").model_dump(), (
        "results that were made before are still up to date"
    )


@pytest.mark.parametrize("name", ["mmed_rag", "rule", "plain"])
def test_only_the_first_question_changes(name: str) -> None:
    images = (ImageRef(path="a.png"), ImageRef(path="b.png", when="prior"))
    given = Sample(
        id="s",
        patient="p",
        images=images,
        messages=(
            Message(role="system", parts=("Be short.",)),
            Message(role="user", parts=(1, 0, "Is there an effusion?")),
            Message(role="assistant", parts=("Yes",), topic="effusion_left"),
            Message(role="user", parts=("Is there a nodule?",)),
            Message(role="assistant", parts=("No",), topic="nodule"),
        ),
        labels={"nodule": 0},
        references=TWO,
    )
    made = with_reports(given, Template.model_validate({"name": name}))
    assert [m for i, m in enumerate(made.messages) if i != 1] == [
        m for i, m in enumerate(given.messages) if i != 1
    ]
    assert [p for p in asked_at(made, 1) if isinstance(p, int)] == [1, 0]
    assert (made.images, made.references, made.labels) == (images, TWO, {"nodule": 0})
    assert "Is there a nodule?" not in made.messages[1].text
    assert made.messages[1].text.count("Small effusion.") == 1


def asked_at(made: Sample, place: int) -> tuple[str | int, ...]:
    return made.messages[place].parts
