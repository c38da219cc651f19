"""`sightline data`: look at a data set, prepared or raw, before anything is trained on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import DataError
from .stats import stats

if TYPE_CHECKING:
    from ..data.prepare import Prepared
    from ..types import Preference, Sample

LAYOUTS = ("chat_jsonl",)

app = typer.Typer(help="Look at a data set.", no_args_is_help=True, rich_markup_mode=None)
app.command()(stats)


@app.command()
def audit(
    folder: Annotated[Path, typer.Argument(help="a prepared data set, or raw files with --reader")],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the reader")
    ] = None,
    reader: Annotated[str | None, typer.Option(help="how raw files are laid out")] = None,
    near: Annotated[
        bool, typer.Option("--near/--no-near", help="look for near duplicates, too: decodes every image once")
    ] = True,
    images_alike: Annotated[float, typer.Option(min=0.01, max=1, help="from which similarity on")] = 0.88,
    texts_alike: Annotated[float, typer.Option(min=0.01, max=1, help="from which similarity on")] = 0.8,
    as_json: Annotated[
        bool, typer.Option("--json", help="print JSON and nothing else on standard output")
    ] = False,
) -> None:
    """Say which images, patients and texts stand in more than one split, equal or nearly so, and what was set aside."""
    from .auditing import audited, shown

    wish = (images_alike, texts_alike) if near else None
    found = audited(folder, reader, options or [], wish)
    print(shown(found, as_json=as_json, raw=reader is not None))


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="a prepared data set, such as runs/quickstart/data")],
    which: Annotated[
        str, typer.Argument(metavar="ID|INDEX", help="a record's id, or its place from 0")
    ] = "0",
    split: Annotated[str, typer.Option(help="which split")] = "train",
    tokens: Annotated[
        bool, typer.Option("--tokens", help="as the model reads it; what is learned is green")
    ] = False,
    model: Annotated[str, typer.Option(help="whose tokens: `kit`, or a trained stage's folder")] = "kit",
) -> None:
    """Show one record as text, or as the tokens that a model is trained on."""
    from ..data import prepare as prepared

    data = prepared.load(folder)
    record = find(data, split, which)
    print(painted(record, model, data) if tokens else text_of(record))


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="a prepared data set, such as runs/quickstart/data")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="the file to write")],
    to: Annotated[str, typer.Option("--to", help=f"its layout: {', '.join(LAYOUTS)}")] = LAYOUTS[0],
    split: Annotated[list[str] | None, typer.Option(help="a split to write; all if none is named")] = None,
    images: Annotated[bool, typer.Option("--images", help="copy the images beside the file")] = False,
) -> None:
    """Write a prepared data set as one file, for other programs; the reader of that name reads it back."""
    from ..data import chat_lines
    from ..data import prepare as prepared
    from ..images.files import ROOTS

    if to not in LAYOUTS:
        raise DataError(f"no layout '{to}'", found=repr(to), expected=", ".join(LAYOUTS))
    data = prepared.load(folder)
    count = chat_lines.write(data, out, split or ())
    print(f"{out}: {count} {data.kind}")
    if images:
        copied = chat_lines.copy_images(data, out.parent, split or ())
        print(f"{out.parent}: {copied} image(s) copied; paths start from here")
    else:
        print(f"image paths start from {data.root}; --images copies the images beside the file")
        if (data.root / ROOTS).is_file():
            print(f"the data set is a merged one: {ROOTS} there says where the files of each source are")


def find(data: Prepared, split: str, which: str) -> Sample | Preference:
    """A record by id or, failing that, by its place.

    Raises:
        DataError: neither fits.
    """
    records = data.records(split)
    for record in records:
        if record.id == which:
            return record
    if which.isdecimal() and int(which) < len(records):
        return records[int(which)]
    raise DataError(
        f"no record '{which}' in the split '{split}'",
        expected=f"an id, or a place from 0 to {len(records) - 1}",
        remedy="--split names another split: " + ", ".join(data.counts),
    )


def text_of(record: Sample | Preference) -> str:
    """A record as lines: who, which images, the turns, and the reports that were retrieved for it."""
    from ..types import Sample

    lines = [f"{record.id}  patient {record.patient}"]
    lines += [f"  image {i}: {ref.path} ({ref.kind}, {ref.when})" for i, ref in enumerate(record.images)]
    turns = record.messages if isinstance(record, Sample) else record.prompt
    for turn in turns:
        said = "".join(f"<image {p}>" if isinstance(p, int) else p for p in turn.parts)
        lines.append(f"  {turn.role:<10}{said}" + (f"   [{turn.topic}]" if turn.topic else ""))
    if isinstance(record, Sample):
        lines += [f"  reference {i}: {text}" for i, text in enumerate(record.references, start=1)]
        lines += [f"  {name} = {value}" for name, value in record.attributes.items()]
    else:
        lines += [
            f"  {'chosen':<10}{record.chosen}",
            f"  {'rejected':<10}{record.rejected}",
            f"  why: {record.why}",
        ]
        lines += [f"  chosen sees {record.chosen_images}"] if record.chosen_images else []
        lines += [f"  rejected sees {record.rejected_images}"] if record.rejected_images else []
    return "\n".join(lines)


def painted(record: Sample | Preference, model: str, data: Prepared) -> str:
    """A record of a data set as the tokens of a model, learned ones in green, with retrieved reports. Needs torch."""
    from ..data.chat import Chat, paint
    from ..models import checkpoint
    from ..models.features import gridder
    from ..settings import Model
    from ..stages.answers import aided
    from ..types import Message, Sample

    if model == "kit":
        bundle = checkpoint.compose(Model().model_dump(), 0)
    else:
        bundle = checkpoint.load(checkpoint.folder_of(Path(model)))
    chat, grid = Chat.of(bundle), gridder(bundle, data.root)
    grids = [grid(ref) for ref in record.images]
    if isinstance(record, Sample):
        return paint(chat.encode(aided(data)(record).messages, grids), chat.tokenizer, chat.image_token)
    sides = []
    for label, answer in (("chosen", record.chosen), ("rejected", record.rejected)):
        encoded = chat.encode([*record.prompt, Message(role="assistant", parts=(answer,))], grids)
        sides.append(f"{label}:\n{paint(chat.last_only(encoded), chat.tokenizer, chat.image_token)}")
    return "\n".join(sides)
