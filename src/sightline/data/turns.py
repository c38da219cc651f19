"""A conversation as what is asked and what is right."""

from __future__ import annotations

from ..types import Sample


def exchanges(sample: Sample) -> list[tuple[str, str, str]]:
    """(question, right answer, topic) of every assistant turn."""
    out, question = [], ""
    for message in sample.messages:
        if message.role == "user":
            question = message.text
        elif message.role == "assistant":
            out.append((question, message.text, message.topic))
    return out
