"""Which requests may pass a proxy: those that leave this machine, and no others.

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY` are set on most clusters. A proxy cannot reach this machine's loopback, so a
request to a server of this run that passes it is lost.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from sur.support.errors import ConfigError

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "::1")
_NO_PROXY = ("no_proxy", "NO_PROXY")  # the first one wins where both are set, as in urllib and curl
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def on_this_machine(address: str) -> bool:
    """Whether the address (a URL) leads to loopback."""
    try:
        host = urlsplit(address).hostname or ""
    except ValueError:  # no URL
        return False
    try:
        number = ipaddress.ip_address(host)
    except ValueError:  # a name
        return host == "localhost" or host.endswith(".localhost")
    return number.is_loopback or number.is_unspecified  # 0.0.0.0 connects to this machine


def proxy_applies(address: str) -> bool:
    """Whether requests to an address (a URL) go by the environment's proxies: httpx's `trust_env`.

    Raises ConfigError for a SOCKS proxy that httpx cannot use.
    """
    if on_this_machine(address):
        return False
    if names := unusable_proxies(os.environ):
        raise ConfigError(
            f"{names[0]} names a SOCKS proxy, and {address} is not on this machine; pip install socksio, or unset "
            f"{names[0]}"
        )
    return True


def direct_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with which every HTTP client goes straight to loopback and keeps the proxy for all other hosts."""
    known = next((environment[name] for name in _NO_PROXY if environment.get(name)), "")
    hosts = [host for host in map(str.strip, known.split(",")) if host]
    return dict.fromkeys(_NO_PROXY, ",".join(dict.fromkeys([*hosts, *LOOPBACK_HOSTS])))


def unusable_proxies(environment: Mapping[str, str]) -> list[str]:
    """Names of variables with a SOCKS proxy, for which httpx lacks a package: it then makes no client at all."""
    if importlib.util.find_spec("socksio") is not None:
        return []
    return [
        name for name, value in environment.items() if name.lower() in _PROXIES and value.lower().startswith("socks")
    ]
