"""Images as planes: TIFF and OME-TIFF, PNG, Zarr and OME-Zarr, arrays.

A plane is read some tiles or strips at a time (`sources.tiff`), a PNG in one piece. Stacks along z are shown by their
brightest pixels, as 10x's own ``morphology_mip.ome.tif``; of several time points the first is taken.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import tifffile

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources import ome
from atlaswriter.sources.base import AnyArray, Array, as_native, n_bytes, overhead
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.pictures import open_png, open_zarr, planes_of
from atlaswriter.sources.slices import bounds
from atlaswriter.sources.spatial import Plane
from atlaswriter.sources.tiff import File, TiffPlane, samples_of
