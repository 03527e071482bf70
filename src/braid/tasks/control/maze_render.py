"""Pictures of mazes as arrays of pixels, without a drawing library."""

from __future__ import annotations

import numpy as np

from braid.errors import UsageError
from braid.tasks.control.maze_map import MazeMap

FLOOR, WALL, TRAIL = (238, 238, 232), (58, 64, 74), (120, 150, 200)
GOAL, MASS = (70, 160, 90), (205, 60, 50)
MASS_RADIUS = 0.18
"""Cells; of the drawn disc only: the mass itself is a point."""


def render_maze(
    maze: MazeMap,
    *,
    size: int = 256,
    position: np.ndarray | None = None,
    goal: np.ndarray | None = None,
    goal_radius: float = 0.5,
    trail: np.ndarray | None = None,
) -> np.ndarray:
    """The map with what is in it.

    Args:
        maze: the map.
        size: pixels along its longer side, at least one per cell; rounded down to whole pixels per cell.
        position: [2] x, y of the mass; None for none.
        goal: [2] x, y; None for none.
        goal_radius: cells.
        trail: [T, 2] positions joined by a line; None for none.

    Returns:
        [H, W, 3] uint8.

    Raises:
        UsageError: fewer pixels than cells.
    """
    height, width = maze.walls.shape
    scale = size // max(height, width)
    if scale < 1:
        raise UsageError(f"size={size} pixels are too few for {max(height, width)} cells; use at least that many")
    picture = np.where(maze.walls[..., None], np.array(WALL), np.array(FLOOR)).astype(np.uint8)
    picture = picture.repeat(scale, 0).repeat(scale, 1)
    floor = ~maze.walls.repeat(scale, 0).repeat(scale, 1)
    if goal is not None:
        _disc(picture, floor, goal, goal_radius, GOAL, scale)
    if trail is not None and len(trail):
        between = max(2, 2 * scale)
        shares = np.linspace(0, 1, between)[:, None, None]
        points = (trail[:-1] + shares * (trail[1:] - trail[:-1])).reshape(-1, 2) if len(trail) > 1 else trail
        x, y = np.clip((points * scale).astype(int), 0, np.array([width, height]) * scale - 1).T
        picture[y, x] = TRAIL
    if position is not None:
        _disc(picture, floor, position, max(MASS_RADIUS, 0.75 / scale), MASS, scale)
    return picture


def _disc(
    picture: np.ndarray,
    floor: np.ndarray,
    centre: np.ndarray,
    radius: float,
    colour: tuple[int, int, int],
    scale: int,
) -> None:
    """Fill the pixels of the floor whose middles are within `radius` cells of `centre`."""
    y, x = np.indices(floor.shape)
    inside = ((x + 0.5) / scale - centre[0]) ** 2 + ((y + 0.5) / scale - centre[1]) ** 2 <= radius**2
    picture[inside & floor] = colour
