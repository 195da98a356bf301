"""Settings are read, and a typo in them is answered, without the libraries of models, arrays and flows."""

import subprocess
import sys
from pathlib import Path
from typing import get_args

import sur.cache
from sur.config.features import Codec
from sur.config.run import StoreConfig

HEAVY = ("accelerate", "diffusers", "numcodecs", "numpy", "prefect", "torch", "transformers", "zarr")
CONFIG = Path(__file__).parents[2] / "configs" / "shapes.yaml"


def heavy_modules(code: str, *arguments: str) -> str:
    """The heavy libraries that a program has loaded at its end, as it prints them on its last line."""
    program = f"import sys\n{code}\nprint([name for name in {HEAVY} if name in sys.modules])"
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


def test_settings_classes_load_no_heavy_library():
    assert heavy_modules("import sur.config.run, sur.config.curation, sur.config.run_folder") == "[]"


def test_settings_are_read_without_a_heavy_library():
    assert heavy_modules("from sur.config.run import load_config; load_config(sys.argv[1])", str(CONFIG)) == "[]"


def test_a_typo_is_answered_without_a_heavy_library():
    for verb in ("plan", "extract", "train", "pipeline", "nightly", "sweep", "serve"):
        code = (
            f"sys.argv[:] = ['sur', {verb!r}, {str(CONFIG)!r}, 'train.stepz=1']\n"
            "from sur.cli.app import main\n"
            "try:\n    main()\nexcept SystemExit as ended:\n    assert ended.code == 2"
        )
        assert heavy_modules(code) == "[]", verb


def test_what_settings_repeat_of_the_cache_is_the_caches():
    assert get_args(Codec) == get_args(sur.cache.Codec)
    for text in ("runs/store.zarr", "s3://bucket/store", "~/store"):
        assert StoreConfig(path=text).path == sur.cache.store_location(text)
