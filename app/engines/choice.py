"""Which engine runs a bundle on this machine: every engine's description, in one table, and the choice among them.

Boundary: manifest and machine in, one loaded engine out. An engine's library is imported when that engine is loaded and
not before, so that serving from ONNX needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.engines import probes
from app.engines.base import Engine
from model.bundle import Artefact, Bundle
from model.errors import EngineError

AUTO = "auto"

Load = Callable[[Bundle, Sequence[Path], "Candidate", int], Engine]


@dataclass(frozen=True)
class Candidate:
    """One engine in one precision on one kind of device."""

    engine: str
    precision: str
    device: str
    """ "cpu" or "cuda"."""
    artefact: str
    """What it takes of `manifest.engines`, in its precision."""
    lacks: Callable[[], str | None]
    """What this machine lacks to run it."""
    load: Load

    def missing(self, bundle: Bundle) -> str | None:
        """What is missing, of the bundle or else of this machine, to run `bundle` so; None where nothing is."""
        held = bundle.manifest.engines.get(self.artefact)
        if held is None:
            return f"the bundle holds no {self.artefact} artefact; export it with --engines {self.artefact}"
        if self.precision not in held:
            return (
                f"the bundle holds no {self.artefact} artefact in {self.precision} "
                f"(it holds {', '.join(sorted(held))}); export it with --precision {self.precision}"
            )
        return self.lacks()

    def validated(self, bundle: Bundle) -> bool:
        """Whether the bundle's artefact was measured on such a device when it was accepted."""
        artefact = bundle.manifest.engines.get(self.artefact, {}).get(self.precision)
        return artefact is not None and self.device in devices_validated_on(artefact)


def _onnx(_: Bundle, files: Sequence[Path], candidate: Candidate, threads: int) -> Engine:
    from app.engines.onnx import OnnxEngine  # noqa: PLC0415 - loads ONNX Runtime

    return OnnxEngine(files, candidate.precision, threads)


def _onnx_cuda(_: Bundle, files: Sequence[Path], __: Candidate, threads: int) -> Engine:
    from app.engines.onnx import OnnxCudaEngine  # noqa: PLC0415 - loads ONNX Runtime

    return OnnxCudaEngine(files, threads)


def _torchscript(_: Bundle, files: Sequence[Path], candidate: Candidate, threads: int) -> Engine:
    from app.engines.torchscript import TorchScriptEngine  # noqa: PLC0415 - loads torch

    return TorchScriptEngine(files, candidate.device, threads)


def _fused(_: Bundle, files: Sequence[Path], candidate: Candidate, __: int) -> Engine:
    from app.engines.fused import FusedEngine  # noqa: PLC0415 - loads torch

    return FusedEngine(files, candidate.device)


CANDIDATES = (
    Candidate("cuda", "bfloat16", "cuda", "cuda", probes.fused, _fused),
    Candidate("cuda", "float16", "cuda", "cuda", probes.fused, _fused),
    Candidate("onnx-cuda", "float32", "cuda", "onnx", probes.onnx_cuda, _onnx_cuda),
    Candidate("torchscript", "float32", "cuda", "torchscript", probes.torch_cuda, _torchscript),
    Candidate("onnx", "int8", "cpu", "onnx", probes.onnx, _onnx),
    Candidate("onnx", "float32", "cpu", "onnx", probes.onnx, _onnx),
    Candidate("torchscript", "float32", "cpu", "torchscript", probes.torch_cpu, _torchscript),
)
"""Every way to run a bundle, the fastest first. On the CPU the order is what `make bench` measures. On CUDA nothing was
measured yet and it is what is to be expected: the kernels read half the bytes of float32 in a handful of launches, ONNX
Runtime launches one kernel an operator without Python between them."""


@dataclass(frozen=True)
class Offer:
    """What became of one candidate for one bundle on this machine."""

    engine: str
    precision: str
    device: str
    missing: str | None
    """What it lacks; None where it is ready."""
    validated: bool
    chosen: bool
    """Whether this is what the settings choose."""


def load_engine(bundle: Bundle, precision: str = AUTO, threads: int = 1, engine: str = AUTO) -> Engine:
    """Load the fastest engine of that name and precision that `bundle` and this machine have.

    `auto` takes only what was validated on such a device; an engine that is named is taken without. Raises
    `EngineError` that says what is missing and what there is.
    """
    chosen = choose(bundle, engine, precision)
    files = bundle.paths(bundle.manifest.engines[chosen.artefact][chosen.precision])
    loaded = chosen.load(bundle, files, chosen, threads)
    model = bundle.manifest.model
    if (loaded.vocabulary_size, loaded.state_size) != (model.vocabulary_size, model.state_size):
        raise EngineError(
            f"{bundle.folder}: the {chosen.artefact} artefact in {chosen.precision} is of another model; "
            "export the bundle again"
        )
    return loaded


def choose(bundle: Bundle, engine: str, precision: str) -> Candidate:
    """The candidate that `load_engine` loads."""
    named = [candidate for candidate in CANDIDATES if engine in (AUTO, candidate.engine)]
    if not named:
        names = ", ".join(dict.fromkeys(candidate.engine for candidate in CANDIDATES))
        raise EngineError(f"there is no engine named {engine!r}; choose one of {AUTO}, {names}")
    wanted = [candidate for candidate in named if precision in (AUTO, candidate.precision)]
    if not wanted:
        precisions = ", ".join(dict.fromkeys(candidate.precision for candidate in named))
        raise EngineError(f"no engine runs in {precision!r}; choose one of {AUTO}, {precisions}")
    # A probe may have to load a library: what the manifest rules out is not probed.
    allowed = [candidate for candidate in wanted if engine != AUTO or candidate.validated(bundle)]
    found = next((candidate for candidate in allowed if candidate.missing(bundle) is None), None)
    if found is None:
        raise EngineError(_refusal(bundle, wanted))
    return found


def offers(bundle: Bundle, engine: str = AUTO, precision: str = AUTO) -> list[Offer]:
    """What every candidate comes to, the fastest first, and which one the settings choose, if any."""
    try:
        chosen = choose(bundle, engine, precision)
    except EngineError:
        chosen = None
    return [
        Offer(
            candidate.engine,
            candidate.precision,
            candidate.device,
            candidate.missing(bundle),
            candidate.validated(bundle),
            candidate is chosen,
        )
        for candidate in CANDIDATES
    ]


def devices_validated_on(artefact: Artefact) -> set[str]:
    """Kinds of device on which an artefact was measured, when it was accepted and since."""
    return {record.device for record in artefact.validated}


def _refusal(bundle: Bundle, wanted: Sequence[Candidate]) -> str:
    """What each wanted candidate is missing, and what is ready instead."""
    reasons: dict[str, list[str]] = {}
    for candidate in wanted:
        reason = candidate.missing(bundle) or f"not validated on {candidate.device}; name the engine to use it so"
        reasons.setdefault(reason, []).append(f"{candidate.engine} in {candidate.precision}")
    listed = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in reasons.items())
    ready = [f"{one.engine} in {one.precision}" for one in CANDIDATES if one.missing(bundle) is None]
    return f"{bundle.folder} cannot be run as asked: {listed}. Ready here: {', '.join(ready) or 'none'}"
