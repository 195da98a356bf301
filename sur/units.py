"""Quantities as people read them."""


def format_bytes(count: float) -> str:
    """Bytes in a unit that people read."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def format_count(count: int) -> str:
    """A number of things, from a million on in millions."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1e6:,.0f} M" if count >= 1e9 else f"{count / 1e6:.4g} M"


def format_seconds(seconds: float) -> str:
    """A duration in a unit that people read."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
