"""`pru evaluate`: a checkpoint's perplexity on one text, static or adaptive, in a terminal.

Boundary: arguments in, one result on the terminal out. What a method computes is in the module named after it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from model.checkpoint import RECORD, load_checkpoint, read_record
from model.conventions import Convention
from model.errors import CheckpointError, ConfigurationError, CorpusError, TrainingError
from model.files import read_text, readable, write_json
from model.vocabulary import Ids, Vocabulary
from training.arithmetic import of_recurrence
from training.corpus import Corpus, load_corpus
from training.dynamic_evaluation import DynamicEvaluation, evaluate_dynamically, gradient_statistics
from training.evaluate import Evaluation, evaluate
from training.memory import keep_freed_memory
from training.neural_cache import PUBLISHED, evaluate_with_cache
from training.own_text import SPLITS, joined_lines
from training.temperature import evaluate_at_temperature, tune_temperature
from training.world import Device, find_device

DataOption = Annotated[
    str,
    typer.Option("--data", help="Your own UTF-8 text, a file or a folder; or ptb or wikitext-2 (fetched once)."),
]

JoinOption = Annotated[
    bool, typer.Option("--join-lines", help="Own text is hard-wrapped: join its lines up to the next blank line.")
]

DeviceOption = Annotated[Device | None, typer.Option("--device", help="Where to compute; cuda where there is any.")]


def evaluate_command(
    checkpoint: Annotated[Path, typer.Option(help="Checkpoint folder.")],
    data: DataOption = "",
    split: Annotated[
        str | None, typer.Option(help="train, valid or test. Unless given, test where there is one, else valid.")
    ] = None,
    text: Annotated[Path | None, typer.Option(help="A UTF-8 file read as it is, instead of --data.")] = None,
    join_lines: JoinOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line for programs.")] = False,
    device: DeviceOption = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep the result in the checkpoint's record, for `report`.")
    ] = False,
    temperature: Annotated[
        str | None, typer.Option(help="Softmax temperature: a number, or auto to tune it on --data's validation split.")
    ] = None,
    neural_cache: Annotated[
        bool, typer.Option("--neural-cache", help="Mix in a cache of the text's own past words (Grave et al. 2017).")
    ] = False,
    cache_lambda: Annotated[
        float | None, typer.Option(help="Weight of the cache. 0.1 for a PTB vocabulary, else 0.1279, unless given.")
    ] = None,
    cache_theta: Annotated[
        float | None, typer.Option(help="Its sharpness. 1.0 for a PTB vocabulary, else 0.662, unless given.")
    ] = None,
    cache_window: Annotated[
        int | None, typer.Option(help="Words it remembers. 500 for a PTB vocabulary, else 3785, unless given.")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Let a copy of the weights follow the text (Krause et al. 2018).")
    ] = False,
    dynamic_bptt: Annotated[
        int | None, typer.Option(help=f"Words an update. {DynamicEvaluation.bptt} unless given.")
    ] = None,
    dynamic_lr: Annotated[
        float | None, typer.Option(help=f"Learning rate. {DynamicEvaluation.lr:g} unless given.")
    ] = None,
    dynamic_lambda: Annotated[
        float | None,
        typer.Option(help=f"Decay towards the trained weights. {DynamicEvaluation.lambda_:g} unless given."),
    ] = None,
    dynamic_epsilon: Annotated[
        float | None, typer.Option(help=f"Added to RMS gradients. {DynamicEvaluation.epsilon:g} unless given.")
    ] = None,
) -> None:
    """Measure a checkpoint's perplexity on one stream of text.

    Every token and line end is scored. It is static unless --temperature,
    --neural-cache or --dynamic is given; choose their settings on the
    validation split.
    """
    if split not in (None, *SPLITS):
        raise ConfigurationError(f"--split must be one of {', '.join(SPLITS)}, not {split}")
    if bool(data) == (text is not None):
        raise ConfigurationError("give the text to evaluate on by --data or by --text")
    if neural_cache + dynamic + (temperature is not None) > 1:
        raise ConfigurationError("--temperature, --neural-cache and --dynamic are evaluations apart; give one of them")
    cache_settings = _given(lambda_=cache_lambda, theta=cache_theta, window=cache_window)
    dynamic_settings = _given(bptt=dynamic_bptt, lr=dynamic_lr, lambda_=dynamic_lambda, epsilon=dynamic_epsilon)
    for settings_given, chosen, name in (
        (cache_settings, neural_cache, "--neural-cache"),
        (dynamic_settings, dynamic, "--dynamic"),
    ):
        if settings_given and not chosen:
            raise ConfigurationError(f"the settings --{name.rpartition('-')[2]}-... belong to {name}; give that too")
    place = find_device(device)
    model, vocabulary, _ = load_checkpoint(checkpoint)
    model.to(place)
    eos_id = vocabulary.eos_id
    corpus = load_corpus(data, join_lines=join_lines) if text is None else None
    name, ids = _to_evaluate(vocabulary, corpus, split, text, join_lines)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(name, total=len(ids))

        def advance(done: int) -> None:
            progress.advance(task, done)

        def preparing(what: str) -> Callable[[int], None]:
            """Show that another text is read first; how often is not known."""
            preparation = progress.add_task(what, total=None)
            return lambda done: progress.advance(preparation, done)

        if temperature is not None:
            value, tuned_on = _number(temperature), None
            if value is None:
                tuned_on, valid = _of_corpus(vocabulary, corpus, "valid", "--temperature auto is tuned on")
                value = tune_temperature(model, valid, eos_id, advance=preparing(f"tuning on {tuned_on}"))
            result = evaluate_at_temperature(model, ids, eos_id, value, tuned_on=tuned_on, advance=advance)
        elif neural_cache:
            published = PUBLISHED.get(vocabulary.convention, PUBLISHED[Convention.WIKITEXT])
            result = evaluate_with_cache(model, ids, eos_id, replace(published, **cache_settings), advance=advance)
        elif dynamic:
            settings = DynamicEvaluation(**dynamic_settings)
            trained_on, train = _of_corpus(vocabulary, corpus, "train", "--dynamic takes its statistics from")
            # Every update allocates and frees as many numbers as the model has.
            keep_freed_memory()
            statistics = gradient_statistics(
                model, train, eos_id, settings.bptt, advance=preparing(f"statistics of {trained_on}")
            )
            result = evaluate_dynamically(
                model, ids, eos_id, statistics, settings, statistics_of=trained_on, advance=advance
            )
        else:
            result = evaluate(model, ids, eos_id, unk_id=vocabulary.unk_id, advance=advance)
    if not math.isfinite(result.perplexity):
        raise TrainingError(f"{name}: {_in_words(result)}: that is beyond float32; choose milder settings")
    unknown = int((ids == vocabulary.unk_id).sum())
    # Dynamic evaluation needs gradients, and its recurrence is not rounded for them.
    rounded = {} if dynamic else of_recurrence(model, place)
    found = {"data": name, **result.record(), "unknown_tokens": unknown, **rounded}
    if record:
        _keep(checkpoint, found)
    print(json.dumps(found) if as_json else f"{name}: {_in_words(result)}{_of_unknown(result, unknown)}")


_JOINED = ", lines joined"
"""What the name of a text ends with that was read otherwise than it is written."""


def _keep(checkpoint: Path, found: dict[str, Any]) -> None:
    """Put a result into a checkpoint's record, in place of one of the same evaluation of the same text."""
    record = read_record(checkpoint)
    same = ("data", "evaluation", "parameters")
    others = [one for one in record.get("evaluations", []) if any(one.get(name) != found[name] for name in same)]
    try:
        write_json(checkpoint / RECORD, record | {"evaluations": [*others, found]})
    except OSError as error:
        raise CheckpointError(f"{checkpoint / RECORD} cannot be written: {error.strerror or error}") from None


def _given(**settings: float | None) -> dict[str, Any]:
    """The settings that were given."""
    return {name: value for name, value in settings.items() if value is not None}


def _number(temperature: str) -> float | None:
    """A temperature as it was given, or none where it is to be tuned."""
    if temperature == "auto":
        return None
    try:
        return float(temperature)
    except ValueError:
        raise ConfigurationError(f"--temperature must be a number or auto, not {temperature}") from None


def _to_evaluate(
    vocabulary: Vocabulary, corpus: Corpus | None, split: str | None, text: Path | None, join_lines: bool
) -> tuple[str, Ids]:
    """What a result is called, and the ids."""
    if text is None:
        held_out = "test" if corpus is not None and "test" in corpus.splits else "valid"
        return _of_corpus(vocabulary, corpus, split or held_out, "a result is of")
    content = read_text(text, CorpusError)
    if not content.strip():
        raise CorpusError(f"{text} is empty; give text to evaluate on")
    if join_lines:
        return f"{readable(text)}{_JOINED}", vocabulary.encode(joined_lines(content))
    return readable(text), vocabulary.encode(content)


def _of_corpus(vocabulary: Vocabulary, corpus: Corpus | None, split: str, what: str) -> tuple[str, Ids]:
    """Name and ids of one split of a corpus; `what` says what needs it where there is no corpus."""
    if corpus is None:
        raise ConfigurationError(f"{what} the {split} split of a corpus; give --data instead of --text")
    if split not in corpus.splits:
        raise ConfigurationError(f"{corpus.name} has no {split} split; give --split {' or '.join(corpus.splits)}")
    return f"{corpus.name} {split}{_JOINED if corpus.joined else ''}", vocabulary.encode(corpus.splits[split])


def _in_words(result: Evaluation) -> str:
    """One line for people, the method's settings in brackets."""
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in result.parameters.items())
    figure = f"{result.measure.replace('_', ' ')} {result.perplexity:.2f} over {result.tokens:,} tokens"
    return f"{figure} ({settings})" if settings else figure


def _of_unknown(result: Evaluation, unknown: int) -> str:
    """What share of the tokens is unknown, and the perplexity without them: `<unk>` is easy to predict."""
    without = f", without them perplexity {result.known.perplexity:.2f}" if unknown and result.known else ""
    return f"; {unknown / result.tokens:.1%} of them unknown{without}"
