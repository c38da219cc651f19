"""Reports that were retrieved, written into a prompt: the wordings of MMed-RAG and RULE, and a short one.

The wordings of MMed-RAG (Xia et al. 2024, arXiv 2410.13085) and RULE (Xia et al. 2024, arXiv 2407.05131) are those of
their released prompts, which released checkpoints and preference data were made with. RULE puts the image behind the
words, numbers reports only where there are several, and calls them summaries for fundus images. Where a release shows
no wording (a report asked for without retrieval, in MMed-RAG; an open question), the nearest one is cut or joined.

| template | with reports | without |
|---|---|---|
| `mmed_rag`, `rule` | its words around the reports and the question | its words around the question |
| `plain` | one line of reports in front of the question, in its language if asked for | nothing changes |
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..metrics.answers import closed
from ..metrics.chinese import HAN
from ..settings import Template
from ..types import Sample

REPORT = "report"
CAUTION = (
    "It should be noted that the diagnostic information in the reference {many} cannot be directly used as the basis "
    "for diagnosis, but should only be used for reference and comparison."
)
CHOICE = " and choose from the following two options: [yes, no]"


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a wording must know: the question, whether it asks for a report, whether it is a yes/no question."""

    question: str
    report: bool
    closed: bool
    references: Sequence[str]
    template: Template


def with_reports(sample: Sample, template: Template) -> Sample:
    """Write a sample's references into its first question; answers, later turns and images stay.

    Args:
        sample: `references` are the reports to show; none is right too.
        template: whose wording, and what it calls the reader and the picture.
    """
    place = next((i for i, m in enumerate(sample.messages) if m.role == "user"), None)
    if place is None or (template.name == "plain" and not sample.references):
        return sample
    turn = sample.messages[place]
    answer = next((m for m in sample.messages[place:] if m.role == "assistant"), None)
    question = turn.text.strip()
    asked = _Asked(
        question=question,
        report=answer is not None and answer.topic == REPORT,
        closed=answer is not None and closed(question, answer.text) is not None,
        references=sample.references,
        template=template,
    )
    words, behind = WORDINGS[template.name]
    images = tuple(part for part in turn.parts if isinstance(part, int))
    if behind is None:
        behind = isinstance(turn.parts[0], str)
    text = (words(asked),)
    parts: tuple[str | int, ...] = (*text, *images) if behind else (*images, *text)
    messages = (*sample.messages[:place], replace(turn, parts=parts), *sample.messages[place + 1 :])
    return replace(sample, messages=messages)


def _mmed_rag(asked: _Asked) -> str:
    """MMed-RAG's words; its reports are always numbered."""
    count, picture = len(asked.references), _picture(asked.template)
    listed, caution = _numbered(asked.references), CAUTION.format(many="reports")
    if asked.report:
        shown = f" and {count} reference report(s): {listed}\n" if count else ". "
        return (
            f"You are a professional {asked.template.role}. You are provided with {_article(picture)}{shown}"
            f"Please generate a report based on the image. {caution + ' ' if count else ''}"
            "Please only include the content of the report in your response."
        )
    if not count:
        return f"{asked.question} Please answer the question based on the image{_choice(asked)}."
    return (
        f"You are provided with a {_chest(picture)}, a image-related question and {count} reference report(s): "
        f"{listed}\nPlease answer the question based on the image and report{_choice(asked)}. {caution} "
        f"Question: {asked.question}"
    )


def _rule(asked: _Asked) -> str:
    """RULE's words; one report stands without a number."""
    count, picture = len(asked.references), _chest(_picture(asked.template))
    one, many = ("summary", "summaries") if "fundus" in picture else ("report", "reports")
    if not count:
        if asked.report:
            return "Please generate a report based on the input medical image."
        return f"{asked.question} Please answer the question based on the image{_choice(asked)}."
    listed = asked.references[0] if count == 1 else _numbered(asked.references)
    shown = f"You are provided with a {picture}, a image-related question and {count} reference {one}(s): {listed}\n"
    caution = CAUTION.format(many=many)
    if asked.report:
        return f"{shown}Please generate a {one} based on the {picture} and the reference {many}. {caution}"
    source = "report" if one == "report" else f"the reference {many}"
    return (
        f"{shown}Please answer the question based on the image and {source}{_choice(asked)}. {caution} "
        f"Question: {asked.question}"
    )


def _plain(asked: _Asked) -> str:
    """A short line, for small models; in Chinese above a Chinese question, where the template follows the language."""
    listed = _numbered([" ".join(text.split()) for text in asked.references]).rstrip()
    chinese = asked.template.language == "auto" and HAN.search(asked.question)
    return f"{'相似图像的报告：' if chinese else 'Reports of similar images: '}{listed}\n{asked.question}"


def _numbered(references: Sequence[str]) -> str:
    """Each report with its number in front and a blank behind, as both originals have it."""
    return "".join(f"{i}. {text.strip()} " for i, text in enumerate(references, start=1))


def _choice(asked: _Asked) -> str:
    """The two options, where there are two: the originals offer them for open questions as well."""
    return CHOICE if asked.closed else ""


def _picture(template: Template) -> str:
    """`X-ray` -> `X-ray image`; what ends with the word stays."""
    return template.image if template.image.endswith("image") else f"{template.image} image"


def _chest(picture: str) -> str:
    """Questions call an X-ray image that of a chest."""
    return f"chest {picture}" if picture == "X-ray image" else picture


def _article(picture: str) -> str:
    """`an X-ray image`, `a fundus image`."""
    return f"{'an' if picture[:1].lower() in 'aeio' or picture.startswith('X-') else 'a'} {picture}"


# The words, and whether images stand behind them (None: where the question has them).
WORDINGS: dict[str, tuple[Callable[[_Asked], str], bool | None]] = {
    "mmed_rag": (_mmed_rag, False),
    "rule": (_rule, True),
    "plain": (_plain, None),
}
