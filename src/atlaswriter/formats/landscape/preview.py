"""One HTML page that shows at a glance whether an export is right: pictures, counts and sizes, nothing from elsewhere.

Positions come from the written files alone, so that what is out of place there is out of place here.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape import figures, layout
from atlaswriter.formats.landscape.figures import CellMap, Frame
from atlaswriter.formats.landscape.previewstyle import HEAD, STYLE
from atlaswriter.formats.landscape.read import Landscape, open_export
from atlaswriter.sinks import fs
from atlaswriter.units import format_bytes

Array = NDArray[Any]

_QUALITY = 88
# A picture without loss that is larger is stored with loss instead: the page stays below 3 MB.
_LARGEST_LOSSLESS = 420_000
_LEGEND, _GENES, _CHANNELS = 12, 12, 8
_THUMBNAIL = 160
_HEX = re.compile(r"#[0-9a-fA-F]{6}")


def page(export: Landscape, *, title: str = "LandscapeFiles") -> bytes:
    """A self-contained HTML page about an export.

    Parameters
    ----------
    export
        Of `open_export`; its segmentation is the one that is shown.
    title
        Heading of the page, such as the name of the folder.

    Returns
    -------
    bytes
        UTF-8; the same for the same files.

    Raises
    ------
    FormatError
        A file of the export is damaged.
    """
    facts = _Facts(export)
    sections = [_header(facts, title), _overview(facts), _details(facts), _tables(facts)]
    head = HEAD.format(title=escape(title), style=STYLE)
    return f"{head}<body><main>{''.join(sections)}</main></body></html>\n".encode("utf-8", "replace")


class _Facts:
    """What the page says, read once."""

    def __init__(self, export: Landscape) -> None:
        self.export = export
        self.counts = export.transcript_counts()
        self.n_transcripts = sum(self.counts.values())
        self.outline_counts = export.outline_counts()
        self.n_outlines = sum(self.outline_counts.values())
        self.channels = export.channels
        self.pyramid = export.image(next(iter(self.channels))) if self.channels else None

    @cached_property
    def clusters(self) -> list[_Cluster]:
        """The largest first, as the table of clusters has them; sizes are counted."""
        if not self._there(layout.meta_cluster_file(self.export.segmentation)):
            return []
        sizes = np.bincount(self._codes, minlength=1)[1:]
        names = self.export.cluster_colors()
        found = [_Cluster(name, _hex(color), int(sizes[k])) for k, (name, color) in enumerate(names.items())]
        return sorted(found, key=lambda one: -one.size)

    @cached_property
    def n_unclustered(self) -> int:
        """Cells without cluster."""
        return int((self._codes == 0).sum())

    @cached_property
    def _codes(self) -> Array:
        """Of each cell: 1 and up in the order of the table of clusters, 0 without."""
        export = self.export
        tables = (layout.meta_cluster_file(export.segmentation), layout.cluster_file(export.segmentation))
        if not all(map(self._there, tables)):
            return np.zeros(export.n_cells, np.int64)
        known: dict[object, int] = {name: k + 1 for k, name in enumerate(export.cluster_colors())}
        size = len(known) + 1
        codes = np.fromiter((known.get(label, 0) for label in export.clusters()), np.int64, export.n_cells)
        return codes if size > 1 else np.zeros_like(codes)

    def _there(self, name: str) -> bool:
        return (self.export.path / name).is_file()

    @cached_property
    def cells(self) -> CellMap:
        """Positions and colours of the cells."""
        found = self.export.cells()
        palette = [figures.GREY]
        if self._there(layout.meta_cluster_file(self.export.segmentation)):
            palette += [_rgb(color) for color in self.export.cluster_colors().values()]
        x_px, y_px = np.array(found.x_px, np.float64), np.array(found.y_px, np.float64)
        return CellMap(x_px, y_px, self._codes, np.array(palette, np.uint8))

    @cached_property
    def placed(self) -> bool:
        """Whether cells have positions: some writers put all at 0, 0."""
        x_px, y_px = self.cells.x_px, self.cells.y_px
        return bool(x_px.size and (x_px.any() or y_px.any()))

    @cached_property
    def frame(self) -> Frame | None:
        """Everything: the image, or what lies in the tiles and the cells; None where nothing has a place."""
        if self.pyramid is not None:
            return Frame.of(0, 0, self.pyramid.width, self.pyramid.height)
        ends = [np.array([i, j, i + 1, j + 1]) * self.export.tile_size for i, j in (*self.counts, *self.outline_counts)]
        if self.placed:
            sound = np.isfinite(self.cells.x_px) & np.isfinite(self.cells.y_px)
            xy = np.stack([self.cells.x_px, self.cells.y_px], 1)[sound]
            ends += [np.concatenate([xy.min(0), xy.max(0)])] if xy.size else []
        if not ends:
            return None
        left, top = (float(math.floor(value)) for value in np.min(ends, 0)[:2])
        right, bottom = (float(math.ceil(value)) for value in np.max(ends, 0)[2:])
        room = max(0.01 * max(right - left, bottom - top), 1)
        room = 0 if self.counts or self.outline_counts else room
        return Frame.of(left - room, top - room, right - left + 2 * room, bottom - top + 2 * room)

    @cached_property
    def details(self) -> list[Frame]:
        """What is shown at full resolution."""
        return [] if self.frame is None else figures.detail_places(self.export, self.counts, self.cells, self.frame)

    @cached_property
    def density(self) -> figures.Density | None:
        """Of the transcripts."""
        return None if self.frame is None else figures.density(self.export, self.counts, self.frame)

    @cached_property
    def um_per_px(self) -> float | None:
        """Microns per pixel; None where the transform does not tell."""
        matrix = self.export.transform
        if matrix is None or np.array_equal(matrix, np.eye(3)):
            return None
        square = abs(float(matrix[0, 0] * matrix[1, 1] - matrix[0, 1] * matrix[1, 0]))
        return 1 / math.sqrt(square) if square > 0 else None


@dataclass(frozen=True)
class _Cluster:
    name: str
    color: str
    size: int


# --- parts of the page


def _header(facts: _Facts, title: str) -> str:
    export, um = facts.export, facts.um_per_px
    storage = "row groups" if export.row_groups else "loose files"
    parts = [export.technology, f"tiles of {export.tile_size:,} px in {storage}"]
    if export.segmentation is not None:
        parts.append(f"segmentation {export.segmentation}")
    parts.append("1 px = %.4g µm" % um if um else "no size in microns")
    writer = export.parameters.get("writer")
    parts += [writer] if isinstance(writer, str) else []
    numbers = [
        ("cells", export.n_cells), ("outlines", facts.n_outlines), ("transcripts", facts.n_transcripts),
        ("genes", export.n_genes), ("clusters", len(facts.clusters)), ("channels", len(facts.channels)),
    ]  # fmt: skip
    counts = "".join(f"<div><dt>{name}</dt><dd>{count:,}</dd></div>" for name, count in numbers)
    chips = "".join(f"<li>{escape(part)}</li>" for part in parts)
    checks = "".join(f"<li class={'ok' if good else 'note'}>{escape(text)}</li>" for good, text in _checks(facts))
    return (
        f"<header><p class=kicker>Celldega LandscapeFiles</p><h1>{escape(title)}</h1><ul class=chips>{chips}</ul>"
        f"</header><dl class=counts>{counts}</dl><ul class=checks>{checks}</ul>"
    )


def _checks(facts: _Facts) -> list[tuple[bool, str]]:
    """What can be said without looking at pictures: good or not, and why."""
    export, frame, n_cells = facts.export, facts.frame, facts.export.n_cells
    found: list[tuple[bool, str]] = []
    if facts.pyramid is None:
        found.append((False, "There is no image."))
    if not facts.placed:
        found.append((False, "Cells have no positions: all lie at 0, 0."))
    elif facts.pyramid is not None and frame is not None:
        outside = n_cells - int(frame.holds(facts.cells.x_px, facts.cells.y_px).sum())
        found.append((not outside, _share("cells lie inside the image", n_cells - outside, n_cells)))
    if facts.density is not None and facts.pyramid is not None:
        inside = facts.density.inside
        found.append((inside == facts.n_transcripts, _share("transcripts lie inside", inside, facts.n_transcripts)))
    elif facts.n_transcripts and facts.density is None:
        found.append((False, "No transcript lies inside the image."))
    elif not facts.n_transcripts:
        found.append((False, "There are no transcripts."))
    if facts.n_outlines:
        found.append((facts.n_outlines == n_cells, _share("cells have an outline", facts.n_outlines, n_cells)))
    else:
        found.append((False, "There are no outlines."))
    clustered = n_cells - facts.n_unclustered
    found.append((clustered == n_cells, _share("cells have a cluster", clustered, n_cells)))
    if export.transform is None:
        found.append((False, "There is no transform."))
    return found


def _share(what: str, part: int, whole: int) -> str:
    return f"All {what}" if part == whole else f"{part:,} of {whole:,} {what} ({100 * part / max(whole, 1):.4g} %)"


def _overview(facts: _Facts) -> str:
    frame, cells = facts.frame, facts.cells
    if frame is None:
        return "<section><h2>Overview</h2><p>Nothing has a position, so there is nothing to draw.</p></section>"
    if figures.outlines_show(frame, facts.n_outlines):
        lines, filled = figures.outline_layers(facts.export, facts.outline_counts, frame, cells, 0.3)
        overlay, over = lines, "Outlines"
        colored = [filled] if facts.n_outlines >= facts.export.n_cells else [figures.dots(cells, frame), filled]
        how = "Outlines filled with the colours of the clusters."
    else:
        overlay = figures.dots(cells, frame)
        colored, over = [overlay], "Cells"
        how = "Centres of the cells in the colours of the clusters."
    shown = []
    if facts.pyramid is not None:
        size = f"{facts.pyramid.width:,} × {facts.pyramid.height:,} px"
        layers = [("Image", figures.image(facts.export, frame))] + ([(over, overlay)] if facts.placed else [])
        legend = _legend([(one.button, _css(one.color), "") for one in facts.channels.values()])
        text = f"{size}{_microns(facts)}, five times as bright as stored, as in the viewer."
        shown.append(_figure(facts, frame, "Image", layers, text, legend, boxes=True))
    if facts.density is not None:
        shown.append(_density_figure(facts, facts.density, frame))
    if facts.placed or facts.n_outlines:
        rows = [(one.name, one.color, f"{one.size:,}") for one in facts.clusters[:_LEGEND]]
        legend = _legend(rows, _more(len(facts.clusters) - _LEGEND, facts.n_unclustered))
        ground = figures.flat(colored, (10, 12, 16))
        shown.append(_figure(facts, frame, "Clusters", [("Clusters", ground)], how, legend))
    ratio = frame.shape[1] / frame.shape[0]
    kind = "long" if ratio > 2.5 else "wide" if ratio > 1.4 else "tall"
    return f"<section><h2>Overview</h2><div class='grid {kind}'>{''.join(shown)}</div></section>"


def _density_figure(facts: _Facts, density: figures.Density, frame: Frame) -> str:
    um = facts.um_per_px
    # Per 100 square microns, or 1,000 pixels.
    factor, unit = (100 / um**2, "100 µm²") if um else (1000.0, "1,000 px²")
    if facts.n_transcripts > figures.MOST_POINTS:
        how = f"Numbers of transcripts of the tiles of {facts.export.tile_size:,} px, as there are too many to read."
    else:
        edge = f"{density.bin_px * um:.3g} µm" if um else f"{density.bin_px:.3g} px"
        how = f"All transcripts, in bins of {edge}."
    colors = ",".join(_css(color) for color in figures.RAMP)
    low, high = density.low * factor, density.high * factor
    ticks = "".join(
        f"<span style='left:{100 * place:.1f}%'>{label}</span>" for place, label in _ticks(low, high)
    )
    bar = (
        f"<div class=bar><i style='background:linear-gradient(90deg,{colors})'></i><div class=ticks>{ticks}</div>"
        f"<p>transcripts per {unit}, logarithmic</p></div>"
    )
    layers = [("Density", density.pixels)]
    return _figure(facts, frame, "Transcript density", layers, how, bar, boxes=True)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between two numbers and their places on a logarithmic axis, 0 to 1."""
    if not high > low:
        return [(0.5, f"{low:.3g}")]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    found = [value for value in many if low <= value <= high]
    if len(found) > 7:
        found = [value for value in found if round(math.log10(value), 6).is_integer()]
    found = found if len(found) > 1 else [low, high]
    return [(math.log(value / low) / math.log(high / low), f"{value:.3g}") for value in found]


def _details(facts: _Facts) -> str:
    export = facts.export
    if not facts.details or not (facts.placed or facts.n_transcripts or facts.n_outlines or facts.pyramid):
        return ""
    points = [figures.points(export, facts.counts, frame) for frame in facts.details]
    seen = np.concatenate([found[0] for found in points if found is not None] or [np.empty(0, np.int64)])
    seen = np.bincount(seen[(seen >= 0) & (seen < export.n_genes)], minlength=1)
    order = np.argsort(-seen, kind="stable")[: len(figures.GENE_COLORS)]
    top = [int(gene) for gene in order if seen[gene]]
    shown = []
    for number, (frame, found) in enumerate(zip(facts.details, points, strict=True)):
        pixels = figures.image(export, frame) if facts.pyramid is not None else np.full((*frame.shape, 3), 14, np.uint8)
        tiles = frame.touched(facts.outline_counts, export.tile_size, 150)
        lines, _ = figures.outline_layers(export, tiles, frame, facts.cells, 0.8)
        layers = [("Image" if facts.pyramid is not None else "Ground", pixels)]
        layers += [("Outlines", lines)] if tiles else []
        layers += [("Transcripts", figures.spots(found, top, frame))] if found is not None and top else []
        where = f"x {frame.left:,.0f} to {frame.left + frame.wide:,.0f}, y {frame.top:,.0f} to "
        where += f"{frame.top + frame.high:,.0f} px"
        if found is None:
            where += "; its tiles hold too many transcripts to be read"
        elif facts.n_transcripts:
            drawn = int(np.isin(found[0], top).sum())
            where += f"; {drawn:,} of {found[0].size:,} transcripts are drawn"
        shown.append(_figure(facts, frame, f"Detail {'AB'[number]}", layers, where + ".", ""))
    legend = _legend(
        [(export.genes[gene], _css(color), "") for gene, color in zip(top, figures.GENE_COLORS, strict=False)]
    )
    text = "Outlines should follow the cells, and transcripts should lie in them."
    if len(shown) > 1:
        text += " B is far from A: a wrong scale or rotation shows in one of them."
    return (
        f"<section><h2>At full resolution</h2><p>{text}</p><div class=genes>{legend}</div>"
        f"<div class='grid details'>{''.join(shown)}</div></section>"
    )


# --- figures


def _figure(
    facts: _Facts, frame: Frame, name: str, layers: Sequence[tuple[str, Array]], text: str, below: str,
    *, boxes: bool = False,
) -> str:  # fmt: skip
    """Layers over each other, each of which can be hidden, and what belongs below."""
    height, width = frame.shape
    sharp = " sharp" if frame.scale >= 2 else ""
    images = "".join(
        f"<img class=l{k} alt='{escape(name)}: {escape(what)}' src='{_uri(pixels)}'>"
        for k, (what, pixels) in enumerate(layers)
    )
    marks = _scale_bar(facts, frame)
    if boxes:
        marks += "".join(_box(frame, one, "AB"[k]) for k, one in enumerate(facts.details))
    toggles = "".join(
        f"<label><input type=checkbox checked class=t{k}>{escape(what)}</label>"
        for k, (what, _) in enumerate(layers)
        if len(layers) > 1
    )
    style = f"aspect-ratio:{width}/{height};max-width:{max(760 * width / height, 240):.0f}px"
    return (
        f"<figure><div class=top><h3>{escape(name)}</h3><div class=toggles>{toggles}</div></div>"
        f"<label class='stage{sharp}' style='{style}' title='Click to enlarge'>"
        f"<input type=checkbox class=zoom aria-label='Enlarge'>{images}{marks}</label>"
        f"<figcaption>{escape(text)}</figcaption>{below}</figure>"
    )


def _uri(pixels: Array) -> str:
    """An image as a WebP data URI: photographs with loss, drawings without."""
    import imagecodecs

    pixels = np.ascontiguousarray(pixels)
    content = bytes(imagecodecs.webp_encode(pixels, lossless=True))
    if len(content) > _LARGEST_LOSSLESS:
        content = bytes(imagecodecs.webp_encode(pixels, level=_QUALITY))
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _scale_bar(facts: _Facts, frame: Frame) -> str:
    unit = facts.um_per_px or 1.0
    room = 0.28 * frame.wide * unit
    if room <= 0:
        return ""
    step = 10.0 ** math.floor(math.log10(room))
    length = next(factor * step for factor in (5, 2, 1) if factor * step <= room)
    share = 100 * length / unit * frame.scale / frame.shape[1]
    if facts.um_per_px is None:
        label = f"{length:,g} px"
    else:
        label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    return f"<span class=scale style='width:{share:.2f}%'>{label}</span>"


def _box(whole: Frame, one: Frame, name: str) -> str:
    height, width = (side / whole.scale for side in whole.shape)
    place = {
        "left": (one.left - whole.left) / width,
        "top": (one.top - whole.top) / height,
        "width": one.wide / width,
        "height": one.high / height,
    }
    style = ";".join(f"{key}:{100 * value:.2f}%" for key, value in place.items())
    return f"<span class=box style='{style}'><b>{name}</b></span>"


def _legend(rows: Sequence[tuple[str, str, str]], end: str = "") -> str:
    items = "".join(
        f"<li><i style='background:{color}'></i><span>{escape(name)}</span><em>{count}</em></li>"
        for name, color, count in rows
    )
    return f"<ul class=legend>{items}</ul>" + (f"<p class=more>{escape(end)}</p>" if end else "")


def _more(n_more: int, n_without: int) -> str:
    parts = [f"{n_more:,} smaller clusters"] if n_more > 0 else []
    parts += [f"{n_without:,} cells without cluster, in grey"] if n_without else []
    return " · ".join(parts)


# --- tables


def _tables(facts: _Facts) -> str:
    cards = [_genes(facts), _channels(facts), _clusters(facts), _sizes(facts), _about(facts)]
    return f"<section><h2>Contents</h2><div class=cards>{''.join(cards)}</div></section>"


def _genes(facts: _Facts) -> str:
    table = facts.export.meta_gene()
    means = table["mean"].to_numpy(np.float64)
    order = np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable")[:_GENES]
    most = max([float(means[k]) for k in order if math.isfinite(means[k])], default=0.0) or 1.0
    some = table["non-zero"].to_numpy(np.float64) if "non-zero" in table else None
    rows = []
    for k in order:
        swatch = f"<i class=dot style='background:{_hex(str(table['color'].iloc[k]))}'></i>"
        share = "" if some is None else f"{100 * some[k]:.1f} %"
        wide = 100 * max(float(np.nan_to_num(means[k])), 0) / most
        rows.append(
            [f"{swatch}{escape(str(table.index[k]))}", f"<u style='width:{wide:.1f}%'></u>", f"{means[k]:.3g}", share]
        )
    return _card("Genes with the highest mean", ["gene", "", "mean per cell", "cells with it"], rows)


def _channels(facts: _Facts) -> str:
    if facts.pyramid is None:
        return ""
    scaling = facts.export.parameters.get("image_scaling")
    known = scaling.get("channels") if isinstance(scaling, dict) else None
    rows = []
    largest = max(facts.pyramid.width, facts.pyramid.height)
    scale = min(_THUMBNAIL / largest, 1.0)
    frame = Frame(0, 0, facts.pyramid.width, facts.pyramid.height, scale)
    for name, one in list(facts.channels.items())[:_CHANNELS]:
        size = facts.export.image(name)
        thumbnail = f"<img class=thumb alt='' src='{_uri(figures.image(facts.export, frame, [name]))}'>"
        stated = known.get(name) if isinstance(known, dict) else None
        bright = stated.get("lut_max") if isinstance(stated, dict) else None
        text = f"{bright:,g}" if isinstance(bright, int | float) else "–"
        label = f"<i class=dot style='background:{_css(one.color)}'></i>{escape(one.button)}"
        rows.append([thumbnail, label, escape(name), f"{size.width:,} × {size.height:,}", text])
    end = f"{len(facts.channels) - _CHANNELS:,} more" if len(facts.channels) > _CHANNELS else ""
    return _card("Channels", ["", "label", "name", "pixels", "brightest value"], rows, end)


def _clusters(facts: _Facts) -> str:
    if not facts.clusters:
        return ""
    most, n_cells = max(facts.clusters[0].size, 1), max(facts.export.n_cells, 1)
    rows = [
        [
            f"<i class=dot style='background:{one.color}'></i>{escape(one.name)}",
            f"<u style='width:{100 * one.size / most:.1f}%'></u>",
            f"{one.size:,}",
            f"{100 * one.size / n_cells:.1f} %",
        ]
        for one in facts.clusters[:_LEGEND]
    ]
    end = _more(len(facts.clusters) - _LEGEND, facts.n_unclustered)
    return _card("Largest clusters", ["cluster", "", "cells", "of all"], rows, end)


def _sizes(facts: _Facts) -> str:
    sizes: dict[str, tuple[int, int]] = {}
    for name, size in fs.file_sizes(facts.export.path):
        if name != layout.PREVIEW:
            part = name.partition("/")[0] + "/" if "/" in name else "tables, parameters"
            files, total = sizes.get(part, (0, 0))
            sizes[part] = files + 1, total + size
    order = sorted(sizes.items(), key=lambda one: (-one[1][1], one[0]))
    most = max((total for _, (_, total) in order), default=1) or 1
    rows = [
        [escape(part), f"<u style='width:{100 * total / most:.1f}%'></u>", f"{files:,}", format_bytes(total)]
        for part, (files, total) in order
    ]
    files, total = (sum(column) for column in zip(*sizes.values(), strict=True)) if sizes else (0, 0)
    rows.append(["<b>all</b>", "", f"<b>{files:,}</b>", f"<b>{format_bytes(total)}</b>"])
    return _card("On disk", ["part", "", "files", "size"], rows)


def _about(facts: _Facts) -> str:
    export, matrix = facts.export, facts.export.transform
    rows = [["technology", escape(export.technology)], ["tile size", f"{export.tile_size:,} px"]]
    rows.append(["tiles with transcripts", f"{len(facts.counts):,}"])
    rows.append(["tiles with outlines", f"{len(facts.outline_counts):,}"])
    for name in export.segmentations:
        other = open_export(export.path, segmentation=name)
        rows.append([f"segmentation {escape(name)}", f"{other.n_cells:,} cells, {other.n_genes:,} genes"])
    if matrix is None:
        text = "none"
    else:
        text = "<br>".join(" ".join(f"<code>{value:.7g}</code>" for value in row) for row in matrix)
    rows.append(["microns to pixels", f"<div class=matrix>{text}</div>"])
    return _card("Settings", ["", ""], rows)


def _card(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], end: str = "") -> str:
    """A table; its cells are HTML."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    top = f"<thead><tr>{top}</tr></thead>" if any(heads) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    end = f"<p class=more>{escape(end)}</p>" if end else ""
    return f"<div class=card><h3>{title}</h3><table>{top}<tbody>{body}</tbody></table>{end}</div>"


def _hex(color: str) -> str:
    """A colour of the export, which may be anything, for a style sheet."""
    return color if _HEX.fullmatch(color) else _css(figures.GREY)


def _rgb(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(_hex(color)[1:]))


def _css(color: Sequence[int]) -> str:
    return "#" + "".join(f"{value:02x}" for value in color)
