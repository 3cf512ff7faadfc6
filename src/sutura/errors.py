"""One tree of errors. Every message says what is wrong, where, and what to do about it."""

from __future__ import annotations


class SuturaError(Exception):
    """Anything sutura refuses; the text is one line meant for the person who asked."""


class NetworkError(SuturaError):
    """The network cannot be read, or holds something that sutura does not support."""


class PropertyError(SuturaError):
    """The property cannot be read, or contradicts itself."""


class DataError(SuturaError):
    """A data set cannot be read, or does not fit the network."""


class MismatchError(SuturaError):
    """Network and property do not fit each other."""


class RepairError(SuturaError):
    """No repair exists, or the repaired network did not pass its own checks."""


class TrainingError(SuturaError):
    """Training cannot start or go on: a bad setting, a loss that is not finite, a foreign checkpoint."""


class CalibrationError(SuturaError):
    """A method of calibration is unknown, or does not fit what it is asked to calibrate."""


class RefusedError(SuturaError):
    """The work was done, and its result would cost more than is allowed."""


class CompressionError(SuturaError):
    """A network cannot be compressed as asked."""


class MissingExtraError(SuturaError):
    """An optional package is needed and not installed."""


class OutputError(SuturaError):
    """A result cannot be written where it was asked for."""


class GuardError(SuturaError):
    """A guarded network's input or output is not to be used, and no fallback was given for it."""


class JournalError(SuturaError):
    """A journal belongs to other work, is in use, or cannot be read or written."""


class RecipeError(SuturaError):
    """A recipe cannot be read, or one of its stages cannot be run."""


class ShiftError(SuturaError):
    """Weights cannot be made powers of two as asked, or a file of packed ones cannot be read."""


class CampaignError(SuturaError):
    """A list of instances or a store of results cannot be read, or a cluster is not there."""
