"""The image: a pyramid for every channel."""

from __future__ import annotations

from typing import Any

from atlaswriter.formats.landscape.job import Job
from atlaswriter.sources.spatial import Spatial


class ImageWriter:
    """Writes the channels of one image."""

    def __init__(self, spatial: Spatial, job: Job) -> None:
        self._planes, self._job = spatial.planes, job
        self.info: list[dict[str, Any]] = []
        self.scaling: dict[str, Any] | None = None
        self.max_level: int | None = None
        self.row_group_files: dict[str, Any] = {}
        self.dimensions: dict[str, Any] = {}

    def write(self) -> None:
        """Write all channels."""
        self._job.progress.add(0)
