"""Which models answer: by name for what is new, by bundle for sessions.

Boundary: running models in, the one a request is for out. Opening, starting and closing them is `app.models.keeper`'s
part. All is one immutable `Snapshot`, put in another's place in one step on the event loop: a request that has found
its model keeps it, and no request sees half of a change.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

from app.errors import ModelNotFoundError, OtherBundleError, StartingError
from app.models.running import RunningModel


@dataclass(frozen=True)
class Snapshot:
    """The models at one moment."""

    default: RunningModel
    named: dict[str, RunningModel]
    """Every model that is asked by name, the default among them."""
    retired: tuple[RunningModel, ...] = ()
    """Models that no name leads to any more, and on which sessions may stand."""

    @cached_property
    def by_bundle(self) -> dict[str, RunningModel]:
        """By SHA-256. Where several run one bundle, the first that has a name."""
        last_wins = [*self.retired, *reversed(self.named.values())]
        return {model.identity.sha256: model for model in last_wins}

    def __iter__(self) -> Iterator[RunningModel]:
        yield from self.named.values()
        yield from self.retired


class Registry:
    """The models of one application."""

    def __init__(self, default: RunningModel) -> None:
        self._now = Snapshot(default, {default.identity.name: default})
        self.coming: Collection[str] = ()
        """Names and bundles that are being loaded."""
        self.is_behind: Callable[[], bool] = lambda: False
        """Whether others may know already of models that are not here yet."""
        self.trouble: str | None = None
        """What of the file of models is not served, for clients to read."""

    @property
    def now(self) -> Snapshot:
        """The models at this moment."""
        return self._now

    @property
    def default(self) -> RunningModel:
        """The model of requests that name none."""
        return self._now.default

    @property
    def names(self) -> list[str]:
        """Names of all that answer, the default first."""
        default = self._now.default.identity.name
        return [default, *(name for name in self._now.named if name != default)]

    def named(self, name: str | None) -> RunningModel:
        """The model of a name, or the default; `ModelNotFoundError` lists those there are."""
        if name is None:
            return self._now.default
        model = self._now.named.get(name)
        if model is None:
            self._check_is_settled(name)
            raise ModelNotFoundError(("model",), f"there is no such model; there is {', '.join(self.names)}")
        return model

    def of_bundle(self, sha256: str) -> RunningModel:
        """The model that runs a bundle; `OtherBundleError` where none does."""
        model = self._now.by_bundle.get(sha256)
        if model is None:
            self._check_is_settled(sha256)
            served = ", ".join(known[:12] for known in self._now.by_bundle)
            raise OtherBundleError(
                f"the session belongs to the bundle {sha256[:12]} and this server serves {served}; "
                "make a new session from its text"
            )
        return model

    def put(self, model: RunningModel, *, default: bool) -> None:
        """Let a model answer by its name, in the place of the one that did, which retires."""
        now, name = self._now, model.identity.name
        before = now.named.get(name)
        gone = (before,) if before is not None and before is not model else ()
        chosen = model if default or now.default is before else now.default
        self._now = Snapshot(chosen, {**now.named, name: model}, (*now.retired, *gone))

    def keep(self, names: Collection[str]) -> None:
        """Retire all whose names are not among these, but for the default; the others stand in this order."""
        now = self._now
        kept = {name: now.named[name] for name in [*names, now.default.identity.name] if name in now.named}
        gone = (model for name, model in now.named.items() if name not in kept)
        self._now = Snapshot(now.default, kept, (*now.retired, *gone))

    def forget(self, model: RunningModel) -> None:
        """Leave out a retired model."""
        self._now = replace(self._now, retired=tuple(other for other in self._now.retired if other is not model))

    def _check_is_settled(self, wanted: str) -> None:
        if wanted in self.coming or self.is_behind():
            raise StartingError("models are being loaded, and this may be one of them; try again in a moment")
