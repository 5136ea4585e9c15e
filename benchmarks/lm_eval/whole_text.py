"""Functions of the task file `pru_wikitext2.yaml`: a text file as one document, and its tokens counted.

Boundary: called by lm_eval, which imports this file by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets


def load(text: str, **_: Any) -> dict[str, Any]:
    """The file at the path `text`, UTF-8, as the one document of the split `test`.

    Cut into articles, as lm_eval's own task has it, a recurrent state would start afresh with each.
    """
    return {"test": datasets.Dataset.from_dict({"text": [Path(text).read_text(encoding="utf-8")]})}


def process_results(document: dict[str, str], results: tuple[float]) -> dict[str, tuple[float, int]]:
    """Log-likelihood and tokens: words between blanks and, since a newline is `<eos>`, line ends."""
    text = document["text"]
    return {"word_perplexity": (results[0], len(text.split()) + text.count("\n"))}
