"""Everything of a project that is no image: cells, divisions, types, embeddings and spots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from atlaswriter.errors import Problem, Problems
from atlaswriter.formats.deepcell import cells as cells_of
from atlaswriter.formats.deepcell import divisions as divisions_of
from atlaswriter.formats.deepcell import extras, layout
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.divisions import Division
from atlaswriter.formats.deepcell.extras import CellType, Embeddings
from atlaswriter.formats.deepcell.values import Present

if TYPE_CHECKING:
    from atlaswriter.formats.deepcell.spots import Spots

# Where a member is from, and its content.
Member = tuple[str, bytes]


@dataclass
class Annotations:
    """What was given, parsed.

    Attributes
    ----------
    cells
        Rows as given; None where there are none: each value of the labels is a cell.
    divisions, cell_types, embeddings, spots
        As given; empty or None where there are none.
    sources
        Where each of them is from, by the name of its member.
    warnings
        What deserves a second look.
    """

    cells: Cells | None = None
    divisions: list[Division] = field(default_factory=list)
    cell_types: list[CellType] = field(default_factory=list)
    embeddings: Embeddings | None = None
    spots: Spots | None = None
    sources: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @classmethod
    def parse(cls, members: Mapping[str, Member], size: tuple[int, int, int], problems: Problems) -> Annotations:
        """Read what was given for a movie of (frames, rows, columns); add everything that is wrong to `problems`."""
        n_frames, height, width = size
        found = cls(sources={name: where for name, (where, _) in members.items()})

        def parsed(name: str, parse: Any, *more: Any) -> Any:
            if name not in members:
                return None
            where, content = members[name]
            return problems.attempt(parse, content, where, *more)

        found.cells = parsed(layout.CELLS, cells_of.parse_cells, problems, found.warnings)
        tracked = parsed(layout.LINEAGE, divisions_of.from_lineage, n_frames, problems, found.warnings)
        listed = parsed(layout.DIVISIONS, divisions_of.parse_divisions, problems)
        found._choose_divisions(tracked, listed)
        found.cell_types = parsed(layout.CELL_TYPES, extras.parse_cell_types, problems) or []
        found.embeddings = parsed(layout.EMBEDDINGS, extras.parse_embeddings, problems)
        if layout.SPOTS in members:
            # It takes a moment to import.
            from atlaswriter.formats.deepcell.spots import parse_spots

            found.spots = parsed(layout.SPOTS, parse_spots, height, width, problems, found.warnings)
        return found

    def _choose_divisions(self, tracked: list[Division] | None, listed: list[Division] | None) -> None:
        """Those of a lineage come first, as in the original; others are said to be left out."""
        self.divisions = (listed if tracked is None else tracked) or []
        if tracked is None:
            return
        if listed is not None and _as_set(tracked) != _as_set(listed):
            where = self.sources[layout.DIVISIONS]
            found = f"differs from {self.sources[layout.LINEAGE]}, which is followed"
            self.warnings.append(str(Problem(where, found, "leave one of them out")))
        self.sources[layout.DIVISIONS] = self.sources[layout.LINEAGE]

    def n_rows(self, present: Present) -> int:
        """Rows that the cells have at most, while they are looked at; `present` are the values of the labels."""
        if self.cells is None:
            return present.values.size
        is_open = bool((self.cells.c == cells_of.EVERY_FEATURE).any())
        return max(present.values.size, self.cells.n * (present.n_features if is_open else 1))

    def checked_cells(self, present: Present, problems: Problems, *, lenient: bool) -> Cells:
        """The cells that the values of the labels stand for.

        Parameters
        ----------
        present
            The values.
        problems
            Rows that cannot be are added.
        lenient
            Whether rows that no pixel shows, or that are repeated, are let pass.
        """
        if self.cells is None:
            return cells_of.derive(present)
        where = self.sources[layout.CELLS]
        settled = cells_of.settle_features(self.cells, present)
        if lenient:
            cells_of.validate_range(settled, present.n_frames, present.n_features, where, problems)
        else:
            cells_of.validate(settled, present.n_frames, present.n_features, present, where, problems)
        return settled

    def check_against(self, cells: Cells, present: Present, problems: Problems, *, lenient: bool) -> None:
        """Compare everything else with the cells that are written.

        Parameters
        ----------
        cells
            These.
        present
            The values of the labels.
        problems
            What does not go with them is added.
        lenient
            Whether it is a warning instead: the client lets its users make divisions that make no sense.
        """
        found = Problems()
        self._compare(cells, present, found)
        if lenient:
            self.warnings += map(str, found.found)
        else:
            problems.found += found.found

    def _compare(self, cells: Cells, present: Present, problems: Problems) -> None:
        n_frames, n_features = present.n_frames, present.n_features
        of = self.sources.get
        if self.divisions:
            where = of(layout.DIVISIONS, layout.DIVISIONS)
            divisions_of.validate_divisions(self.divisions, cells, n_frames, where, problems, self.warnings)
        if self.cell_types:
            where = of(layout.CELL_TYPES, layout.CELL_TYPES)
            extras.validate_cell_types(self.cell_types, cells, n_features, where, problems, self.warnings)
        if self.embeddings is not None:
            where = of(layout.EMBEDDINGS, layout.EMBEDDINGS)
            extras.validate_embeddings(self.embeddings, cells, where, self.warnings)

    def contents(self, cells: Cells) -> dict[str, Iterator[bytes]]:
        """Content of each member, in pieces, with the cells that are written."""
        found = {
            layout.CELLS: cells_of.to_json(cells),
            layout.DIVISIONS: divisions_of.to_json(self.divisions),
            layout.CELL_TYPES: extras.cell_types_to_json(self.cell_types),
            layout.EMBEDDINGS: extras.embeddings_to_json(self.embeddings),
        }
        if self.spots is not None:
            found[layout.SPOTS] = self.spots.to_csv()
        return found


def _as_set(divisions: list[Division]) -> set[tuple[int, frozenset[int], int]]:
    return {(one.parent, frozenset(one.daughters), one.t) for one in divisions}
