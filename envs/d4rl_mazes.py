"""The maps of D4RL's mazes, and how its coordinates lie in the maintained environments (Fu et al. 2020)."""

from __future__ import annotations

import dataclasses

Cell = tuple[int, int]  # row, column

# '#' is a wall, 'G' the goal; the ant starts at 'R', the point at any free cell.
ANT_MAZES = {
    "umaze": ("#####", "#R..#", "###.#", "#G..#", "#####"),
    "medium": ("########", "#R.##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############",
        "#R...#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
    "eval-umaze": ("#####", "#..R#", "#.###", "#..G#", "#####"),
    "eval-medium": ("########", "#R....G#", "#.#.##.#", "#....#.#", "###..###", "#......#", "#..##..#", "########"),
    "eval-large": (
        "############",
        "#R.#...#.G.#",
        "##.###.#.#.#",
        "#..#.#.....#",
        "#.##.#..##.#",
        "#......#...#",
        "#.##.#.#.###",
        "#....#.....#",
        "############",
    ),
}
POINT_MAZES = {
    "open": ("#######", "#.....#", "#..G..#", "#.....#", "#######"),
    "umaze": ("#####", "#G..#", "###.#", "#...#", "#####"),
    "medium": ("########", "#..##..#", "#..#...#", "##...###", "#..#...#", "#.#..#.#", "#...#.G#", "########"),
    "large": (
        "############",
        "#....#.....#",
        "#.##.#.#.#.#",
        "#......#...#",
        "#.####.###.#",
        "#..#.#.....#",
        "##.#.#.#.###",
        "#..#...#.G.#",
        "############",
    ),
    "eval-umaze": ("#####", "#..G#", "#.###", "#...#", "#####"),
    "eval-medium": ("########", "#.....G#", "#.#.##.#", "#....#.#", "###..###", "#......#", "#..##..#", "########"),
    "eval-large": (
        "############",
        "#..#...#.G.#",
        "##.###.#.#.#",
        "#..#.#.....#",
        "#.##.#..##.#",
        "#......#...#",
        "#.##.#.#.###",
        "#....#.....#",
        "############",
    ),
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """A maze's map in the coordinates of the maintained environments, which put its middle at the origin.

    There, x grows with the column and y against the row. Turned over, the map gives both the directions they have in
    D4RL, so that only an offset is left between the two.

    Attributes:
        rows: the map as Gymnasium-Robotics takes it, 1 for a wall.
        scale: the width of a cell.
        transposed: whether D4RL's x goes with the row (the point) and not with the column (the ant).
    """

    cells: tuple[str, ...]
    scale: float
    transposed: bool

    @property
    def maze_map(self) -> list[list[int | str]]:
        """For Gymnasium-Robotics; every free cell may hold start and goal, which are set afterwards."""
        cells = ["".join(column) for column in zip(*self.cells, strict=True)] if self.transposed else self.cells
        return [[1 if cell == "#" else 0 for cell in row] for row in reversed(cells)]

    def find(self, mark: str) -> list[Cell]:
        """The cells with a mark, row by row."""
        return [(i, j) for i, row in enumerate(self.cells) for j, cell in enumerate(row) if cell == mark]

    def center(self, cell: Cell) -> tuple[float, float]:
        """The x and y of a cell's middle in the maintained environment."""
        height, width = len(self.cells), len(self.cells[0])
        down, right = (cell[0] + 0.5 - height / 2) * self.scale, (cell[1] + 0.5 - width / 2) * self.scale
        return (down, right) if self.transposed else (right, down)
