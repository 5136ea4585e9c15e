"""Structured logs: one JSON object a line, and never any of the user's text.

Boundary: makes the logger and brings the libraries' records into its form. What a request logs is `app.middleware`.
Messages of exceptions, arguments of library records, paths and queries may hold what a user sent, so none of them
is written: an exception is its class and where it was raised.
"""

from __future__ import annotations

import logging
import sys
import traceback
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from app.settings import LogLevel
from app.tracing.current import TRACE


def make_logger(level: LogLevel, file: TextIO | None = None) -> FilteringBoundLogger:
    """A logger that writes JSON lines to `file` (standard output by default), and never raises."""
    lines = _LineWriter(file or sys.stdout)
    logger: FilteringBoundLogger = structlog.wrap_logger(
        lines,
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _ids_of_the_trace,
            lines.tell_lost,
            _exception_without_message,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        cache_logger_on_first_use=True,
    )
    return logger


class _LineWriter:
    """Writes lines, and loses those that cannot be written: nothing that is logged may fail for its log.

    The next line that is written says how many were lost before it.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._lost = 0

    def tell_lost(self, _: WrappedLogger, __: str, event: EventDict) -> EventDict:
        """Add the number of lines that were lost since the last that was written."""
        if self._lost:
            event["lines_lost"] = self._lost
        return event

    def _write(self, line: str) -> None:
        try:
            self._file.write(f"{line}\n")
            self._file.flush()
        except (OSError, ValueError):  # The disk is full, or whoever read is gone; or the file is closed.
            self._lost += 1
        else:
            self._lost = 0

    debug = info = warning = error = critical = _write


def _ids_of_the_trace(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Add by which ids the running task's trace is found, where it has one."""
    if (trace := TRACE.get()) is not None:
        event["trace_id"], event["span_id"] = trace.trace_id, trace.span_id
    return event


def _exception_without_message(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Replace `error=<exception>` by its class and the places it passed, innermost last."""
    error = event.pop("error", None)
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["raised_at"] = [
            f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)
        ]
    return event


class LibraryHandler(logging.Handler):
    """Brings records of the standard library's `logging` (uvicorn, asyncio) into the service's form."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Write where the record comes from and its exception's class; of some, also the first line of the template.

        Other libraries format their message before they log it, with whatever they were called with.
        """
        fields: dict[str, Any] = {"logger": record.name, "source": f"{record.module}:{record.lineno}"}
        if record.name.startswith(("uvicorn", "opentelemetry")):
            fields["message"] = str(record.msg).partition("\n")[0]
        if record.exc_info and record.exc_info[1]:
            fields["error"] = record.exc_info[1]
        self._logger.log(record.levelno, "library", **fields)


def capture_library_logs(logger: FilteringBoundLogger) -> None:
    """Send every library's warnings and errors to `logger` alone."""
    root = logging.getLogger()
    root.handlers = [LibraryHandler(logger)]
    root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
