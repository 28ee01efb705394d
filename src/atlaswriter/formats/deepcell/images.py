"""Writing the two images of a project: pixels in, strips out, several blocks at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from atlaswriter import __version__
from atlaswriter.engine.run import Team
from atlaswriter.formats.deepcell.blocks import Block, Cut
from atlaswriter.formats.deepcell.ometiff import Images, Pages, compressed
from atlaswriter.progress import Progress
from atlaswriter.sinks.archive import ArchiveSink
from atlaswriter.sources.base import Array

# Pixels of a frame (t) and channel (c) to those that are stored.
Convert = Callable[[Array, int, int], Array]


def written_room(images: Images, cut: Cut) -> int:
    """Bytes that a block takes until it is written."""
    pixels = cut.channels * cut.rows * images.row_bytes
    strip = images.strip_rows * max(images.row_bytes, cut.row_bytes)
    # Compressed, and a strip converted, as differences, and in the encoder's hands.
    return cut.room + pixels + pixels // 64 + 4 * strip


@dataclass(frozen=True)
class ImageWriter:
    """Writes one movie as an OME-TIFF member.

    Attributes
    ----------
    images
        What the file holds.
    cut
        The movie, and how it is read.
    convert
        What becomes of its pixels.
    """

    images: Images
    cut: Cut
    convert: Convert

    def write(self, name: str, team: Team, sink: ArchiveSink, progress: Progress) -> bool:
        """Write it; whether it became a BigTIFF."""
        pages = Pages(self.images, f"atlaswriter {__version__}")
        with sink.member(name, self.images.most) as member:
            member.append(bytes(Pages.header_bytes))
            room = written_room(self.images, self.cut)
            for strips in team.in_order(self._strips, self.cut, memory=room, what=f"writing {name}"):
                for place, content in strips:
                    pages.note(*place, offset=member.append(content), size=len(content))
                    progress.add(self._content(place))
            ending, header = pages.ending(member.size)
            member.append(ending)
            member.fill(header)
        return Pages.is_big(header)

    def _strips(self, block: Block) -> list[tuple[tuple[int, int, int], bytes]]:
        return list(self._compressed(block))

    def _compressed(self, block: Block) -> Iterator[tuple[tuple[int, int, int], bytes]]:
        step = self.images.strip_rows
        for channel, pixels in block.images(self.cut.stack):
            for top in range(0, len(pixels), step):
                strip = self.convert(pixels[top : top + step], block.frame, channel)
                yield (channel, block.frame, (block.rows.start + top) // step), compressed(strip, runs=self.images.runs)

    def _content(self, place: tuple[int, int, int]) -> int:
        rows = min(self.images.strip_rows, self.images.height - place[2] * self.images.strip_rows)
        return rows * self.cut.row_bytes
