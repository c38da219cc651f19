"""The command line: one verb per function, heavy imports inside the verbs, errors as one block.

Exit codes: 0 done, 1 an error that the message explains, 2 wrong usage, 75 interrupted: the same command
resumes.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer

from .. import NOTICE, __version__
from ..errors import Interrupted, SightlineError
from . import data
from .ask import ask
from .convert import convert
from .diff import diff
from .export import export
from .new import new
from .reading import ratings, report
from .serve import serve
from .verify import verify

app = typer.Typer(
    help=f"Medical vision-language models, from images to an aligned, measured model.\n\n{NOTICE}",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data.app, name="data")
app.command()(ask)
app.command()(convert)
app.command()(ratings)
app.command()(report)
app.command()(new)
app.command()(diff)
app.command()(export)
app.command()(verify)
app.command()(serve)

Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[STAGE.KEY=VALUE]...", help="changes to the recipe")
]
Runs = Annotated[Path, typer.Option("--runs", metavar="DIR", help="folder of all runs")]
Json = Annotated[bool, typer.Option("--json", help="print JSON and nothing else on standard output")]


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    trace = "--trace" in sys.argv
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGINT, _interrupt)
    try:
        app([word for word in sys.argv[1:] if word != "--trace"], prog_name="sightline")
    except SightlineError as error:
        if trace:
            raise
        _end(error)
    except OSError as error:
        if trace:
            raise
        named = "" if error.filename is None else str(error.filename)
        _end(
            SightlineError(
                error.strerror or str(error), where=named, remedy="--trace shows where it happened"
            )
        )
    sys.exit(0)


def _end(error: SightlineError) -> NoReturn:
    sys.stdout.flush()
    print(error.block(), file=sys.stderr)
    sys.exit(error.exit_code)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    """Outside training there is no step to finish: stop here; training listens for itself."""
    del frame
    raise Interrupted(
        f"stopped by {signal.Signals(number).name}; what was finished is kept",
        remedy="give the same command again to go on",
    )


def _version(asked: bool) -> None:
    if asked:
        print(f"sightline {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    trace: Annotated[
        bool, typer.Option("--trace", help="show the traceback of an error; works with every command")
    ] = False,
) -> None:
    """Options before a command; `main` has taken `--trace` off the words already."""
    del version, trace


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="the recipe's YAML file")],
    overrides: Overrides = None,
    only: Annotated[str, typer.Option(metavar="A,B", help="run these stages only")] = "",
    runs: Runs = Path("runs"),
    processes: Annotated[int, typer.Option(min=1, help="so many processes train together")] = 1,
    shard: Annotated[
        str,
        typer.Option(metavar="ddp|fsdp2|zero2|zero3", help="how they divide the model; ddp where not said"),
    ] = "",
) -> None:
    """Run a recipe's stages that are not up to date; an interrupted stage goes on where it stopped."""
    from .. import recipe as recipes
    from ..stages import execute, torchrun
    from ..stages.launch import Spread

    outer = torchrun.called()
    if outer is not None and outer.rank:
        return  # the first one starts all that train
    if outer is not None:
        torchrun.forget()
        processes, shard = outer.count, shard or outer.shard
    checked = recipes.load(recipe, overrides or [])
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    spread = Spread(processes, shard or "ddp") if processes > 1 else None
    folders = execute(checked, runs, only=wanted, spread=spread)
    for name, section in checked.stages.items():
        page = folders[name] / "report.html"
        if section.stage == "evaluate" and page.is_file():
            print(f"report: {page}")
    print(NOTICE)


@app.command()
def check(
    recipe: Annotated[Path, typer.Argument(help="the recipe's YAML file")],
    overrides: Overrides = None,
    runs: Runs = Path("runs"),
) -> None:
    """Check a recipe, and say what `run` would do and need. Nothing is run; torch is not needed."""
    from .. import recipe as recipes
    from .plan import needs, plan

    checked = recipes.load(recipe, overrides or [])
    print(f"{recipe}: {checked.name}, {len(checked.stages)} stage(s), no fault found")
    for step in plan(checked, runs):
        print(step.text())
    for line in needs(checked, runs):
        print(line)


@app.command("ls")
def ls() -> None:
    """List the recipes in ./recipes and every plug-in by kind, without importing any."""
    from .listing import plugins_by_kind, recipes

    for path, about in recipes(Path("recipes")):
        print(f"{path!s:<36}{about}")
    for kind, names in plugins_by_kind().items():
        print(f"{kind:<12}{', '.join(names) or '(none)'}")


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="a stage's folder, or a recipe's, such as runs/quickstart")],
    as_json: Json = False,
    paired: Annotated[bool, typer.Option("--paired", help="comparisons instead of scores")] = False,
    how: Annotated[
        bool, typer.Option("--how", help="what made the numbers: decoding, data, models, metrics, versions")
    ] = False,
) -> None:
    """Show a result: the scores of an evaluation, the facts of another stage, or the stages of a recipe."""
    from .listing import shown

    print(shown(run, as_json=as_json, paired=paired, made_by=how))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="a trained stage's folder, such as runs/quickstart/taught")],
    data: Annotated[str, typer.Argument(help="folder of the raw files; '-' for a reader that generates")],
    reader: Annotated[str, typer.Option(help="how the files are laid out; `sightline ls` lists readers")],
    reader_options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the reader")
    ] = None,
    as_json: Json = False,
    runs: Runs = Path("runs"),
    limit: Annotated[int | None, typer.Option(min=1, help="at most so many samples")] = None,
    backend: Annotated[
        str,
        typer.Option(
            metavar="auto|transformers|onnx|URL", help="who answers; MODEL is then its name at that address"
        ),
    ] = "auto",
) -> None:
    """Measure a saved model on other data: all of it is test data, none is trained on."""
    from .listing import shown
    from .measure import measure

    folder = measure(model, data, reader, reader_options or [], runs=runs, limit=limit, backend=backend)
    print(shown(folder, as_json=as_json, paired=False))
    page = folder / "report.html"
    if page.is_file():
        print(f"report: {page}\n{NOTICE}", file=sys.stderr)


@app.command()
def score(
    metric: Annotated[str, typer.Argument(help="a metric's name; `sightline ls` lists metrics")],
    answers: Annotated[
        Path, typer.Argument(help="predictions (.jsonl), or a file in the metric's own layout (amber: .json)")
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="options of the metric")
    ] = None,
    as_json: Json = False,
    seed: Annotated[int, typer.Option(help="decides the resamples of the intervals")] = 0,
    resamples: Annotated[int, typer.Option(min=100, help="how many")] = 1000,
) -> None:
    """Score a file of answers by any metric, with intervals over patients; no model is needed."""
    from . import scoring

    found = scoring.score(metric, answers, options or [], seed=seed, resamples=resamples)
    print(scoring.shown(found, as_json=as_json))


@app.command()
def doctor() -> None:
    """Say what this machine offers and what is missing; ends with 1 where something needed is missing."""
    from .machine import findings

    healthy = True
    for mark, line in findings():
        healthy &= mark != "missing"
        print(f"{mark:<8}{line}")
    raise typer.Exit(0 if healthy else 1)
