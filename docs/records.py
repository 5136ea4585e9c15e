"""A hook of MkDocs: the pages that are records of the project, `RESULTS.md` and `CHANGELOG.md`, as they are.

Boundary: which files of the project's root are pages or pictures of the site.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
RECORDS = {"results.md": "RESULTS.md", "learning_curves.png": "learning_curves.png", "changelog.md": "CHANGELOG.md"}
"""Names in the site, and in the project."""


def on_files(files: Files, *, config: Any) -> Files:
    """The site's files and those."""
    for name, source in RECORDS.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files
