"""Where the service is between start and stop, and who may ask it what.

Boundary: a few facts that the lifespan and the server set and that routes and probes read, all on the event loop.
"""

from __future__ import annotations

from app.errors import DrainingError, ServiceError, StartingError
from app.model_service import ModelService


class Lifecycle:
    """Starting, then ready, then draining; or failed, where the engine could not be built."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.draining = False
        self._service: ModelService | None = None

    def set_ready(self, service: ModelService) -> None:
        """Take requests from now on."""
        self._service = service

    @property
    def service(self) -> ModelService:
        """What answers requests; `ServiceError` while nothing does."""
        if self._service is not None:
            return self._service
        if self.failure is not None:
            raise ServiceError("the engine could not be started; the log says why")
        raise StartingError("the model is being loaded; try again in a moment")

    def check_taking_requests(self) -> None:
        """Raise `DrainingError` once the service is stopping."""
        if self.draining:
            raise DrainingError("the service is stopping and takes no new requests; send this to another instance")
