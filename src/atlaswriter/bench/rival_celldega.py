"""celldega 0.27.0's own writer, in its own environment: ``python rival_celldega.py BUNDLE OUT``, or without arguments.

The original unpacks into its input, so it is given a folder of links to the bundle, beside OUT, which is deleted in
the end. Prints one JSON object: versions, and the seconds of importing and of exporting, each alone; linking the bundle
is in neither, and whoever starts it measures the whole process. (In benchmarks/rivals, seconds of the same original are
those since its process began.) Without arguments only the versions. Run by its path; it imports nothing of ours. Needs
gzip and unzip on its path.
"""

import contextlib
import json
import platform
import shutil
import sys
import tempfile
import time
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any


def main() -> None:
    """Run, and say how long it took; what the original prints goes to standard error."""
    del sys.path[0]  # this folder, whose modules the original must not find
    with contextlib.redirect_stdout(sys.stderr):
        begin = time.perf_counter()
        original = import_module("celldega.pre")
        import_module("pyvips")  # what it makes images with
        packages = ("celldega", "numpy", "pandas", "polars", "pyarrow", "pyvips")
        report: dict[str, Any] = {
            "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
            "import_seconds": time.perf_counter() - begin,
        }
        missing = [program for program in ("gzip", "unzip") if shutil.which(program) is None]
        if missing:
            sys.exit(f"it needs the programs {' and '.join(missing)}")
        if len(sys.argv) > 1:
            report["export_seconds"] = export(original.main, Path(sys.argv[1]), Path(sys.argv[2]))
    json.dump(report, sys.stdout)


def export(run: Any, bundle: Path, out: Path) -> float:
    """Export with the defaults that both writers share; the seconds."""
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        linked = Path(folder, "bundle")
        linked.mkdir()
        for path in bundle.iterdir():
            if path.suffix == ".gz":  # gzip takes no links
                shutil.copy(path, linked)
            else:
                (linked / path.name).symlink_to(path.resolve())
        begin = time.perf_counter()
        run(
            sample="bundle",
            data_root_dir=folder,
            tile_size=250,
            image_tile_layer="dapi",
            path_dega_files=str(out),
        )
        return time.perf_counter() - begin


if __name__ == "__main__":
    main()
