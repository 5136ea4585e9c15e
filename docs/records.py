"""A hook of MkDocs: what the project recorded. `RESULTS.md` and `CHANGELOG.md` are pages, rows of benchmarks tables.

Boundary: files of the project's root, and rows of `benchmarks/results`, as Markdown. `<!-- benchmarks -->` becomes the
tables of `cpu.json`, `<!-- gpus -->` those of every `nvidia-*.json`, `<!-- keystrokes -->` that of `keystrokes.json`,
`<!-- personal -->` that of `personal.json` and `<!-- personal cost -->` what that says of an append.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
RECORDS = {"results.md": "RESULTS.md", "learning_curves.png": "learning_curves.png", "changelog.md": "CHANGELOG.md"}
"""Names in the site, and in the project."""


def on_files(files: Files, *, config: Any) -> Files:
    """The site's files and those."""
    for name, source in RECORDS.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """A page with its tables."""
    for name, table in TABLES.items():
        marker = f"<!-- {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, table())
    return markdown


def benchmarks() -> str:
    """Every comparison that was recorded on a CPU, a table for each model."""
    record = _read("cpu.json")
    lines = [f"Measured on {record['date']}: {record['processor']}, {record['cores']} cores."]
    for title, rows in record["tables"].items():
        lines += ["", f"**{title}**", "", *_comparisons(rows)]
    return "\n".join(lines)


def gpus() -> str:
    """The same of every GPU."""
    lines = []
    for path in sorted(RESULTS.glob("nvidia-*.json")):
        record = _read(path.name)
        versions = ", ".join(f"{name} {version}" for name, version in record["versions"].items())
        lines += [f"**{record['device']}**, {record['date']}, {versions}", "", *_comparisons(record["rows"]), ""]
    return "\n".join(lines)


def _comparisons(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| comparison | figures | value | bar | |", "|---|---|---|---|---|"]
    for row in rows:
        met = {True: "met", False: "missed", None: ""}[row["met"]]
        lines.append(
            f"| {row['name']} | {row['figures']} | {row['value']:.3g} {row['unit']} | {row['bar'] or ''} | {met} |"
        )
    return lines


def keystrokes() -> str:
    """The share of keystrokes that suggestions save, for each text and model."""
    return _saved(_read("keystrokes.json")["results"])


def personal() -> str:
    """The same of personal sessions."""
    return _saved(_read("personal.json")["results"])


def personal_cost() -> str:
    """What a word more costs in a personal session, beside another."""
    cost = _read("personal.json")["append"]
    ratio = cost["personal_milliseconds"] / cost["plain_milliseconds"]
    return (
        f"Appending a word to a session of the bundled model takes {ratio:.2g} times as long once its memory is full "
        f"(over HTTP, sessions in a file), and a session {cost['personal_bytes'] / 1000:.0f} kB in place of "
        f"{cost['plain_bytes'] / 1000:.0f} kB, which are read and written with every append."
    )


def _saved(results: list[dict[str, Any]]) -> str:
    lines = ["| text | model | keystrokes saved | perplexity |", "|---|---|---|---|"]
    for row in results:
        perplexity = row["perplexity"]
        shown = "–" if perplexity is None else f"{perplexity:.1f}"
        lines.append(f"| {row['text']} | {row['model']} | {row['saved_percent']:.1f}% | {shown} |")
    return "\n".join(lines)


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


TABLES = {
    "benchmarks": benchmarks,
    "gpus": gpus,
    "keystrokes": keystrokes,
    "personal": personal,
    "personal cost": personal_cost,
}
"""What each marker becomes."""
