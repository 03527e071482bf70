"""Scripted experts of mazes: from cell to cell along a route to the goal, or between landmarks as in play."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from braid.errors import UsageError
from braid.tasks.control.maze_map import MazeMap, centres, next_cells, path_lengths
from braid.tasks.control.vector import State

GAIN, DAMPING = 4.0, 1.5
"""Force per cell of distance to the waypoint, and per cell per second of speed: nearly critical damping by default."""


class RouteExpert:
    """Steers by waypoints to the goal in the state; with several routes each episode draws one of them.

    The waypoint is the middle of the next cell of the route, or the goal once it is in this cell or the next: the
    straight way there lies in two adjoining cells, so that it meets no wall. `route` [N] int64 is what is followed now.

    Args:
        maze: the map.
        routes: names in `maze_map.ROUTES`.
        seed: of the choice among them.
    """

    def __init__(self, maze: MazeMap, routes: Sequence[str], seed: int = 0) -> None:
        self._next = torch.from_numpy(np.stack([next_cells(maze, route) for route in routes]))
        self._number = torch.from_numpy(maze.number)
        self._middle = torch.from_numpy(centres(maze.free))
        self._generator = torch.Generator().manual_seed(seed)
        self.route = torch.zeros(0, dtype=torch.int64)

    def __call__(self, state: State) -> Tensor:
        """Forces [N, 2] in [-1, 1]."""
        return self.steer(state, state["goal"])

    def steer(self, state: State, target: Tensor) -> Tensor:
        """Forces [N, 2] that lead to `target` [N, 2] rather than to the goal."""
        position, velocity = state["position"], state["velocity"]
        device = position.device
        self._draw(state["elapsed"] == 0)
        at, end = (self._numbers(place) for place in (position, target))
        step = self._next.to(device)[self.route.to(device), at, end].long()
        # without a way, which only a goal of the user's own can have, stay
        middle = torch.where((step < 0)[:, None], position, self._middle.to(device)[step])
        waypoint = torch.where(((step == end) | (at == end))[:, None], target, middle)
        return (GAIN * (waypoint - position) - DAMPING * velocity).clamp(-1, 1)

    def _numbers(self, place: Tensor) -> Tensor:
        column, row = place.long().unbind(-1)
        return self._number.to(place.device)[row, column]

    def _draw(self, begins: Tensor) -> None:
        if len(self.route) != len(begins):
            self.route = torch.randint(len(self._next), begins.shape, generator=self._generator)
        elif len(self._next) > 1 and bool(begins.any()):
            drawn = torch.randint(len(self._next), begins.shape, generator=self._generator)
            self.route = torch.where(begins.cpu(), drawn, self.route)


class PlayExpert:
    """Wanders between landmarks in random order, each time by a random route, and takes no notice of the goal.

    `landmark` [N, 2] is where each environment is heading now.

    Args:
        maze: the map.
        places: [K, 2] x, y of at least two landmarks.
        routes: names in `maze_map.ROUTES`, one drawn for each way.
        seed: of the choices.
        reach: cells; closer than this a landmark counts as visited.

    Raises:
        UsageError: fewer than two landmarks.
    """

    def __init__(
        self, maze: MazeMap, places: np.ndarray, routes: Sequence[str], seed: int = 0, reach: float = 0.3
    ) -> None:
        if len(places) < 2:
            raise UsageError(f"{len(places)} landmark leaves nowhere to go; use at least 2")
        self._places = torch.from_numpy(np.asarray(places, dtype=np.float32))
        self._walker = RouteExpert(maze, routes, seed)
        self._routes = len(routes)
        self._generator = torch.Generator().manual_seed(seed)
        self._heading = torch.zeros(0, dtype=torch.int64)
        self._reach = reach
        self.landmark = torch.zeros(0, 2)

    def __call__(self, state: State) -> Tensor:
        """Forces [N, 2] in [-1, 1]."""
        position = state["position"]
        count, known = len(position), len(self._places)
        begins = (state["elapsed"] == 0).cpu()
        if len(self._heading) != count:
            self._heading = torch.randint(known, (count,), generator=self._generator)
            self._walker.route = torch.randint(self._routes, (count,), generator=self._generator)
        there = (position.cpu() - self._places[self._heading]).norm(dim=-1) <= self._reach
        # another landmark than the last: a jump by 1 to K - 1 places in their circle
        jump = torch.randint(1, known, (count,), generator=self._generator)
        route = torch.randint(self._routes, (count,), generator=self._generator)
        self._heading = torch.where(there | begins, (self._heading + jump) % known, self._heading)
        self._walker.route = torch.where(there | begins, route, self._walker.route)
        self.landmark = self._places[self._heading].to(position.device)
        return self._walker.steer({**state, "elapsed": torch.ones_like(state["elapsed"])}, self.landmark)


def choose_landmarks(maze: MazeMap, count: int) -> np.ndarray:
    """[count, 2] float32, middles of cells far from each other: starts at S, then always the farthest cell on foot.

    Raises:
        UsageError: fewer than two landmarks, or more than the map has cells that can be reached.
    """
    lengths = path_lengths(maze)
    chosen = [int(maze.number[tuple(maze.marked("S")[0])])]
    reachable = int(np.isfinite(lengths[chosen[0]]).sum())
    if not 2 <= count <= reachable:
        raise UsageError(f"landmarks={count} must be at least 2 and at most {reachable}, the cells within reach")
    while len(chosen) < count:
        nearest = lengths[chosen].min(0)
        chosen.append(int(np.where(np.isfinite(nearest), nearest, -1).argmax()))
    return centres(maze.free[chosen])
