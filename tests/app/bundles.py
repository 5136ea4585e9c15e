"""A small real bundle: a random model, saved and exported by the project's own code."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.app.fakes import CORPUS, small_vocabulary


def export_small_bundle(folder: Path, engines: Sequence[str] = ("onnx",)) -> Path:
    """Export a random model of `small_vocabulary` for some engines in all their precisions; return the bundle's folder.

    The checkpoint stays beside it, in `checkpoint`.
    """
    import torch

    from export.exporter import Options, export_bundle
    from model.checkpoint import save_checkpoint
    from model.config import ModelConfig
    from model.language_model import LanguageModel

    vocabulary = small_vocabulary()
    torch.manual_seed(5)
    torch.set_num_threads(1)
    config = ModelConfig(
        vocabulary_size=len(vocabulary), embedding_size=32, hidden_size=48, layers=2, groups=4, levels=2
    )
    model = LanguageModel(config).eval()
    with torch.no_grad():
        model.embedding.weight.uniform_(-0.8, 0.8)
    checkpoint, text, bundle = folder / "checkpoint", folder / "text.txt", folder / "bundle"
    save_checkpoint(checkpoint, model, vocabulary, {"data": "made for tests"})
    text.write_text("\n".join(CORPUS), encoding="utf-8")
    options = Options(
        name="small", texts=[text], licence="MIT", attribution="the tests", max_cost=0.05, engines=engines
    )
    export_bundle(checkpoint, bundle, options, lambda stage, total, done: None)
    return bundle
