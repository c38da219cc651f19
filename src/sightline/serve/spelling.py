"""Tokens to text as they come: whole characters only, and in sum exactly the text of the whole answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TORN = "\ufffd"


class Spelling:
    """The text of an answer, told as it grows.

    A character may be spelt by several tokens, and some vocabularies write a blank only between two words. So each new
    text is read from a little before it; what is still torn, and blanks that may be the last, are kept back.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.ids: list[int] = []
        self.before = self.told = 0  # ids that are read again, and ids whose text is known
        self.blank = ""
        self.begun = False

    def add(self, token: int) -> str:
        """The text that this token completes; often none."""
        self.ids.append(token)
        known = self._text(self.ids[self.before : self.told])
        whole = self._text(self.ids[self.before :])
        if whole.endswith(TORN) or len(whole) <= len(known):
            return ""
        self.before, self.told = self.told, len(self.ids)
        return self._trimmed(whole[len(known) :])

    def rest(self) -> str:
        """What was kept back, at the end; a character that was never finished stays torn."""
        known = self._text(self.ids[self.before : self.told])
        whole = self._text(self.ids[self.before :])
        self.before = self.told = len(self.ids)
        return self._trimmed(whole[len(known) :])

    def _trimmed(self, text: str) -> str:
        """The text without blanks at the answer's beginning, and with those that no longer stand at its end."""
        text = self.blank + text if self.begun else text.lstrip()
        kept = text.rstrip()
        self.begun = self.begun or bool(kept)
        self.blank = text[len(kept) :] if self.begun else ""
        return kept

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))
