"""`pru analyze`: the paper's analyses (Section 4.3) of checkpoints, side by side.

Boundary: arguments in, pictures and tables in a folder and a few lines on the terminal out. What an analysis computes
is in `training.analysis`.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from model.checkpoint import load_checkpoint
from model.errors import CheckpointError, CorpusError, TrainingError
from model.files import read_text, readable
from model.language_model import LanguageModel
from model.vocabulary import Vocabulary
from training.analysis import tables
from training.analysis.attribution import Attribution, attribute
from training.analysis.coverage import coverage
from training.analysis.embedding_variance import embedding_variances
from training.analysis.entropy import next_word_entropies
from training.analysis.tagged_words import read_tagged_words, words_by_category
from training.corpus import lines_of, load_corpus
from training.evaluate_command import DataOption, DeviceOption
from training.output import write_all
from training.world import find_device

SEQUENCES = 5
"""Lines of the validation text that saliency is shown for, as many as in the paper's Table 2a."""
FEWEST_WORDS, MOST_WORDS = 8, 25
"""Words of such a line."""
MOST_LINES, LONGEST_LINE = 10, 60
"""Sequences, and tokens of each, that fit into a picture."""
MOST_MODELS = 7
"""Models that their colours tell apart."""


def analyze_command(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CHECKPOINT", help="Checkpoint folders, all of one vocabulary.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder for the pictures (PNG) and tables (CSV).")],
    contexts: Annotated[
        int | None,
        typer.Option(min=1, help="Entropies of the first N contexts of the validation text, not of all."),
    ] = None,
    tags: Annotated[
        Path | None,
        typer.Option(help="Text of word/TAG tokens (Penn tags), or a zip of .pos files; without it, no variances."),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option(help=f"UTF-8 file of sequences to explain, one a line, not {SEQUENCES} validation lines."),
    ] = None,
    device: DeviceOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON line, for programs.")] = False,
) -> None:
    """Compare models: entropies, embeddings, saliency and gradient coverage.

    Gradient coverage is that of the first sequence. The variance of embeddings
    by part of speech is of the words that are tagged and occur in the
    validation text, each counted once.
    """
    if len(checkpoints) > MOST_MODELS:
        raise TrainingError(f"{len(checkpoints)} checkpoints are too many to tell apart; give at most {MOST_MODELS}")
    place = find_device(device)
    models, vocabulary = _load(checkpoints)
    for model in models.values():
        model.to(place)
    corpus = load_corpus(data)
    valid = corpus.splits["valid"]
    ids, eos_id = vocabulary.encode(valid), vocabulary.eos_id
    sequences = _own_sequences(vocabulary, text) if text else _sequences(vocabulary, valid, corpus.name)
    words = words_by_category(vocabulary, read_tagged_words(tags), ids) if tags else None
    if words is not None and not any(words.values()):
        raise CorpusError(f"no word of {tags} occurs in {corpus.name}'s validation text; give tagged text of its kind")
    _prepare(out)

    entropies = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for name, model in models.items():
            task = progress.add_task(f"entropies of {name}", total=len(ids[:contexts]))
            advance = partial(progress.advance, task)
            entropies[name] = next_word_entropies(model, ids[:contexts], eos_id, advance=advance)
        attributions: dict[str, list[Attribution]] = {}
        for name, model in models.items():
            task = progress.add_task(f"saliency of {name}", total=len(sequences))
            attributions[name] = [attribute(model, ids, eos_id) for ids in progress.track(sequences, task_id=task)]
    first = {name: of_model[0] for name, of_model in attributions.items()}

    # It takes a second to load, and other commands need none of it.
    from training.analysis import pictures  # noqa: PLC0415

    with Console(stderr=True).status("drawing"):
        files = {
            "entropy.csv": tables.entropy_histogram(entropies, len(vocabulary)),
            "entropy_means.csv": tables.entropy_means(entropies),
            "entropy.png": pictures.entropy_histogram(entropies, len(vocabulary)),
            "saliency.csv": tables.saliencies(attributions, vocabulary),
            "saliency_predictions.csv": tables.predictions(attributions, vocabulary),
            "saliency.png": pictures.saliencies(attributions, vocabulary),
            "gradient_coverage.csv": tables.gradient_coverage(first),
            "gradients.csv": tables.gradients(first, vocabulary),
            "gradient_coverage.png": pictures.gradient_coverage(first, vocabulary),
        }
        if words is not None:
            variances = {name: embedding_variances(model, words) for name, model in models.items()}
            files["embedding_variance.csv"] = tables.embedding_variances(variances)
            files["embedding_variance.png"] = pictures.embedding_variances(variances)
    write_all(out, files)

    if as_json:
        found = [
            {
                "name": name,
                "checkpoint": str(folder),
                "mean_entropy": float(of_model.mean()),
                "contexts": len(of_model),
                "gradient_coverage": float(coverage(first[name].gradients)),
            }
            for (name, of_model), folder in zip(entropies.items(), checkpoints, strict=True)
        ]
        print(json.dumps({"out": str(out), "files": sorted(files), "models": found}))
        return
    console = Console(soft_wrap=True, highlight=False)
    for (name, of_model), folder in zip(entropies.items(), checkpoints, strict=True):
        console.print(
            f"{name} ({folder}): mean entropy {of_model.mean():.2f} over {len(of_model):,} contexts, "
            f"gradient coverage {coverage(first[name].gradients):.1%}",
            markup=False,
        )
    if words is None:
        console.print("without --tags the variance of embeddings by part of speech is left out")
    console.print(f"{out}: {', '.join(sorted(files))}", markup=False)


def _load(checkpoints: Sequence[Path]) -> tuple[dict[str, LanguageModel], Vocabulary]:
    """Models by the names of their folders, numbered where a name comes again, and the vocabulary that all share."""
    models: dict[str, LanguageModel] = {}
    seen: Counter[str] = Counter()
    loaded = [(folder, *load_checkpoint(folder)[:2]) for folder in checkpoints]
    vocabulary = loaded[0][2]
    for folder, model, own in loaded:
        if own.identity != vocabulary.identity:
            raise CheckpointError(
                f"{folder} and {checkpoints[0]} have different vocabularies, so that what they predict cannot be "
                "compared; give checkpoints trained on the same data, or analyze each by itself"
            )
        name = readable(Path(folder.resolve().name))
        seen[name] += 1
        models[name if seen[name] == 1 else f"{name} ({seen[name]})"] = model
    return models, vocabulary


def _sequences(vocabulary: Vocabulary, text: str, name: str) -> list[list[int]]:
    """The first lines of the right length. What has no letter or digit, like the marks of a heading, is no word."""
    sequences = []
    for line in lines_of(text):
        ids = vocabulary.tokenise(line).ids.tolist()
        words = sum(any(map(str.isalnum, vocabulary.word_of(token_id))) for token_id in ids)
        if FEWEST_WORDS <= words <= MOST_WORDS and len(ids) <= LONGEST_LINE:
            sequences.append(ids)
        if len(sequences) == SEQUENCES:
            return sequences
    if not sequences:
        raise CorpusError(
            f"no line of {name}'s validation text has {FEWEST_WORDS} to {MOST_WORDS} words; give sequences by --text"
        )
    return sequences


def _own_sequences(vocabulary: Vocabulary, path: Path) -> list[list[int]]:
    """The lines of a file but for blank ones."""
    sequences = []
    for number, line in enumerate(lines_of(read_text(path, CorpusError)), start=1):
        if not line.strip():
            continue
        ids = vocabulary.tokenise(line).ids.tolist()
        if not 1 <= len(ids) <= LONGEST_LINE:
            raise CorpusError(f"{path}, line {number}: {len(ids)} words; a sequence has 1 to {LONGEST_LINE}")
        sequences.append(ids)
    if not 1 <= len(sequences) <= MOST_LINES:
        raise CorpusError(f"{path} holds {len(sequences)} sequences; give 1 to {MOST_LINES}, one a line")
    return sequences


def _prepare(out: Path) -> None:
    """See before the work that its results can be kept."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as problem:
        raise TrainingError(f"{out} cannot be written: {problem.strerror}; give another folder by --out") from None
