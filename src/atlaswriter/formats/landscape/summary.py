"""What an export holds, and what deserves a second look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from atlaswriter.errors import listed
from atlaswriter.formats.landscape.cells import CellIds
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.tallies import OutlineTally, TranscriptTally
from atlaswriter.report import Report


class Summary:
    """Collects what the parts of an export tell."""

    def __init__(self, prepared: Export) -> None:
        self._prepared = prepared
        spatial = prepared.spatial
        self._contents: dict[str, object] = {"source": spatial.location, "technology": spatial.technology}
        self._warnings = list(spatial.warnings)
        for part in prepared.segmented:
            self._cells(part)

    def _cells(self, part: Segmented) -> None:
        self._contents[_of("cells", part)] = part.cells.n_cells
        clusters = part.clusters
        self._contents[_of("clusters", part)] = len(clusters.labels) if clusters.known else "none"
        if not clusters.known:
            self._warn(part, "there are no clusters: all cells are in one, and there are no signatures")
        if clusters.unknown:
            self._warn(part, f"{clusters.unknown:,} cells with a cluster are not in {part.cells.where}: left out")
        if part.counts is None:
            self._warn(part, "there is no matrix: no gene can be chosen, and statistics are 0")
        if part.outlines is None and self._prepared.spatial.planes:
            self._warn(part, "there are no outlines")

    def transcripts(self, tally: TranscriptTally) -> None:
        """What became of the transcripts."""
        reasons = {"outside of the region": tally.outside, "of lower quality": tally.poor}
        reasons["of features that are not exported"] = tally.unwanted
        left_out = [f"{count:,} {reason}" for reason, count in reasons.items() if count]
        if left_out:
            self._contents["transcripts left out"] = left_out
        if not tally.kept:
            self._warnings.append("there are no transcripts to export")

    def outlines(self, part: Segmented, tally: OutlineTally) -> None:
        """What became of the outlines."""
        bare = part.cells.n_cells - tally.drawn
        several = tally.kept - tally.drawn
        for count, what in (
            (tally.unknown, f"outlines are of cells that {part.cells.where} does not have: left out"),
            (tally.degenerate, "outlines have fewer than three distinct vertices: left out"),
            (tally.dropped, "holes, or further parts of outlines, were left out: the viewer draws one ring"),
            (several, "cells have a further outline, which is exported too"),
            (bare, "cells have no outline"),
        ):
            if count:
                self._warn(part, f"{count:,} {what}")

    def tiles(self, what: str, n_tiles: int, n_rows: int, n_negative: int) -> None:
        """What tiles hold, how many there are, and how many records lie left of or above the image."""
        self._contents[what] = n_rows
        self._contents[f"tiles of {what}"] = n_tiles
        if n_negative:
            kept = "in tiles of their own, which the viewer asks for"
            where = "left out, as row groups cannot hold them" if self._prepared.options.row_groups else kept
            self._warnings.append(f"{n_negative:,} {what} lie left of or above the image: {where}")

    def counts(self, part: Segmented, n_entries: int) -> None:
        """What was counted."""
        self._contents[_of("counts", part)] = n_entries
        n_unknown = int((part.rows == CellIds.UNKNOWN).sum())
        if n_unknown and part.counts is not None:
            found = f"{n_unknown:,} rows of {part.counts.where} are of cells that {part.cells.where} does not have"
            self._warn(part, f"{found}: left out")

    def close(self, report: Report, features: Mapping[str, Any]) -> None:
        """Put everything into the report; `features` are `Genes.facts`."""
        spatial, options = self._prepared.spatial, self._prepared.options
        channels = [f"{plane.key} ({plane.pixels.shape[1]:,} x {plane.pixels.shape[0]:,})" for plane in spatial.planes]
        self._contents["genes"] = features["genes"]
        self._contents["image"] = channels or "none"
        self._contents["storage"] = "row groups" if options.row_groups else "loose tiles"
        unknown = features["unknown"]
        if unknown["count"] and any(part.counts is not None for part in self._prepared.segmented):
            found = f"{unknown['count']} features of transcripts are not in the matrix: {unknown['names']}"
            self._warnings.append(found)
        if options.min_qv is not None and (spatial.transcripts is None or spatial.transcripts.quality is None):
            self._warnings.append("min_qv has no effect: the transcripts have no quality")
        if (same := self._prepared.catalogue.case_only()) and not options.row_groups:
            self._warnings.append(f"genes whose files differ only by case, which some systems ignore: {listed(same)}")
        report.contents |= self._contents
        report.warnings += self._warnings
        report.renamed += [("gene", old, new) for old, new in features["renamed"]]

    def _warn(self, part: Segmented, text: str) -> None:
        self._warnings.append(text if part.name is None else f"segmentation {part.name}: {text}")


def _of(what: str, part: Segmented) -> str:
    return what if part.name is None else f"{what} of {part.name}"
