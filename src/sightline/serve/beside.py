"""What a server may hold beside its model: another model to compare with, and reports of similar images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RecipeError
from ..settings import Template
from .backend import Backend
from .reports import Finder
from .sure import Held


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model that a server answers with.

    Args:
        backend: whoever answers.
        held: its threshold of confidence, if there is one.
        template: how reports stood in the prompts that it was taught with; None if none did.
    """

    backend: Backend
    held: Held | None = None
    template: Template | None = None

    @property
    def name(self) -> str:
        """Under which it is asked."""
        return self.backend.identity.name


@dataclass(frozen=True, kw_only=True)
class Beside:
    """What stands beside a server's model.

    Args:
        before: another model that is asked by its own name, such as the same one before it was aligned.
        finder: where similar reports are found.
        template: how reports stood in the prompts that the server's own model was taught with; None if none did.
    """

    before: Model | None = None
    finder: Finder | None = None
    template: Template | None = None

    def models(self, backend: Backend, held: Held | None) -> dict[str, Model]:
        """All models of a server by name, its own first.

        Raises:
            RecipeError: both have one name.
        """
        own = Model(backend=backend, held=held, template=self.template)
        if self.before is None:
            return {own.name: own}
        if self.before.name == own.name:
            raise RecipeError(
                "both models have one name",
                where="--before",
                found=own.name,
                expected="another stage's model",
            )
        return {own.name: own, self.before.name: self.before}

    def told(self) -> Mapping[str, Any]:
        """What the page must know of it."""
        identity = self.before.backend.identity if self.before else None
        before = {"model": identity.name, "model_sha256": identity.sha256 or "unknown"} if identity else None
        return {
            "before": before,
            "reports": None if self.finder is None else {"read": self.template is not None},
        }
