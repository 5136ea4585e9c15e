"""Several files that belong together, put into a folder together or not at all.

Boundary: bytes by name in, files in a folder out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from model.errors import TrainingError
from model.files import write_atomically


def write_all(out: Path, files: Mapping[str, bytes]) -> None:
    """Write files into the folder `out`, made where it is missing; they take their places once all are written.

    Raises `TrainingError` that names the place and the remedy, with earlier files as they were.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".") as beside:
            for name, content in files.items():
                write_atomically(Path(beside, name), content)
            for name in files:
                Path(beside, name).replace(out / name)
    except OSError as error:
        raise TrainingError(
            f"{error.filename2 or out} cannot be written: {error.strerror or error}; mend that, or give another --out "
            "folder"
        ) from None
