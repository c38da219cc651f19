"""Which words of a report are observations: headings part it, and only findings and conclusions are read."""

from __future__ import annotations

import re
from itertools import zip_longest

from .wording import COMPARISON, KEPT_SECTIONS, NOT_PRIOR, OTHER_SECTIONS, PRIOR

_HEADING = re.compile(
    rf"(?:^|(?<=[\n.;])|(?<=  ))\s*({'|'.join(sorted((*KEPT_SECTIONS, *OTHER_SECTIONS), key=len, reverse=True))})"
    r"\s*:",
    re.IGNORECASE,
)
_NONE = re.compile(r"^\W*(?:none|no|not|n/a|unavailable)\b|^\W*$", re.IGNORECASE)


def sections(text: str) -> list[tuple[str, str]]:
    """(heading in lower case, words) in order; what stands before the first heading has the heading ""."""
    marks = list(_HEADING.finditer(text))
    parts = [("", text[: marks[0].start() if marks else len(text)])]
    for mark, following in zip_longest(marks, marks[1:]):
        parts.append(
            (mark.group(1).lower(), text[mark.end() : following.start() if following else len(text)])
        )
    return [(name, words.strip()) for name, words in parts if words.strip()]


def observations(text: str) -> str:
    """The words under findings, impression and the like; all of them where there are no headings.

    What stands before the first heading is read only where no heading names findings or a conclusion.
    """
    parts = sections(text)
    kept = [words for name, words in parts if name in KEPT_SECTIONS]
    return "\n".join(kept or [words for name, words in parts if not name])


def compares(text: str) -> bool:
    """Whether a section of its own names an earlier study."""
    return any(name in COMPARISON and not _NONE.match(words) for name, words in sections(text))


def speaks_of_prior(text: str) -> bool:
    """Whether a sentence, or a question, speaks of an earlier study."""
    plain = re.sub(NOT_PRIOR, " ", text.lower())
    return any(re.search(pattern, plain) for pattern in PRIOR)
