"""Rules of the counts, gene by gene, and of what is made from them: statistics and signatures."""

from __future__ import annotations

from collections.abc import Container
from typing import NamedTuple

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import Findings
from atlaswriter.formats.landscape import columns, content, layout
from atlaswriter.formats.landscape.columns import Array, Names, ParquetFile, first
from atlaswriter.formats.landscape.header import Header
from atlaswriter.formats.landscape.rules import Segmentation, Survey, batched_by_file, kind_matches

# Statistics may be stored as float32, and be summed in it.
_RTOL, _ATOL = 1e-4, 1e-9
_SHOWN = {"mean": "error", "max": "error", "std": "warning", "non-zero": "warning"}


class _Gene(NamedTuple):
    """What the counts of one gene amount to: its statistics, and sums by cluster."""

    statistics: dict[str, float]
    by_cluster: Array


def survey_counts(survey: Survey, found: Segmentation) -> None:
    """Every gene's counts agree with the cells, the statistics and the signatures."""
    folder = layout.cbg_dir(found.name)
    chunks = survey.attempt(survey.header.chunks, folder)
    survey.declared.update(chunks.paths if chunks is not None else ())
    places = None
    if found.cells is not None and found.genes is not None:
        places = survey.attempt(content.counts_places, survey.header, found.genes, found.name)
    if places is None:
        survey.declared.update(path for path in survey.files if path.startswith(f"{folder}/"))
        return
    if chunks is None:
        places = {gene: place for gene, place in places.items() if place[0] in survey.files}
        survey.declared.update(file for file, _ in places.values())
    else:
        _survey_groups(survey, survey.header.gene_groups(folder), chunks.total, found)
    _missing(survey.findings, places, found, folder)
    batches = batched_by_file((place[0], (gene, place[1])) for gene, place in places.items())
    results = survey.each(lambda batch, findings: _survey_file(survey, found, *batch, findings), batches)
    genes = {gene: result for batch in results for gene, result in (batch or {}).items()}
    _compare_statistics(survey.findings, genes, places, found)
    _survey_signatures(survey, genes, places, found)


def _missing(findings: Findings, there: Container[str], found: Segmentation, folder: str) -> None:
    if found.table is None:
        return
    counted = found.table.statistics["max"] > 0
    missing = [name for name, has in zip(found.table.names, counted, strict=True) if has and name not in there]
    if missing:
        findings.error("counts.file", folder, f"{len(missing):,} genes with counts have none: {listed(missing, 3)}")


def _survey_groups(survey: Survey, groups: dict[str, int], total: int, found: Segmentation) -> None:
    """In row-group mode the parameters name each gene's row group."""
    where = layout.PARAMETERS
    known = set() if found.genes is None else set(found.genes.names)
    unknown = [gene for gene in groups if gene not in known]
    if unknown:
        survey.findings.error("counts.gene", where, f"row groups of genes that are not there: {listed(unknown, 3)}")
    if len(set(groups.values())) < len(groups) or any(group >= total for group in groups.values()):
        survey.findings.error("groups.genes", where, f"genes share row groups, or have some beyond the {total:,}")


def _survey_file(
    survey: Survey, found: Segmentation, file: str, genes: list[tuple[str, int | None]], findings: Findings
) -> dict[str, _Gene]:
    """Genes whose counts are in one file."""
    results = {}
    with ParquetFile(survey.root, file) as opened:
        for gene, group in genes:
            with findings.catching():
                results[gene] = _survey_gene(survey.header, found, opened, gene, group, findings)
    return results


def _survey_gene(
    header: Header, found: Segmentation, file: ParquetFile, gene: str, group: int | None, findings: Findings
) -> _Gene:
    table = file.table(group)
    where = file.name if group is None else f"{file.name} row group {group}"
    key = first(table, layout.COUNT_KEYS)
    kind_matches(findings, None if key is None else table.column(key), header.int_index, where)
    if group is not None and "gene" in table.column_names:
        others = set(columns.texts(columns.column(table, ("gene",), where), where)) - {gene}
        if others:
            findings.error("groups.gene", where, f"has counts of {listed(others, 3)} in place of {gene!a}")
    known = found.cells or Names(())
    cells, values = content.counts_of(table, gene, known, where)
    n_cells = len(known)
    outside = (cells < 0) | (cells >= n_cells)
    if outside.any():
        findings.error("counts.cells", where, f"{int(outside.sum()):,} cells are not in the table of cells")
    elif np.any(np.diff(cells) <= 0):
        if np.unique(cells).size < cells.size:
            findings.error("counts.twice", where, "cells come more than once")
        elif header.int_index:
            findings.warning("counts.order", where, "cells do not rise")
    if not cells.size:
        findings.warning("counts.empty", where, f"{gene!a} has a place but no counts")
    elif not np.isfinite(values).all() or values.min() <= 0:
        findings.error("counts.value", where, "has counts that are not above 0")
    return _summed(cells[~outside], values[~outside].astype(np.float64), n_cells, found)


def _summed(cells: Array, values: Array, n_cells: int, found: Segmentation) -> _Gene:
    mean = values.sum() / max(n_cells, 1)
    # The zeros are mean² away.
    variance = (((values - mean) ** 2).sum() + (n_cells - values.size) * mean**2) / max(n_cells, 1)
    statistics = {
        "mean": float(mean),
        "std": float(np.sqrt(max(variance, 0.0))),
        "max": float(values.max(initial=0)),
        "non-zero": values.size / max(n_cells, 1),
    }
    sums = np.zeros(len(found.clusters))
    if found.labels is not None:
        labels = found.labels[cells]
        sums += np.bincount(labels[labels >= 0], values[labels >= 0], len(found.clusters))
    return _Gene(statistics, sums)


def _compare_statistics(
    findings: Findings, genes: dict[str, _Gene], there: Container[str], found: Segmentation
) -> None:
    """Statistics are over all cells; those of genes whose counts cannot be read are left alone."""
    if found.table is None:
        return
    where = layout.meta_gene_file(found.name)
    nothing = _Gene(dict.fromkeys(layout.GENE_STATISTICS, 0.0), np.zeros(0))
    known = np.array([gene in genes or gene not in there for gene in found.table.names], bool)
    for key, stated in found.table.statistics.items():
        counted = np.array([genes.get(gene, nothing).statistics[key] for gene in found.table.names])
        wrong = np.flatnonzero(known & ~np.isclose(stated, counted, _RTOL, _ATOL))
        if wrong.size:
            k = wrong[0]
            note = f"{key} of {found.table.names[k]!a} is {stated[k]:g}, its counts give {counted[k]:g}"
            note += f"; {wrong.size:,} genes so"
            report = findings.error if _SHOWN[key] == "error" else findings.warning
            report(f"genes.{key}", where, note)


def _survey_signatures(survey: Survey, genes: dict[str, _Gene], there: Container[str], found: Segmentation) -> None:
    """Signatures, where they are, are the means by cluster; only notebooks read them."""
    where = layout.signatures_file(found.name)
    if where not in survey.files:
        return
    table = survey.table(where)
    signatures = None if table is None else survey.attempt(content.signatures_of, table, where)
    if signatures is None or found.labels is None or found.genes is None:
        return
    names, means = signatures
    unknown = [name for name in names if name not in found.genes.ids]
    left_out = [
        gene
        for gene in set(found.genes.names) - set(names)
        if not any(part in gene for part in layout.NO_SIGNATURE) and gene in genes
    ]
    if unknown or left_out or len(set(names)) < len(names):
        note = f"{len(unknown):,} genes are not known, {len(left_out):,} are left out, or some come twice"
        survey.findings.warning("signatures.genes", where, note)
    if set(means) != set(found.clusters):
        note = f"has the clusters {listed(sorted(means), 5)}, the cells have {listed(found.clusters, 5)}"
        survey.findings.warning("signatures.clusters", where, note)
    sizes = np.bincount(found.labels[found.labels >= 0], minlength=len(found.clusters))
    rows = [(row, gene) for row, gene in enumerate(names) if gene in genes or gene not in there]
    none = np.zeros(len(found.clusters))
    counted = np.array([genes[gene].by_cluster if gene in genes else none for _, gene in rows]).reshape(len(rows), -1)
    for number, label in enumerate(found.clusters):
        if label in means and rows:
            stated = means[label][[row for row, _ in rows]]
            wrong = np.flatnonzero(~np.isclose(stated, counted[:, number] / sizes[number], _RTOL, _ATOL))
            if wrong.size:
                k = wrong[0]
                note = f"{rows[k][1]!a} in {label!a} is {stated[k]:g}, its counts give"
                note += f" {counted[k, number] / sizes[number]:g}; {wrong.size:,} genes so"
                survey.findings.warning("signatures.values", where, note)
