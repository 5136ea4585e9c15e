"""`pru score PATH --ray --out FOLDER`: a corpus scored on all cores of a machine or a cluster, a row a text.

Boundary: arguments in, a folder of Parquet out, one line or one JSON document about it. What was finished when anything
went wrong is kept, and the same command goes on from there.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from app.asking import count_alone
from app.corpus.plan import Part, Plan, begin, check_folder, find_files, held, make_plan, tidy
from app.on_ray.cluster import check_installed, cluster
from app.scored_text import score_of
from app.scoring import Likelihood, total
from app.settings import load_settings
from model.command_line import printable
from model.errors import ConfigurationError, PRUError, TextError

if TYPE_CHECKING:
    from app.served_model import Source

MOST_NAMED = 20
"""Parts whose errors are shown, and files that are named."""


def score_corpus(
    paths: Sequence[Path],
    out: Path | None,
    *,
    include_eos: bool,
    oov_penalty: float | None,
    as_json: bool,
    bundle: str | None,
) -> None:
    """Score every text of a corpus that has no figures yet; `TextError` for rows that could not be scored."""
    check_installed()
    if out is None:
        raise ConfigurationError("--ray writes a folder; name it by --out")
    if len(paths) != 1:
        raise ConfigurationError("--ray scores one corpus: a file, or a folder of files; give one PATH")
    count_alone()
    out = out.absolute()
    check_folder(out)
    folder, names, others = find_files(paths[0].absolute())
    if others:
        some = others if len(others) <= MOST_NAMED else [*others[:MOST_NAMED], f"{len(others) - MOST_NAMED:,} more"]
        line = f"warning: left out, as neither .jsonl nor .parquet: {', '.join(some)} (in {folder})"
        print(printable(line), file=sys.stderr)
    from rich.console import Console  # noqa: PLC0415

    from app.served_model import default_source, open_source  # noqa: PLC0415 - loaded with the model, after errors

    # A thread each, and as many workers as cores: texts have nothing to do with one another.
    source = replace(default_source(load_settings(bundle=bundle)), threads=1)
    source = replace(source, bundle=source.bundle.absolute())
    served = open_source(source)
    with Console(stderr=True).status("reading the corpus"):
        model = served.identity(served.build_engine())
        plan = make_plan(folder, names, model, include_eos=include_eos, oov_penalty=oov_penalty)
    with held(out):
        missing = begin(out, plan)
        try:
            errors = _score(missing, plan, folder, out, source) if missing else []
        except KeyboardInterrupt:
            raise PRUError(f"interrupted; the same command goes on from what is finished in {out}") from None
        tidy(out)
        if errors:
            raise _failure(errors, plan, out)
        _say(plan, _whole(plan, out), as_json=as_json)


def _failure(errors: Sequence[str], plan: Plan, out: Path) -> TextError:
    """The error of a run some of whose parts could not be scored; the errors of several go before it, a line each."""
    is_nothing = len(errors) == len(plan.parts)
    kept = "nothing was scored" if is_nothing else f"the rest is in {out}, and the same command goes on from it"
    if len(errors) == 1:
        return TextError(f"{errors[0]}; {kept}")
    for error in errors[:MOST_NAMED]:
        print(printable(error), file=sys.stderr)
    if len(errors) > MOST_NAMED:
        print(f"and {len(errors) - MOST_NAMED:,} more", file=sys.stderr)
    return TextError(f"{len(errors):,} of {len(plan.parts):,} parts could not be scored; {kept}")


def _score(missing: Sequence[Part], plan: Plan, folder: Path, out: Path, source: Source) -> list[str]:
    """Score what is missing; why parts could not be, in their order."""
    errors = []
    with cluster() as cores, _progress(plan.rows, plan.rows - sum(part.rows for part in missing)) as advance:
        from app.on_ray.scoring import score_parts  # noqa: PLC0415 - loads Ray

        for told in score_parts(missing, folder, out, source, cores):
            if told.error:
                errors.append((told.part.number, told.error))
            else:
                advance(told.part.rows)
    return [error for _, error in sorted(errors)]


def _whole(plan: Plan, out: Path) -> Likelihood:
    """The figures of all texts together, by what the parts say of themselves."""
    from app.corpus.part import read_summary  # noqa: PLC0415 - pyarrow, of the extra `ray`

    return total([read_summary(out / part.name).likelihood for part in plan.parts])


def _say(plan: Plan, whole: Likelihood, *, as_json: bool) -> None:
    if as_json:
        figures = score_of(whole, plan.oov_penalty).model_dump(exclude_unset=True)
        document = {"model": plan.model.model_dump(), "rows": plan.rows, "parts": len(plan.parts), **figures}
        print(json.dumps(document, indent=2))
        return
    from app.score_formats import in_digits  # noqa: PLC0415

    figures_ = f"{whole.token_count:,} tokens, {whole.oov_count:,} unknown, perplexity {in_digits(whole.perplexity)}"
    line = f"{plan.model.name}, {plan.model.precision}: {plan.rows:,} texts, {figures_}"
    print(printable(line), file=sys.stderr)


@contextmanager
def _progress(rows: int, done: int) -> Iterator[Callable[[int], None]]:
    """A bar of texts on standard error, or a line for every tenth of them where that is no terminal."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    console = Console(stderr=True)
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("texts"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("scoring", total=rows, completed=done)

        def advance(texts: int) -> None:
            nonlocal done
            before, done = done, done + texts
            progress.advance(task, texts)
            if progress.disable and before * 10 // rows < done * 10 // rows:
                print(f"scored {done:,} of {rows:,} texts", file=sys.stderr, flush=True)

        yield advance
