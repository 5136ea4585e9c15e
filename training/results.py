"""RESULTS.md: what runs reached, beside what the paper reports, as Markdown made from the runs' own records.

Boundary: records in, text out. The only figures that no record holds are those of `training.published`.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence

from training.evaluate import measure_of
from training.markdown import NONE, Row, table
from training.published import ADAPTIVE, PUBLISHED, Published, PublishedAdaptive, Section, find_adaptive
from training.run_record import EvaluationRecord, RunRecord, by_kind

CURVES, LEVELS = "learning_curves.png", "levels_and_groups.png"
"""Names of the pictures that the text shows where they stand beside it."""

_Done = tuple[RunRecord, EvaluationRecord]

_SPLITS = {"valid": "validation", "test": "test"}

_PREAMBLE = """# Results

Written by `pru report` from the records of the runs (`training.json`); not to be edited by hand.
Published figures are those of Mehta et al. (EMNLP 2018).

Perplexities are of words, and lower is better. Those of the tables before "Evaluations" are static: the weights of the
best epoch on validation, one stream of text, the full softmax, every token and every line end scored. A difference is
ours less the published one. Where a model was trained with several seeds, their mean stands below them, ± the standard
deviation of a single run. Parameters are in millions; the recurrent ones are those of the recurrent layers, biases
included, and their reduction is relative to an LSTM of the same sizes."""


_ROUNDED = """Figures "by a float16 recurrence" were measured on a GPU, where the products of the recurrence are rounded
to float16 and summed in float32. All others were measured in float32 throughout, or their records are older and do not
say."""


def results(records: Sequence[RunRecord], pictures: Collection[str] = ()) -> str:
    """The whole of RESULTS.md; `pictures` are the names of those that stand beside it."""
    parts = [_PREAMBLE]
    if any(record.recurrence or any(one.recurrence for one in record.evaluations) for record in records):
        parts.append(_ROUNDED)
    for section in Section:
        if section is Section.LEVELS_AND_GROUPS:
            parts += ["## Figure 1: learning curves", _learning_curves(pictures)]
        parts += [f"## {section}", _section(section, records)]
    if LEVELS in pictures:
        parts.append(f"![Perplexity against the reduction of recurrent parameters]({LEVELS})")
    parts += ["## Runs of no table or figure", _other_runs(records)]
    parts += ["## Evaluations", *_evaluations(records)]
    if any(record.changed for record in records):
        parts += ["## Changed settings", _changes(records)]
    return "\n\n".join(parts) + "\n"


def _learning_curves(pictures: Collection[str]) -> str:
    if CURVES not in pictures:
        return "No run has finished an epoch."
    return (
        "Training (solid) and validation perplexity (dashed) of every run over its epochs; what is above the picture\n"
        "is the fall of the first epochs. Training perplexity is measured under dropout while the weights change,\n"
        "validation here in pieces, and slightly higher for it.\n\n"
        f"![Learning curves]({CURVES})"
    )


def _section(section: Section, records: Sequence[RunRecord]) -> str:
    """The table of one part of the paper: a row for every run, and one for what was not run as the paper trains it."""
    entries = sorted((entry for entry in PUBLISHED if entry.section is section), key=lambda entry: entry.data)
    rows: list[Row] = []
    for entry in entries:
        runs = [record for record in records if record.published == entry]
        rows += _run_rows(runs)
        if not any(record.is_papers for record in runs):
            rows.append(_not_run(entry))
    columns = ["preset", "in the paper", "data", "parameters", "recurrent"]
    if section is Section.LEVELS_AND_GROUPS:
        columns.append("reduction")
    columns += ["seed", "epochs", "hardware", "time", "memory"]
    for split, name in _SPLITS.items():
        columns.append(name)
        if any(entry.perplexity(split) for entry in entries):
            columns += [f"published {name}", f"difference in {name}"]
    return table(columns, rows)


def _other_runs(records: Sequence[RunRecord]) -> str:
    runs = [record for record in records if record.published is None]
    columns = ["preset", "data", "parameters", "recurrent", "seed", "epochs", "hardware", "time", "memory"]
    columns += _SPLITS.values()
    return table(columns, _run_rows(runs)) if runs else "None."


def _changes(records: Sequence[RunRecord]) -> str:
    """What runs "changed" have that their presets have not."""
    rows = [
        {
            "preset": _name(kind[0]),
            "data": kind[0].data.name,
            "settings": " ".join(f"{path}={json.dumps(value)}" for path, value in kind[0].changes.items()),
        }
        for kind in by_kind(records)
        if kind[0].changed
    ]
    return "Where a run had other settings than its preset has: what it had, as `--set` takes it.\n\n" + table(
        ["preset", "data", "settings"], rows
    )


def _run_rows(records: Sequence[RunRecord]) -> Iterator[Row]:
    """A row for every run, and one for the mean of those that differ by their seeds."""
    for kind in by_kind(records):
        yield from map(_run, kind)
        finished = [record for record in kind if record.finished]
        if len({record.seed for record in finished}) > 1:
            yield _mean(finished)


def _run(record: RunRecord) -> Row:
    epochs = record.recipe.epochs
    return {
        **_model(record),
        "seed": str(record.seed),
        "epochs": str(epochs) if record.finished else f"{len(record.curve)} of {epochs}, not finished",
        "hardware": _hardware(record.hardware) + _rounded(record),
        "time": _duration(record.seconds),
        "memory": NONE if record.peak_bytes is None else f"{record.peak_bytes / 1e9:.1f} GB",
        **_perplexities([record], record.published),
    }


def _mean(records: Sequence[RunRecord]) -> Row:
    return {
        **_model(records[0]),
        "seed": f"mean of {len(records)} runs",
        "epochs": str(records[0].recipe.epochs),
        **_perplexities(records, records[0].published),
    }


def _not_run(entry: Published) -> Row:
    return {"preset": entry.preset, "epochs": "not run", **_in_the_paper(entry), **_perplexities([], entry)}


def _model(record: RunRecord) -> Row:
    return {
        "preset": _name(record),
        "data": record.data.name,
        "parameters": f"{record.parameters / 1e6:.2f}",
        "recurrent": f"{record.recurrent_parameters / 1e6:.2f}",
        "reduction": f"{record.reduction:.1%}",
        **(_in_the_paper(record.published) if record.published else {}),
    }


def _name(record: RunRecord) -> str:
    """What was run: the preset, whether it was changed, and what it started from."""
    origin = record.started_from
    name = f"{record.preset}, changed" if record.changed else record.preset
    return f"{name} (started from {origin.preset}, {origin.sha256[:12]})" if origin else name


def _in_the_paper(entry: Published) -> Row:
    return {"in the paper": entry.row, "data": entry.data}


def _perplexities(records: Sequence[RunRecord], entry: Published | None) -> Row:
    """Ours of each split, where every run has it, the published one, and their difference."""
    row: Row = {}
    for split, name in _SPLITS.items():
        ours = [record.perplexity[split] for record in records if record.finished and split in record.perplexity]
        if ours:
            row[name] = _figure(ours)
        published = entry.perplexity(split) if entry else None
        if published is not None:
            row[f"published {name}"] = f"{published:.2f}"
            if ours:
                row[f"difference in {name}"] = _difference(ours, published)
    return row


def _evaluations(records: Sequence[RunRecord]) -> Iterator[str]:
    """A table for each kind of evaluation, so that no two kinds share one."""
    done: dict[str, list[list[_Done]]] = {entry.evaluation: [] for entry in ADAPTIVE}
    for kind in by_kind(records):
        for (method, *_), same in _by_question(kind).items():
            done.setdefault(method, []).append(same)
    yield (
        "Results of `pru evaluate`, each kind in a table of its own. All but static ones adapt to the\n"
        "text that they read, or to one set aside: they are not to be compared with static figures."
    )
    for method in sorted(done):
        reached = [(_published(*one), one[0].is_papers) for same in done[method] for one in same]
        missing = [entry for entry in ADAPTIVE if entry.evaluation == method and (entry, True) not in reached]
        columns = ["preset", "data", "seed", "tokens", "settings", _words(measure_of(method))]
        if missing or any(entry for entry, _ in reached):
            columns += ["published", "difference"]
        rows = [row for same in done[method] for row in _evaluation_rows(same)]
        rows += [
            {"preset": entry.preset, "data": f"{entry.data} {entry.split}", "settings": "not run"} | _beside(entry)
            for entry in missing
        ]
        yield f"### {_words(method).capitalize()} evaluation"
        yield table(columns, rows)


def _published(record: RunRecord, evaluation: EvaluationRecord) -> PublishedAdaptive | None:
    """What the paper reports of the same evaluation."""
    corpus, _, split = evaluation.data.rpartition(" ")
    return find_adaptive(record.preset, corpus, split, evaluation.evaluation) if corpus == record.corpus else None


def _by_question(kind: Sequence[RunRecord]) -> dict[tuple[str, str, bool], list[_Done]]:
    """What runs that repeat one another were asked: how, of which text, and whether they had finished."""
    questions: dict[tuple[str, str, bool], list[_Done]] = {}
    for record in kind:
        for evaluation in record.evaluations:
            asked = evaluation.evaluation, evaluation.data, record.finished
            questions.setdefault(asked, []).append((record, evaluation))
    return questions


def _evaluation_rows(same: Sequence[_Done]) -> Iterator[Row]:
    """A row for every answer to one question, and one for the mean over seeds, whose settings each may have tuned."""
    yield from (_evaluation(*one) for one in same)
    seeds = {record.seed for record, _ in same}
    if 1 < len(seeds) == len(same):
        record, evaluation = same[0]
        figures = [each.figure for _, each in same]
        yield {
            "preset": _name(record),
            "data": evaluation.data,
            "seed": f"mean of {len(same)} runs",
            _words(measure_of(evaluation.evaluation)): _figure(figures),
            **_beside(_published(record, evaluation), figures),
        }


def _evaluation(record: RunRecord, evaluation: EvaluationRecord) -> Row:
    return {
        "preset": _name(record) if record.finished else f"{_name(record)}, not finished",
        "data": evaluation.data,
        "seed": str(record.seed),
        "tokens": f"{evaluation.tokens:,}",
        "settings": _settings(evaluation) + _rounded(evaluation),
        _words(measure_of(evaluation.evaluation)): f"{evaluation.figure:.2f}",
        **_beside(_published(record, evaluation), [evaluation.figure]),
    }


def _settings(evaluation: EvaluationRecord) -> str:
    return ", ".join(f"{_words(name)} {value}" for name, value in evaluation.parameters.items()) or NONE


def _rounded(figures: RunRecord | EvaluationRecord) -> str:
    """What is added where figures were measured in another arithmetic than the weights'."""
    return f", figures by a {figures.recurrence} recurrence" if figures.recurrence else ""


def _beside(entry: PublishedAdaptive | None, ours: Sequence[float] = ()) -> Row:
    """The published figure, if any, and the difference of ours, if any."""
    if entry is None:
        return {}
    row = {"published": f"{entry.perplexity:.2f}"}
    return row | {"difference": _difference(ours, entry.perplexity)} if ours else row


def _figure(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def _difference(ours: Sequence[float], published: float) -> str:
    return f"{statistics.fmean(ours) - published:+.2f}"


def _hardware(hardware: Mapping[str, str | int | None]) -> str:
    """Names of processors as they are, and the threads that were used."""
    names = [value for value in hardware.values() if isinstance(value, str)]
    threads = hardware.get("threads")
    return ", ".join([*names, f"{threads} thread{'s' if threads != 1 else ''}"] if threads else names) or NONE


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def _words(name: str) -> str:
    return name.replace("_", " ")
