"""Errors a user can act on. Each message says what was given, what was expected and what to do.

The command line turns them into exit codes: 2 for a user's mistake, 3 for a problem with data.
"""


class HybridRLError(Exception):
    """Base class of the library's own errors."""

    exit_code = 1


class ConfigError(HybridRLError, ValueError):
    """A setting, name or combination that cannot work."""

    exit_code = 2


class DatasetError(HybridRLError, ValueError):
    """Data that are missing, damaged or not what they claim to be."""

    exit_code = 3


class MissingExtraError(HybridRLError, ImportError):
    """An optional package is needed; the message names the extra that brings it."""

    exit_code = 2


class DivergenceError(HybridRLError, ArithmeticError):
    """A loss became NaN or infinite; the last good checkpoint is kept."""

    exit_code = 1


class CorruptError(DatasetError):
    """Stored files that are no longer what was written; nothing is read from them."""
