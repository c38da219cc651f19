"""Reads free text as an answer: yes, no or neither; and a normal form in which equal answers are equal.

The parser of MMed-RAG's data builder takes the text before the first full stop and calls it "no" if a token
there is `No`, `no` or `not`, else "yes" (github.com/richard-peng-xia/MMed-RAG, history at a61de2f); an empty
or unrelated answer therefore counts as "yes", and a model that says nothing scores well where most answers
are "yes". Here such answers are None, and None is never right.
"""

from __future__ import annotations

import re
import unicodedata

from . import chinese

_LEAD = re.compile(r"^(?:(?:(?:the|my|final|correct) )*answer(?: is)?\b|assistant:|response:)[\W_]*")
_BOTH = re.compile(r"^(?:yes\s*(?:/|\||,|or|and)\s*no|no\s*(?:/|\||or)\s*yes)\W*$|^(?:yes or no|yes/no)\b")
_YES = re.compile(r"^(?:yes|yeah|yep|yea|correct|affirmative|true|certainly|definitely|of course|no doubt)\b")
_NO = re.compile(r"^(?:no|nope|nah|incorrect|false|none|neither|negative)\b")
_LETTER = {"y": "yes", "n": "no"}
_UNSURE = re.compile(
    r"\b(?:(?:can ?not|can't|could not|couldn't|(?:unable|impossible|not possible|difficult|hard) to)\b"
    r".{0,40}\b(?:determin|tell|say|assess|answer|exclud|rul|evaluat|see\b|confirm|judg|conclu)"
    r"|(?:not|un)[ -]?(?:sure|certain|clear|known)\b|indeterminate|inconclusive|equivocal|unknown"
    r"|(?:do not|don't) know|not (?:been )?(?:excluded|ruled out|assessed|evaluated|determined)"
    r"|possibl[ey]|maybe|perhaps|not enough|insufficient|not applicable)"
)
_LATER_YES = re.compile(r"\byes\b")
_LATER_NO = re.compile(
    r"(?:\b(?:say|answer|answered|is|be|think|so|then)[,:]?\s+[\"']?no[\"']?\s*$)|(?:,\s*no\s*$)"
)
_CLAUSE = re.compile(r"[;,]|\b(?:but|however|although|though|except|with|whereas|while)\b")
_DENIES = re.compile(
    r"\b(?:no|not|without|none|neither|nor|never|absent|absence of|negative for|free of|lacks?|resolved|"
    r"removed)\b|n't\b"
)
_DOUBLE = re.compile(r"\bnot (?:only|absent|free of|without)\b|\bno doubt\b")
_AFFIRMS = re.compile(
    r"\b(?:there(?: is| are| was| were|'s| appears? to be| seems? to be)|present|seen|visible|visuali[sz]ed|"
    r"identified|detected|noted|evident|evidence of|positive for|shows?|demonstrates?|reveals?)\b"
)
_ASKS_OPEN = re.compile(r"^\W*(?:what|what's|where|which|how|who|whose|when|why|describe|list|name)\b")
_IMAGE_MARK = re.compile(r"<image>", re.IGNORECASE)

_ARTICLES = {"a", "an", "the"}
_NUMBERS = dict(
    zip(
        (
            *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
            *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
            *("nineteen", "twenty"),
        ),
        map(str, range(21)),
        strict=True,
    )
)
_APOSTROPHES = re.compile("['’`]")
_PUNCTUATION = re.compile(r"[^\w.]|_|(?<!\d)\.|\.(?!\d)")


def yes_no(text: str) -> str | None:
    """The answer to a yes/no question that a text gives, or None where it gives none.

    The first explicit word wins ("Yes, no effusion on the right" is yes). Without one, the first
    clause is read as a statement: a negation makes it no, "there is" and "is seen" make it yes, doubt
    makes it None, and anything else ("Lungs") is None, because guessing would reward silence.

    Chinese texts are read by `chinese.yes_no`, unless they begin with an English answer.

    Returns:
        "yes", "no" or None.
    """
    whole = _plain(text)
    if whole in _LETTER:
        return _LETTER[whole]
    if _BOTH.match(whole):
        return None
    if _YES.match(whole):
        return "yes"
    if _starts_unsure(whole):
        return None
    if _NO.match(whole):
        return "no"
    if chinese.HAN.search(whole):
        return chinese.yes_no(whole)
    return _statement(re.split(r"[.!?\n]", whole, maxsplit=1)[0])


def _plain(text: str) -> str:
    """Lower case, single spaces, no bullets, and no lead-in such as "The answer is"."""
    text = unicodedata.normalize("NFKC", text).lower().replace("’", "'").replace("*", "")
    text = re.sub(r"[ \t]+", " ", text).lstrip("-–•#>[(\"' \n")
    return _LEAD.sub("", text).strip().rstrip(" .!")


def _starts_unsure(text: str) -> bool:
    """Whether the first clause of the first sentence expresses doubt."""
    sentence = re.split(r"[.!?\n]", text, maxsplit=1)[0]
    return bool(_UNSURE.search(_CLAUSE.split(sentence, maxsplit=1)[0]))


def _statement(sentence: str) -> str | None:
    """The polarity of a statement that does not begin with yes or no."""
    if _LATER_YES.search(sentence):
        return None if re.search(r"\byes\s*(?:/|or)\s*no\b|\bneither\b", sentence) else "yes"
    if _LATER_NO.search(sentence):
        return "no"
    clause = _CLAUSE.split(sentence, maxsplit=1)[0]
    if _DOUBLE.search(clause):
        return "yes"
    if _DENIES.search(clause):
        return "no"
    return "yes" if _AFFIRMS.search(clause) else None


def closed(question: str, answer: str) -> str | None:
    """The right answer of a yes/no question, or None where the question is open.

    "What abnormality is seen?" answered by "No acute abnormality." is open although its answer begins with
    "no"; a plain "Yes" or "No" makes any question closed (VQA-RAD has such pairs).
    """
    said, plain = yes_no(answer), normalise(answer)
    if said is None or plain in ("yes", "no") or chinese.is_word(plain):
        return said
    asked = unicodedata.normalize("NFKC", _IMAGE_MARK.sub(" ", question)).strip().lower()
    if chinese.HAN.search(asked):
        return said if chinese.closes(asked, plain) else None
    return None if _ASKS_OPEN.match(asked) else said


def normalise(text: str) -> str:
    """The form in which answers are compared: lower case, no punctuation or articles, numbers as digits.

    Decimal points stay. An answer made of articles only (the option letter "A") keeps them. Blanks between Chinese
    characters go. Applying it twice changes nothing. After the answer processing of the VQA evaluation (Antol et al.
    2015, visualqa.org).
    """
    text = _APOSTROPHES.sub("", unicodedata.normalize("NFKC", text).lower())
    words = _PUNCTUATION.sub(" ", text).split()
    kept = [word for word in words if word not in _ARTICLES] or words
    return chinese.close(" ".join(_NUMBERS.get(word, word) for word in kept))


def tokens(text: str) -> list[str]:
    """The words of a text's normal form; every Chinese character is one."""
    return chinese.spread(normalise(text)).split()


def overlap(text: str, reference: str) -> float:
    """F1 of the bags of normalised tokens (SQuAD, Rajpurkar et al. 2016), 0-1; two empty texts give 1."""
    said, right = tokens(text), tokens(reference)
    if not said or not right:
        return float(said == right)
    common = sum(min(said.count(word), right.count(word)) for word in set(said))
    return 2 * common / (len(said) + len(right))
