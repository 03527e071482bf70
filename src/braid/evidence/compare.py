"""Compare methods fairly: same base checkpoint, same prompts in the same order, same budget, same evaluation."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from braid.errors import BraidError, UsageError, unknown_name
from braid.evaluation.statistics import Estimate, hierarchical_bootstrap, paired_difference
from braid.options import options_of
from braid.tasks import get_task, task_class
from braid.tasks.task import TextTask
from braid.training.checkpoint import write_json
from braid.training.configuration import ALIASES, Configuration
from braid.training.loop import resume, test_evaluation, train
from braid.training.models import initial_model, load_policy
from braid.training.progress import progress_bar
from braid.training.run import CONFIG, Run, describe_environment
from braid.training.settings import Settings

COMPARISON, BASE = "comparison.json", "base.json"
METRIC = "pass@1"


@dataclass(frozen=True)
class Arm:
    """One method of a comparison.

    Args:
        label: as it was written; names the arm in tables.
        method: slug or `file.py:Class`.
        options: hyper-parameters of this arm alone.
    """

    label: str
    method: str
    options: dict[str, Any]

    @classmethod
    def parse(cls, text: str) -> Arm:
        """Read `grpo`, `nsr@mode=negative` or `path/to/file.py:Mine@clip_high=0.3,beta=0.1`.

        Raises:
            UsageError: not of that form.
        """
        method, _, rest = text.partition("@")
        options: dict[str, Any] = {}
        for part in filter(None, rest.split(",")):
            name, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"arm {text!r}: write options as name=value, for instance nsr@mode=negative")
            options[name.strip().replace("-", "_")] = _literal(value.strip())
        return cls(text, method, options)


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        path: its folder, which holds every run.
        metric: what the numbers are.
        seeds: of the runs.
        base: score of the checkpoint that all arms started from.
        arms: label -> its numbers: `mean`, `difference` to the first arm, `gain` over the base, each an estimate with
            a 95 % interval, and `per_seed`.
    """

    path: Path
    metric: str
    seeds: list[int]
    base: Estimate
    arms: dict[str, dict[str, Any]]


def compare(
    methods: Sequence[str],
    *,
    task: str | TextTask,
    seeds: int | Sequence[int] = 3,
    budget: str = "",
    jobs: int = 0,
    output: str | Path | None = None,
    show_progress: bool = True,
    **options: Any,
) -> Comparison:
    """Train every method with every seed under equal conditions and compare them on held-out problems.

    A comparison that was interrupted goes on where it was when it is called again with the same folder.

    Args:
        methods: arms, as `Arm.parse` reads them; differences are taken to the first.
        task: name or object.
        seeds: how many, from 0, or which.
        budget: `steps=100`, `tokens=1e6` or `seconds=60`, several joined by commas; the same for every run.
        jobs: runs at a time; 0 is one per core (or one on a GPU).
        output: folder; by default a new one under `runs`.
        show_progress: print a progress bar.
        options: of the task, the run, or of all methods that know them.

    Returns:
        The numbers, which are also in the folder as JSON, with a plot.

    Raises:
        UsageError: something was asked for that does not exist or does not fit.
        BraidError: a run failed; the others are kept.
    """
    from braid.evidence.report import plot_comparison

    arms = [Arm.parse(text) for text in methods]
    if len({arm.label for arm in arms}) < len(arms):
        raise UsageError(f"an arm is named twice: {' '.join(methods)}")
    if not isinstance(task, str):
        task_name, task_options = task.name, {o.name: getattr(task, o.name) for o in options_of(type(task))}
        options = {**task_options, **options}
    else:
        task_name = task
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not arms or not seed_list:
        raise UsageError("a comparison needs at least one method and one seed")
    options = {ALIASES.get(name, name): value for name, value in options.items()} | parse_budget(budget)
    specifications = [
        {"arm": arm, "seed": seed, **_specify(arm, task_name, options, seed)} for arm in arms for seed in seed_list
    ]
    _check_known(arms, task_name, options)
    path = Path(output) if output is not None else _new_path(task_name)
    record = {
        "methods": list(methods),
        "task": task_name,
        "seeds": seed_list,
        "options": options,
        "environment": describe_environment(),
    }
    _check_same(path, record)
    path.mkdir(parents=True, exist_ok=True)
    for specification in specifications:
        specification["output"] = str(path / _slug(specification["arm"].label) / f"seed{specification['seed']}")
    settings = Settings(**specifications[0]["settings"])
    world = get_task(task_name, **specifications[0]["task_options"])
    start = initial_model(world, settings, path, show_progress=show_progress)
    for specification in specifications:
        specification["settings"]["model"] = start
    write_json(path / COMPARISON, {**record, "state": "running"})
    _run_all(specifications, path, jobs or default_jobs(settings), show_progress)
    found = _collect(path, arms, seed_list)
    write_json(path / COMPARISON, {**record, "state": "finished", "metric": METRIC, "base": asdict(found.base), "arms": _plain(found.arms)})
    plot_comparison(found, path / "curves.png")
    return found


def parse_budget(text: str) -> dict[str, Any]:
    """`steps=100`, `tokens=1e6`, `seconds=60` -> settings; limits that are not named are switched off.

    Raises:
        UsageError: another form.
    """
    if not text:
        return {}
    limits: dict[str, Any] = {"steps": 0, "tokens": 0, "seconds": 0.0}
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            if name.strip() not in limits:
                raise ValueError(name)
            limits[name.strip()] = float(value) if name.strip() == "seconds" else int(float(value))
        except (ValueError, OverflowError):
            raise UsageError(f"budget={text!r}: write steps=100, tokens=1e6 or seconds=60") from None
    return limits


def default_jobs(settings: Settings) -> int:
    """Runs at a time: one per core, one on a GPU."""
    from braid.policies.causal import resolve_device

    return (os.cpu_count() or 1) if resolve_device(settings.device).type == "cpu" else 1


def _specify(arm: Arm, task: str, options: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """What one run is told; refuses wrong values before anything is trained."""
    from braid.methods.registry import find_method

    owner, world = find_method(arm.method), task_class(task)
    names = {kind: {o.name for o in options_of(kind)} for kind in (owner, world, Settings)}
    known = set().union(*names.values())
    shared = {name: value for name, value in options.items() if name in known}
    built = Configuration.build(owner, task, {**shared, **arm.options, "seed": seed, "track": options.get("track", "")})
    return {
        "method": arm.method,
        "task": task,
        "method_options": {o.name: getattr(built.method, o.name) for o in options_of(owner)},
        "task_options": {o.name: getattr(built.task, o.name) for o in options_of(world)},
        "settings": asdict(built.settings),
    }


def _check_known(arms: Sequence[Arm], task: str, options: Mapping[str, Any]) -> None:
    from braid.methods.registry import find_method

    owners = [find_method(arm.method) for arm in arms]
    known = {o.name for kind in (*owners, task_class(task), Settings) for o in options_of(kind)}
    for name in options:
        if name not in known:
            raise unknown_name("option", name, known)


def _check_same(path: Path, record: Mapping[str, Any]) -> None:
    """A folder that holds another comparison is not mixed with this one."""
    file = path / COMPARISON
    if not file.is_file():
        return
    old = json.loads(file.read_text(encoding="utf-8"))
    for name in ("methods", "task", "seeds", "options"):
        if old[name] != json.loads(json.dumps(record[name])):
            raise UsageError(f"{path} holds a comparison with other {name}: {old[name]}; choose another folder")


def _run_all(specifications: list[dict[str, Any]], path: Path, jobs: int, show_progress: bool) -> None:
    """Run what is not finished yet, in parallel processes."""
    waiting = [s for s in specifications if not (Path(s["output"]) / "result.json").is_file()]
    total = len(specifications) + 1
    context = multiprocessing.get_context("spawn")
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with (
        progress_bar(f"{len(specifications)} runs, {jobs} at a time", total, show=show_progress) as bar,
        ProcessPoolExecutor(jobs, mp_context=context, initializer=_start_worker, initargs=(threads,)) as pool,
    ):
        futures: dict[Future[None], str] = {}
        if not (path / BASE).is_file():
            futures[pool.submit(_evaluate_base, specifications[0], str(path / BASE))] = "base"
        for specification in waiting:
            futures[pool.submit(_run_one, specification)] = specification["output"]
        pending = set(futures)
        try:
            while pending:
                done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                for future in done:
                    future.result()
                shares = [_share_done(specification) for specification in specifications]
                finished = sum(share >= 1 for share in shares)
                bar.update(sum(shares) + (path / BASE).is_file(), f"{finished} finished")
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(pool._processes.values()):
                process.terminate()
            if isinstance(error, KeyboardInterrupt):
                raise BraidError(f"interrupted; the same command with --output {path} goes on") from error
            raise


def _start_worker(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)


def _run_one(specification: dict[str, Any]) -> None:
    output = Path(specification["output"])
    if (output / CONFIG).is_file():
        resume(output, show_progress=False)
        return
    options = {**specification["method_options"], **specification["task_options"], **specification["settings"]}
    train(specification["method"], task=specification["task"], output=output, show_progress=False, **options)


def _evaluate_base(specification: dict[str, Any], file: str) -> None:
    settings = Settings(**specification["settings"])
    task = get_task(specification["task"], **specification["task_options"])
    found = test_evaluation(load_policy(settings.model, settings), task, settings)
    write_json(Path(file), {"metrics": found.metrics, "problems": found.problems, "per_problem": found.per_problem})


def _share_done(specification: dict[str, Any]) -> float:
    """Share of the budget that a run has used up."""
    run = Run(specification["output"])
    if run.result is not None:
        return 1.0
    rows = run.metrics()
    if not rows:
        return 0.0
    settings, last = specification["settings"], rows[-1]
    shares = [
        last["step"] / settings["steps"] if settings["steps"] else 0.0,
        last.get("num_tokens", 0.0) / settings["tokens"] if settings["tokens"] else 0.0,
        sum(row.get("time/step", 0.0) for row in rows) / settings["seconds"] if settings["seconds"] else 0.0,
    ]
    return min(0.99, max(shares))


def _collect(path: Path, arms: Sequence[Arm], seeds: list[int]) -> Comparison:
    base = np.asarray(json.loads((path / BASE).read_text(encoding="utf-8"))["per_problem"])
    tables, numbers = {}, {}
    for arm in arms:
        results = [Run(path / _slug(arm.label) / f"seed{seed}").result or {} for seed in seeds]
        tables[arm.label] = np.asarray([result["per_problem"] for result in results])
        numbers[arm.label] = {
            "tokens": float(np.mean([result["num_tokens"] for result in results])),
            "seconds": float(np.mean([result["seconds"] for result in results])),
            "test": {name: float(np.mean([r["test"][name] for r in results])) for name in results[0]["test"]},
        }
    first = tables[arms[0].label].mean(axis=1)
    for label, table in tables.items():
        numbers[label] |= {
            "per_seed": table.mean(axis=1).tolist(),
            "mean": hierarchical_bootstrap(table),
            "gain": hierarchical_bootstrap(table - base),
            "difference": paired_difference(table.mean(axis=1), first),
        }
    return Comparison(path, METRIC, seeds, hierarchical_bootstrap(base[np.newaxis]), numbers)


def _plain(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        label: {name: asdict(value) if isinstance(value, Estimate) else value for name, value in numbers.items()}
        for label, numbers in arms.items()
    }


def _slug(label: str) -> str:
    return "".join(c if c.isalnum() or c in "-_=." else "_" for c in Path(label.partition("@")[0]).name + label[label.find("@"):] * ("@" in label))


def _new_path(task: str) -> Path:
    return Path("runs") / f"compare-{task}-{time.strftime('%Y%m%d-%H%M%S')}"


def _literal(text: str) -> Any:
    """A number, truth value or text as written on the command line."""
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
