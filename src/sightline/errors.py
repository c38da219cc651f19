"""The errors a user meets. Each says where, what was found, what was expected, and how to mend it."""

from __future__ import annotations


class SightlineError(Exception):
    """A mistake that a user can mend; the command line prints it as one block, without a traceback.

    Args:
        what: one sentence in plain words.
        where: file, line, record id and field, as far as they are known.
        found: the value that was met.
        expected: what would have been right.
        remedy: what to do now.
    """

    code = "error"
    exit_code = 1

    def __init__(
        self, what: str, *, where: str = "", found: str = "", expected: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.found = found
        self.expected = expected
        self.remedy = remedy

    def block(self) -> str:
        """The error as lines: what happened, then one labelled line for each thing that is known."""
        lines = [f"{self.code}: {self.what}"]
        for label in ("where", "found", "expected", "remedy"):
            text = getattr(self, label)
            if text:
                lines.append(f"  {label + ':':<10}{text}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.block()


class RecipeError(SightlineError):
    """A recipe or an override says something that cannot be done."""

    code = "recipe"


class DataError(SightlineError):
    """A record cannot be used. Readers collect these; strict mode raises the first."""

    code = "data"


class ImageError(DataError):
    """An image file cannot be used."""

    code = "image"


class ModelError(SightlineError):
    """A model is not what was asked for: missing keys, wrong parts, unknown family."""

    code = "model"


class RunError(SightlineError):
    """A run folder is locked, damaged or not what its manifest says."""

    code = "run"


class MissingExtra(SightlineError):
    """An optional package is absent."""

    code = "missing"

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"the package '{package}' is not installed", remedy=f"pip install 'sightline[{extra}]'"
        )


class NonFinite(SightlineError):
    """A loss or gradient became NaN or infinite; the message names the records of the step."""

    code = "non-finite"


class Interrupted(SightlineError):
    """A signal asked the run to stop; what was done is saved and the same command resumes it."""

    code = "interrupted"
    exit_code = 75
