"""Fused forms of inference on a GPU, each beside its plain reference."""
