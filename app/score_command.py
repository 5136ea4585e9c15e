"""`pru score`: the surprisal of every word of texts, for studies of reading; or the perplexity of every line.

With `--ray`, another command in all but its name: the figures of every text of a corpus (`app.corpus.command`).

Boundary: arguments in, the rows of `app.score_formats` out, on standard output or in a file. Every text is read and
found to be text before the first is scored. How much is held in memory does not grow with what is written.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from app.asking import Bundle, Json, ask
from app.schemas import MOST_OOV_PENALTY
from model.command_line import examples, printable
from model.errors import ConfigurationError, TextError
from model.files import decode_text, write_json, written_atomically

if TYPE_CHECKING:
    from app.model_service import ModelService
    from app.scoring import Likelihood

STDIN = "-"

EXAMPLES = examples(
    "pru score story.txt > story.tsv",
    "pru score --each-line sentences.txt --out sentences.tsv",
    "pru score --lines story.txt",
    "pru score --each-line --lines --oov-penalty 6 candidates.txt",
    "echo 'It was raining when we left.' | pru score -",
    "pru score corpus.jsonl --ray --out scored",
)


def score_command(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE",
            help="UTF-8 text; - reads standard input. With --ray, JSON Lines, Parquet or a folder of them.",
        ),
    ],
    *,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, in place of standard output, with FILE.json about the model beside a TSV; "
            "with --ray, a folder."
        ),
    ] = None,
    each_line: Annotated[
        bool, typer.Option("--each-line", help="Every line is a text of its own, as isolated sentences are.")
    ] = False,
    lines: Annotated[
        bool,
        typer.Option(
            "--lines",
            help="A row for every line, not word. Each is scored as what follows the lines before it; "
            "with --each-line by itself, as candidates are.",
        ),
    ] = False,
    keep_blank_lines: Annotated[
        bool,
        typer.Option(
            "--keep-blank-lines",
            help="Read the <eos> of blank lines too, as in a corpus in which they mean something. They are left out "
            "else: the bundled model takes what follows one for a heading.",
        ),
    ] = False,
    include_eos: Annotated[bool, typer.Option("--eos/--no-eos", help="Score the <eos> that ends a text.")] = True,
    oov_penalty: Annotated[
        float | None,
        typer.Option(
            metavar="NATS",
            help="Add a score to rank by: the log-likelihood less this for each unknown token. "
            "With --lines, --json or --ray.",
        ),
    ] = None,
    entropy: Annotated[
        bool,
        typer.Option("--entropy", help="Add what surprisal was to be expected in each word's place, in bits. Slower."),
    ] = False,
    on_ray: Annotated[
        bool,
        typer.Option("--ray", help="Score each text of a corpus on all cores, or on a Ray cluster (RAY_ADDRESS)."),
    ] = False,
    json: Json = False,
    bundle: Bundle = None,
) -> None:
    """Write the surprisal of every word of a text, or figures of every line, as TSV.

    A row is a word as typed, between blanks. line and position (its number in
    the line) count from 1; start and end are its place in the file, in code
    points, of which a line end by CR and LF is two and a byte order mark none;
    surprisal is in bits, summed over the token_count tokens that the model
    reads it as; oov is 1 where the vocabulary lacks one of them.

    A word is predicted from all before it in its file. Line ends are scored
    too, for the perplexity, and have no row. With --lines a row is a line, its
    end with it: a table in a terminal, else TSV. A word with a quotation mark is
    quoted as R and pandas expect; U+FFFD stands for control characters.

    With --ray, a row is a text of a corpus: figures as Parquet, in a folder.
    The same command goes on where it was interrupted.
    """
    if oov_penalty is not None and not 0 <= oov_penalty <= MOST_OOV_PENALTY:
        raise ConfigurationError(f"--oov-penalty is {oov_penalty:g}; give nats from 0 to {MOST_OOV_PENALTY}")
    if on_ray:
        if each_line or lines or keep_blank_lines or entropy:
            raise ConfigurationError(
                "--ray scores every text as a whole; leave --each-line and --lines away, and "
                "--keep-blank-lines and --entropy"
            )
        from app.corpus.command import score_corpus  # noqa: PLC0415 - another command in all but its name

        score_corpus(files, out, include_eos=include_eos, oov_penalty=oov_penalty, as_json=json, bundle=bundle)
        return
    if oov_penalty is not None and not (lines or json):
        raise ConfigurationError("--oov-penalty adds a score of lines or texts, not words; give --lines or --json too")
    if each_line and keep_blank_lines:
        raise ConfigurationError("with --each-line a blank line is no text; leave --keep-blank-lines away")
    if entropy and lines:
        raise ConfigurationError("--entropy is of words; leave --lines away")
    texts = _texts(files)

    async def work(service: ModelService) -> None:
        from app.long_text import score_each_line, score_text  # noqa: PLC0415 - loaded with the model, after errors
        from app.score_formats import Format, Json, LinesTable, LinesTsv, Tsv, WordsTsv  # noqa: PLC0415
        from app.scoring import total  # noqa: PLC0415

        model, eos_id, several = service.identity, service.vocabulary.eos_id, len(texts) > 1
        score = score_each_line if each_line else partial(score_text, blank_lines=keep_blank_lines)
        table = lines and not json and out is None and sys.stdout.isatty()
        destination = nullcontext(sys.stdout) if table else _destination(out)
        with destination as file:
            sheet: Format
            if json:
                sheet = Json(file, model, eos_id, lines=lines, several=several, oov_penalty=oov_penalty)
            elif table:
                sheet = LinesTable(model, eos_id, several=several, oov_penalty=oov_penalty)
            elif lines:
                sheet = LinesTsv(file, eos_id, several=several, oov_penalty=oov_penalty)
            else:
                sheet = WordsTsv(file, several=several, entropy=entropy)
            sums: list[Likelihood] = []
            with _progress(texts, hidden=out is None and not table) as advance:
                for name, text in texts:
                    async for piece in score(
                        service, text, include_eos=include_eos, entropies=entropy, advance=advance
                    ):
                        sheet.add(name, piece)
                        sums = [total([*sums, piece.scored.likelihood])]
            whole = total(sums)
            sheet.end(whole)
        if isinstance(sheet, Tsv):
            if out is not None:
                options = {
                    "each_line": each_line,
                    "keep_blank_lines": keep_blank_lines,
                    "include_eos": include_eos,
                    "oov_penalty": oov_penalty,
                    "entropy": entropy,
                }
                _record(out, {"model": model.model_dump(), "files": [name for name, _ in texts], **options}, whole)
            _say(model.name, model.precision, f"{sheet.count:,} {sheet.rows}", whole)

    ask(work, bundle=bundle)


def _texts(files: list[Path]) -> list[tuple[str, str]]:
    """Name and content of every file."""
    names = [str(file) for file in files]
    if names.count(STDIN) > 1:
        raise TextError("standard input can be read once; give - once")
    return [(name, _standard_input() if name == STDIN else _read(Path(name))) for name in names]


def _read(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as problem:
        raise TextError(
            f"{file} cannot be read: {problem.strerror}; give a file, or - and the text on standard input"
        ) from None
    return decode_text(data, file, TextError)


def _standard_input() -> str:
    if sys.stdin is None:
        raise TextError("standard input is closed; name a file, or pipe the text in")
    return decode_text(sys.stdin.buffer.read(), "standard input", TextError)


@contextmanager
def _destination(out: Path | None) -> Iterator[TextIO]:
    """Where rows go, in UTF-8 whatever the locale; a terminal is shown what it can show."""
    if out is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            if sys.stdout.isatty():
                sys.stdout.reconfigure(errors="replace")
            else:
                sys.stdout.reconfigure(encoding="utf-8", newline="\n")
        yield sys.stdout
        # Here, where a reader that has left and a full disk are still errors of the command.
        sys.stdout.flush()
        return
    with _written(out), written_atomically(out) as binary:
        file = io.TextIOWrapper(binary, "utf-8", newline="\n")
        yield file
        file.detach()


@contextmanager
def _written(out: Path) -> Iterator[None]:
    """Name a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise TextError(f"{out} cannot be written: {error.strerror or error}; give another file by --out") from None


@contextmanager
def _progress(texts: list[tuple[str, str]], *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, where that is a terminal. Rows that go to the same terminal show progress themselves."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import Progress  # noqa: PLC0415

    console = Console(stderr=True)
    off = not console.is_terminal or (hidden and sys.stdout.isatty())
    with Progress(console=console, transient=True, disable=off) as progress:
        task = progress.add_task("scoring", total=sum(len(text) for _, text in texts))
        yield lambda characters: progress.advance(task, characters)


def _record(out: Path, what: dict[str, Any], whole: Likelihood) -> None:
    """Put beside a TSV, which has no place for it, what its figures are of and what computed them."""
    from app.main import VERSION  # noqa: PLC0415 - loads the whole service, and is wanted once

    sums = {name: getattr(whole, name) for name in ("log_likelihood", "token_count", "oov_count")}
    with _written(out):
        write_json(out.with_name(f"{out.name}.json"), {"version": VERSION, **what, **sums})


def _say(model: str, precision: str, rows: str, whole: Likelihood) -> None:
    """One line on standard error that sums up what was written."""
    from app.score_formats import in_digits  # noqa: PLC0415

    figures = f"{whole.token_count:,} tokens, {whole.oov_count:,} unknown, perplexity {in_digits(whole.perplexity)}"
    print(printable(f"{model}, {precision}: {rows}, {figures}"), file=sys.stderr)
