"""The notebook of the docs runs on a small store, and imports nothing of this package."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parent.parent / "docs" / "notebook.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::RuntimeWarning", "ignore::ResourceWarning")
def test_every_cell_runs_on_another_store(shapes_config, monkeypatch):
    monkeypatch.setenv("STORE", str(Path(shapes_config.store.path).absolute()))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    said = "".join(out["text"] for cell in notebook.cells for out in cell.get("outputs", ()) if "text" in out)
    assert "96 rows" in said and "text.shapes.complex: 3 partitions, 96 rows, 32 without a value" in said
    kinds = [kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())]
    assert "image/png" in kinds


def test_it_is_committed_small_with_its_outputs_and_imports_nothing_of_ours():
    content = json.loads(NOTEBOOK.read_text())
    code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in code) and NOTEBOOK.stat().st_size < 120_000
    text = "".join(line for cell in code for line in cell["source"])
    assert "import zarr" in text and "import xarray" in text
    assert (
        "import cache" not in text and "import sur" not in text and "from sur" not in text and "from cache" not in text
    )
    assert not any(out["output_type"] == "error" for cell in code for out in cell["outputs"])
