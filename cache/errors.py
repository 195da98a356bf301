"""The exceptions of the cache, in one small tree."""


class CacheError(Exception):
    """Base of all errors that the cache raises on purpose."""


class IdentityMismatch(CacheError):
    """The stored feature was made differently from the requested one; nothing was changed."""


class CorruptStore(CacheError):
    """Stored bytes do not agree with their checksum, their receipt, the format or each other; `fault` says which.

    The message ends with the remedy.
    """

    def __init__(self, fault: str, remedy: str = "Mend it by `sur verify CONFIG --repair`.") -> None:
        super().__init__(fault, remedy)  # both are kept: an exception is pickled by its arguments
        self.fault = fault

    def __str__(self) -> str:
        return " ".join(filter(None, map(str, self.args)))


class StorageFailed(CacheError):
    """The file system refused to read or write; committed partitions are safe."""


class StoreBusy(CacheError):
    """Another writer holds the lock; try again later, or skip the partition."""


class NewerFormat(CacheError):
    """A newer version of this package wrote the store."""


class UnknownFeature(CacheError, KeyError):
    """The store holds no feature or asset of that name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IncompleteFeature(CacheError):
    """Some partitions of a feature have no receipt yet."""


class NoRows(CacheError):
    """Too few rows of the split have every requested feature to fill a batch."""


class BadValues(CacheError, ValueError):
    """Values do not fit their declaration (shape, type, name) or are not finite; nothing was published."""


class DiskFull(CacheError):
    """The disk is full; committed partitions are safe, and the same command resumes."""


class NotWritable(CacheError):
    """This user may not write to the disk or bucket; committed partitions are safe."""
