"""The project's source as the tests of its structure see it: files, modules, and what each imports."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str) -> Iterator[str]:
    """Dotted names imported anywhere in a source, inside functions as well, other than for type checking alone.

    `from model import bundle` yields `model` and `model.bundle`, since the name may be a module or a thing in one.
    Relative imports are left out: they do not leave their package.
    """
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) in {"TYPE_CHECKING", "typing.TYPE_CHECKING"}:
            nodes.extend(node.orelse)
        else:
            nodes.extend(ast.iter_child_nodes(node))


def imports_of(path: Path) -> set[str]:
    """Dotted names imported anywhere in a file."""
    return set(imports(path.read_text(encoding="utf-8")))


def packages_of(path: Path) -> set[str]:
    """Top-level packages imported anywhere in a file."""
    return {name.partition(".")[0] for name in imports_of(path)}
