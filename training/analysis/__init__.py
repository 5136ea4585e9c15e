"""The paper's analyses of trained models (Section 4.3): confidence, embeddings, saliency and gradient coverage.

A file for each analysis computes it; `tables` writes the results as CSV, `pictures` draws them.
"""
