"""What can go wrong with a server of ours or another's."""


class EngineRefused(ValueError):
    """The server serves something else than the configuration says; nothing of it is cached."""


class EngineGone(RuntimeError):
    """The server does not answer, or has ended; what is cached is safe, and the same command goes on."""
