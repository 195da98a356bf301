"""The public face of the cache, and what importing it loads."""

import subprocess
import sys

from sur import cache


def test_every_public_name_is_there_once_and_in_order():
    assert list(cache.__all__) == sorted(set(cache.__all__))
    assert [name for name in cache.__all__ if not hasattr(cache, name)] == []


def test_importing_the_cache_loads_no_torch_no_storage_client_and_nothing_of_posix():
    program = (
        "import sys\n"
        "sys.modules['fcntl'] = sys.modules['resource'] = None  # an import of them fails\n"
        "import sur.cache\n"
        "print([name for name in ('torch', 'zarr', 'obstore', 'pydantic') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "[]"
