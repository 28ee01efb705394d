"""What an export holds, and what deserves a second look."""

from __future__ import annotations

from atlaswriter.errors import listed
from atlaswriter.formats.landscape.catalogue import Genes
from atlaswriter.formats.landscape.cells import CellIds
from atlaswriter.formats.landscape.model import Export, Segmented
from atlaswriter.formats.landscape.outlines import Tally as OutlineTally
from atlaswriter.formats.landscape.tiles import Source, TileWriter
from atlaswriter.formats.landscape.transcripts import Tally as TranscriptTally
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
        bare = int((~tally.drawn).sum())
        several = tally.kept - int(tally.drawn.sum())
        for count, what in (
            (tally.unknown, f"outlines are of cells that {part.cells.where} does not have: left out"),
            (tally.degenerate, "outlines have fewer than three distinct vertices: left out"),
            (tally.dropped, "holes, or further parts of outlines, were left out: the viewer draws one ring"),
            (several, "cells have a further outline, which is exported too"),
            (bare, "cells have no outline"),
        ):
            if count:
                self._warn(part, f"{count:,} {what}")

    def tiles(self, source: Source, writer: TileWriter) -> None:
        """What tiles hold, and how many there are."""
        what = source.what if source.segmentation is None else f"{source.what} of {source.segmentation}"
        self._contents[what] = writer.n_rows
        self._contents[f"tiles of {what}"] = writer.n_tiles
        if writer.negative:
            kept = "in tiles of their own, which the viewer asks for"
            where = "left out, as row groups cannot hold them" if writer.job.options.row_groups else kept
            self._warnings.append(f"{writer.negative:,} {what} lie left of or above the image: {where}")

    def counts(self, part: Segmented, n_entries: int) -> None:
        """What was counted."""
        self._contents[_of("counts", part)] = n_entries
        n_unknown = int((part.rows == CellIds.UNKNOWN).sum())
        if n_unknown and part.counts is not None:
            found = f"{n_unknown:,} rows of {part.counts.where} are of cells that {part.cells.where} does not have"
            self._warn(part, f"{found}: left out")

    def close(self, report: Report, genes: Genes) -> None:
        """Put everything into the report."""
        spatial, options = self._prepared.spatial, self._prepared.options
        channels = [f"{plane.key} ({plane.pixels.shape[1]:,} x {plane.pixels.shape[0]:,})" for plane in spatial.planes]
        self._contents["genes"] = len(genes.names)
        self._contents["image"] = channels or "none"
        self._contents["storage"] = "row groups" if options.row_groups else "loose tiles"
        if genes.unknown and any(part.counts is not None for part in self._prepared.segmented):
            names = listed(genes.unknown)
            self._warnings.append(f"{len(genes.unknown)} features of transcripts are not in the matrix: {names}")
        if options.min_qv is not None and (spatial.transcripts is None or spatial.transcripts.quality is None):
            self._warnings.append("min_qv has no effect: the transcripts have no quality")
        if (same := self._prepared.catalogue.case_only()) and not options.row_groups:
            self._warnings.append(f"genes whose files differ only by case, which some systems ignore: {listed(same)}")
        report.contents |= self._contents
        report.warnings += self._warnings
        report.renamed += [("gene", old, new) for old, new in genes.renamed]

    def _warn(self, part: Segmented, text: str) -> None:
        self._warnings.append(text if part.name is None else f"segmentation {part.name}: {text}")


def _of(what: str, part: Segmented) -> str:
    return what if part.name is None else f"{what} of {part.name}"
