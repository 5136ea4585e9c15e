"""A hook of MkDocs: what the project recorded. `RESULTS.md` and `CHANGELOG.md` are pages, rows of benchmarks tables.

Boundary: files of the project's root, and rows of `benchmarks/results`, as Markdown. A marker such as
`<!-- benchmarks -->` becomes the table that `TABLES` has under its name, one paragraph or several.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from docs.capacity import DAY, GIB, Assumptions, for_corpus, for_sessions

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
    return _tables("cpu.json")


def over_http() -> str:
    """The same of the service under load."""
    return _tables("http.json")


def training() -> str:
    """The same of an update of training."""
    return _tables("update.json")


def ray() -> str:
    """The same with Ray."""
    return _tables("ray.json")


def _tables(name: str) -> str:
    record = _read(name)
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


def unknown_words() -> str:
    """How often the right one of two texts scores higher, by the penalty of an unknown word."""
    record = _read("unknown_words.json")
    penalties = ["0", "2", "4", "6", "8", "10", "12"]
    lines = [
        f"| text | pairs | {' | '.join(penalties)} | perplexity without oov |",
        "|---" * (len(penalties) + 3) + "|",
    ]
    for row in record["measured on"]:
        shares = [
            *(row["right_percent"][penalty] for penalty in penalties),
            row["right_percent_by_perplexity_without_oov"],
        ]
        cells = " | ".join(f"{share:.0f}%" for share in shares)
        lines.append(f"| {row['text']} | {row['pairs']:,} {row['kind']} | {cells} |")
    return "\n".join(lines)


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


def plan_of_texts() -> str:
    """What a billion texts take."""
    costs, assumed = _read("ray.json")["costs"], Assumptions()
    plan = for_corpus(costs, 10**9, DAY, assumed)
    return _two_columns(
        {
            "tokens": f"{plan.tokens:.2e}, {costs['tokens_per_text']:.1f} a text",
            "work": f"{plan.core_hours:,.0f} hours of a core, {costs['tokens_per_core_second']:,.0f} tokens a second",
            "machines, for a day": f"{plan.machines} of {assumed.cores} cores",
            "a part": f"{plan.part_texts:,.0f} texts, {plan.part_seconds:,.0f} s of a core",
            "memory of their workers": f"{plan.worker_bytes / GIB:.1f} GiB a machine",
            "what is written": f"{plan.written_bytes / 1e9:,.0f} GB of Parquet",
            "before anything is scored": f"{plan.planning_hours:.1f} hours of one core, which reads the whole corpus",
            "money": f"{plan.dollars:,.0f} dollars, and {plan.dollars_a_month:.2f} a month for the files",
        }
    )


def plan_of_sessions() -> str:
    """What a million sessions at once take."""
    costs, assumed = _read("ray.json")["costs"], Assumptions()
    plan = for_sessions(costs, 10**6, assumed)
    rates = [costs[f"appends_per_core_second{which}"] for which in ("", "_without_ray")]
    kilobytes, milliseconds = costs["redis_bytes_per_session"] / 1e3, costs["redis_seconds_per_append"] * 1e3
    dollars = f"{plan.dollars_an_hour:,.0f} dollars an hour"
    return _two_columns(
        {
            "appends": f"{plan.appends_per_second:,.0f} a second",
            "machines": f"{plan.machines} of {assumed.cores} cores behind Serve ({rates[0]:,.0f} appends a second of a "
            f"core), {plan.machines_without_ray} with `pru serve` ({rates[1]:,.0f})",
            "memory of their replicas": f"{plan.replica_bytes / GIB:.1f} GiB a machine",
            "memory of Redis": f"{plan.redis_bytes / GIB:.1f} GiB, {kilobytes:.1f} kB a session",
            "work of Redis": f"{plan.redis_cores:.1f} cores, {milliseconds:.2f} ms an append: one Redis, which uses "
            f"one core, is full at {plan.sessions_of_a_redis:,.0f} sessions",
            "cells": f"{plan.cells}, each with a Redis and its share of the machines",
            "money": f"{dollars}, {plan.dollars_an_hour_without_ray:,.0f} with `pru serve`",
        }
    )


def _two_columns(cells: dict[str, str]) -> str:
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {cell} |" for name, cell in cells.items())])


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
    "over http": over_http,
    "personal": personal,
    "personal cost": personal_cost,
    "plan of sessions": plan_of_sessions,
    "plan of texts": plan_of_texts,
    "ray": ray,
    "training": training,
    "unknown words": unknown_words,
}
"""What each marker becomes."""
