"""AMBER: descriptions of 1,004 images and 14,216 yes/no questions about them (Wang et al. 2023, arXiv:2311.07397).

Reads the layout of github.com/junyangwang0410/AMBER: `annotations.json` and the query files, in the root, in `data/` or
in `query/`, and the images `AMBER_1.jpg` to `AMBER_1004.jpg`. A query is one sample, all of them test data:

    amber-00001   user <image> Describe this image.    assistant Objects: sky, lake. Absent: sun.   (topic generative)
    amber-01005   user <image> Is the sky sunny ...?   assistant Yes   (topic discriminative-attribute-state)

Patients are not given: the image stands in, so that intervals resample images. The metric `amber` scores the answers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from ...errors import DataError
from ...metrics.objects.lists import GENERATIVE, Annotation, name, queries, read_annotations
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, describe, json_records, stand_in


def amber(
    source: Source,
    *,
    images: str = "image",
    tasks: Literal["all", "generative", "discriminative"] = "all",
    instruction: str = "",
) -> Iterator[Read]:
    """One sample a query.

    Args:
        source: its root holds the annotations, the queries and the images.
        images: folder of the images, below the root.
        tasks: `generative` (descriptions), `discriminative` (yes/no questions) or all.
        instruction: put behind every yes/no question, e.g. ` Answer with Yes or No.`: the metric's mode `exact` takes
            nothing else for an answer.

    Yields:
        `(sample, "test", "file:line")`; topics are AMBER's type strings, and so is the attribute `type`.

    Raises:
        DataError: no annotations or no query file.
    """
    root = source.folder()
    known, files = read_annotations(str(root)), queries(str(root))
    if not files:
        raise DataError(
            "no query files of AMBER in the data root", where="data root",
            expected="query_all.json, or query_generative.json and query_discriminative.json",
            remedy="set `root` to the folder that holds annotations.json and the queries",
        )  # fmt: skip
    for path in files:
        for line, row in json_records(path, source):
            try:
                sample = _sample(row, known, tasks, images, instruction)
            except DataError as error:
                source.reject_error(path.name, line, str(row.get("id", "")), error)
                continue
            if sample is not None:
                yield sample, "test", f"{path.name}:{line}"


def _sample(
    row: dict[str, Any], known: dict[int, Annotation], tasks: str, images: str, instruction: str
) -> Sample | None:
    """One query, or None where it is of another task."""
    number, image, question = row.get("id"), row.get("image"), row.get("query")
    if not isinstance(number, int) or number not in known:
        raise RecordError(
            "no annotation has this id", field="id", found=describe(number), remedy="fetch both files again"
        )
    if not isinstance(image, str) or not image.strip():
        raise RecordError("the query names no image", field="image", found=describe(image))
    if not isinstance(question, str) or not question.strip():
        raise RecordError("the query is empty or no text", field="query", found=describe(question))
    right = known[number]
    describes = right.kind == GENERATIVE
    if tasks != "all" and describes != (tasks == GENERATIVE):
        return None
    path = (Path(images) / image.strip()).as_posix()
    asked = question.strip() + ("" if describes else instruction)
    return Sample(
        id=name(number),
        patient=stand_in(path),
        images=(ImageRef(path=path),),
        messages=(
            Message(role="user", parts=(0, asked)),
            Message(role="assistant", parts=(right.answer,), topic=right.kind),
        ),
        attributes={"type": right.kind},
    )


READER = Reader(read=amber, official="all of AMBER is test data")
