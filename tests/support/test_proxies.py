"""sur.support.proxies: requests to this machine go straight, all others by the environment's proxy."""

import os
import urllib.request

import httpx
import pytest
from recording_proxy import recording_proxy

from sur.config.features import VLLMConfig
from sur.models.vllm.client import Client, ExpectedServer
from sur.models.vllm.version import engine_version
from sur.support.errors import ConfigError
from sur.support.proxies import direct_loopback, on_this_machine, proxy_applies, unusable_proxies

NAMES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies_yet(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://127.3.4.5", True),
        ("http://[::1]:8000", True),
        ("http://LOCALHOST:8000", True),
        ("https://models.localhost/v1", True),
        ("http://0.0.0.0:8000", True),
        ("http://gpu-17:8000", False),
        ("http://10.0.0.1", False),
        ("http://localhost.example.org", False),
        ("http://notlocalhost", False),
        ("http://[fe80::1]:1", False),
        ("nonsense", False),
        ("", False),
    ],
)
def test_an_address_is_on_this_machine_when_it_leads_to_loopback(address, here):
    assert on_this_machine(address) is here


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize(
    "exceptions", [{}, {"NO_PROXY": "internal.org"}, {"no_proxy": "a.org, .b.org", "NO_PROXY": "c.org"}]
)
def test_loopback_is_reached_directly_and_the_world_by_the_proxy(monkeypatch, name, exceptions):
    with recording_proxy() as (proxy, asked), recording_proxy() as (here, answered):
        monkeypatch.setenv(name, proxy)
        for variable, value in exceptions.items():
            monkeypatch.setenv(variable, value)
        for variable, value in direct_loopback(os.environ).items():
            monkeypatch.setenv(variable, value)
        httpx.get(here)
        httpx.get(here.replace("127.0.0.1", "localhost"))
        assert (asked, answered) == ([], ["/", "/"])
        httpx.get("http://far.example/x")
        assert asked == ["http://far.example/x"]
        if name != "ALL_PROXY":  # urllib does not know it
            urllib.request.build_opener().open(here).read()
            urllib.request.build_opener().open("http://far.example/y").read()
            assert (len(answered), asked[1:]) == (3, ["http://far.example/y"])


def test_exceptions_of_the_user_stay():
    assert direct_loopback({"NO_PROXY": "a.org,127.0.0.1"})["no_proxy"] == "a.org,127.0.0.1,localhost,::1"
    both = direct_loopback({"no_proxy": "a.org", "NO_PROXY": "b.org"})  # urllib and httpx read the first
    assert both == dict.fromkeys(("no_proxy", "NO_PROXY"), "a.org,localhost,127.0.0.1,::1")
    assert direct_loopback({"no_proxy": "*"})["NO_PROXY"].split(",")[0] == "*"


def test_a_server_of_an_llm_on_another_machine_is_asked_by_the_proxy(monkeypatch):
    with recording_proxy('{"version": "0.32.1"}') as (proxy, asked):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert engine_version(VLLMConfig(endpoint="http://gpu-17:8000")) == "0.32"
        assert asked == ["http://gpu-17:8000/version"]
    with (
        recording_proxy('{"version": "0.31.4"}') as (proxy, asked),
        recording_proxy('{"version": "0.30.9"}') as (here, _),
    ):
        monkeypatch.setenv("HTTP_PROXY", proxy)
        assert engine_version(VLLMConfig(endpoint=here)) == "0.30"
        assert asked == []


def test_a_socks_proxy_without_its_package_is_told_only_where_it_matters(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    assert unusable_proxies(os.environ) == ["ALL_PROXY"]
    assert proxy_applies("http://127.0.0.1:8000") is False
    expected = ExpectedServer("", "float32", (1,), "0.32", 8)
    Client(VLLMConfig(endpoint="http://localhost:8000"), "http://localhost:8000", expected)
    with pytest.raises(ConfigError, match="ALL_PROXY names a SOCKS proxy.*gpu-17.*pip install socksio, or unset"):
        Client(VLLMConfig(endpoint="http://gpu-17:8000"), "http://gpu-17:8000", expected)
