"""Models as their file has them: loaded when it names them, retired when it does not, freed when nobody needs them.

Boundary: brings a `Registry` from one state to the next, in the background. The file is read again when it changes, or
when the process is told to. Each model in it is opened, built and warmed up beside those that answer, the default
first, and answers from then on; what fails is logged and leaves what answers as it is. What a name no longer leads to
is retired: it stays for as long as it is used, or the store holds a session of its bundle. A process that takes a dead
one's place begins with what that one served, where the file does not say what to serve.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, perf_counter

from structlog.typing import FilteringBoundLogger

from app.errors import StoreError
from app.models.file import Plan, read_models
from app.models.last_served import LastServed
from app.models.registry import Registry
from app.models.running import RunningModel, Surroundings
from app.served_model import Source, open_source
from app.sessions.store import SessionStore
from model.bundle import bundle_sha256
from model.errors import BundleError, PRUError

POLL_SECONDS = 1.0
"""How often the file is looked at."""
RETIRED_SECONDS = 10.0
"""How often retired models are looked at. Workers that follow the same file are done with it long before the first."""
THE_FILE = "the file of models"


class Keeper:
    """Brings the models of one application to what a file says."""

    def __init__(
        self,
        file: Path,
        registry: Registry,
        around: Surroundings,
        store: SessionStore,
        logger: FilteringBoundLogger,
        last: LastServed | None = None,
    ) -> None:
        """`last` is what processes that take each other's place share."""
        self._file = file
        self._registry = registry
        self._around = around
        self._store = store
        self._logger = logger
        self._last = last
        self._seen: tuple[int, ...] | None = ()
        self._told = asyncio.Event()
        registry.is_behind = lambda: _signature(file) != self._seen

    def look_again(self) -> None:
        """Read the file again, changed or not, as soon as may be."""
        self._told.set()

    async def follow(self) -> None:
        """Do as the file says whenever it changes, and free what is not needed; does not end by itself."""
        freed = monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
                    await self._told.wait()
            await self.look()
            if monotonic() - freed >= RETIRED_SECONDS:
                if await self._close_retired():
                    await asyncio.to_thread(_give_back)
                freed = monotonic()

    async def look(self) -> None:
        """Bring the models to what the file says, where it has changed or was not looked at yet, or as it was told."""
        told = self._told.is_set()
        self._told.clear()
        found = await asyncio.to_thread(_signature, self._file)
        if found == self._seen and not told:
            return
        is_first, self._seen = self._seen == (), found
        failed: list[str] = []
        try:
            plan = await asyncio.to_thread(read_models, self._file, self._around.settings)
            self._registry.coming = await asyncio.to_thread(_coming, plan)
            failed = await self._apply(plan)
        except Exception as error:
            self._complain(THE_FILE, error)
            failed = [THE_FILE]
        finally:
            self._registry.coming = ()
        if self._last is not None:
            if is_first:
                await self._bring_back(self._last, failed)
            if THE_FILE not in failed:
                self._remember(self._last, failed)
        self._registry.trouble = _trouble(failed)
        self._around.metrics.models_broken.set(bool(failed))

    async def _apply(self, plan: Plan) -> list[str]:
        """Bring the models to a plan as far as that is possible; the names for which it is not."""
        failed = []
        for name in sorted(plan.sources, key=lambda name: name != plan.default):
            try:
                await self._bring(plan.sources[name], default=name == plan.default)
            except Exception as error:
                self._complain(name, error)
                failed.append(name)
        self._change(lambda: self._registry.keep(plan.sources))
        return failed

    async def _bring(self, source: Source, *, default: bool) -> None:
        """Let the model of a source answer: the one that runs where nothing has changed, else a new one."""
        running = self._registry.now.named.get(source.name or "")
        if running is not None and await asyncio.to_thread(running.served.is_of, source):
            self._change(lambda: self._registry.put(running, default=default))
            return
        began = perf_counter()
        served = await asyncio.to_thread(open_source, source)
        model = await RunningModel.start(served, self._around)
        self._change(lambda: self._registry.put(model, default=default))
        self._logger.info("a model answers", **model.identity.model_dump(), seconds=round(perf_counter() - began, 3))

    async def _bring_back(self, last: LastServed, failed: list[str]) -> None:
        """Let what failed by the file answer as it did in the process whose place this one takes."""
        plan = last.plan()
        for name, source in plan.sources.items() if plan else ():
            if name in self._registry.now.named or not {name, THE_FILE}.intersection(failed):
                continue
            try:
                await self._bring(source, default=False)
            except Exception as error:
                self._complain(name, error)
                if name not in failed:
                    failed.append(name)

    def _remember(self, last: LastServed, failed: Sequence[str]) -> None:
        """Keep what answers now, and of what failed what answers elsewhere."""
        now, before = self._registry.now, last.plan()
        sources = {name: before.sources[name] for name in failed if before and name in before.sources}
        sources |= {name: model.served.source for name, model in now.named.items() if model.served.source}
        last.keep(Plan(now.default.identity.name, sources))

    def _change(self, change: Callable[[], None]) -> None:
        """Change the registry, and what metrics and the log say of it."""
        before = self._registry.now
        change()
        now, serving = self._registry.now, self._around.metrics.serving
        for model in now.retired:
            if model not in before.retired:
                serving(**model.identity.model_dump(), still=False)
                self._logger.info("a model is retired", **model.identity.model_dump())
        for model in now.named.values():
            serving(**model.identity.model_dump())
        if now.default is not before.default:
            self._logger.info("the default is another", **now.default.identity.model_dump())

    def _complain(self, name: str, error: Exception) -> None:
        """Log why something cannot be served, and let go of what its making still holds."""
        reason = {"reason": str(error)} if isinstance(error, PRUError) else {"error": error}
        self._logger.error("cannot be served, and what was before goes on", model=name, **reason)
        traceback.clear_frames(error.__traceback__)

    async def _close_retired(self) -> bool:
        """Close each retired model that nobody uses and no session needs; whether there was one."""
        closed = False
        for model in self._registry.now.retired:
            used = model.use.times
            if model.use.count or await self._is_needed(model) or model.use.times != used:
                continue
            self._registry.forget(model)
            await model.close()
            self._logger.info("a model was freed", **model.identity.model_dump())
            closed = True
        return closed

    async def _is_needed(self, model: RunningModel) -> bool:
        """Whether a session stands on a retired model's bundle, and no other model runs that."""
        sha256 = model.identity.sha256
        if self._registry.now.by_bundle[sha256] is not model:
            return False
        try:
            return await self._store.holds(sha256)
        except StoreError:  # The log has it already.
            return True


def _give_back() -> None:
    """Return to the system what closed models had. Words refer to themselves, and the C library keeps freed blocks."""
    gc.collect()
    with suppress(AttributeError):  # Only glibc has it.
        ctypes.CDLL(None).malloc_trim(0)


def _signature(path: Path) -> tuple[int, ...] | None:
    """What tells the file from what it was before; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _coming(plan: Plan) -> set[str]:
    """Names of a plan, and the bundles that they lead to."""
    found = set(plan.sources)
    for source in plan.sources.values():
        with suppress(BundleError):
            found.add(bundle_sha256(source.bundle))
    return found


def _trouble(failed: Sequence[str]) -> str | None:
    """What clients may know of it: no reasons, since those name folders."""
    if not failed:
        return None
    names = ", ".join(failed)
    return f"cannot be served as it is: {names}; the log says why, and what was served before goes on where it can"
