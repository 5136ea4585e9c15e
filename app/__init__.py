"""The service: a bundle in, answers out, over HTTP or in a terminal. Imports `model` and never torch."""
