"""`landscape`: from a spatial data set, whatever wrote it, to Celldega's LandscapeFiles."""

from __future__ import annotations

from os import PathLike
from typing import Any, Literal

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems
from atlaswriter.formats.landscape.options import Options
from atlaswriter.report import Report


def landscape(bundle, out, **given):
    from atlaswriter.formats.landscape.write import export
    from atlaswriter.formats.landscape.model import Export, in_region, segmented, with_channels
    from atlaswriter.formats.landscape.catalogue import Catalogue
    from atlaswriter.sources.xenium import open_xenium
    from pathlib import Path
    problems = Problems()
    options = Options.of(given)
    resources = Resources.of({k: given.get(k) for k in Resources.__dataclass_fields__} | {"strategy": given.get("strategy", "auto")})
    options.check(problems); resources.check(problems)
    report = Report(str(out), "landscape")
    budget = Budget(resources.memory_budget)
    with report.phase("open"):
        spatial = open_xenium(bundle)
        spatial = with_channels(spatial, options, problems)
        spatial, size = in_region(spatial, options)
        catalogue = Catalogue(options.genes, drop_controls=options.drop_controls)
        parts = [segmented(None, spatial.segmentation, spatial.to_px, size, catalogue, problems)]
        problems.raise_if_any()
    return export(Export(spatial, parts, catalogue, size, options, resources, Path(out), budget, report))
