"""The command `sur`; each command imports what it needs when it runs."""

from sur.cli.app import main

__all__ = ["main"]
