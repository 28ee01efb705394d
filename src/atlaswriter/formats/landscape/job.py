"""What every part of an export shares while it is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from atlaswriter.engine.run import Team
from atlaswriter.formats.landscape.options import Options
from atlaswriter.formats.landscape.parquet import Style
from atlaswriter.progress import Progress
from atlaswriter.sinks.files import Files


@dataclass(frozen=True)
class Job:
    """One export in progress."""

    options: Options
    style: Style
    team: Team
    sink: Files
    progress: Progress

    def write_table(self, path: str, table: pa.Table) -> None:
        """Write one table as a Parquet file."""
        self.sink.write(path, self.style.to_bytes(table))

    def write_json(self, path: str, content: Any) -> None:
        """Write one JSON file."""
        self.sink.write(path, json.dumps(content, indent=4, allow_nan=False).encode())
