"""What cannot be shown."""


class NotInStore(LookupError):
    """A row, picture or feature that was asked for is not there; the message says what is, or what to do."""
