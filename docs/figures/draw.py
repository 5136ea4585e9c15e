"""`python -m docs.figures.draw`: the documentation's figures, each for a light and a dark page.

Boundary: which pictures there are, their colours, and SVG that is the same bytes for the same figure. What is drawn is
`diagrams`' (how things are connected) and `charts`' (what was counted), with sizes from the model's code.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

FOLDER = Path(__file__).parent
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "pru",
    # Letters as outlines: they look the same whatever fonts a reader has.
    "svg.fonttype": "path",
    "mathtext.fontset": "dejavusans",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


@dataclass(frozen=True)
class Palette:
    """Colours of one scheme. The background is the page's own; fills are light enough to be written on."""

    ink: str
    faint: str
    input: str
    context: str
    output: str
    plain: str


LIGHT = Palette(ink="#24292f", faint="#8b949e", input="#9ecae1", context="#fdbe85", output="#a1d99b", plain="#e3e6ea")
DARK = Palette(ink="#e6e8eb", faint="#8d96a0", input="#3079a8", context="#a85a12", output="#357a45", plain="#464b57")
PALETTES = {"light": LIGHT, "dark": DARK}


def figures() -> dict[str, Callable[[Palette], Figure]]:
    """What draws each figure, by its name."""
    from docs.figures import charts, diagrams  # noqa: PLC0415 - they take their palette from here

    return {
        "stack": diagrams.stack,
        "cell": diagrams.cell,
        "groups": diagrams.groups,
        "pyramid": diagrams.pyramid,
        "subsampling": charts.subsampling,
        "grouped": charts.grouped,
        "parameters": charts.parameters,
    }


def pictures() -> dict[str, bytes]:
    """Every picture by its file's name."""
    return {
        f"{name}-{scheme}.svg": svg(figure, palette)
        for name, figure in figures().items()
        for scheme, palette in PALETTES.items()
    }


def svg(figure: Callable[[Palette], Figure], palette: Palette) -> bytes:
    """A figure as SVG in the colours of a palette, with nothing that differs from one run to the next."""
    ink = {f"{part}.color": palette.ink for part in ("text", "xtick", "ytick")}
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE | ink | {"axes.edgecolor": palette.faint, "axes.labelcolor": palette.ink}):
        figure(palette).savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}, bbox_inches="tight"
        )
    return buffer.getvalue()


def main() -> None:
    """Write all pictures beside this file."""
    for name, content in pictures().items():
        (FOLDER / name).write_bytes(content)
        print(FOLDER / name)


if __name__ == "__main__":
    main()
