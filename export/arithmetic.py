"""What a graph asks of an arithmetic: its products.

Boundary: the protocol alone. Its forms are in `export.quantize`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from export.builder import GraphBuilder
from export.weights import Floats


@dataclass(frozen=True)
class StepWeight:
    """A matrix that every step multiplies by, in one graph, for |x| of at most `bound`.

    It is the constants that its product reads, and what the product leaves out, `[g, c]`: the offset is added with the
    bias, outside the recurrence where that is possible.
    """

    operands: tuple[str, ...]
    offset: Floats
    bound: float
    rest: StepWeight | None = None
    """A second product, of what the first leaves out of x where it rounds."""


class Arithmetic(Protocol):
    """How the products of a graph are computed. A `bound` says that no |x| is larger; `table_bound` is the table's."""

    table_bound: float

    def embed(self, graph: GraphBuilder, ids: str) -> str:
        """Float32 rows `[R, E]` of the table."""

    def product(self, graph: GraphBuilder, x: str, bound: float, name: str, weight: Floats, bias: Floats) -> str:
        """`x [R, n] @ weight [n, c] + bias [c]`, outside the recurrence."""

    def step_weight(
        self, graph: GraphBuilder, name: str, weight: Floats, bound: float, *, fine: bool = False
    ) -> StepWeight:
        """The constants for products by `weight [g, n, c]` inside the recurrence.

        They are fine where most |x| are far below the bound: a scale for the bound alone would round them too coarsely.
        """

    def step_product(self, graph: GraphBuilder, x: str, weight: StepWeight) -> str:
        """`x [g, B, n] @ weight - offset`, to `[g, B, c]`."""

    def logits(self, graph: GraphBuilder, hidden: str, bias: Floats) -> str:
        """`hidden [N, E] @ table.T + bias [V]`, for |hidden| of at most 1."""
