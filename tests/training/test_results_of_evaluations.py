"""Evaluations in RESULTS.md, each kind by itself, from records made by hand."""

from __future__ import annotations

from tests.training.records import Record, read, record
from tests.training.tables import OTHERS, STANDARD, tables
from training.presets import find_preset
from training.results import results

EVALUATIONS = [
    {
        "data": "ptb test",
        "tokens": 82430,
        "evaluation": "dynamic",
        "parameters": {"bptt": 5},
        "dynamic_perplexity": 55.0,
    },
    {"data": "ptb valid", "tokens": 73760, "evaluation": "dynamic", "parameters": {}, "dynamic_perplexity": 57.5},
    {
        "data": "ptb test",
        "tokens": 82430,
        "evaluation": "neural_cache",
        "parameters": {"lambda": 0.1, "theta": 1.0},
        "neural_cache_perplexity": 59.25,
    },
    {"data": "a|b.txt", "tokens": 9, "evaluation": "static", "parameters": {}, "perplexity": 321.0},
]


def test_every_kind_of_evaluation_has_a_table_and_a_measure_of_its_own() -> None:
    found = tables(results(read(record(evaluations=EVALUATIONS))))
    dynamic, cache, static = (found[f"{kind} evaluation"] for kind in ("Dynamic", "Neural cache", "Static"))
    assert dynamic == [
        {
            "preset": "pru-g4",
            "data": "ptb test",
            "seed": "1",
            "tokens": "82,430",
            "settings": "bptt 5",
            "dynamic perplexity": "55.00",
            "published": "55.23",
            "difference": "-0.23",
        },
        {
            "preset": "pru-g4",
            "data": "ptb valid",
            "seed": "1",
            "tokens": "73,760",
            "settings": "–",
            "dynamic perplexity": "57.50",
            "published": "–",
            "difference": "–",
        },
        {
            "preset": "lstm-1000",
            "data": "ptb test",
            "seed": "–",
            "tokens": "–",
            "settings": "not run",
            "dynamic perplexity": "–",
            "published": "58.79",
            "difference": "–",
        },
    ]
    assert [(row["settings"], row["neural cache perplexity"]) for row in cache] == [("lambda 0.1, theta 1.0", "59.25")]
    assert [(row["data"], row["perplexity"]) for row in static] == [(r"a\|b.txt", "321.00")]


def test_an_evaluation_names_what_it_is_of_as_the_tables_before_it_do() -> None:
    architecture = find_preset("pru-g4").config(10_000).model_dump(mode="json") | {"softmaxes": 3}
    recipe = find_preset("pru-g4").recipe_for("ptb").model_dump(mode="json")
    origin = {"preset": "small", "sha256": "0" * 64}
    changed = record(model=architecture, recipe=recipe, evaluations=EVALUATIONS[:1], started_from=origin)
    rows = tables(results(read(changed, changed | {"seed": 2})))["Dynamic evaluation"]
    name = "pru-g4, changed (started from small, 000000000000)"
    assert [(row["preset"], row["settings"]) for row in rows] == [
        *[(name, "bptt 5")] * 2,
        (name, "–"),
        ("pru-g4", "not run"),
        ("lstm-1000", "not run"),
    ]


def test_figures_of_a_rounded_recurrence_say_so_and_others_say_nothing() -> None:
    rounded = [EVALUATIONS[0] | {"recurrence": "float16"}]
    told = results(read(record(recurrence="float16", evaluations=rounded), record("small", evaluations=EVALUATIONS)))
    found = tables(told)
    runs = [row for heading in (STANDARD, OTHERS) for row in found[heading] if row["epochs"] != "not run"]
    said = ", figures by a float16 recurrence"
    assert [row["hardware"] for row in runs] == ["Two Cores, 2 threads" + said, "Two Cores, 2 threads"]
    settings = [row["settings"] for row in found["Dynamic evaluation"]]
    assert settings[:3] == ["bptt 5" + said, "bptt 5", "–"]
    assert 'Figures "by a float16 recurrence" were measured on a GPU' in told
    assert "float16" not in results(read(record()))


def test_the_same_evaluation_of_several_seeds_has_a_mean_with_its_deviation() -> None:
    def run(seed: int, perplexity: float, data: str = "ptb test") -> Record:
        done = {"data": data, "tokens": 82430, "evaluation": "dynamic", "parameters": {"bptt": 5}}
        return record(seed=seed, evaluations=[done | {"dynamic_perplexity": perplexity}])

    found = tables(results(read(run(1, 55.0), run(2, 56.0), run(3, 58.0), run(4, 70.0, "ptb valid"))))
    rows = [row for row in found["Dynamic evaluation"] if row["preset"] == "pru-g4"]
    assert [(row["seed"], row["data"], row["dynamic perplexity"], row["difference"]) for row in rows] == [
        ("1", "ptb test", "55.00", "-0.23"),
        ("2", "ptb test", "56.00", "+0.77"),
        ("3", "ptb test", "58.00", "+2.77"),
        ("mean of 3 runs", "ptb test", "56.33 ± 1.53", "+1.10"),
        ("4", "ptb valid", "70.00", "–"),
    ]


def test_adaptive_figures_are_in_no_table_of_static_ones() -> None:
    found = tables(results(read(record(evaluations=EVALUATIONS))))
    adaptive = {"55.00", "55.23", "57.50", "58.79", "59.25"}
    for heading, rows in found.items():
        if heading not in {"Dynamic evaluation", "Neural cache evaluation"}:
            assert not any(adaptive & set(row.values()) for row in rows), heading
