"""Names and meanings of metrics and images, in words for readers who did not write the recipe."""

from __future__ import annotations

from .markup import Html, el, words
from .page import Page

LABELS = {
    "balanced_accuracy": "Balanced accuracy",
    "vqa_f1": "VQA F1",
    "finding_f1": "Finding F1",
    "auc": "AUC",
    "accuracy": "Accuracy",
    "exact_match": "Exact match",
    "token_f1": "Token F1",
    "margin": "Margin",
    "bleu": "BLEU",
    "bleu_1": "BLEU-1",
    "bleu_2": "BLEU-2",
    "bleu_3": "BLEU-3",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "ece": "ECE",
    "ece_width": "ECE, equal widths",
    "brier": "Brier score",
    "aurc": "AURC",
    "aurc_open": "AURC, open answers",
    "over_reliance": "Over-reliance",
    "copy_reference": "Copy-reference",
    "harm": "Harm by reports",
    "help": "Help by reports",
    "amber_chair": "AMBER CHAIR",
    "amber_cover": "AMBER Cover",
    "amber_hal": "AMBER Hal",
    "amber_cog": "AMBER Cog",
    "amber_accuracy": "AMBER accuracy",
    "amber_precision": "AMBER precision",
    "amber_recall": "AMBER recall",
    "amber_f1": "AMBER F1",
    "amber_unparsed": "AMBER unparsed",
    "amber_score": "AMBER score",
    "looks_at_finding": "Looks at the finding",
    "open_f1": "Open F1",
    "grade_macro_f1": "Grade, macro F1",
    "diagnosis_macro_f1": "Diagnosis, macro F1",
    "grade_kappa": "Grade, weighted kappa",
    "image_text_similarity": "Image-text similarity",
}
UNITS = {"margin": "nats", "looks_at_finding": "nats"}
CHANCE = {"balanced_accuracy": 0.5, "auc": 0.5, "margin": 0.0}
MEANINGS = {
    "balanced_accuracy": "Mean of the share of present findings answered right and the share of absent ones "
    "answered right, over findings. 0.50 is chance, whatever the prevalence. An answer that is neither yes "
    "nor no counts as wrong.",
    "accuracy": "Share of answers that are right. Read it beside the majority baseline: the score of always "
    "giving the commonest answer.",
    "auc": "Probability that a case with the finding gets a higher p(yes) than a case without it. "
    "0.50 is chance.",
    "margin": "Log-probability of the right answer minus that of the wrong one, in nats. 0 is undecided; "
    "larger means surer of the right answer.",
    "vqa_f1": "Harmonic mean of precision and recall of the answer yes, over findings.",
    "unparsed": "Share of answers to yes/no questions that say neither yes nor no. Lower is better.",
    "finding_f1": "F1 of the findings named in a report against those that are there.",
    "exact_match": "Share of answers equal to the right one after case, articles and punctuation "
    "are removed.",
    "token_f1": "Overlap of the words of an answer with those of the right one (F1).",
    "bleu": "Overlap of word sequences with the reference text, with a penalty for shortness.",
    "rouge_l": "Longest common word sequence with the reference text (F-measure).",
    "meteor": "Word alignment with the reference text that accepts stems and synonyms.",
    "ece": "Expected calibration error: how far confidence and accuracy are apart, over bins of equally many answers. "
    "Lower is better; with few answers it is above 0 even for a perfectly calibrated model.",
    "ece_width": "The same over bins of equal width.",
    "brier": "Mean squared distance of p(yes) from the truth, 0 or 1. Lower is better; 0.25 is always saying 0.5.",
    "aurc": "Error rate of the surest answers, averaged over how many of them are given. Lower is better; a confidence "
    "that says nothing has the error rate of all answers.",
    "aurc_open": "The same for open answers, ranked by the mean log-probability of their words.",
    "over_reliance": "Of the answers that are wrong with retrieved reports, the share that was right without them: "
    "errors that the reports caused. Lower is better.",
    "copy_reference": "Of the answers that are right with image and reports, the share that stays right when the "
    "image is replaced and the reports are kept. Lower is better: such answers do not need the image.",
    "harm": "Of the answers that are right without reports, the share that is wrong with them. Lower is better.",
    "amber_chair": "Percentage of the objects named in descriptions that are not there. Lower is better.",
    "amber_cover": "Percentage of the objects that are there that descriptions name.",
    "amber_hal": "Percentage of descriptions that name something that is not there. Lower is better.",
    "amber_cog": "How often descriptions make up what people expect, too, in percent. Lower is better.",
    "amber_f1": "F1 of the answer no to questions about objects, attributes and relations, in percent.",
    "amber_score": "The mean of 100 - CHAIR and F1.",
    "help": "Of the answers that are wrong without reports, the share that is right with them.",
    "looks_at_finding": "Log-probability of the right answer with a box elsewhere covered, minus that with the "
    "finding's box covered, in nats. Above 0 the finding itself is what is looked at.",
    "open_recall": "Share of the right answer's words that the answer holds, open questions.",
    "closed_accuracy": "Share of closed questions answered rightly, choices such as left or right among them.",
    "grade_kappa": "Agreement of grades beyond chance; an error counts by the square of how many grades it is off.",
    "image_text_similarity": "Cosine of image and answer, to the encoder that the recipe tuned.",
}
KINDS = {
    "clean": "the image itself",
    "unaided": "the image itself, without retrieved reports",
    "noise": "random noise",
    "black": "a black image",
    "swapped": "another patient's image",
}


def label(metric: str) -> str:
    """A metric's name as readers write it."""
    return LABELS.get(metric, words(metric).capitalize())


def inline(metric: str) -> str:
    """A metric's name within a sentence: words in lower case, abbreviations as they are."""
    first, _, rest = label(metric).partition(" ")
    return f"{first if first.isupper() else first.lower()} {rest}".rstrip()


def kind(image: str) -> str:
    """What a model saw, in words."""
    return KINDS.get(image, words(image))


def glossary(page: Page) -> Html:
    """Definitions of the metrics that the report shows."""
    known = [metric for metric in page.metrics if metric in MEANINGS]
    entries = [(el("dt", label(metric)), el("dd", MEANINGS[metric])) for metric in known]
    if not entries:
        return Html("")
    return el("details", el("summary", "What the metrics mean"), el("dl", entries, class_="glossary"))
