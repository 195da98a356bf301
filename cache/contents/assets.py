"""Arrays that belong to no row: stored once, under the same rules of identity and receipt as features."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sur.cache.contents.catalog import Catalog
from sur.cache.format.spec import FeatureSpec
from sur.cache.storage.base import Storage


def write_asset(storage: Storage, catalog: Catalog, spec: FeatureSpec, values: Mapping[str, np.ndarray]) -> None:
    """Store the arrays of a declared asset, unless they are stored already."""
    asset = catalog.get(spec.name, "assets")
    with storage.locked(asset.receipt_directory(0), wait=True):
        if asset.receipt(0) is None:
            asset.publish(asset.pack(0, values, 0, {}, {}))


def has_asset(catalog: Catalog, spec: FeatureSpec) -> bool:
    """Whether an asset is stored in full. Raises IdentityMismatch when it is stored, but was made differently."""
    if spec.name not in {asset.spec.name for asset in catalog.intact("assets")}:
        return False
    asset = catalog.get(spec.name, "assets")
    asset.check_identity(spec)
    return asset.receipt(0) is not None
