"""How a command ends: its exit code, and the words on stderr when an error ended it."""

from __future__ import annotations

import sys
import traceback

from sur.support.errors import shown_message
from sur.support.formatting import visible
from sur.support.requirements import missing_package
from sur.support.signals import Stopped

TO_MEND = 2  # something that the user has to mend; 1 is for faults that a command was asked to find
PROGRAM_FAULT = 70  # EX_SOFTWARE of sysexits.h


def told(error: BaseException) -> int:
    """Write to stderr what ended a command; returns its exit code."""
    if isinstance(error, Stopped):
        sys.stderr.write(f"{visible(str(error))}\n")
        return error.exit_code
    message = shown_message(error)
    if message is None and isinstance(error, ModuleNotFoundError):
        message = missing_package(error)
    if message is None:
        traceback.print_exception(error)
        return PROGRAM_FAULT
    sys.stderr.write(f"error: {visible(message)}\n")
    return TO_MEND
