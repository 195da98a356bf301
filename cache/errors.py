"""Everything that can go wrong in the cache, as one small tree."""


class CacheError(Exception):
    """Base of every error raised on purpose by the cache."""


class IdentityMismatch(CacheError):
    """A stored feature was made in another way than the one asked for; nothing was changed."""


class CorruptStore(CacheError):
    """Bytes on disk do not agree with their checksum, their receipt or the format."""


class StoreBusy(CacheError):
    """Another writer holds the partition; try again later or skip it."""


class NewerFormat(CacheError):
    """The store was written by a newer version of this package."""


class UnknownFeature(CacheError, KeyError):
    """The store holds no feature or asset of that name."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class IncompleteFeature(CacheError):
    """Some partitions of a feature have no receipt yet."""


class NoRows(CacheError):
    """No row is left to serve: none has every feature asked for, or none is in the split."""


class BadValues(CacheError, ValueError):
    """Values do not have the declared shape or type, or are not finite; nothing was published."""


class DiskFull(CacheError):
    """No space left; everything committed before is safe and the same command resumes."""


class NotWritable(CacheError):
    """The disk or bucket may not be written; everything committed before is safe."""
