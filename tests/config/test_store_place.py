"""The place of a store in the settings."""

import pytest

from sur.cache import CacheError
from sur.config.run import StoreConfig


@pytest.mark.parametrize("url", ["s3://AKIA1:Secret/Key@bucket/store", "gs://Secret@bucket/x", "az://box/x?sig=Secret"])
def test_a_url_with_a_secret_is_refused_while_settings_are_read_and_not_repeated(url):
    with pytest.raises(CacheError, match="AWS_SECRET_ACCESS_KEY") as error:
        StoreConfig(path=url)
    assert "Secret/" not in str(error.value) and "=Secret" not in str(error.value) and "Secret@" not in str(error.value)


def test_a_url_without_one_stays_as_it_is():
    assert StoreConfig(path="s3://bucket/users/me@x.org/store.zarr").path == "s3://bucket/users/me@x.org/store.zarr"
