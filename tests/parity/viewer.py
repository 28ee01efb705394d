"""Reading an export the way the viewer does, plainly; shares no code with the package."""

import gzip
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

MISSING = {"uint8": 255, "uint16": 65535}


class Stored(NamedTuple):
    """A payload of values and its manifest entry's bounds (None for float32)."""

    codes: np.ndarray
    low: float | None
    high: float | None

    @property
    def missing(self):
        return self.codes == MISSING[self.codes.dtype.name]

    def exact(self):
        """Values before the viewer's rounding to float32."""
        step = (self.high - self.low) / (MISSING[self.codes.dtype.name] - 1)
        return np.where(self.missing, np.nan, self.low + self.codes * step)

    def decoded(self):
        return self.exact().astype(np.float32)


class Folder:
    """An export folder with the default file names."""

    def __init__(self, path):
        self.path = Path(path)
        self.identity = self.json("dataset_identity.json")
        self.obs = self.json("obs_manifest.json")
        self.var = self.json("var_manifest.json")
        self.graph = self.json("connectivity_manifest.json")

    def json(self, name):
        path = self.path / name
        return json.loads(path.read_text("utf-8"), parse_constant=_refuse) if path.exists() else None

    def files(self):
        return sorted(path.relative_to(self.path).as_posix() for path in self.path.rglob("*") if path.is_file())

    def array(self, name, dtype):
        content = (self.path / name).read_bytes()
        return np.frombuffer(gzip.decompress(content) if name.endswith(".gz") else content, dtype)

    def points(self, dim):
        return self.array(self.identity["embeddings"]["files"][f"{dim}d"], "<f4").reshape(-1, dim)

    def vectors(self, field, dim):
        files = self.identity["vector_fields"]["fields"][field]["files"]
        return self.array(files[f"{dim}d"], "<f4").reshape(-1, dim)

    def edges(self):
        dtype = self.graph["index_dtype"]
        return self.array(self.graph["sourcesPath"], dtype), self.array(self.graph["destinationsPath"], dtype)

    def genes(self):
        return [entry[0] for entry in self.var["fields"]]

    def gene(self, name):
        schema = self.var["_varSchema"]
        entry = next(entry for entry in self.var["fields"] if entry[0] == name)
        return self._stored(schema["pathPattern"], schema["dtype"], name, entry[1:])

    def continuous(self, key):
        schema = self.obs["_obsSchemas"]["continuous"]
        entry = next(entry for entry in self.obs["_continuousFields"] if entry[0] == key)
        return self._stored(schema["pathPattern"], schema["dtype"], key, entry[1:])

    def category(self, key):
        return next(entry for entry in self.obs["_categoricalFields"] if entry[0] == key)

    def codes(self, key):
        pattern = self.obs["_obsSchemas"]["categorical"]["codesPathPattern"]
        dtype = self.category(key)[2]
        return self.array(_resolve(pattern.replace("{ext}", {"uint8": "u8", "uint16": "u16"}[dtype]), key), dtype)

    def outliers(self, key):
        schema = self.obs["_obsSchemas"]["categorical"]
        return self._stored(schema["outlierPathPattern"], schema["outlierDtype"], key, self.category(key)[5:])

    def _stored(self, pattern, dtype, key, bounds):
        return Stored(self.array(_resolve(pattern, key), dtype), *(bounds or (None, None)))


def _resolve(pattern, key):
    return pattern.replace("{key}", re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("._") or "field", 1)


def _refuse(constant):
    raise ValueError(f"{constant} is not JSON")
