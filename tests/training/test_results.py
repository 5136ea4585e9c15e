"""Runs in RESULTS.md, from records made by hand; their evaluations have tests of their own."""

from __future__ import annotations

from typing import Any

import pytest

from tests.training.records import Record, ablation, curve, model, read, record
from tests.training.tables import ADVANCED, OTHERS, STANDARD, table, tables
from training.presets import find_preset
from training.results import results
from training.settings import with_settings


def test_a_run_stands_beside_the_published_figures() -> None:
    rows = [row for row in table(STANDARD, record(peak_bytes=3_140_000_000)) if row["preset"] == "pru-g4"]
    assert rows[0] == {
        "preset": "pru-g4",
        "in the paper": "PRU (g = 4, K = 2, M = 1400)",
        "data": "ptb",
        "parameters": "18.90",
        "recurrent": f"{recurrent_by_hand() / 1e6:.2f}",
        "seed": "1",
        "epochs": "2",
        "hardware": "Two Cores, 2 threads",
        "time": "1 h 20 min",
        "memory": "3.1 GB",
        "validation": "65.00",
        "published validation": "64.76",
        "difference in validation": "+0.24",
        "test": "62.00",
        "published test": "62.42",
        "difference in test": "-0.42",
    }
    assert rows[1]["data"] == "wikitext-2"
    assert rows[1]["epochs"] == "not run"


def test_a_run_that_changed_its_presets_recipe_or_architecture_says_so() -> None:
    preset = find_preset("pru-g4")
    recipe = preset.recipe_for("ptb").model_dump(mode="json")
    own: Record = {"recipe": recipe, "model": preset.config(10_000).model_dump(mode="json")}
    changes: list[Record] = [{}, {"recipe": recipe | {"epochs": 4}}, {"model": own["model"] | {"softmaxes": 3}}]
    rows = table(STANDARD, *(record("pru-g4", **(own | change), seed=seed) for seed, change in enumerate(changes)))
    assert {row["seed"]: row["preset"] for row in rows if row["seed"] in "012"} == {
        "0": "pru-g4",
        "1": "pru-g4, changed",
        "2": "pru-g4, changed",
    }


def test_what_a_run_changed_is_told_as_it_would_be_set() -> None:
    preset = find_preset("pru-g4")
    recipe = preset.recipe_for("ptb").model_dump(mode="json")
    model = preset.config(10_000).model_dump(mode="json")
    dropout = recipe["dropout"] | {"hidden": 0.3}
    changed = record(
        "pru-g4",
        recipe=recipe | {"optimizer": "adamw", "dropout": dropout},
        model=model | {"softmaxes": 3},
    )
    rows = table("Changed settings", record("pru-g4", recipe=recipe, model=model), changed, changed | {"seed": 2})
    settings = 'recipe.optimizer="adamw" recipe.dropout.hidden=0.3 model.softmaxes=3'
    assert rows == [{"preset": "pru-g4, changed", "data": "ptb", "settings": settings}]
    architecture, again = with_settings(preset.architecture, preset.recipe_for("ptb"), settings.split())
    assert (architecture["softmaxes"], again.model_dump(mode="json")) == (3, changed["recipe"])
    assert "Changed settings" not in tables(results(read(record("pru-g4", recipe=recipe, model=model))))


def recurrent_by_hand() -> int:
    """Four gates: a quarter of M reads half of N and the rest all of it, a quarter of the context, and two biases."""
    layers = ((400, 1400), (1400, 1400), (1400, 400))
    return sum(4 * (m * n * 7 // 8 + m * m // 4 + 2 * m) for n, m in layers)


def test_what_was_not_run_says_so_and_keeps_its_published_figures() -> None:
    found = tables(results([]))
    models = {
        STANDARD: 6,
        ADVANCED: 4,
        "Table 4: sub-sampling": 4,
        "Figure 5: levels and groups": 12,
    }
    for heading, count in models.items():
        assert len(found[heading]) == 2 * count
        assert {row["epochs"] for row in found[heading]} == {"not run"}
        assert {row["validation"] for row in found[heading]} == {"–"}
    finetuned = found[ADVANCED][3]
    assert (finetuned["preset"], finetuned["published test"]) == ("awd-pru-g4-finetuned", "56.56")
    assert OTHERS not in found
    assert "## Runs of no table or figure\n\nNone." in results([])


def test_a_row_of_the_paper_that_was_only_run_otherwise_says_that_it_was_not_run() -> None:
    changed = record("pru-g1", recipe=find_preset("pru-g1").recipe_for("ptb").model_dump(mode="json"))
    runs = [record("pru-g4-one-cycle"), record("awd-pru-g4-one-cycle"), record("awd-pru-g4", seed=2), changed]
    found = tables(results(read(*runs)))
    rows = [row for heading in (STANDARD, ADVANCED) for row in found[heading] if row["data"] == "ptb"]
    told = {row["preset"]: (row["epochs"], row["published test"]) for row in rows}
    assert told["pru-g4-one-cycle"] == ("2", "62.42")
    assert told["pru-g4"] == ("not run", "62.42")
    assert told["pru-g1, changed"] == ("500", "67.78")
    assert told["pru-g1"] == ("not run", "67.78")
    assert told["awd-pru-g4-one-cycle"] == told["awd-pru-g4"] == ("2", "58.33")
    assert len(rows) == 8 + 5


def test_ablations_are_compared_by_validation_alone() -> None:
    rows = table(
        "Table 3: transformations of input and context", record("table3-r4", "wikitext-2", model=ablation(4, 4))
    )
    (run,) = [row for row in rows if row["epochs"] != "not run"]
    assert run["in the paper"] == "R4: context LT, input PT"
    assert (run["validation"], run["published validation"], run["difference in validation"]) == (
        "65.00",
        "88.31",
        "-23.31",
    )
    assert run["test"] == "62.00"
    assert "published test" not in run


def test_figure_5_tells_the_reduction_against_the_lstm() -> None:
    rows = table(
        "Figure 5: levels and groups",
        record("figure5-g1-k1", model=ablation(1, 1)),
        record("figure5-g4-k2", model=ablation(4, 2)),
    )
    reductions = {row["preset"]: (row["recurrent"], row["reduction"]) for row in rows if row["data"] == "ptb"}
    lstm, pru = (4 * (600 * n + 600 * m + 2 * 600) for n, m in ((600, 600), (525, 150)))
    assert reductions["figure5-g1-k1"] == (f"{lstm / 1e6:.2f}", "0.0%")
    assert reductions["figure5-g4-k2"] == (f"{pru / 1e6:.2f}", f"{100 * (1 - pru / lstm):.1f}%")
    assert reductions["figure5-g2-k2"] == ("–", "–")


def test_seeds_are_followed_by_their_mean_and_deviation() -> None:
    runs = [
        record(seed=seed, perplexity={"valid": valid, "test": test})
        for seed, valid, test in ((3, 66.0, 63.5), (1, 64.0, 62.5), (2, 68.0, 64.5))
    ]
    rows = [row for row in table(STANDARD, *runs) if (row["preset"], row["data"]) == ("pru-g4", "ptb")]
    assert [row["seed"] for row in rows] == ["1", "2", "3", "mean of 3 runs"]
    assert rows[3]["validation"] == "66.00 ± 2.00"
    assert rows[3]["difference in validation"] == "+1.24"
    assert rows[3]["test"] == "63.50 ± 1.00"
    assert rows[3]["difference in test"] == "+1.08"
    assert rows[3]["hardware"] == rows[3]["time"] == "–"


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 1},
        {"recipe": {"epochs": 9}},
        {"model": model(subsampling="skip")},
        {"finished": False, "perplexity": {}},
        {"started_from": {"preset": "pru-g4", "sha256": "0" * 64}},
    ],
    ids=["same seed", "other epochs", "other model", "not finished", "warm start"],
)
def test_runs_that_differ_by_more_than_their_seeds_have_no_mean(changes: dict[str, Any]) -> None:
    rows = table(STANDARD, record(), record(**({"seed": 2} | changes)))
    runs = [row for row in rows if row["preset"].startswith("pru-g4") and row["data"] == "ptb"]
    assert len(runs) == 2
    assert not any("mean" in row["seed"] for row in runs)


def test_a_run_that_is_not_finished_says_so_and_has_no_figures() -> None:
    unfinished = record(epochs=40, curve=curve((300, 250), (200, 150)), finished=False)
    del unfinished["perplexity"]
    (run,) = [row for row in table(STANDARD, unfinished) if (row["preset"], row["data"]) == ("pru-g4", "ptb")]
    assert run["epochs"] == "2 of 40, not finished"
    assert run["validation"] == run["test"] == run["difference in validation"] == "–"
    assert run["published validation"] == "64.76"


def test_only_the_paper_s_own_texts_are_compared_with_it() -> None:
    """A folder called `ptb` is not the Penn Treebank, and a preset of the paper on other text is none of its rows."""
    elsewhere = record() | {"data": {"name": "ptb", "sha256": {"train": "0" * 64, "valid": "1" * 64}}}
    found = tables(results(read(elsewhere, record("small", "wikitext-2", perplexity={"valid": 104.12}))))
    assert {row["epochs"] for row in found[STANDARD]} == {"not run"}
    assert [(row["preset"], row["data"], row["validation"], row["test"]) for row in found[OTHERS]] == [
        ("pru-g4", "ptb", "65.00", "62.00"),
        ("small", "wikitext-2", "104.12", "–"),
    ]


def test_a_warm_restart_names_where_it_came_from() -> None:
    origin = {"preset": "awd-pru-g4", "sha256": "0123456789abcdef" * 4}
    rows = table(ADVANCED, record("awd-pru-g4-finetuned", started_from=origin))
    (run,) = [row for row in rows if row["epochs"] != "not run"]
    assert run["preset"] == "awd-pru-g4-finetuned (started from awd-pru-g4, 0123456789ab)"
    assert (run["published test"], run["difference in test"]) == ("56.56", "+5.44")


def test_the_order_of_the_arguments_changes_nothing() -> None:
    runs = [record(), record(seed=2), record("lstm-1000"), record("small", "wikitext-2"), record("another", "ptb")]
    assert results(read(*runs)) == results(read(*reversed(runs)))


def test_names_stay_within_their_cells() -> None:
    (run,) = table(OTHERS, record("a|b\n<b>`*_c"))
    assert run["preset"] == r"a\|b \<b\>\`\*\_c"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, "0 s"),
        (29.4, "29 s"),
        (59.9, "1 min"),
        (3569.0, "59 min"),
        (3599.0, "1 h 00 min"),
        (90000.0, "25 h 00 min"),
    ],
)
def test_time_is_said_in_units_of_its_size(seconds: float, said: str) -> None:
    (run,) = table(OTHERS, record("small", seconds=seconds))
    assert run["time"] == said


def test_every_name_of_the_hardware_is_told() -> None:
    hardware = {"processor": "EPYC", "cores": 16, "threads": 8, "accelerator": "H100"}
    (run,) = table(OTHERS, record("small", hardware=hardware))
    assert run["hardware"] == "EPYC, H100, 8 threads"
    (run,) = table(OTHERS, record("small", hardware={"processor": None, "cores": 1, "threads": None}))
    assert run["hardware"] == "–"
