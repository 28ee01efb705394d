"""DeepCell Label's own backend: one submission, or one export, as its server does it.

    python benchmarks/rivals/deepcell_label.py load IN.npz OUT.zip --source CHECKOUT/backend
    python benchmarks/rivals/deepcell_label.py export REQUEST.zip OUT.zip --source CHECKOUT/backend

It is not on the package index: `--source` is the folder that holds its package ``deepcell_label``, whose modules
``loaders`` and ``export`` are used unchanged, without the web server around them. Their environment needs numpy,
Pillow, python-magic (libmagic), tifffile and imagecodecs. Prints one JSON object: wall-clock and CPU seconds, without
imports, the peak memory and the bytes written.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

PACKAGES = ("numpy", "tifffile", "imagecodecs", "pillow")


def peak() -> int:
    """Largest resident size of this process so far."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    """Run, and print what it took; what the original prints goes to standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["load", "export"])
    parser.add_argument("given", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--source", type=Path, required=True)
    options = parser.parse_args()
    sys.path.insert(0, str(options.source))
    from deepcell_label.export import Export  # type: ignore[import-not-found]
    from deepcell_label.loaders import Loader  # type: ignore[import-not-found]

    begin, used = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(sys.stderr), options.given.open("rb") as file:
        project = Loader(file, file, None).data if options.what == "load" else Export(file).export_zip.getbuffer()
        options.out.write_bytes(project)
    report = {
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "seconds": time.perf_counter() - begin,
        "cpu_seconds": time.process_time() - used,
        "peak_bytes": peak(),
        "output_bytes": options.out.stat().st_size,
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main()
