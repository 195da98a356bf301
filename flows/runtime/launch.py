"""Start a flow: environment first, then Prefect.

Prefect reads its settings when it is imported, so nothing here imports it at the top. A server that the user has
configured (PREFECT_API_URL, or the active profile's) is used as it is. Without one, an embedded server is started: its
home is `<run_dir>/prefect`, it sends no telemetry, and it ends with this process.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from sur.config.run import RunConfig
from sur.config.run_folder import RunFolder
from sur.flows.runtime.packages import check_packages
from sur.flows.runtime.server import EmbeddedServer
from sur.flows.runtime.stopping import stopped
from sur.support.errors import ConfigError, ServerLost
from sur.support.files import write_bytes
from sur.support.locks import folder_lock
from sur.support.log import ROOT_LOGGER, log_to_stderr, show_controls
from sur.support.processes import launched
from sur.support.proxies import direct_loopback, on_this_machine, proxy_applies, unusable_proxies
from sur.support.signals import Stopped, stop_on_signals

LOGGING_ENVIRONMENT = {
    "PREFECT_LOGGING_EXTRA_LOGGERS": ROOT_LOGGER,
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
}
PRIVATE_ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
}
ROOM_BYTES = 2**20  # of the server's database, at least
_log = logging.getLogger(__name__)


def run_flow(name: str, config: Any, **parameters: Any) -> Any:
    """Result of `sur.flows.<name>.<name>(config, **parameters)`.

    config: a `sur.config.run.RunConfig`, or a `sur.config.curation.BuildConfig` for flow build.

    Raises: Stopped, which says what is kept, when Ctrl-C or SIGTERM ends the run; Prefect marks the run as crashed.
    """
    process, processes = launched()
    if processes > 1 and name != "train":
        raise ConfigError(f"flow {name} is for one process; start only `train` by accelerate launch or torchrun")
    if process > 0:  # only the first of the training processes reports to Prefect
        with stop_on_signals():
            return importlib.import_module("sur.training.fit").fit(config)
    if isinstance(config, RunConfig):
        check_packages(name, config)
    has_server = configured_server(os.environ) is not None
    received: list[int] = []
    try:
        with stop_on_signals(received), ExitStack() as stack:
            with log_to_stderr():
                if not has_server:
                    _log.info(
                        "starting Prefect, with a server for this run alone (%s)", RunFolder(config.run_dir).prefect
                    )
                stack.enter_context(prefect_ready(config.run_dir))
                _log.info("loading what flow %s needs", name)
                flow = getattr(importlib.import_module(f"sur.flows.{name}"), name)
            stack.enter_context(_tidy_log(has_server, received))
            return flow(config, **parameters)
    except KeyboardInterrupt as error:
        raise stopped(error, config) from None
    except Exception:
        if received:  # Prefect was stopped in the middle of something, and says what it misses
            raise stopped(Stopped(received[0]), config) from None
        raise


@contextmanager
def prefect_ready(run_dir: Path) -> Iterator[None]:
    """Make Prefect usable inside the block, with the configured server or an embedded one."""
    if (address := configured_server(os.environ)) is not None:
        logs = {name: os.environ.get(name, value) for name, value in LOGGING_ENVIRONMENT.items()}
        with _environment({**logs, **_proxies(address)}):
            _require_answer(address)
            yield
        return
    home = RunFolder(run_dir).prefect.absolute()
    private = {**LOGGING_ENVIRONMENT, **PRIVATE_ENVIRONMENT, **_proxies(None), "PREFECT_HOME": str(home)}
    with ExitStack() as stack:
        stack.enter_context(_environment(private))
        with folder_lock(home, wait=True):  # two servers that set up one new database would end each other
            write_bytes(home / "room", bytes(ROOM_BYTES)).unlink()  # a full or read-only disk is told as such
            server = EmbeddedServer(home, os.environ)
            stack.callback(server.stop)
            stack.enter_context(_environment({"PREFECT_API_URL": server.api_url}))
            stack.enter_context(_settings(home, server.api_url))
            server.wait_until_ready()
        stack.callback(_drain)
        try:
            yield
        except httpx.HTTPError as error:
            raise ServerLost(
                f"the run's own Prefect server does not answer as it should: {_first_line(error)}"
                f"{server.last_words()}; what was saved is safe, and the same command goes on. Its log is {server.log}"
            ) from error


def configured_server(environment: Mapping[str, str]) -> str | None:
    """Address of the Prefect server that the environment or the active profile names; None without one."""
    if environment.get("PREFECT_API_URL"):
        return environment["PREFECT_API_URL"]
    home = Path(environment.get("PREFECT_HOME", "~/.prefect")).expanduser()
    path = Path(environment.get("PREFECT_PROFILES_PATH", home / "profiles.toml")).expanduser()
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return None
    active = environment.get("PREFECT_PROFILE") or content.get("active")
    return content.get("profiles", {}).get(active, {}).get("PREFECT_API_URL")


def main(name: str, load: Callable[[str, Sequence[str]], Any] | None = None) -> int:
    """Entry point of `python -m sur.flows.<name> CONFIG [section.key=value ...]`; returns the exit code.

    load: reads the configuration; default: `sur.config.run.load_config`.
    """
    from sur.config.run import load_config
    from sur.support.ending import told

    parser = argparse.ArgumentParser(prog=f"python -m sur.flows.{name}", description=f"Run the {name} flow.")
    parser.add_argument("config", help="YAML file, or the name of a shipped one")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value")
    arguments = parser.parse_args()
    try:
        run_flow(name, (load or load_config)(arguments.config, arguments.overrides))
    except (Exception, Stopped) as error:
        return told(error)
    return 0


def _proxies(address: str | None) -> dict[str, str | None]:
    """Variables with which the clients of Prefect, and of its workers, reach loopback without a proxy.

    address: of the configured server; None for the embedded one. Raises: ConfigError when the server is on another
    machine and the environment's proxy cannot be used.
    """
    values: dict[str, str | None] = dict(direct_loopback(os.environ))
    if address is not None and not on_this_machine(address):
        proxy_applies(address)
        return values
    for name in unusable_proxies(os.environ):
        _log.warning("%s names a SOCKS proxy, which needs the package socksio: this run goes without it", name)
        values[name] = None
    return values


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0]


def _require_answer(address: str) -> None:
    """Raises: ConfigError when the configured server cannot be reached."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ConfigError(
            f"the Prefect server {address} does not answer ({problem}); start it (`sur up`), correct PREFECT_API_URL "
            "or Prefect's active profile, or unset it: the run then starts a server of its own"
        )


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set environment variables inside the block; None: unset."""
    before = {name: os.environ.get(name) for name in values}
    _set_variables(values)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@contextmanager
def _settings(home: Path, api_url: str) -> Iterator[None]:
    """Point a Prefect that is imported already at this server too, since a process may run several flows."""
    from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

    with temporary_settings({PREFECT_HOME: home, PREFECT_API_URL: api_url}):
        yield


def _drain() -> None:
    """Send the last logs and events before the server goes away."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.drain_all(timeout=10)
    EventsWorker.drain_all(timeout=10)


class _RunLog(logging.Filter):
    """Drops lines that mislead: errors and stops that the command reports itself, links to a UI that does not run."""

    def __init__(self, has_ui: bool, received: Sequence[int]) -> None:
        super().__init__()
        self.has_ui, self.received = has_ui, received

    def filter(self, record: logging.LogRecord) -> bool:
        from prefect.exceptions import TerminationSignal

        from sur.support.errors import shown_message

        if isinstance(sys.exception(), (KeyboardInterrupt, TerminationSignal)):
            return False
        if self.received and (record.exc_info or record.levelno >= logging.ERROR):
            return False
        if record.exc_info and record.exc_info[1] is not None and shown_message(record.exc_info[1]) is not None:
            return False
        if self.has_ui:
            return True
        # The command says what failed; with a server of the user's own its pages need the line besides.
        return not (str(record.msg).startswith("View at") or "Finished in state Failed(" in record.getMessage())


@contextmanager
def _tidy_log(has_ui: bool, received: Sequence[int]) -> Iterator[None]:
    """Inside the block, put our own lines into the run's log and filter Prefect's.

    has_ui: the server shows pages. received: signals so far; what fails after one is a consequence of it.
    """
    logging.getLogger(ROOT_LOGGER).setLevel(logging.INFO)
    for handler in logging.getLogger(ROOT_LOGGER).handlers:  # Prefect's
        handler.addFilter(show_controls)
    tidy = _RunLog(has_ui, received)
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addFilter(tidy)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(tidy)
