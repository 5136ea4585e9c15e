"""A hook of MkDocs: formulas between dollar signs become MathML, which browsers draw by themselves.

Boundary: LaTeX of one formula in, MathML out. `$x_t$` stands in a line, `$$ … $$` by itself; `\\$` is a dollar sign.
Code is left alone.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree.ElementTree import Element

from latex2mathml.converter import convert
from markdown import Extension, Markdown
from markdown.inlinepatterns import InlineProcessor

BEFORE_ESCAPES = 185
"""Priority after code spans (190), whose dollars are their own, and before backslashes (180), which LaTeX needs."""


class Formula(InlineProcessor):  # type: ignore[misc]  # Markdown ships no types
    """One formula, kept aside from all that Markdown would do to it."""

    def handleMatch(self, m: re.Match[str], data: str) -> tuple[Element | str, int, int]:
        """MathML in the formula's place."""
        block = m[1] is not None
        mathml = convert(m[1] if block else m[2], display="block" if block else "inline")
        return self.md.htmlStash.store(f'<div class="formula">{mathml}</div>' if block else mathml), *m.span()


class Formulas(Extension):  # type: ignore[misc]  # as above
    """Markdown with formulas."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Add the pattern."""
        pattern = r"(?<!\\)(?:\$\$([^$]+)\$\$|\$([^$\s](?:[^$\n]*[^$\s])?)\$)"
        md.inlinePatterns.register(Formula(pattern, md), "formula", BEFORE_ESCAPES)


def on_config(config: Any) -> Any:
    """Add the extension to those that MkDocs was configured with."""
    config.markdown_extensions.append(Formulas())
    return config
