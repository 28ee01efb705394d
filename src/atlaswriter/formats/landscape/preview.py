"""One HTML page that shows at a glance whether an export is right: pictures, counts and sizes, nothing from elsewhere.

Positions come from the written files alone, so that what is out of place there is out of place here.
"""

from __future__ import annotations

import math
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape import details, figures, layout
from atlaswriter.formats.landscape.figures import Frame
from atlaswriter.formats.landscape.previewfacts import Facts, css, hex_color
from atlaswriter.formats.landscape.previewparts import CELLS, GROUND, IMAGE, card, figure, legend, uri
from atlaswriter.formats.landscape.previewstyle import HEAD, STYLE
from atlaswriter.formats.landscape.read import Landscape, open_export
from atlaswriter.sinks import fs
from atlaswriter.units import format_bytes

Array = NDArray[Any]

_LEGEND, _GENES, _CHANNELS = 12, 12, 8
_THUMBNAIL = 160


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
    facts = Facts(export)
    sections = [_header(facts, title), _overview(facts), _details(facts), _tables(facts)]
    head = HEAD.format(title=escape(title), style=STYLE)
    return f"{head}<body><main>{''.join(sections)}</main></body></html>\n".encode("utf-8", "replace")


# --- parts of the page


def _header(facts: Facts, title: str) -> str:
    export, um = facts.export, facts.um_per_px
    storage = "row groups" if export.row_groups else "loose files"
    parts = [export.technology, f"tiles of {export.tile_size:,} px in {storage}"]
    if export.segmentation is not None:
        parts.append(f"segmentation {export.segmentation}")
    parts.append(f"1 px = {um:.4g} µm" if um else "no size in microns")
    writer = export.parameters.get(layout.WRITER)
    if isinstance(writer, dict) and "version" in writer:
        parts.append(f"{layout.WRITER} {writer['version']}")
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


def _checks(facts: Facts) -> list[tuple[bool, str]]:
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
        text = _share("transcripts lie inside the image", inside, facts.n_transcripts)
        found.append((inside == facts.n_transcripts, text))
    elif facts.n_transcripts and facts.density is None:
        found.append((False, "No transcript lies inside the image."))
    elif not facts.n_transcripts:
        found.append((False, "There are no transcripts."))
    if facts.n_outlines:
        found.append((facts.n_outlines == n_cells, _share("cells have an outline", facts.n_outlines, n_cells)))
    else:
        found.append((False, "There are no outlines."))
    clustered = n_cells - facts.n_unclustered
    # Some are always too poor to be clustered.
    found.append((clustered > 0.9 * n_cells, _share("cells have a cluster", clustered, n_cells)))
    if export.transform is None:
        found.append((False, "There is no transform."))
    return found


def _share(what: str, part: int, whole: int) -> str:
    return f"All {what}" if part == whole else f"{part:,} of {whole:,} {what} ({100 * part / max(whole, 1):.4g} %)"


def _overview(facts: Facts) -> str:
    frame, cells = facts.frame, facts.cells
    if frame is None:
        return "<section><h2>Overview</h2><p>Nothing has a position, so there is nothing to draw.</p></section>"
    if figures.outlines_show(frame, facts.n_outlines):
        lines, filled = figures.outline_layers(facts.export, facts.outline_counts, frame, cells, 0.3, 0.5)
        overlay, over = lines, "Outlines"
        colored = [filled] if facts.n_outlines >= facts.export.n_cells else [figures.dots(cells, frame), filled]
        how = "Outlines filled with the colours of the clusters."
    else:
        overlay = figures.dots(cells, frame)
        colored, over = [overlay], CELLS
        how = "Centres of the cells in the colours of the clusters."
    shown = []
    if facts.pyramid is not None:
        size = f"{facts.pyramid.width:,} × {facts.pyramid.height:,} px"
        pixels, gain = figures.brightened(facts.export, frame)
        layers = [(IMAGE, pixels)] + ([(over, overlay)] if facts.placed else [])
        key = legend([(one.button, css(one.color), "") for one in facts.channels.values()])
        text = f"{size}{_microns(facts)}, {gain:.2g} times as bright as the viewer shows it."
        text = text if gain > 1 else f"{size}{_microns(facts)}, as bright as the viewer shows it."
        shown.append(figure(facts, frame, "Image", layers, text, key, boxes=True))
    if facts.density is not None:
        shown.append(_density_figure(facts, facts.density, frame))
    if facts.placed or facts.n_outlines:
        rows = [(one.name, one.color, f"{one.size:,}") for one in facts.clusters[:_LEGEND]]
        key = legend(rows, _more(len(facts.clusters) - _LEGEND, facts.n_unclustered))
        ground = figures.flat(colored, (10, 12, 16))
        shown.append(figure(facts, frame, "Clusters", [("Clusters", ground)], how, key))
    ratio = frame.shape[1] / frame.shape[0]
    kind = "long" if ratio > 2.5 else "wide" if ratio > 1.4 else "tall"
    return f"<section><h2>Overview</h2><div class='grid {kind}'>{''.join(shown)}</div></section>"


def _microns(facts: Facts) -> str:
    """Size of the image in space, where it is known."""
    if facts.pyramid is None or facts.um_per_px is None:
        return ""
    wide, high = (side * facts.um_per_px / 1000 for side in (facts.pyramid.width, facts.pyramid.height))
    return f" ({wide:.3g} × {high:.3g} mm)" if max(wide, high) >= 1 else f" ({1000 * wide:.3g} × {1000 * high:.3g} µm)"


def _density_figure(facts: Facts, density: figures.Density, frame: Frame) -> str:
    um = facts.um_per_px
    # Per 100 square microns, or 1,000 pixels.
    factor, unit = (100 / um**2, "100 µm²") if um else (1000.0, "1,000 px²")
    if facts.n_transcripts > figures.MOST_POINTS:
        how = f"Numbers of transcripts of the tiles of {facts.export.tile_size:,} px, as there are too many to read."
    else:
        edge = f"{density.bin_px * um:.3g} µm" if um else f"{density.bin_px:.3g} px"
        how = f"All transcripts, in bins of {edge}."
    colors = ",".join(css(color) for color in figures.RAMP)
    low, high = density.low * factor, density.high * factor
    ticks = "".join(f"<span style='left:{100 * place:.1f}%'>{label}</span>" for place, label in _ticks(low, high))
    bar = (
        f"<div class=bar><i style='background:linear-gradient(90deg,{colors})'></i><div class=ticks>{ticks}</div>"
        f"<p>transcripts per {unit}, logarithmic</p></div>"
    )
    layers = [("Density", density.pixels)]
    return figure(facts, frame, "Transcript density", layers, how, bar, boxes=True)


def _ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Round numbers between two numbers and their places on a logarithmic axis, 0 to 1."""
    if not high > low:
        return [(0.5, _number(low))]
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    many = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    found = [value for value in many if low <= value <= high]
    if len(found) > 7:
        found = [value for value in found if round(math.log10(value), 6).is_integer()]
    found = found if len(found) > 1 else [low, high]
    return [(math.log(value / low) / math.log(high / low), _number(value)) for value in found]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _details(facts: Facts) -> str:
    export = facts.export
    if not facts.details or not (facts.placed or facts.n_transcripts or facts.n_outlines or facts.pyramid):
        return ""
    points = [details.points(export, facts.counts, frame) for frame in facts.details]
    seen = np.concatenate([found[0] for found in points if found is not None] or [np.empty(0, np.int64)])
    seen = np.bincount(seen[(seen >= 0) & (seen < export.n_genes)], minlength=1)
    order = np.argsort(-seen, kind="stable")[: len(details.GENE_COLORS)]
    top = [int(gene) for gene in order if seen[gene]]
    shown = []
    for number, (frame, found) in enumerate(zip(facts.details, points, strict=True)):
        pixels = np.full((1, 1, 3), 14, np.uint8)
        if facts.pyramid is not None:
            pixels = figures.image(export, frame.native)
        # Outlines are in the tile of their centre, and may reach into the frame from outside.
        tiles = frame.touched(facts.outline_counts, export.tile_size, min(frame.wide, 150))
        lines, _ = figures.outline_layers(export, tiles, frame, facts.cells, 0.9, 0.9)
        layers = [(IMAGE if facts.pyramid is not None else GROUND, pixels)]
        if tiles:
            layers.append(("Outlines", lines))
        elif facts.placed:
            layers.append((CELLS, figures.dots(facts.cells, frame)))
        layers += [("Transcripts", details.spots(found, top, frame))] if found is not None and top else []
        where = f"x {frame.left:,.0f} to {frame.left + frame.wide:,.0f}, y {frame.top:,.0f} to "
        where += f"{frame.top + frame.high:,.0f} px"
        if found is None:
            where += "; its tiles hold too many transcripts to be read"
        elif facts.n_transcripts:
            drawn = int(np.isin(found[0], top).sum())
            where += f"; {drawn:,} of {found[0].size:,} transcripts are drawn"
        shown.append(figure(facts, frame, f"Detail {'AB'[number]}", layers, where + ".", ""))
    key = legend([(export.genes[gene], css(color), "") for gene, color in zip(top, details.GENE_COLORS, strict=False)])
    text = "Outlines should follow the cells, and transcripts should lie in them."
    if len(shown) > 1:
        text += " B is far from A: a wrong scale or rotation shows in one of them."
    return (
        f"<section><h2>At full resolution</h2><p>{text}</p><div class=genes>{key}</div>"
        f"<div class='grid details'>{''.join(shown)}</div></section>"
    )


# --- tables


def _more(n_more: int, n_without: int) -> str:
    parts = [f"{n_more:,} smaller clusters"] if n_more > 0 else []
    parts += [f"{n_without:,} cells without cluster, in grey"] if n_without else []
    return " · ".join(parts)


def _tables(facts: Facts) -> str:
    cards = [_genes(facts), _channels(facts), _clusters(facts), _sizes(facts), _about(facts)]
    return f"<section><h2>Contents</h2><div class=cards>{''.join(cards)}</div></section>"


def _genes(facts: Facts) -> str:
    table = facts.export.meta_gene()
    means = table["mean"].to_numpy(np.float64)
    order = np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable")[:_GENES]
    most = max([float(means[k]) for k in order if math.isfinite(means[k])], default=0.0) or 1.0
    some = table["non-zero"].to_numpy(np.float64) if "non-zero" in table else None
    rows = []
    for k in order:
        swatch = f"<i class=dot style='background:{hex_color(str(table['color'].iloc[k]))}'></i>"
        share = "" if some is None else f"{100 * some[k]:.1f} %"
        wide = 100 * max(float(np.nan_to_num(means[k])), 0) / most
        rows.append(
            [f"{swatch}{escape(str(table.index[k]))}", f"<u style='width:{wide:.1f}%'></u>", _number(means[k]), share]
        )
    return card("Genes with the highest mean", ["gene", "", "mean per cell", "cells with it"], rows)


def _channels(facts: Facts) -> str:
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
        pixels, _ = figures.brightened(facts.export, frame, [name])
        thumbnail = f"<img class=thumb alt='' src='{uri(pixels, photo=True)}'>"
        stated = known.get(name) if isinstance(known, dict) else None
        bright = stated.get("lut_max") if isinstance(stated, dict) else None
        text = f"{bright:,g}" if isinstance(bright, int | float) else "–"
        label = f"<i class=dot style='background:{css(one.color)}'></i>{escape(one.button)}"
        rows.append(
            [
                f"<div class=channel>{thumbnail}<span>{label}</span></div>",
                escape(name),
                f"{size.width:,} × {size.height:,}",
                text,
            ]
        )
    end = f"{len(facts.channels) - _CHANNELS:,} more" if len(facts.channels) > _CHANNELS else ""
    return card("Channels", ["channel", "name", "pixels", "brightest value"], rows, end)


def _clusters(facts: Facts) -> str:
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
    return card("Largest clusters", ["cluster", "", "cells", "of all"], rows, end)


def _sizes(facts: Facts) -> str:
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
    return card("On disk", ["part", "", "files", "size"], rows)


def _about(facts: Facts) -> str:
    export, matrix = facts.export, facts.export.transform
    rows = [["technology", escape(export.technology)], ["tile size", f"{export.tile_size:,} px"]]
    writer = export.parameters.get(layout.WRITER)
    if isinstance(writer, dict):
        chosen = {name: writer.get(name) for name in ("min_qv", "drop_controls", "region")}
        rows += [
            [name, escape(str(value))] for name, value in chosen.items() if value is not None and value is not False
        ]
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
    return card("Settings", ["", ""], rows)
