"""celldega 0.27.0's own writer of LandscapeFiles, in its own environment, timed stage by stage.

    python benchmarks/rivals/celldega027.py BUNDLE OUT [--row-groups]

The environment needs ``celldega==0.27.0`` and ``pyvips[binary]``, and gzip, unzip and tar on its path. The original
unpacks into its input; so it is given a folder of links to the bundle, which is deleted in the end. Prints what
`adapter` says, where seconds are those since the process began, with imports and linking (`atlaswriter bench` shows
those of the export alone as "of data"), and in `stages` wall-clock and CPU seconds and the peak memory of each stage.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from adapter import arguments, cpu_seconds, peak_bytes, require, versions
from adapter import run as run_adapter

# Functions that the original's `main` calls by their name in `celldega.pre`, and what they do.
STAGES = {
    "_xenium_unzipper": "unpack",
    "write_xenium_transform": "transform",
    "make_meta_cell_image_coord": "cells",
    "read_cbg_mtx": "matrix",
    "cluster_gene_expression": "signatures",
    "make_meta_gene": "meta_gene",
    "save_cbg_gene_parquets": "cbg",
    "save_cbg_gene_parquets_row_groups": "cbg",
    "create_cluster_and_meta_cluster": "clusters",
    "create_image_tiles": "image",
    "pack_image_tiles_to_parquet": "image",
    "make_trx_tiles": "transcripts",
    "make_trx_tiles_row_groups": "transcripts",
    "make_cell_boundary_tiles": "outlines",
    "make_cell_boundary_tiles_row_groups": "outlines",
    "save_landscape_parameters": "parameters",
}
PACKAGES = ("celldega", "numpy", "pandas", "polars", "pyarrow", "pyvips", "shapely", "tifffile")


class Stopwatch:
    """Wall-clock and CPU seconds of named stages; those of one name add up."""

    def __init__(self) -> None:
        self.stages: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def stage(self, name: str) -> Any:
        """Time what runs inside."""
        begin, used = time.perf_counter(), cpu_seconds()
        try:
            yield
        finally:
            found = self.stages.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
            found["seconds"] += time.perf_counter() - begin
            found["cpu_seconds"] += cpu_seconds() - used
            found["peak_bytes"] = peak_bytes()

    def watch(self, module: ModuleType) -> None:
        """Time the module's functions that are stages, from now on."""
        for function, name in STAGES.items():
            setattr(module, function, self._timed(getattr(module, function), name))

    def _timed(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            with self.stage(name):
                return function(*arguments, **options)

        return timed


def linked(bundle: Path, folder: Path) -> None:
    """A folder that holds what a bundle holds, and that may be written to; gzip takes no links."""
    folder.mkdir()
    for path in bundle.iterdir():
        if path.suffix == ".gz":
            shutil.copy(path, folder)
        else:
            (folder / path.name).symlink_to(path.resolve())


def image_layer(bundle: Path) -> str:
    """``all`` where there are the four planes that the original then insists on, else ``dapi``."""
    import tifffile
    from celldega.pre import resolve_xenium_morphology_ome_path

    with tifffile.TiffFile(resolve_xenium_morphology_ome_path(bundle)) as file:
        series = file.series[0]
    return "all" if series.axes == "CYX" and series.shape[0] >= 4 else "dapi"


def run(bundle: Path, out: Path, *, row_groups: bool, tile_size: int = 250) -> dict[str, Any]:
    """Write LandscapeFiles; versions, and what each stage took."""
    watch = Stopwatch()
    with watch.stage("import"):
        import celldega.pre
        import celldega.pre.run_pre_processing
    watch.watch(celldega.pre)
    layer = image_layer(bundle)
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        linked(bundle, Path(folder, "bundle"))
        celldega.pre.main(
            sample="bundle",
            data_root_dir=folder,
            tile_size=tile_size,
            image_tile_layer=layer,
            path_dega_files=str(out),
            use_row_groups=row_groups,
        )
    return {"versions": versions(PACKAGES), "image_layer": layer, "row_groups": row_groups, "stages": watch.stages}


def main() -> None:
    """Run, and print the report."""
    require("celldega", "0.27.0")
    parser = arguments(__doc__)
    parser.add_argument("--row-groups", action="store_true", help="few files with a row group a tile")
    run_adapter(
        parser.parse_args(),
        PACKAGES,
        lambda options: run(options.source, options.out, row_groups=options.row_groups),
    )


if __name__ == "__main__":
    main()
