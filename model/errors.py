"""The one error tree of the project.

    PRUError
    ├── ConfigurationError      a model or recipe that cannot be built
    ├── TextError               text that cannot be read or tokenised
    ├── CorpusError             training data that is missing, altered or unusable
    ├── CheckpointError         a checkpoint folder that is missing, damaged or of another version
    ├── BundleError             a bundle folder that is missing, damaged or of another version
    ├── TrainingError           a training run that cannot start, go on or be resumed
    ├── ExportError             a graph that could not be built or that failed its validation
    ├── EngineError             an engine that cannot load or failed while running
    │   └── EngineMemoryError   one call of an engine for which there was too little memory
    └── RequestError            a well-formed request that asks for what cannot be given

Packages add classes of their own to it: `app.errors`, `pru.client.errors`. Every message says what is wrong and how to
mend it, in one line. A terminal prints the message alone and exits with status 2; the HTTP service maps each class to a
status (`app.errors`).
"""


class PRUError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigurationError(PRUError):
    """A model or training configuration that cannot be built."""


class TextError(PRUError):
    """Text that cannot be read or tokenised."""


class CorpusError(PRUError):
    """Training data that is missing, altered or unusable."""


class CheckpointError(PRUError):
    """A checkpoint folder that is missing, damaged or of another format version."""


class BundleError(PRUError):
    """A bundle folder that is missing, damaged or of another format version."""


class TrainingError(PRUError):
    """A training run that cannot start, go on or be resumed."""


class ExportError(PRUError):
    """A graph that could not be built or that failed its validation."""


class EngineError(PRUError):
    """An engine that cannot load its artefact, or that failed while running."""


class EngineMemoryError(EngineError):
    """One call of an engine for which there was too little memory; a smaller one, or a later one, may succeed."""


class RequestError(PRUError):
    """A well-formed request that asks for what cannot be given."""
