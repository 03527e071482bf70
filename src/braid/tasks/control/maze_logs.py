"""Logged data of mazes: navigation, play, and sets in which no episode shows the whole way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from braid.errors import UsageError
from braid.tasks.control.episodes import Episode, collect_episodes, expert_policy, noisy_policy, shortened
from braid.tasks.control.maze import MazeEnv, MazeTask
from braid.tasks.control.maze_experts import PlayExpert, RouteExpert, choose_landmarks
from braid.tasks.control.maze_map import ROUTES, centres, path_lengths
from braid.tasks.control.vector import Expert, Policy

AT_ONCE = 256
"""Environments that step together while logging."""


def navigation(
    task: MazeTask,
    episodes: int,
    seed: int = 0,
    *,
    routes: Sequence[str] = ("shortest",),
    epsilon: float = 0.0,
    noise: float = 0.0,
) -> list[Episode]:
    """Episodes of walking to the goal, each along a route of its own; with several routes the data are multimodal.

    Args:
        task: the maze; with `starts="random"` and `goals="random"` the data cover it.
        episodes: how many, at least 1.
        seed: of everything random.
        routes: names in `maze_map.ROUTES`; each episode draws one. Info `route` is its index here.
        epsilon: chance per step of a uniformly random action, in [0, 1]; 1 is the random policy.
        noise: standard deviation of Gaussian noise on the force; D4RL's noisy sets have 0.5.

    Raises:
        UsageError: an unknown route or a value out of range.
    """
    _check_routes(routes)
    env = task.make(min(max(episodes, 1), AT_ONCE), seed)
    expert = RouteExpert(task.maze, routes, seed)
    policy = _worse(task, env, expert, seed, epsilon, noise)
    return collect_episodes(env, policy, episodes, seed, annotate=lambda: {"route": expert.route})


def play(
    task: MazeTask,
    episodes: int,
    seed: int = 0,
    *,
    landmarks: int = 6,
    routes: Sequence[str] = ROUTES,
    epsilon: float = 0.0,
    noise: float = 0.0,
) -> list[Episode]:
    """Episodes of wandering between landmarks with no goal in mind, the state going on from one to the next.

    Rewards, `success` and `goal` are those of the task, as in D4RL's relabelled Maze2D sets; info `landmark` [T, 2] is
    where the walk was heading. Source: play data of arXiv 2304.02532; waypoint data of arXiv 2004.07219.

    Args:
        task: the maze; an episode never ends at the goal.
        episodes: how many, each of `task.horizon` steps.
        seed: of everything random.
        landmarks: how many, far from each other, from 2.
        routes: names in `maze_map.ROUTES`; each way between landmarks draws one.
        epsilon: chance per step of a uniformly random action, in [0, 1].
        noise: standard deviation of Gaussian noise on the force.

    Raises:
        UsageError: an unknown route or a value out of range.
    """
    _check_routes(routes)
    task = replace(task, terminate_at_goal=False)
    env = task.make(min(max(episodes, 1), AT_ONCE), seed)
    expert = PlayExpert(task.maze, choose_landmarks(task.maze, landmarks), routes, seed)
    policy = _worse(task, env, expert, seed, epsilon, noise)
    return collect_episodes(env, policy, episodes, seed, annotate=lambda: {"landmark": expert.landmark})


def stitching(
    task: MazeTask,
    episodes: int,
    seed: int = 0,
    *,
    linger: int = 10,
    epsilon: float = 0.0,
    noise: float = 0.0,
) -> list[Episode]:
    """Episodes whose parts make a way from start to goal, although no episode visits both of their regions.

    The regions are the cells at most a third of the way from any S, and from any G (`regions`). Every other episode
    begins at S and walks to a cell of neither region; the others begin in such a cell and walk to G. An episode that
    would visit both is cut before it does. Infos: `part` is 0 for the first kind, 1 for the second.

    Args:
        task: the maze; starts and goals are those of its map.
        episodes: how many, at least 2.
        seed: of everything random.
        linger: steps that an episode goes on after it has arrived.
        epsilon: chance per step of a uniformly random action, in [0, 1].
        noise: standard deviation of Gaussian noise on the force.

    Raises:
        UsageError: start and goal too near each other, or a value out of range.
    """
    if episodes < 2:
        raise UsageError(f"episodes={episodes} cannot show both parts of the way; use at least 2")
    if linger < 0:
        raise UsageError(f"linger={linger} must be at least 0")
    task = replace(task, starts="map", goals="map")
    from_start, to_goal = regions(task)
    middle = ~(from_start | to_goal | task.maze.walls)
    cells = torch.from_numpy(centres(np.argwhere(middle)))
    env = task.make(episodes, seed)
    generator = torch.Generator().manual_seed(seed)
    env.reset(seed)
    start = dict(env.state())
    second = torch.arange(episodes) % 2 == 1
    other = cells[torch.randint(len(cells), (episodes,), generator=generator)]
    shift = 0.6 * torch.rand(episodes, 2, generator=generator) - 0.3
    start["position"] = torch.where(second[:, None], other + shift, start["position"])
    target = torch.where(second[:, None], start["goal"], other)
    expert = RouteExpert(task.maze, ("shortest",), seed)
    walk = _worse(task, env, lambda state: expert.steer(state, target), seed, epsilon, noise)
    logged = collect_episodes(env, walk, episodes, seed, start=start, annotate=lambda: {"part": second.long()})
    kept = []
    for episode, place in zip(logged, target.numpy(), strict=True):
        steps = _length_within_one_region(episode, from_start, to_goal)
        near = np.linalg.norm(episode["observations"][1:, :2] - place, axis=-1) <= task.goal_radius
        if near.any():
            steps = min(steps, int(near.argmax()) + 1 + linger)
        if steps > 0:
            kept.append(shortened(episode, steps))
    return kept


def regions(task: MazeTask) -> tuple[np.ndarray, np.ndarray]:
    """The start and the goal region of `stitching`, each [rows, columns] bool; they share no cell.

    Raises:
        UsageError: no cell is left between them.
    """
    maze = task.maze
    lengths = path_lengths(maze)
    from_start, to_goal = (lengths[maze.number[tuple(maze.marked(mark).T)]].min(0) for mark in "SG")
    reach = int((from_start[maze.number[tuple(maze.marked("G").T)]].min() - 1) // 3)
    found = []
    for distance in (from_start, to_goal):
        region = np.zeros(maze.walls.shape, dtype=bool)
        region[tuple(maze.free[distance <= reach].T)] = True
        found.append(region)
    unreached = np.isinf(from_start)
    if reach < 0 or (found[0] | found[1] | maze.walls).all() or unreached.any():
        raise UsageError(
            "stitching needs free cells between start and goal, and a map without cells out of reach; "
            "put S and G farther apart, or close such cells with #"
        )
    return found[0], found[1]


def _length_within_one_region(episode: Episode, from_start: np.ndarray, to_goal: np.ndarray) -> int:
    """Steps after which the episode has visited at most one of the two regions."""
    column, row = episode["observations"][:, :2].astype(int).T
    both = np.logical_or.accumulate(from_start[row, column]) & np.logical_or.accumulate(to_goal[row, column])
    return int(both.argmax()) - 1 if both.any() else len(episode["rewards"])


def _check_routes(routes: Sequence[str]) -> None:
    unknown = [route for route in routes if route not in ROUTES]
    if unknown or not routes:
        raise UsageError(f"routes={tuple(routes)!r} must be one or more of {', '.join(ROUTES)}")


def _worse(task: MazeTask, env: MazeEnv, expert: Expert, seed: int, epsilon: float, noise: float) -> Policy:
    policy = expert_policy(env, expert)
    if epsilon == 0 and noise == 0:
        return policy
    generator = torch.Generator().manual_seed(seed + 1)
    return noisy_policy(policy, task.action_space, generator, epsilon, noise)
