"""What shall be measured, at which size, and whether it fits."""

from __future__ import annotations

import math
import re
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlaswriter.errors import OutputError, Problem, Problems
from atlaswriter.sinks import fs
from atlaswriter.units import format_bytes, parse_bytes

# Commas stand only before groups of three digits: elsewhere they would be decimal ones.
_NUMBER = re.compile(r"((?:\d{1,3}(?:,\d{3})+|\d+(?:_\d+)*)(?:\.\d*)?(?:e\+?\d+)?)\s*([kmg]?)", re.IGNORECASE)
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_MOST = 10**12
MIN_CELLS, MIN_GENES, MIN_TRANSCRIPTS = 100, 2, 1000
# Neighbours of a cell in the graph, and genes of the spatial panel, at most.
NEIGHBORS, PANEL = 15, 480
# Transcripts of a cell in the spatial half, and pixels of its square image for each of them: of a Xenium slide with
# 400 million transcripts there are about five for each.
CELL_TRANSCRIPTS, PIXELS = 100, 4

# Bytes on disk. Measured for 100,000 cells × 2,000 genes and 1,000,000 transcripts: of the input 8 for a stored value
# (and 5 where temporary files are needed), 210 for a cell and 31 for a transcript with its share of all else; of each
# export 2, 40 and 8, and of an original 20 for a transcript. A gene's file takes a block more. The files of the
# yardsticks come before.
_IN = {"entry": 13, "cell": 250, "transcript": 35}
_OUT = {"entry": 3, "cell": 60, "gene": 4096, "transcript": 20}
_FIXED_BYTES = 320 << 20


def number(text: str) -> int:
    """The whole number meant by ``100_000``, ``100,000``, ``100e3``, ``1.5M`` or ``100k``; `ValueError` for others."""
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a number such as 100_000, 100e3 or 1.5M")
    value = float(match[1].replace(",", "").replace("_", "")) * _FACTORS[match[2].lower()]
    if value > _MOST or value != int(value):
        raise ValueError(f"{text!r} is not a whole number up to {_MOST:.0e}")
    return int(value)


@dataclass(frozen=True)
class Settings:
    """What shall be measured.

    Attributes
    ----------
    cells, genes, density
        Of the atlas for the Cellucid export, and the share of its expression that is not zero; no cells: no atlas.
    transcripts
        Of the bundle for the LandscapeFiles export; 0: no bundle.
    sizes
        Multiples of `cells` and `transcripts` to measure besides, for the growth; ascending.
    repeats
        Measured runs of each export; medians are shown.
    workers, memory_budget
        Of every export; None: as it chooses.
    folder
        Where everything is written; None: the folder for temporary files.
    seed
        Of the made-up data.
    """

    cells: int = 100_000
    genes: int = 2_000
    density: float = 0.05
    transcripts: int = 1_000_000
    sizes: tuple[float, ...] = (0.25, 0.5, 1.0)
    repeats: int = 1
    workers: int | None = None
    memory_budget: str | None = None
    folder: Path | None = None
    seed: int = 0

    def check(self, problems: Problems) -> None:
        """Note everything that cannot be measured."""
        if not self.cells and not self.transcripts:
            problems.add("--cells, --transcripts", "both are 0", "give at least one of them a size")
        if not 0 < self.density <= 0.9:
            problems.add("--density", f"{self.density} is not a share", "give a number above 0, at most 0.9")
        if self.genes < MIN_GENES:
            problems.add("--genes", f"{self.genes} is too few", f"take at least {MIN_GENES}")
        if not self.sizes or not all(math.isfinite(size) and 0 < size <= 1000 for size in self.sizes):
            problems.add("--sizes", "they must be above 0 and at most 1000", "write for example 0.25,0.5,1")
            return
        least = min((*self.sizes, 1.0))
        for option, value, smallest in (
            ("--cells", self.cells, MIN_CELLS),
            ("--transcripts", self.transcripts, MIN_TRANSCRIPTS),
        ):
            if value and int(value * least) < smallest:
                found = f"the smallest size has {int(value * least):,}, which is too few"
                problems.add(option, found, f"take at least {smallest:,}, or leave out small --sizes")
        if self.memory_budget is not None:
            problems.attempt(parse_bytes, self.memory_budget, "--memory-budget")
        if self.folder is not None and not self.folder.is_dir():
            problems.add("--folder", f"{self.folder} is not a folder", "make it first, or choose another")

    def scaled(self, size: float) -> tuple[int, int]:
        """Cells and transcripts of one size."""
        return int(self.cells * size), int(self.transcripts * size)

    def refuse_full_disk(self, place: Path, rivals: int) -> None:
        """Raise `OutputError`, with numbers, unless the largest input and all exports fit on the disk of a folder."""
        cells, transcripts = self.scaled(max((*self.sizes, 1.0)))
        entries = cells * self.genes * self.density
        # Exports of all sizes and of originals, and of stages.
        exports = self.repeats * (len({*self.sizes, 1.0}) + rivals + 2) + 1
        atlas = entries * _IN["entry"] + cells * _IN["cell"]
        atlas += exports * (entries * _OUT["entry"] + cells * _OUT["cell"] + self.genes * _OUT["gene"])
        bundle = transcripts * (_IN["transcript"] + exports * _OUT["transcript"])
        needed = int(atlas + bundle) + _FIXED_BYTES
        free = shutil.disk_usage(fs.nearest_existing(place)).free
        if needed > free:
            found = f"about {format_bytes(needed)} are needed for the largest size, {format_bytes(free)} are free"
            remedy = "give a folder on a larger disk (--folder), or smaller sizes (--cells, --transcripts, --sizes)"
            raise OutputError(str(Problem(str(place), found, remedy)))

    def to_dict(self) -> dict[str, Any]:
        """Everything that somebody needs to measure the same again; the folder is left to them."""
        content = asdict(self)
        del content["folder"]
        return content
