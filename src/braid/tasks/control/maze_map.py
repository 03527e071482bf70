"""Maps of mazes as text, and shortest ways through them."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np

from braid.errors import UsageError

LONGEST_SIDE = 50
"""Cells along a side of the largest allowed map: tables of all ways grow with the fourth power of it."""

LAYOUTS: dict[str, str] = {
    "open": "#######/#S....#/#.....#/#.....#/#....G#/#######",
    "umaze": "#####/#G..#/###.#/#S..#/#####",
    "medium": "########/#S.##..#/#..#...#/##...###/#..#...#/#.#..#.#/#...#.G#/########",
    "large": (
        "############/#S...#.....#/#.##.#.#.#.#/#......#...#/#.####.###.#/#..#.#.....#/##.#.#.#.###/#..#...#.G.#/"
        "############"
    ),
    "four-rooms": (
        "###########/#S...#....#/#....#....#/#.........#/#....#....#/##.#####.##/#....#....#/#.........#/"
        "#....#....#/#....#...G#/###########"
    ),
    "fork": "######/#.S###/#...G#/######",
}
"""Rows from the top, parted by `/`. The umaze, medium and large walls are those of D4RL's Maze2D (arXiv 2004.07219)."""

SIDES: dict[str, tuple[float, float]] = {"north": (0, -1), "east": (1, 0), "south": (0, 1), "west": (-1, 0)}
"""Directions (x, y) on the map, y downwards."""

ROUTES = ("shortest", *SIDES)
"""Ways from one cell to another: the shortest, or those that keep to a side of the map where there is a choice."""

DETOUR = 6.0
"""How strongly a route keeps to its side: the logarithm of what a cell there costs less than one opposite."""


@dataclass(frozen=True)
class MazeMap:
    """A checked map. The cell in row r and column c is the square [c, c+1) x [r, r+1) of (x, y), y downwards.

    Args:
        rows: of equal length, from the top; `#` wall, `.` free, `S` start, `G` goal.
    """

    rows: tuple[str, ...]

    @functools.cached_property
    def walls(self) -> np.ndarray:
        """[rows, columns] bool."""
        return np.array([[mark == "#" for mark in row] for row in self.rows])

    @functools.cached_property
    def free(self) -> np.ndarray:
        """[F, 2] int64, the (row, column) of each cell that is no wall, row by row."""
        return np.argwhere(~self.walls)

    @functools.cached_property
    def number(self) -> np.ndarray:
        """[rows, columns] int64, the index into `free`, -1 at walls."""
        numbers = np.full(self.walls.shape, -1)
        numbers[tuple(self.free.T)] = np.arange(len(self.free))
        return numbers

    def marked(self, mark: str) -> np.ndarray:
        """[K, 2] int64, the (row, column) of the cells marked `S` or `G`."""
        return np.array([(r, c) for r, row in enumerate(self.rows) for c, cell in enumerate(row) if cell == mark])


def centres(cells: np.ndarray) -> np.ndarray:
    """[K, 2] float32, the middles (x, y) of cells (row, column)."""
    return (cells[:, ::-1] + 0.5).astype(np.float32)


def get_map(layout: str, text: str = "") -> MazeMap:
    """A map by the name of a layout, or the user's own.

    Args:
        layout: one of `LAYOUTS`; without effect if there is a text.
        text: rows from the top, parted by newlines or `/`: `#` wall, `.` free, `S` start, `G` goal. The border must be
            walls, and every goal reachable from every start by steps along rows and columns.

    Raises:
        UsageError: says what is wrong with the map and where.
    """
    return _parse(text.strip() or LAYOUTS[layout])


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> MazeMap:
    rows = tuple(row.strip() for row in text.replace("/", "\n").splitlines() if row.strip())
    width = len(rows[0])
    for number, row in enumerate(rows, start=1):
        for column, mark in enumerate(row, start=1):
            if mark not in "#.SG":
                raise UsageError(
                    f"map row {number}, column {column} is {mark!r}; use # for walls, . for free cells, S for start "
                    "and G for goal"
                )
        if len(row) != width:
            raise UsageError(f"map row {number} has {len(row)} cells, row 1 has {width}; make all rows equally long")
    if max(len(rows), width) > LONGEST_SIDE:
        raise UsageError(f"the map has {len(rows)} rows and {width} columns; at most {LONGEST_SIDE} each are supported")
    for r, row in enumerate(rows):
        for c, mark in enumerate(row):
            if mark != "#" and (r in (0, len(rows) - 1) or c in (0, width - 1)):
                raise UsageError(f"map row {r + 1}, column {c + 1} is {mark!r} on the border; close the border with #")
    found = MazeMap(rows)
    for mark, meaning in (("S", "start"), ("G", "goal")):
        if not len(found.marked(mark)):
            raise UsageError(f"the map has no {meaning}; mark at least one free cell with {mark}")
    steps = path_lengths(found)
    for start in found.marked("S"):
        for goal in found.marked("G"):
            if np.isinf(steps[found.number[tuple(start)], found.number[tuple(goal)]]):
                raise UsageError(
                    f"no way leads from S in row {start[0] + 1}, column {start[1] + 1} to G in row {goal[0] + 1}, "
                    f"column {goal[1] + 1}; open a wall between them"
                )
    return found


def _neighbours(maze: MazeMap) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of each pair of adjoining free cells, as numbers of cells."""
    across = np.stack([maze.number[:, :-1].ravel(), maze.number[:, 1:].ravel()])
    down = np.stack([maze.number[:-1].ravel(), maze.number[1:].ravel()])
    pairs = np.concatenate([across, down], axis=1)
    one, other = pairs[:, (pairs >= 0).all(0)]
    return one, other


def _ways(maze: MazeMap, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import dijkstra

    one, other = _neighbours(maze)
    size = len(maze.free)
    graph = csr_array(((cost[one] + cost[other]) / 2, (one, other)), shape=(size, size))
    lengths, previous = dijkstra(graph, directed=False, return_predecessors=True)
    return lengths, previous


def path_lengths(maze: MazeMap) -> np.ndarray:
    """[F, F] float64, the steps along rows and columns from one free cell to another; inf if there is no way."""
    return _ways(maze, np.ones(len(maze.free)))[0]


@functools.lru_cache(maxsize=64)
def next_cells(maze: MazeMap, route: str) -> np.ndarray:
    """[F, F] int16, entry (i, g) the cell that follows i on the way to g (Dijkstra); g itself at g, -1 without a way.

    Args:
        maze: the map.
        route: one of `ROUTES`.
    """
    cost = np.ones(len(maze.free))
    if route in SIDES:
        x, y = SIDES[route]
        height, width = maze.walls.shape
        along = x * maze.free[:, 1] / width + y * maze.free[:, 0] / height
        cost = np.exp(-DETOUR * along)
    following = _ways(maze, cost)[1].T.astype(np.int16)
    following[following < 0] = -1
    np.fill_diagonal(following, np.arange(len(maze.free)))
    following.flags.writeable = False
    return following
