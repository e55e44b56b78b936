"""The command line. Importing this module loads no model library: each command loads what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from modicum.base.errors import ModicumError
from modicum.cli import console

app = typer.Typer(
    name="modicum",
    help="Text classification where labels are few and hardware is small.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON lines for programs instead of text for people.")]
Text = Annotated[str | None, typer.Option("--text", help="Column of the text; guessed where not given.")]
Label = Annotated[str | None, typer.Option("--label", help="Column of the label; guessed where not given.")]
Pair = Annotated[str | None, typer.Option("--pair", help="Column of the second text, for pairs.")]
Id = Annotated[str | None, typer.Option("--id", help="Column of the examples' own ids.")]
Skip = Annotated[bool, typer.Option("--skip-bad-rows", help="Leave out rows that cannot be used, and say how many.")]
Classes = Annotated[str | None, typer.Option(help="Names with commas between; the labels' own if absent.")]
ClassesFile = Annotated[Path | None, typer.Option(help="A file with a class on each line.")]
Options = Annotated[
    list[str] | None, typer.Option("--set", help="An option of the method or strategy, such as rank=4; repeatable.")
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16: of the frozen weights.")]


Labelled = Annotated[str, typer.Argument(help="csv, tsv, jsonl or parquet with texts and labels; or helpdesk.")]
StudyOut = Annotated[Path, typer.Option("--out", help="Where results and report go; unfinished work is resumed.")]
Methods = Annotated[str, typer.Option("--methods", help="Names with commas between; see: modicum methods.")]
Shares = Annotated[str, typer.Option("--shares", help="Shares of the labels to train on, rising, such as 0.1,0.5,1.")]
Seeds = Annotated[int, typer.Option("--seeds", help="Runs of each method.")]
Test = Annotated[
    str | None, typer.Option("--test", help="Labelled data to test on; without, some labels are held out.")
]
LabelsAt = Annotated[int | None, typer.Option("--labels-at", help="Use only so many of the labels, drawn at random.")]
Epochs = Annotated[int | None, typer.Option("--epochs", help="Passes over the labels.")]
BackboneName = Annotated[str, typer.Option("--backbone", help="minilm, a folder, or a name on the Hugging Face hub.")]
MaxLength = Annotated[int, typer.Option("--max-length", help="Texts are cut to so many tokens.")]


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where results and report go.")] = Path("modicum-demo"),
    json: Json = False,
) -> None:
    """Run a small active-learning study on the helpdesk messages that come with Modicum."""
    from modicum.cli.studies import QUICKSTART, run

    run(QUICKSTART, out, json)


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="The study's TOML file.")],
    out: Annotated[Path, typer.Option(help="Where results and report go; an unfinished study in it is resumed.")],
    data_dir: Annotated[Path | None, typer.Option(help="Folder of the study's data, in place of its file's.")] = None,
    profile: Annotated[str | None, typer.Option(help="A [profiles.NAME] section of the file.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the work and the threads.")] = 1,
    json: Json = False,
) -> None:
    """Run a study, or go on with one that was stopped."""
    from modicum.cli.studies import run

    run(file, out, json, data_dir, profile, workers)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A study's folder, finished or not.")]) -> None:
    """Write the report of a study again."""
    from modicum.cli.studies import write

    write(folder)


def _question(name: str, default_shares: str, default_seeds: int, doc: str) -> None:
    """A command that runs a study on one file of labels."""

    def command(
        data: Labelled,
        out: StudyOut,
        methods: Methods = "lora,full",
        shares: Shares = default_shares,
        seeds: Seeds = default_seeds,
        test: Test = None,
        text: Text = None,
        label: Label = None,
        pair: Pair = None,
        id: Id = None,
        epochs: Epochs = None,
        backbone: BackboneName = "minilm",
        max_length: MaxLength = 256,
        skip_bad_rows: Skip = False,
        json: Json = False,
    ) -> None:
        from modicum.cli import analyses

        settings = {"methods": methods, "shares": shares, "seeds": seeds, "test": test, "text": text, "label": label}
        settings |= {"pair": pair, "id": id, "epochs": epochs, "backbone": backbone, "max_length": max_length}
        getattr(analyses, name)(data, out, settings | {"skip_bad_rows": skip_bad_rows}, json)

    app.command(name, help=doc)(command)


_question("dynamics", "1", 3, "Show which examples are learned late, forgotten, or never learned in training.")
_question("cka", "0.1,0.3,1", 5, "Show how far tuning moves each layer from the pretrained model (CKA).")
_question("shares", "0.1,0.3,0.5,0.7,1", 5, "Compare methods on growing shares of the labels.")


@app.command()
def fit(
    data: Labelled,
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="See: modicum methods; auto chooses by your labels. [default: auto; lora where --epochs, --objective,"
            " --tapt or --set are given]"
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(help="The most that auto may take, but for one training, which it always does.")
    ] = None,
    backbone: BackboneName = "minilm",
    text: Text = None,
    label: Label = None,
    pair: Pair = None,
    id: Id = None,
    labels_at: LabelsAt = None,
    test: Annotated[str | None, typer.Option(help="Labelled data to report quality on.")] = None,
    epochs: Epochs = None,
    tapt: Annotated[
        str | None, typer.Option(help="First learn from all texts, labelled or not: mlm or simcse.")
    ] = None,
    objective: Annotated[str | None, typer.Option(help="What is minimised; see: modicum objectives.")] = None,
    sought: Annotated[
        bool, typer.Option("--sought", help="A third of the labels or more are of texts that modicum select chose.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.")] = 0,
    option: Options = None,
    precision: PrecisionOption = "auto",
    skip_bad_rows: Skip = False,
    json: Json = False,
) -> None:
    """Train a classifier on labelled texts and save it."""
    from modicum.cli import models

    models.fit(
        data,
        out,
        method,
        backbone,
        minutes=minutes,
        columns={"text": text, "label": label, "pair": pair, "id": id},
        labels_at=labels_at,
        test=test,
        epochs=epochs,
        tapt=tapt,
        objective=objective,
        sought=sought,
        seed=seed,
        options=option or [],
        precision=precision,
        skip_bad_rows=skip_bad_rows,
        as_json=json,
    )


@app.command()
def advise(
    data: Labelled,
    labels: Annotated[int | None, typer.Option(help="How many labels there will be. [default: twice as many]")] = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="The most that choosing a method and training it may take, but for one training."),
    ] = None,
    worth: Annotated[float, typer.Option(help="The macro-F1 that 100 more labels must bring.")] = 0.01,
    labels_at: LabelsAt = None,
    backbone: BackboneName = "minilm",
    classes: Classes = None,
    classes_file: ClassesFile = None,
    text: Text = None,
    label: Label = None,
    pair: Pair = None,
    id: Id = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.")] = 0,
    skip_bad_rows: Skip = False,
    json: Json = False,
) -> None:
    """Say how to train, what to label next, and what further labels are likely to bring."""
    from modicum.cli.advise import advise as run
    from modicum.data.labels import listed_classes

    run(
        data,
        labels,
        minutes,
        worth=worth,
        labels_at=labels_at,
        backbone=backbone,
        columns={"text": text, "label": label, "pair": pair, "id": id},
        classes=listed_classes(classes, classes_file),
        seed=seed,
        skip_bad_rows=skip_bad_rows,
        as_json=json,
    )


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="A folder written by modicum fit.")],
    data: Annotated[str, typer.Argument(help="Texts to classify.")],
    out: Annotated[Path, typer.Option(help="A .csv, .jsonl or .parquet file.")],
    text: Text = None,
    pair: Pair = None,
    id: Id = None,
    precision: PrecisionOption = "auto",
    skip_bad_rows: Skip = False,
) -> None:
    """Classify texts with a saved model."""
    from modicum.cli import models

    models.predict(model, data, out, {"text": text, "pair": pair, "id": id}, precision, skip_bad_rows)


@app.command()
def select(
    model: Annotated[Path, typer.Argument(help="A folder written by modicum fit.")],
    data: Annotated[str, typer.Argument(help="Texts; those with a label count as labelled already.")],
    out: Annotated[Path, typer.Option(help="A .csv, .jsonl or .parquet file for the texts to label next.")],
    strategy: Annotated[
        str | None, typer.Option(help="See: modicum strategies. [default: class-balanced; coreset for values]")
    ] = None,
    k: Annotated[int, typer.Option("-k", "--number", help="How many texts.")] = 50,
    text: Text = None,
    label: Label = None,
    pair: Pair = None,
    id: Id = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every draw.")] = 0,
    option: Options = None,
    precision: PrecisionOption = "auto",
    skip_bad_rows: Skip = False,
) -> None:
    """Say which texts to label next, for those with a labelling tool of their own."""
    from modicum.cli import models

    columns = {"text": text, "label": label, "pair": pair, "id": id}
    models.select(model, data, out, strategy, k, columns, seed, option or [], precision, skip_bad_rows)


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A folder written by modicum fit.")],
    out: Annotated[Path, typer.Option(help="Folder for the plain transformers model.")],
) -> None:
    """Merge a saved model into its backbone: a plain transformers model that needs neither Modicum nor PEFT."""
    from modicum.cli import models

    models.export(model, out)


@app.command()
def label(
    data: Annotated[str, typer.Argument(help="A csv, tsv, jsonl or parquet file; helpdesk; or a project.")],
    out: Annotated[Path | None, typer.Option(help="The project's folder; or what --export writes.")] = None,
    classes: Classes = None,
    classes_file: ClassesFile = None,
    text: Text = None,
    label: Label = None,
    pair: Pair = None,
    id: Id = None,
    method: Annotated[str | None, typer.Option(help="See: modicum methods. [default: auto]")] = None,
    strategy: Annotated[str | None, typer.Option(help="See: modicum strategies. [default: class-balanced]")] = None,
    warm_strategy: Annotated[
        str | None, typer.Option(help="Before a model: random, kmeans, typiclust or zero-shot. [default: typiclust]")
    ] = None,
    backbone: Annotated[str | None, typer.Option(help="minilm, a folder, or a hub name. [default: minilm]")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides every draw. [default: 0]")] = None,
    users: Annotated[str | None, typer.Option(help="How many people, or their names; the first leads.")] = None,
    per_item: Annotated[int | None, typer.Option(help="How many people label each item. [default: 1]")] = None,
    blind: Annotated[bool | None, typer.Option("--blind/--no-blind", help="People see no labels but theirs.")] = None,
    guidelines: Annotated[Path | None, typer.Option(help="A text file, shown beside the texts.")] = None,
    suggest: Annotated[str | None, typer.Option(help="The model's suggestion: hidden, shown or after.")] = None,
    audit: Annotated[
        int | None, typer.Option(help="Random items to measure on. [default: 100, and no more than a fifth]")
    ] = None,
    retrain_every: Annotated[int | None, typer.Option(help="Train again after so many labels. [default: 25]")] = None,
    host: Annotated[str, typer.Option(help="Other addresses than this machine's own need --users.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes one that is free.")] = 0,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    export: Annotated[
        str | None,
        typer.Option(help="Write labels to --out: jsonl, csv, parquet, datasets, spreadsheet; or a model."),
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Write the project's report, to --out if given.")] = False,
    replay: Annotated[
        Path | None, typer.Option(help="Write a study of the project's labels to this folder or .toml file.")
    ] = None,
    skip_bad_rows: Skip = False,
) -> None:
    """Label texts on a page in the browser, chosen by a model that learns as you go."""
    from modicum.cli import label as labelling

    if export is not None or report or replay is not None:
        labelling.use(Path(data), out, export, report, replay)
        return
    names = labelling.user_names(users)
    settings = {"method": method, "strategy": strategy, "warm_strategy": warm_strategy, "backbone": backbone}
    settings |= {"seed": seed, "per_item": per_item, "blind": blind, "suggest": suggest, "audit": audit}
    folder = labelling.begin(
        data,
        out,
        settings | {"retrain_every": retrain_every},
        columns={"text": text, "label": label, "pair": pair, "id": id},
        classes=classes,
        classes_file=classes_file,
        guidelines=guidelines,
        skip_bad_rows=skip_bad_rows,
    )
    labelling.serve(folder, host, port, names, open_browser)


@app.command()
def methods(json: Json = False) -> None:
    """List the training methods."""
    from modicum.cli import info

    info.methods(json)


@app.command()
def strategies(json: Json = False) -> None:
    """List the query strategies."""
    from modicum.cli import info

    info.strategies(json)


@app.command()
def objectives(json: Json = False) -> None:
    """List what training can minimise."""
    from modicum.cli import info

    info.objectives(json)


@app.command()
def doctor(
    backbone: Annotated[str, typer.Option(help="A backbone to try out.")] = "minilm",
    json: Json = False,
) -> None:
    """Check this machine: precision, speed, libraries, and how a backbone runs here."""
    from modicum.cli import info

    info.doctor(backbone, json)


def version(show: bool) -> None:
    """Print the version and leave."""
    if show:
        from modicum import __version__

        console.say(__version__)
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Text classification where labels are few and hardware is small."""


def main() -> None:
    """The console script: errors of the user's are told in a sentence, without a traceback."""
    try:
        app()
    except ModicumError as error:
        console.fail(str(error))
        sys.exit(1)
    except BrokenPipeError:
        sys.exit(1)
    except OSError as error:
        console.fail(f"the system refused: {error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
