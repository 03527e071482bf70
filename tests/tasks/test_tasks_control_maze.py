"""Mazes: maps, exact collisions, rewards, luck, states, pictures and experts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from braid.errors import UsageError
from braid.tasks.control.maze import SKIN, MazeTask
from braid.tasks.control.maze_experts import choose_landmarks
from braid.tasks.control.maze_map import LAYOUTS, ROUTES, get_map, next_cells, path_lengths
from braid.tasks.control.maze_render import FLOOR, GOAL, MASS, WALL, render_maze

ROOM = "#####/#S..#/#.#.#/#..G#/#####"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("####/#SG#/###", "map row 3 has 3 cells, row 1 has 4"),
        ("####/#SX#/####", "map row 2, column 3 is 'X'"),
        ("####/#S.G/####", "map row 2, column 4 is 'G' on the border"),
        ("####/#.G#/####", "no start; mark at least one free cell with S"),
        ("####/#S.#/####", "no goal"),
        ("#####/#S#G#/#####", "no way leads from S in row 2, column 2 to G in row 2, column 4"),
        ("/".join(["#" * 51] * 3), "51 columns; at most 50"),
    ],
)
def test_bad_maps_are_explained(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        MazeTask(map=text)


def test_bad_options_are_explained() -> None:
    with pytest.raises(UsageError, match=r"layout='u-maze' is not one of .* did you mean umaze\?"):
        MazeTask(layout="u-maze")
    with pytest.raises(UsageError, match="a step of 2 cells"):
        MazeTask(max_speed=4.0, dt=0.5)
    with pytest.raises(UsageError, match="friction=20"):
        MazeTask(friction=20.0)
    with pytest.raises(UsageError, match=r"unknown style of task 'maze' 'nrth'; did you mean north"):
        MazeTask().expert("nrth")


def test_maps_read_rows_from_the_top() -> None:
    lines = get_map("open", "####\n  #SG#\n\n####\n")
    assert lines == get_map("open", "####/#SG#/####")
    assert lines.walls.tolist() == [[True] * 4, [True, False, False, True], [True] * 4]
    env = MazeTask(map="#####/#S..#/#..G#/#####").make(1, 0)
    seen = env.reset()[0]
    assert seen[:2].tolist() == pytest.approx([1.5, 1.5], abs=0.1)
    assert seen[4:].tolist() == [3.5, 2.5]


def test_path_lengths_count_steps() -> None:
    maze = get_map("", ROOM)
    start, goal = (int(maze.number[tuple(maze.marked(mark)[0])]) for mark in "SG")
    assert path_lengths(maze)[start, goal] == 4
    umaze = get_map("umaze")
    assert path_lengths(umaze)[umaze.number[3, 1], umaze.number[1, 1]] == 6


def slide_one(walls: np.ndarray, place: list[float], shift: list[float]) -> list[float]:
    """Where a point ends that moves by `shift` in unit time, one crossing of a grid line after the other."""
    place, shift, time = list(place), list(shift), 0.0
    cell = [math.floor(place[0]), math.floor(place[1])]
    while True:
        events = []
        for axis in (0, 1):
            if shift[axis]:
                line = cell[axis] + (shift[axis] > 0)
                events.append(((line - place[axis]) / shift[axis], axis))
        if not events or time + min(events)[0] >= 1:
            return [place[i] + (1 - time) * shift[i] for i in (0, 1)]
        wait, axis = min(events)
        place = [place[i] + wait * shift[i] for i in (0, 1)]
        time += wait
        beyond = list(cell)
        beyond[axis] += 1 if shift[axis] > 0 else -1
        if walls[beyond[1], beyond[0]]:
            place[axis] -= SKIN * (1 if shift[axis] > 0 else -1)
            shift[axis] = 0.0
        else:
            cell = beyond


def test_collisions_agree_with_going_from_line_to_line() -> None:
    task = MazeTask(map="######/#S.#.#/#.#..#/#..#G#/#....#/######", max_speed=9.9, friction=0.0)
    generator = np.random.default_rng(0)
    free = task.maze.free[generator.integers(len(task.maze.free), size=4000)]
    position = (free[:, ::-1] + generator.uniform(0.002, 0.998, free.shape)).astype(np.float32)
    velocity = generator.uniform(-9.9, 9.9, free.shape).astype(np.float32)
    env = task.make(1, 0)
    moved, rest = env._slide(torch.from_numpy(position), torch.from_numpy(velocity))
    wanted = [
        slide_one(task.maze.walls, p, s) for p, s in zip(position.tolist(), (0.1 * velocity).tolist(), strict=True)
    ]
    assert moved.numpy() == pytest.approx(np.array(wanted), abs=1e-5)
    stopped = np.abs(moved.numpy() - (position + 0.1 * velocity)) > 1e-5
    assert 1000 < stopped.sum() < 6000
    assert (rest.numpy()[stopped] == 0).all()
    assert (rest.numpy()[~stopped] == velocity[~stopped]).all()


def test_corners_are_not_cut() -> None:
    env = MazeTask(map=ROOM, max_speed=9.9).make(1, 0)
    # from (1.95, 1.7) it passes x = 2 first, into a free cell, and then meets the wall below that
    moved, _ = env._slide(torch.tensor([[1.95, 1.7]]), torch.tensor([[3.0, 4.0]]))
    assert moved[0].tolist() == pytest.approx([2.25, 2 - SKIN])
    # from (1.7, 1.95) it passes y = 2 first, so that the wall is met from its side
    moved, _ = env._slide(torch.tensor([[1.7, 1.95]]), torch.tensor([[4.0, 3.0]]))
    assert moved[0].tolist() == pytest.approx([2 - SKIN, 2.25])


@st.composite
def maps(draw: st.DrawFn) -> str:
    height, width = draw(st.integers(1, 4)), draw(st.integers(2, 5))
    inner = [[draw(st.sampled_from("..#")) for _ in range(width)] for _ in range(height)]
    inner[0][:2] = "SG"
    return "/".join(["#" * (width + 2), *("#" + "".join(row) + "#" for row in inner), "#" * (width + 2)])


@settings(max_examples=40, deadline=None)
@given(maps(), st.integers(0, 10_000), st.sampled_from([0.3, 1.0, 1e6]), st.sampled_from([0.0, 0.9, 9.9]))
def test_no_mass_is_ever_in_a_wall(text: str, seed: int, size: float, speed: float) -> None:
    task = MazeTask(map=text, starts="random", goals="random", wind=1.0, max_speed=speed or 3.0, force=50.0, horizon=30)
    env = task.make(16, seed)
    env.reset()
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(16, 2, generator=generator)
    for _ in range(40):
        action = size * (direction + 0.3 * torch.randn(16, 2, generator=generator))
        result = env.step(action)
        for seen in (result.observation, result.final_observation):
            column, row = seen[:, :2].floor().long().unbind(-1)
            assert not task.maze.walls[row, column].any()
            assert bool((seen[:, 2:4].abs() <= task.max_speed).all())


def test_motion_by_hand() -> None:
    env = MazeTask(layout="open", dt=0.1, force=5.0, friction=1.0).make(1, 0)
    env.reset_to({"position": torch.tensor([[2.5, 2.5]]), "velocity": torch.tensor([[1.0, 0.0]])})
    seen = env.step(torch.tensor([[0.5, -7.0]])).observation[0]  # the second force counts as -1
    assert seen[2:4].tolist() == pytest.approx([0.9 * 1.0 + 0.1 * 5 * 0.5, -0.5])
    assert seen[:2].tolist() == pytest.approx([2.5 + 0.115, 2.5 - 0.05])


def at_distance(task: MazeTask, distance: float) -> torch.Tensor:
    env = task.make(1, 0)
    env.reset()
    goal = torch.tensor([[2.0, 2.5]])
    env.reset_to({"position": goal + torch.tensor([[distance, 0.0]]), "velocity": torch.zeros(1, 2), "goal": goal})
    return env.step(torch.zeros(1, 2)).reward


def test_rewards_by_hand() -> None:
    sparse, dense = MazeTask(layout="open"), MazeTask(layout="open", reward="dense")
    assert at_distance(sparse, 0.5).tolist() == [1.0]
    assert at_distance(sparse, 0.5001).tolist() == [0.0]
    assert at_distance(dense, 0.0).tolist() == [1.0]
    assert at_distance(dense, 1.0).tolist() == pytest.approx([math.exp(-1)])
    assert at_distance(MazeTask(layout="open", reward="distance"), 1.5).tolist() == pytest.approx([-1.5])


def test_termination_at_the_goal_is_an_option() -> None:
    ends = MazeTask(layout="open", terminate_at_goal=True).make(1, 0)
    goal = ends.reset()[:, 4:].clone()
    ends.reset_to({"position": goal, "velocity": torch.zeros(1, 2)})
    result = ends.step(torch.zeros(1, 2))
    assert result.terminated.all()
    assert result.info["success"].all()
    assert torch.equal(result.info["goal"], goal)
    stays = MazeTask(layout="open").make(1, 0)
    stays.reset_to({"position": goal, "velocity": torch.zeros(1, 2)})
    assert not stays.step(torch.zeros(1, 2)).done.any()


def test_luck_has_the_stated_size() -> None:
    n = 20_000
    still = torch.zeros(n, 2)

    def first(**options: float) -> tuple[torch.Tensor, torch.Tensor]:
        task = MazeTask(layout="open", reward="distance", **options)
        env = task.make(n, 3)
        env.reset()
        env.reset_to({"position": torch.full((n, 2), 3.0), "velocity": torch.zeros(n, 2)})
        result = env.step(still)
        return result.observation[:, 2:4], result.reward

    calm, sure = first()
    assert not calm.any()
    assert len(sure.unique()) == 1
    windy, _ = first(wind=0.4)
    assert float(windy.std()) == pytest.approx(0.4 * 0.1 * 5, rel=0.03)
    slipped, _ = first(slip=0.25)
    assert float((slipped != 0).any(-1).float().mean()) == pytest.approx(0.25, abs=0.02)
    assert float(slipped.abs().max()) <= 0.5
    _, paid = first(reward_chance=0.3)
    assert float((paid != 0).float().mean()) == pytest.approx(0.3, abs=0.02)
    _, noisy = first(reward_noise=2.0, reward_noise_freedom=1)
    # of a Cauchy variable half lies within its scale, and a tenth beyond 6.314 of it
    error = (noisy - sure).abs() / 2
    assert float((error < 1).float().mean()) == pytest.approx(0.5, abs=0.02)
    assert float((error > 6.314).float().mean()) == pytest.approx(0.1, abs=0.01)
    _, light = first(reward_noise=2.0, reward_noise_freedom=30)
    assert float((light - sure).std()) == pytest.approx(2 * math.sqrt(30 / 28), rel=0.03)


def test_a_saved_state_brings_the_same_future_with_all_luck() -> None:
    task = MazeTask(layout="medium", starts="random", goals="random", wind=1.0, slip=0.2, reward_noise=1.0, horizon=7)
    env, other = task.make(5, 0), task.make(5, 1)
    env.reset()
    push = torch.full((5, 2), 0.7)
    env.step(push)
    saved = env.state()
    other.reset_to(saved)
    for _ in range(20):
        one, two = env.step(push), other.step(push)
        assert torch.equal(one.observation, two.observation)
        assert torch.equal(one.reward, two.reward)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"position": torch.tensor([[0.5, 1.5]])}, "position x=0.5, y=1.5 of environment 0 is in a wall"),
        ({"position": torch.tensor([[99.0, 1.5]])}, "off the map"),
        ({"goal": torch.tensor([[float("nan"), 1.5]])}, "goal x=nan"),
        ({"velocity": torch.tensor([[9.0, 0.0]])}, "beyond max_speed=3"),
    ],
)
def test_impossible_states_are_refused(state: dict[str, torch.Tensor], message: str) -> None:
    env = MazeTask().make(1, 0)
    env.reset()
    with pytest.raises(UsageError, match=message):
        env.reset_to(state)


def test_the_goal_can_be_hidden() -> None:
    task = MazeTask(show_goal=False)
    env = task.make(2, 0)
    assert env.reset().shape == (2, 4)
    assert env.state()["goal"].shape == (2, 2)
    pytest.importorskip("gymnasium")
    assert task.observation_space.shape == (4,)
    assert MazeTask().observation_space.shape == (6,)
    assert MazeTask().action_space.shape == (2,)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_reach_every_goal_from_everywhere(layout: str) -> None:
    task = MazeTask(layout=layout, starts="random", goals="random")
    episodes = task.demonstrations(300, seed=4, style="mixed")
    reached = np.mean([episode["infos"]["success"].any() for episode in episodes])
    assert reached > 0.99
    stays = np.mean([episode["infos"]["success"][-1] for episode in episodes])
    assert stays > 0.99


def test_routes_go_by_different_sides() -> None:
    maze = get_map("four-rooms")
    start, goal = (int(maze.number[tuple(maze.marked(mark)[0])]) for mark in "SG")
    doors = {(3, 5): "top", (7, 5): "bottom", (5, 2): "left", (5, 8): "right"}
    passed = {}
    for route in ROUTES:
        cells, here = [], start
        while here != goal:
            here = int(next_cells(maze, route)[here, goal])
            cells.append(tuple(maze.free[here].tolist()))
        passed[route] = [doors[cell] for cell in cells if cell in doors]
    assert passed["north"] == passed["east"] == ["top", "right"]
    assert passed["south"] == passed["west"] == ["left", "bottom"]
    assert len(passed["shortest"]) == 2


def test_normalised_scores_span_random_to_expert() -> None:
    pytest.importorskip("gymnasium")
    task = MazeTask(horizon=100, reward_noise=5.0, reward_noise_freedom=1)
    scores = task.reference_scores
    assert scores is not None
    assert scores == MazeTask(horizon=100).reference_scores
    assert scores.expert > 60 > 10 > scores.random
    assert task.normalised_score(scores.random) == 0
    assert task.normalised_score(scores.expert) == 100
    both = torch.tensor([scores.random, (scores.random + scores.expert) / 2])
    assert task.normalised_score(both).tolist() == pytest.approx([0, 50], abs=1e-4)


def test_pictures_show_walls_goal_and_mass() -> None:
    env = MazeTask(map=ROOM).make(2, 0)
    env.reset()
    picture = env.render(1, size=104)  # 20 pixels a cell
    assert picture.shape == (100, 100, 3)
    assert picture.dtype == np.uint8
    assert picture[50, 50].tolist() == list(WALL)
    assert picture[70, 70].tolist() == list(GOAL)
    assert picture[30, 30].tolist() == list(MASS)
    assert picture[30, 50].tolist() == list(FLOOR)
    wide = render_maze(get_map("", "######/#S..G#/######"), size=60)
    assert wide.shape == (30, 60, 3)
    with pytest.raises(UsageError, match="size=3"):
        env.render(size=3)
    with pytest.raises(UsageError, match="index=2"):
        env.render(2)


def test_landmarks_are_far_apart() -> None:
    maze = get_map("open", "#######/#S...G#/#######")
    assert choose_landmarks(maze, 2).tolist() == [[1.5, 1.5], [5.5, 1.5]]
    assert choose_landmarks(maze, 3)[2].tolist() == [3.5, 1.5]
    with pytest.raises(UsageError, match="at most 5"):
        choose_landmarks(maze, 6)
