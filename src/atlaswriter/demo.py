"""A made-up atlas that looks like a real one: for a first try, for screenshots, for tests.

A dozen immune and epithelial cell types lie along curves in space. Two of the curves are
differentiation trajectories, the others are shapes such as a UMAP makes. Everything else follows
from where a cell is: its latent space, its neighbours, and its expression, which is drawn count
by count from the profiles of its types.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import Problems

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

MIN_CELLS, MIN_GENES = 100, 20
NEIGHBORS = 15
_N_LATENT = 20
_DENSITY = 0.07


@dataclass(frozen=True)
class _Type:
    """One cell type: its share of the cells, where it is found, how often it divides, its marker genes."""

    name: str
    share: float
    tissue: str
    cycling: float
    markers: str


@dataclass(frozen=True)
class _Lineage:
    """Types that follow each other along a smooth curve through `knots`, about `width` thick."""

    types: tuple[_Type, ...]
    width: float
    knots: tuple[tuple[float, float, float], ...]
    trajectory: bool = False


_T = "CD3D CD3E CD3G TRAC CD2 IL32"
_CYTOTOXIC = "NKG7 GZMA CCL5 CST7 PRF1"
_ANTIGEN = "HLA-DRA HLA-DPA1 HLA-DPB1 CD74"
_MYELOID = "LYZ CST3 TYROBP FCER1G AIF1"
_EPITHELIAL = "EPCAM KRT8 KRT18 KRT19 CDH1 ELF3"

_LINEAGES = (
    _Lineage(
        (
            _Type("HSPC", 0.03, "bone marrow", 0.45, "CD34 SPINK2 AVP CRHBP MLLT3 HOPX PRSS57 CYTL1"),
            _Type("Monocyte", 0.14, "blood", 0.04, f"{_MYELOID} CD14 S100A8 S100A9 S100A12 VCAN FCN1 MNDA CTSS"),
            _Type("Macrophage", 0.08, "lung", 0.03, f"{_MYELOID} {_ANTIGEN} C1QA C1QB C1QC APOE MRC1 CD163 MARCO"),
        ),
        1.5,
        ((-8, 5.5, 3.5), (-5.2, 8, 1), (-2, 7.4, -2), (0.2, 4.8, -2), (2.8, 4.2, 1), (4.2, 6.6, 3.5)),
        trajectory=True,
    ),
    _Lineage(
        (
            _Type("Basal", 0.07, "lung", 0.25, f"{_EPITHELIAL} KRT5 KRT14 KRT15 KRT17 TP63 DST S100A2 ITGA6"),
            _Type("Secretory", 0.09, "lung", 0.06, f"{_EPITHELIAL} SCGB1A1 SCGB3A1 BPIFB1 MUC5B WFDC2 SLPI LCN2 PIGR"),
            _Type("Ciliated", 0.06, "lung", 0.01, f"{_EPITHELIAL} FOXJ1 TPPP3 CAPS PIFO RSPH1 DNAH5 CCDC78 SNTN"),
        ),
        1.3,
        ((9.5, -7, -4), (7, -4.4, -2), (8, -1.4, 1.5), (10.8, -0.4, 2.5), (12, 2.6, 0), (10, 5, -3.5)),
        trajectory=True,
    ),
    _Lineage(
        (
            _Type("CD4 T", 0.19, "lymph node", 0.05, f"{_T} CD4 IL7R CCR7 TCF7 LEF1 LTB MAL"),
            _Type("CD8 T", 0.12, "blood", 0.06, f"{_T} {_CYTOTOXIC} CD8A CD8B GZMK GZMH"),
            _Type("NK", 0.06, "blood", 0.03, f"{_CYTOTOXIC} GNLY KLRD1 KLRF1 NCAM1 FCGR3A SPON2 TYROBP FCER1G"),
        ),
        2.5,
        ((-9, -1.4, 1.5), (-7.2, -3.4, -0.8), (-4.4, -2.6, -1.2), (-3, -4.8, 1.2), (-0.4, -6.2, 2.8)),
    ),
    _Lineage(
        (_Type("B", 0.1, "lymph node", 0.08, f"{_ANTIGEN} MS4A1 CD79A CD79B CD19 CD22 BANK1 TCL1A IGHM"),),
        1.8,
        ((1, -10.4, -3), (2.8, -10.8, -1.5), (3.2, -9, 0), (2, -8.2, 1)),
    ),
    _Lineage(
        (_Type("Plasma", 0.03, "bone marrow", 0.12, "JCHAIN MZB1 IGHG1 IGKC XBP1 SDC1 TNFRSF17 DERL3 SSR4"),),
        0.9,
        ((5.4, -13, 2), (6.6, -13.6, 2.8), (7.4, -12.6, 3.4)),
    ),
    _Lineage(
        (_Type("DC", 0.03, "lymph node", 0.1, f"{_ANTIGEN} LYZ CST3 CLEC9A CD1C FCER1A CLEC10A IRF8 BATF3"),),
        0.9,
        ((1.2, 0.6, -4.6), (2.2, -0.2, -5.2), (3, 0.6, -4.4)),
    ),
)
_TYPES = tuple(cell_type for lineage in _LINEAGES for cell_type in lineage.types)
_TISSUES = ("blood", "bone marrow", "lung", "lymph node")
_DONORS = {"D1": 0.34, "D2": 0.27, "D3": 0.18, "D4": 0.13, "D5": 0.08}
_PHASES = ("G1", "S", "G2M")
_QUALITIES = ("good", "low counts", "high mito")

# What a cell may express beside the profiles of its types.
_PROGRAMS = (
    "PCNA TYMS MCM2 MCM5 TK1 RRM2 CLSPN GINS2",  # S phase
    "MKI67 TOP2A CDK1 CCNB1 CENPF UBE2C BIRC5 TPX2",  # G2 and M phase
    "MT-CO1 MT-CO2 MT-CO3 MT-ND1 MT-ND2 MT-ND4 MT-CYB MT-ATP6",  # mitochondria
)
_ABUNDANT = (
    "MALAT1 B2M ACTB TMSB4X EEF1A1 GAPDH FTL FTH1 TPT1 RPL3 RPL10 RPL13 RPL19 RPL32 RPLP1 RPS2 RPS4X RPS6 RPS12 RPS18"
)
_FAMILIES = (
    "ZNF TMEM CCDC SLC25A PSMB NDUFA HSPA IFIT CXCL KLHL FBXO ANKRD TTC RAB ARHGAP USP TRIM MAP3K PPP1R DNAJC EIF4G "
    "SMAD STAT IL TNFSF CD ITGB COL WNT FZD HOXA SOX GATA FGF ADAM MMP LGALS SERPINB TUBB MYO"
)

# From the coordinates in space to the plane: a look from above, slightly tilted.
_VIEW = np.array([[0.98, -0.08], [0.05, 0.97], [0.22, 0.30]])


def demo_atlas(n_cells: int = 20_000, n_genes: int = 500, seed: int = 0) -> AnnData:
    """A made-up atlas of immune and epithelial cells.

    Parameters
    ----------
    n_cells
        At least 100.
    n_genes
        At least 20. Marker genes of the cell types come first.
    seed
        The same numbers give the same atlas.

    Returns
    -------
    AnnData
        X: log1p of counts scaled to the median cell, CSR float32, about 7 % of it stored. obsm:
        ``X_pca`` (20 columns), ``X_umap_2d``, ``X_umap_3d``, ``velocity_umap_2d``, ``velocity_umap_3d``.
        obsp: ``connectivities`` of the 15 nearest neighbours. obs: cell types, donors, tissues, cell
        cycle, quality, and ``pseudotime``, which is NaN outside the trajectories.

    Raises
    ------
    InputError
        Too few cells or genes.
    """
    problems = Problems()
    for name, value, least in (("n_cells", n_cells, MIN_CELLS), ("n_genes", n_genes, MIN_GENES)):
        if value < least:
            problems.add(name, f"{value:,} is too few", f"take at least {least}")
    problems.raise_if_any()
    from anndata import AnnData

    random = np.random.default_rng(seed)
    cells = _draw_cells(n_cells, random)
    genes = list(islice(_gene_names(), n_genes))
    counts = _draw_counts(cells, genes, random)
    totals = _per_cell(counts)
    obs = _obs(cells, counts, totals, genes, random)
    latent = _latent(cells, random)
    obsm = {
        "X_pca": latent,
        "X_umap_2d": cells.space @ _VIEW,
        "X_umap_3d": cells.space,
        "velocity_umap_2d": cells.velocity @ _VIEW,
        "velocity_umap_3d": cells.velocity,
    }
    atlas = AnnData(_normalised(counts, totals), obs=obs, var=_var(genes))
    for key, array in obsm.items():
        atlas.obsm[key] = array.astype(np.float32)
    atlas.obsp["connectivities"] = _connectivities(latent)
    return atlas


@dataclass
class _Cells:
    """Where each cell is and what it is made of."""

    types: Ints
    parts: Floats  # shares of types and programs in the expression, (n_cells, types + programs)
    space: Floats  # (n_cells, 3)
    velocity: Floats  # (n_cells, 3)
    pseudotime: Floats  # 0 to 1 along a trajectory, else NaN
    phases: Ints
    doublets: Flags  # two cells taken for one
    damaged: Flags  # dying


def _gene_names() -> Iterator[str]:
    """Markers first, then what every cell expresses, then members of large families, without end."""
    named = " ".join([*(cell_type.markers for cell_type in _TYPES), *_PROGRAMS, _ABUNDANT]).split()
    seen = set(named)
    families = (f"{family}{number}" for number in count(1) for family in _FAMILIES.split())
    return chain(dict.fromkeys(named), (name for name in families if name not in seen))


def _draw_cells(n_cells: int, random: np.random.Generator) -> _Cells:
    shares = np.array([cell_type.share for cell_type in _TYPES])
    types = random.choice(len(_TYPES), n_cells, p=shares / shares.sum())
    parts = np.zeros((n_cells, len(_TYPES) + len(_PROGRAMS)))
    space, velocity, pseudotime = np.empty((n_cells, 3)), np.empty((n_cells, 3)), np.full(n_cells, np.nan)
    first = 0
    for lineage in _LINEAGES:
        members = np.flatnonzero((types >= first) & (types < first + len(lineage.types)))
        time, parts[members, first : first + len(lineage.types)] = _along(lineage, types[members] - first, random)
        space[members], velocity[members] = _place(lineage, time, random)
        if lineage.trajectory:
            pseudotime[members] = time
        first += len(lineage.types)
    doublets = random.random(n_cells) < 0.03
    _blend_doublets(np.flatnonzero(doublets), types, parts, space, random)
    damaged = random.random(n_cells) < 0.04
    phases = _add_programs(parts, types, damaged, random)
    return _Cells(types, parts, space, velocity, pseudotime, phases, doublets, damaged)


def _along(lineage: _Lineage, stages: Ints, random: np.random.Generator) -> tuple[Floats, Floats]:
    """How far along its curve each cell is, and how its expression passes from type to type."""
    shares = np.cumsum([0.0, *(cell_type.share for cell_type in lineage.types)])
    ends = shares / shares[-1]
    time = ends[stages] + np.diff(ends)[stages] * random.random(stages.size)
    time = np.abs(time + random.normal(0, 0.025, stages.size))
    time = np.where(time > 1, 2 - time, time)
    middles = (ends[:-1] + ends[1:]) / 2
    each = np.eye(middles.size)
    return time, np.stack([np.interp(time, middles, row) for row in each], axis=1)


def _place(lineage: _Lineage, time: Floats, random: np.random.Generator) -> tuple[Floats, Floats]:
    """Positions around the curve and velocities along it, both (n, 3)."""
    from scipy.interpolate import CubicSpline

    knots = np.array(lineage.knots)
    curve = CubicSpline(np.linspace(0, 1, len(knots)), knots)
    # Inside a ball that swells and shrinks along the curve, with a few cells around it.
    aside = random.normal(size=(time.size, 3))
    aside *= (random.random(time.size) ** 0.4 / np.linalg.norm(aside, axis=1))[:, None]
    swell = 0.72 + 0.28 * np.sin(time * 9 + knots[0, 0])
    thickness = lineage.width * swell * random.gamma(12, 1 / 12, time.size)
    velocity = random.normal(0, 0.02, (time.size, 3))
    if lineage.trajectory:
        velocity += curve(time, 1) * (0.045 * (1.15 - time) * random.gamma(20, 1 / 20, time.size))[:, None]
    space = curve(time) + aside * thickness[:, None]
    bent = _bend(space)
    return bent, _bend(space + velocity) - bent


def _bend(space: Floats) -> Floats:
    """Positions in a space with folds of several sizes, which give clusters their ragged outlines."""
    for size, depth in ((7.0, 0.75), (3.1, 0.25), (1.4, 0.1)):
        turned = space[:, [1, 2, 0]] + 0.4 * space[:, [2, 0, 1]]
        space = space + depth * np.sin(2 * np.pi * turned / size + size)
    return space


def _blend_doublets(doublets: Ints, types: Ints, parts: Floats, space: Floats, random: np.random.Generator) -> None:
    """Give some cells half the expression of a partner, and move them a little towards it."""
    partners = random.integers(types.size, size=doublets.size)
    pull = random.uniform(0, 0.3, doublets.size)[:, None]
    space[doublets] += pull * (space[partners] - space[doublets])
    parts[doublets] = (parts[doublets] + parts[partners]) / 2


def _add_programs(parts: Floats, types: Ints, damaged: Flags, random: np.random.Generator) -> Ints:
    """Let cell cycle and mitochondria take their share of the expression; returns the phases."""
    cycling = np.array([cell_type.cycling for cell_type in _TYPES])[types]
    phases = np.where(random.random(types.size) < cycling, random.integers(1, 3, types.size), 0)
    programs = np.zeros((types.size, len(_PROGRAMS)))
    programs[:, 0] = np.where(phases == 1, 0.18, 0.0005)
    programs[:, 1] = np.where(phases == 2, 0.22, 0.0005)
    programs[:, 2] = np.where(damaged, random.beta(6, 10, types.size), random.beta(2, 40, types.size))
    parts[:, : len(_TYPES)] *= 1 - programs.sum(axis=1, keepdims=True)
    parts[:, len(_TYPES) :] = programs
    return phases


def _profiles(genes: list[str], random: np.random.Generator) -> Floats:
    """How likely each gene is among the molecules of each type and program."""
    markers = [cell_type.markers.split() for cell_type in _TYPES] + [program.split() for program in _PROGRAMS]
    special, abundant = set(chain(*markers)), set(_ABUNDANT.split())
    base = random.lognormal(0, 1.0, len(genes))
    base[[gene in abundant for gene in genes]] *= 6
    # Markers are strong where they belong and, as in real data, not quite absent elsewhere.
    strength = 16 * random.lognormal(0, 0.5, len(genes))
    base[[gene in special for gene in genes]] = 0.04
    profiles = base * random.lognormal(0, 0.35, (len(markers), len(genes)))
    for profile, own in zip(profiles, map(set, markers), strict=True):
        mine = np.array([gene in own for gene in genes])
        profile[mine] = strength[mine]
    profiles[len(_TYPES) :][:, [gene not in special for gene in genes]] *= 0.05
    return np.asarray(profiles / profiles.sum(axis=1, keepdims=True))


def _draw_counts(cells: _Cells, genes: list[str], random: np.random.Generator) -> csr_matrix:
    """Molecules of each gene in each cell: every one is drawn from the profile of a part of the cell."""
    from scipy.optimize import brentq
    from scipy.sparse import coo_matrix

    profiles = _profiles(genes, random)
    average = cells.parts.mean(axis=0) @ profiles
    depth = brentq(lambda depth: -np.expm1(-depth * average).mean() - _DENSITY, 1e-3, 1e3 * len(genes))
    n_cells = cells.types.size
    library = depth * random.lognormal(0, 0.35, n_cells) * random.lognormal(0, 0.2, len(_TYPES))[cells.types]
    library *= np.where(cells.doublets, 1.7, 1.0) * np.where(cells.damaged, 0.5, 1.0)
    molecules = random.poisson(library[:, None] * cells.parts)
    rows = [np.repeat(np.arange(n_cells), part) for part in molecules.T]
    columns = [
        np.minimum(np.searchsorted(np.cumsum(profile), random.random(row.size)), len(genes) - 1)
        for profile, row in zip(profiles, rows, strict=True)
    ]
    row, column = np.concatenate(rows), np.concatenate(columns)
    return coo_matrix((np.ones(row.size, np.float32), (row, column)), shape=(n_cells, len(genes))).tocsr()


def _per_cell(counts: csr_matrix) -> Floats:
    return np.asarray(counts.sum(axis=1), np.float64).ravel()


def _normalised(counts: csr_matrix, totals: Floats) -> csr_matrix:
    scale = np.median(totals) / np.maximum(totals, 1)
    result = counts.copy()
    result.data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr))).astype(np.float32)
    return result


def _latent(cells: _Cells, random: np.random.Generator) -> Floats:
    """Principal components of position, type and noise, (n_cells, 20), the widest first."""
    n_cells, n_types = cells.types.size, len(_TYPES)
    latent = random.normal(0, 0.12, (n_cells, _N_LATENT))
    latent += cells.space @ random.normal(0, 0.5, (3, _N_LATENT))
    latent += cells.parts[:, :n_types] @ random.normal(0, 1.2, (n_types, _N_LATENT))
    latent -= latent.mean(axis=0)
    variances, axes = np.linalg.eigh(latent.T @ latent)
    return np.asarray(latent @ axes[:, np.argsort(-variances)])


def _connectivities(latent: Floats) -> csr_matrix:
    """Weights of the nearest neighbours, symmetric, 1 for the nearest."""
    from scipy.sparse import csr_matrix
    from scipy.spatial import cKDTree

    n_cells = len(latent)
    # The first neighbour of a cell is the cell itself.
    found = np.array(cKDTree(latent).query(latent, k=NEIGHBORS + 1, workers=-1))
    distances, neighbors = found[0, :, 1:], found[1, :, 1:].astype(np.int64)
    weights = np.exp((distances[:, :1] - distances) / distances.mean(axis=1, keepdims=True)).astype(np.float32)
    starts = np.arange(n_cells + 1) * NEIGHBORS
    graph = csr_matrix((weights.ravel(), neighbors.ravel(), starts), shape=(n_cells, n_cells))
    graph.sort_indices()
    return graph.maximum(graph.T).tocsr()


def _obs(
    cells: _Cells, counts: csr_matrix, totals: Floats, genes: list[str], random: np.random.Generator
) -> pd.DataFrame:
    import pandas as pd

    n_cells = cells.types.size
    mitochondrial = [column for column, gene in enumerate(genes) if gene.startswith("MT-")]
    pct_mito = (100 * _per_cell(counts[:, mitochondrial]) / np.maximum(totals, 1)).astype(np.float32)
    low_counts = totals < 0.4 * np.median(totals)
    home = np.array([_TISSUES.index(cell_type.tissue) for cell_type in _TYPES])[cells.types]
    tissues = np.where(random.random(n_cells) < 0.8, home, random.integers(len(_TISSUES), size=n_cells))
    donors = random.choice(len(_DONORS), n_cells, p=list(_DONORS.values()))
    quality = np.where(low_counts, 1, np.where(pct_mito > 20, 2, 0))
    categorical: dict[str, tuple[Ints, Sequence[str]]] = {
        "cell_type": (cells.types, [cell_type.name for cell_type in _TYPES]),
        "donor": (donors, list(_DONORS)),
        "tissue": (tissues, _TISSUES),
        "phase": (cells.phases, _PHASES),
        "quality": (quality, _QUALITIES),
    }
    columns: dict[str, Any] = {
        **{key: pd.Categorical.from_codes(codes, pd.Index(names)) for key, (codes, names) in categorical.items()},
        "is_doublet": cells.doublets,
        "n_counts": totals.astype(np.int32),
        "n_genes": np.diff(counts.indptr).astype(np.int32),
        "pct_mito": pct_mito,
        "pseudotime": cells.pseudotime.astype(np.float32),
    }
    return pd.DataFrame(columns, index=[f"cell-{number:06d}" for number in range(n_cells)])


def _var(genes: list[str]) -> pd.DataFrame:
    import pandas as pd

    marker_of = [", ".join(owner.name for owner in _TYPES if gene in owner.markers.split()) for gene in genes]
    return pd.DataFrame({"marker_of": marker_of}, index=genes)
