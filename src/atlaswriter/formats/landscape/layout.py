"""Names of the files and keys of LandscapeFiles, as Celldega's front-end (0.27.0) asks for them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

PARAMETERS = "landscape_parameters.json"
# Today's name, and the one of the specification and of older sets.
TRANSFORMS = ("micron_to_image_transform.csv", "xenium_transform.csv")
# Ours, not the format's: what `--preview` makes.
PREVIEW = "preview.html"
IMAGES_DIR = "pyramid_images"
# The column that pandas' index has in Parquet: the front-end looks for this name.
INDEX = "__index_level_0__"
IMAGE_FORMAT = ".webp"
IMAGE_TILE = 512
TILE_SIZE = 250
ROW_GROUPS_PER_FILE = 400
IMAGE_ROW_GROUPS_PER_FILE = 2000
# Characters of a gene's name that a URL cannot hold unescaped, which is how the front-end asks for its file.
UNASKABLE = "/\\?#%"
# What the front-end takes for the column of cells in a gene's file, before or as we call it.
CELL_COLUMNS = ("cell_id", INDEX)
# Parts of names of features that signatures leave out.
NO_SIGNATURE = ("Unassigned", "NegControl", "DeprecatedCodeword")
# Technologies without an image, placed by their cells' coordinates alone.
WITHOUT_IMAGE = ("Chromium", "point-cloud", "neighborhood-cloud")
# The first four channels of a Xenium image: key, button, colour.
XENIUM_CHANNELS = (
    ("dapi", "DAPI", (0, 0, 255)),
    ("bound", "BOUND", (0, 255, 0)),
    ("rna", "RNA", (255, 0, 0)),
    ("prot", "PROT", (255, 255, 255)),
)
# Names by which the viewer knows that an image is in colour.
COLOUR_CHANNELS = ("h_and_e", "h&e")
# What comes after these four.
MORE_COLORS = ((255, 255, 0), (0, 255, 255), (255, 0, 255), (255, 128, 0), (128, 0, 255), (0, 128, 255))


def _named(stem: str, segmentation: str | None) -> str:
    return stem if segmentation is None else f"{stem}_{segmentation}"


def cell_metadata_file(segmentation: str | None = None) -> str:
    """Names and positions of the cells; the row is the cell's id."""
    return f"{_named('cell_metadata', segmentation)}.parquet"


def meta_gene_file(segmentation: str | None = None) -> str:
    """Statistics and colours of the genes; the row is the gene's id."""
    return f"{_named('meta_gene', segmentation)}.parquet"


def signatures_file(segmentation: str | None = None) -> str:
    """Mean counts of each gene in each cluster."""
    return f"{_named('df_sig', segmentation)}.parquet"


def clusters_dir(segmentation: str | None = None) -> str:
    """Folder of both tables of clusters."""
    return _named("cell_clusters", segmentation)


def cluster_file(segmentation: str | None = None) -> str:
    """Cluster of each cell."""
    return f"{clusters_dir(segmentation)}/cluster.parquet"


def meta_cluster_file(segmentation: str | None = None) -> str:
    """Colour and size of each cluster."""
    return f"{clusters_dir(segmentation)}/meta_cluster.parquet"


def cbg_dir(segmentation: str | None = None) -> str:
    """Folder of the counts, gene by gene."""
    return _named("cbg", segmentation)


def cbg_file(gene: str, segmentation: str | None = None) -> str:
    """Counts of one gene."""
    return f"{cbg_dir(segmentation)}/{gene}.parquet"


def transcripts_dir(row_groups: bool = False) -> str:
    """Folder of the transcripts, as loose tiles or as row groups."""
    return "transcripts" if row_groups else "transcript_tiles"


def transcript_tile(i: int, j: int) -> str:
    """Transcripts of one tile."""
    return f"{transcripts_dir()}/transcripts_tile_{i}_{j}.parquet"


def outlines_dir(segmentation: str | None = None) -> str:
    """Folder of the outlines of cells."""
    return _named("cell_segmentation", segmentation)


def outline_tile(i: int, j: int, segmentation: str | None = None) -> str:
    """Outlines of one tile."""
    return f"{outlines_dir(segmentation)}/cell_tile_{i}_{j}.parquet"


def chunk_file(directory: str, number: int) -> str:
    """One file of row-group mode."""
    return f"{directory}/{chunk_name(number)}"


def chunk_name(number: int) -> str:
    """Name of one file of row-group mode in its folder."""
    return f"chunk_{number}.parquet"


def dzi_file(channel: str) -> str:
    """Size of a channel's image."""
    return f"{IMAGES_DIR}/{channel}.dzi"


def image_dir(channel: str) -> str:
    """Folder of the loose image tiles of a channel."""
    return f"{IMAGES_DIR}/{channel}_files"


def image_tile(channel: str, level: int, column: int, row: int, image_format: str = IMAGE_FORMAT) -> str:
    """One image tile."""
    return f"{image_dir(channel)}/{level}/{column}_{row}{image_format}"


def image_levels(width: int, height: int) -> list[tuple[int, int]]:
    """Width and height of each level of an image pyramid, coarsest (1 × 1) first."""
    top = (max(width, height) - 1).bit_length()
    return [(-(-width >> top - level), -(-height >> top - level)) for level in range(top + 1)]


def image_chunks_dir(channel: str) -> str:
    """Folder of a channel's image tiles in row-group mode."""
    return f"{IMAGES_DIR}/{channel}"


def parameters(
    *,
    technology: str,
    segmentations: Sequence[str],
    max_pyramid_zoom: int | None,
    tile_size: int,
    image_info: Sequence[dict[str, Any]],
    image_scaling: dict[str, Any] | None,
    row_groups: dict[str, Any] | None,
    extra: dict[str, Any],
) -> dict[str, Any]:
    """Content of `PARAMETERS`.

    Parameters
    ----------
    technology
        ``"Xenium"``, ``"MERSCOPE"``, ``"Chromium"`` ...
    segmentations
        Names of the further segmentations.
    max_pyramid_zoom
        Highest level of the image pyramids; None without image.
    tile_size
        Edge of a data tile, pixels.
    image_info
        ``name``, ``button_name`` and ``color`` of each channel.
    image_scaling
        How values became 8 bit; None without image.
    row_groups
        ``row_group_files``, ``tile_grid`` and ``image_dimensions``; None for loose tiles.
    extra
        Entries of our own.
    """
    found: dict[str, Any] = {
        "technology": technology,
        "segmentation_approach": ["default", *segmentations],
        "max_pyramid_zoom": max_pyramid_zoom,
        "tile_size": tile_size,
        "image_info": list(image_info),
        "image_format": IMAGE_FORMAT,
        "use_int_index": True,
        "use_row_groups": row_groups is not None,
    }
    if image_scaling is not None:
        found["image_scaling"] = image_scaling
    return found | (row_groups or {}) | extra


# --- what reading needs besides

DEFAULT_SEGMENTATION = "default"
# Our own entry of the parameters, and in it the numbers of rows by part, as `transcripts_dir(True)` and
# `outlines_dir()` name them: a lost loose tile cannot be told from an empty one without them.
WRITER = "atlaswriter"
ROWS = "rows"
# Levels above the finest one that the front-end can ask for.
ASKED_LEVELS = 8
# Left beside image tiles by libvips.
VIPS_PROPERTIES = "vips-properties.xml"
# Columns of keys, the first that is there counts.
CELL_KEYS = ("name", "cell_id", INDEX)
COUNT_KEYS = ("cell_id", INDEX, "cell_name", "barcode", "barcodes", "index")
CLUSTER_KEYS = ("name", "cell_id", INDEX, "index")
LABEL_KEYS = ("cluster", "leiden", INDEX, "index")
GENE_STATISTICS = ("mean", "std", "max", "non-zero")
GEOMETRY = ("GEOMETRY", "geometry")
_TILE = re.compile(r"(?:transcripts|cell)_tile_(-?\d{1,9})_(-?\d{1,9})\.parquet")


def signs() -> tuple[str, ...]:
    """Files any of which tells that a folder holds LandscapeFiles."""
    return (PARAMETERS, cell_metadata_file(), meta_gene_file())


def tile_of(name: str) -> tuple[int, int] | None:
    """Column and row of the tile whose loose file has this name, without folder; None for other files."""
    match = _TILE.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def count_column(columns: Sequence[str], gene: str) -> str | None:
    """The column with the counts of a gene, as the front-end chooses it."""
    named = [name for name in (gene, "expression") if name in columns]
    return next(iter(named + [name for name in columns if name not in COUNT_KEYS and name != "gene"]), None)


def entries(segmentations: Sequence[str]) -> set[str]:
    """Names of everything in the folder, with these further segmentations."""
    named = (cell_metadata_file, meta_gene_file, signatures_file, clusters_dir, cbg_dir, outlines_dir)
    found = {name(each) for name in named for each in (None, *segmentations)}
    return found | {PARAMETERS, PREVIEW, IMAGES_DIR, transcripts_dir(), transcripts_dir(row_groups=True), *TRANSFORMS}
