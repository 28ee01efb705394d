"""Rules of the tables: cells, genes, clusters, and the transform."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import Findings
from atlaswriter.formats.landscape import content, layout
from atlaswriter.formats.landscape.columns import Names
from atlaswriter.formats.landscape.content import Labels
from atlaswriter.formats.landscape.rules import Segmentation, Survey

_COLOR = re.compile(r"#[0-9a-fA-F]{6}")


def survey_tables(survey: Survey, name: str | None) -> Segmentation:
    """Read the tables of one segmentation; broken rules become findings."""
    found = Segmentation(name)
    _survey_cells(survey, found)
    _survey_genes(survey, found)
    _survey_clusters(survey, found)
    return found


def _survey_cells(survey: Survey, found: Segmentation) -> None:
    where = layout.cell_metadata_file(found.name)
    table = survey.table(where)
    cells = None if table is None else survey.attempt(content.cells_of, table, where)
    if cells is None:
        return
    found.cells = Names(cells.names)
    unique(survey.findings, "cells.unique", cells.names, where)
    n_bad = int((~(np.isfinite(cells.x_px) & np.isfinite(cells.y_px))).sum())
    if n_bad:
        survey.findings.error("cells.finite", where, f"{n_bad:,} cells are at no finite position")


def _survey_genes(survey: Survey, found: Segmentation) -> None:
    where = layout.meta_gene_file(found.name)
    table = survey.table(where)
    genes = None if table is None else survey.attempt(content.genes_of, table, where)
    if genes is None:
        return
    found.genes, found.table = Names(genes.names), genes
    unique(survey.findings, "genes.unique", genes.names, where)
    _colors(survey.findings, "genes.color", genes.colors, where)
    wrong = [name for name in genes.names if not name or set(name) & set(layout.UNASKABLE)]
    if wrong:
        remedy = f"rename them without {' '.join(layout.UNASKABLE)}"
        survey.findings.error("genes.name", where, f"the viewer cannot ask for {listed(wrong, 3)}", remedy)
    bad = [key for key, values in genes.statistics.items() if not np.isfinite(values).all()]
    if bad:
        survey.findings.error("genes.finite", where, f"{', '.join(bad)} have values that are not finite")


def _survey_clusters(survey: Survey, found: Segmentation) -> None:
    where, of_labels = layout.cluster_file(found.name), layout.meta_cluster_file(found.name)
    table, label_table = survey.table(where), survey.table(of_labels)
    clusters = None if table is None else survey.attempt(content.clusters_of, table, where)
    labels = None if label_table is None else survey.attempt(content.labels_of, label_table, of_labels)
    if labels is not None:
        unique(survey.findings, "clusters.unique", labels.names, of_labels)
        _colors(survey.findings, "clusters.color", labels.colors, of_labels)
    if clusters is None or found.cells is None:
        return
    names, of_cell = clusters
    known = dict(zip(names, of_cell, strict=True))
    missing = [name for name in found.cells.names if name not in known]
    if missing:
        rows = "the viewer takes the clusters by row, which are other cells' clusters"
        survey.findings.error("clusters.cells", where, f"has no row for {listed(missing, 3)}; {rows}")
    elif names != found.cells.names:
        survey.findings.warning("clusters.order", where, "has other rows than the table of cells, or another order")
    in_order = [known.get(name) for name in found.cells.names]
    _compare_labels(survey.findings, in_order, labels, where, of_labels)
    found.clusters = sorted({label for label in in_order if label is not None})
    position = {label: number for number, label in enumerate(found.clusters)}
    found.labels = np.array([-1 if label is None else position[label] for label in in_order], np.int64)


def _compare_labels(
    findings: Findings, of_cell: Sequence[str | None], labels: Labels | None, where: str, of_labels: str
) -> None:
    if labels is None:
        return
    counts = Counter(label for label in of_cell if label is not None)
    without = sorted(counts.keys() - set(labels.names))
    if without:
        findings.error("clusters.label", where, f"clusters {listed(without, 3)} have no colour and are not drawn")
    stated = dict(zip(labels.names, labels.counts.tolist(), strict=True))
    wrong = [label for label, n_cells in stated.items() if counts[label] != n_cells]
    if wrong:
        label = wrong[0]
        found = f"{label!a} has {counts[label]:,} cells, stated are {stated[label]:,}; {len(wrong):,} clusters so"
        findings.error("clusters.count", of_labels, found)


def survey_transforms(survey: Survey) -> None:
    """The files from microns to pixels are matrices that agree."""
    there = [name for name in layout.TRANSFORMS if name in survey.files]
    survey.declared.update(there)
    if not there and survey.header.has_image:
        found = "is missing; the viewer does not read it, but nothing else tells the scale"
        survey.findings.warning("transform.none", layout.TRANSFORMS[0], found)
    matrices = {name: survey.attempt(content.transform_of, survey.root, name) for name in there}
    known = {name: matrix for name, matrix in matrices.items() if matrix is not None}
    for name, matrix in known.items():
        if not np.array_equal(matrix[2], [0, 0, 1]) or not np.linalg.det(matrix):
            survey.findings.error("transform", name, "does not turn positions into positions")
    if any(not np.array_equal(matrix, next(iter(known.values()))) for matrix in known.values()):
        survey.findings.error("transform.differ", " and ".join(known), "are different")


def unique(findings: Findings, rule: str, names: Sequence[str], where: str) -> None:
    """No name comes twice."""
    if len(set(names)) < len(names):
        twice = [name for name, n in Counter(names).items() if n > 1]
        findings.error(rule, where, f"{listed(twice, 3)} are there more than once")


def _colors(findings: Findings, rule: str, colors: Sequence[str], where: str) -> None:
    wrong = sorted({color for color in colors if not _COLOR.fullmatch(color)})
    if wrong:
        findings.error(rule, where, f"{listed(wrong, 3)} are not colours like '#09afAF'")
