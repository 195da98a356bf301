"""The command `sur`; each command imports what it needs when it runs."""

from sur.support.openmp import spin_briefly

spin_briefly()

from sur.cli.app import main  # noqa: E402

__all__ = ["main"]
