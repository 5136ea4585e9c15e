"""From text to a checkpoint: corpora, batches, losses, optimisers, the training loop and evaluation."""
