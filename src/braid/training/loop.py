"""The loop: train a method on a task, evaluate, write checkpoints, and go on where a run was interrupted."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braid.data.examples import Example
from braid.errors import BraidError, StorageError, UsageError
from braid.evaluation.evaluate import Evaluation, evaluate
from braid.methods.token import TokenMethod
from braid.rollout.sampler import Sampling
from braid.training.checkpoint import load_progress, load_state, save_checkpoint, write_atomically
from braid.training.configuration import Configuration
from braid.training.learner import Learner, check_fit
from braid.training.models import initial_model, load_policy
from braid.training.progress import Bar, progress_bar
from braid.training.run import Run
from braid.training.settings import Settings
from braid.training.tracking import Tracker, make_trackers

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy
    from braid.tasks.task import TextTask

GENERATED_EXAMPLES = 4096
EVALUATION_SEED = 1_000_003


class Interrupted(BraidError):
    """The person asked the run to stop; a checkpoint was written."""


def train(
    method: str | TokenMethod | type[TokenMethod],
    *,
    task: str | TextTask,
    model: str | Path | CausalPolicy = "auto",
    output: str | Path | None = None,
    show_progress: bool = True,
    **options: Any,
) -> Run:
    """Train a policy.

    Args:
        method: slug, `file.py:Class`, class, or object.
        task: name or object.
        model: `auto`, `base-1m`, `tiny-1m`, a directory, a hub id, or a policy in memory.
        output: the run's folder; by default a new one under `runs`.
        show_progress: print a progress bar.
        options: of the method, the task and the run, by name.

    Returns:
        The run's folder, with its result.

    Raises:
        UsageError: something was asked for that does not exist or does not fit.
        TrainingDiverged: too many non-finite steps in a row.
        StorageError: the folder cannot be written; the last good checkpoint is intact.
        Interrupted: the run was asked to stop; `resume` goes on.
    """
    in_memory = None if isinstance(model, str | Path) else model
    named = {} if in_memory is not None else {"model": str(model)}
    configuration = Configuration.build(method, task, {**options, **named})
    path = Path(output) if output is not None else new_run_path(configuration)
    run = Run.create(path, configuration.to_json())
    with run.lock():
        if in_memory is not None:
            write_atomically(run.path / "initial", in_memory.save)
        return _Session(run, configuration, show_progress).run_to_end()


def resume(run: str | Path, *, task: TextTask | None = None, show_progress: bool = True) -> Run:
    """Go on with an interrupted run from its last checkpoint, or from its start if there is none.

    Args:
        run: the run's folder.
        task: needed if the run's task held data or a function in memory.
        show_progress: print a progress bar.

    Returns:
        The run's folder, with its result; a finished run is returned as it is.
    """
    directory = Run.open(run)
    with directory.lock():
        if directory.result is not None:
            return directory
        configuration = Configuration.from_json(directory.config, task)
        return _Session(directory, configuration, show_progress).run_to_end()


def new_run_path(configuration: Configuration, root: str | Path = "runs") -> Path:
    """A folder that does not exist yet, named by method, task and seed."""
    content = configuration.to_json()
    method = content["method"].rpartition(":")[2]
    stem = f"{method}-{content['task']}-seed{configuration.settings.seed}"
    number = 1
    while (path := Path(root) / f"{stem}-{number}").exists():
        number += 1
    return path


class _Session:
    """A run in this process, from its first or a later step to its end."""

    def __init__(self, run: Run, configuration: Configuration, show_progress: bool) -> None:
        import torch

        self.run, self.show = run, show_progress
        self.task, self.settings = configuration.task, configuration.settings
        method, settings = configuration.method, configuration.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        checkpoint = run.latest_checkpoint
        self.seconds = 0.0
        own = run.path / "initial"
        start = str(own) if own.is_dir() else initial_model(self.task, settings, run.path, show_progress=show_progress)
        self.policy = load_policy(checkpoint or start, settings)
        self.limit = settings.max_new_tokens or self.task.max_new_tokens
        prompts, demonstrations = training_examples(configuration)
        prompts = self._fitting(prompts, "training")
        if demonstrations is not None:
            demonstrations = self._fitting(demonstrations, "demonstration")
        check_fit(method, self.task, demonstrations)
        if method.needs_reference and not self.policy.has_adapter:
            reference = run.path / "reference"
            if not reference.is_dir():
                write_atomically(reference, self.policy.save)
            self.policy.keep_reference(reference)
        self.learner = Learner(
            self.policy,
            method,
            self.task,
            settings,
            prompts=prompts,
            demonstrations=demonstrations,
            max_new_tokens=self.limit,
        )
        self.validation = self.task.examples("validation", settings.eval_examples)
        if checkpoint is not None:
            progress = load_progress(checkpoint)
            self.learner.restore(load_state(checkpoint, self.policy.device), progress)
            self.seconds = progress["seconds"]
        run.forget_after(self.learner.step_count if checkpoint is not None else -1)
        self.trackers: list[Tracker] = make_trackers(
            settings.trackers, run.path, self.learner.step_count, run.config
        )

    def run_to_end(self) -> Run:
        """Train until the budget is used up, then evaluate and write the result."""
        title = f"{self.run.path.name}"
        try:
            with stop_request() as stop, progress_bar(title, 1.0, show=self.show) as bar:
                if self.learner.step_count == 0:
                    self._log({"step": 0, **self._evaluate()})
                while self._progress() < 1.0:
                    self._one_step(bar)
                    if stop.is_set() and self._progress() < 1.0:
                        self._save()
                        raise Interrupted(f"stopped; go on with: braid resume {self.run.path}")
                self._finish(bar)
        except StorageError as error:
            last = self.run.latest_checkpoint
            kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
            raise StorageError(f"{error}; {kept}. Free space, then: braid resume {self.run.path}") from error
        finally:
            for tracker in self.trackers:
                tracker.close()
        return self.run

    def _one_step(self, bar: Bar) -> None:
        settings, learner = self.settings, self.learner
        started, tokens = time.perf_counter(), learner.tokens
        metrics = learner.step(self._progress())
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        step = learner.step_count
        metrics["time/step"] = elapsed
        metrics["tokens_per_second"] = (learner.tokens - tokens) / elapsed
        ended = self._progress() >= 1.0
        if ended or (settings.eval_every and step % settings.eval_every == 0):
            metrics |= self._evaluate()
        self._log({"step": step, **metrics})
        if settings.sample_every and step % settings.sample_every == 0 and learner.last_samples:
            self.run.write_samples(step, learner.last_samples)
        if not ended and settings.checkpoint_every and step % settings.checkpoint_every == 0:
            self._save()
        bar.update(self._progress(), _note(step, metrics))

    def _finish(self, bar: Bar) -> None:
        settings = self.settings
        self._save()
        result: dict[str, Any] = {
            "step": self.learner.step_count,
            "num_tokens": self.learner.tokens,
            "seconds": self.seconds,
            "skipped_steps": self.learner.skipped_steps,
            "empty_steps": self.learner.empty_steps,
            "learning_rate": self.learner.learning_rate,
            "checkpoint": str(self.run.latest_checkpoint),
            "validation": {k: v for k, v in self.run.metrics()[-1].items() if k.startswith("eval/")},
        }
        if settings.test_examples:
            bar.update(1.0, "final evaluation on test problems")
            test = test_evaluation(self.policy, self.task, settings)
            result |= {"test": test.metrics, "problems": test.problems, "per_problem": test.per_problem}
            self.run.write_samples(self.learner.step_count, test.samples[:16])
        self.run.write_result(result)

    def _evaluate(self) -> dict[str, float]:
        settings = self.settings
        found = evaluate(
            self.policy,
            self.task,
            self.validation,
            sampling=Sampling(self.limit, settings.eval_temperature),
            samples=settings.eval_samples,
            seed=EVALUATION_SEED,
            decode_batch=settings.decode_batch,
            token_budget=settings.micro_batch_tokens,
        )
        if self.learner.step_count == 0:
            self.run.write_samples(0, found.samples[:8])
        return {f"eval/{name}": value for name, value in found.metrics.items()}

    def _progress(self) -> float:
        settings, learner = self.settings, self.learner
        shares = [
            learner.step_count / settings.steps if settings.steps else 0.0,
            learner.tokens / settings.tokens if settings.tokens else 0.0,
            self.seconds / settings.seconds if settings.seconds else 0.0,
        ]
        return min(1.0, max(shares))

    def _save(self) -> None:
        save_checkpoint(
            self.run.checkpoint_folder,
            self.learner.step_count,
            self.policy.save,
            self.learner.tensors(),
            {**self.learner.counters(), "seconds": self.seconds},
            self.settings.keep_checkpoints,
        )

    def _log(self, row: dict[str, Any]) -> None:
        self.run.log(row)
        for tracker in self.trackers:
            tracker.log({k: v for k, v in row.items() if k != "step"}, row["step"])

    def _fitting(self, examples: Sequence[Example], kind: str) -> list[Example]:
        """The examples whose prompt leaves room for a response in the model's context."""
        room = self.policy.context_length - self.limit
        fitting = [e for e in examples if len(self.policy.encode_prompt(e.prompt)) <= room]
        if not fitting:
            raise UsageError(
                f"no {kind} prompt fits: the model's context is {self.policy.context_length} tokens and a response may "
                f"take {self.limit}; lower --max-new-tokens"
            )
        if len(fitting) < len(examples) and self.show:
            with progress_bar("", 1.0) as bar:
                bar.say(f"left out {len(examples) - len(fitting)} of {len(examples)} {kind} prompts longer than {room} tokens")
        return fitting


def training_examples(configuration: Configuration) -> tuple[list[Example], list[Example] | None]:
    """The training prompts, and the pool of demonstrations if the method wants one."""
    task, settings = configuration.task, configuration.settings
    count = settings.train_examples or (None if task.name == "jsonl" else GENERATED_EXAMPLES)
    if "demonstrations" not in configuration.method.needs:
        return list(task.examples("train", count)), None  # type: ignore[arg-type]
    shown = list(task.demonstrations("train", count, 0, settings.demonstration_style or None))  # type: ignore[arg-type]
    return shown, shown[: settings.demonstrations or None]


def test_evaluation(policy: CausalPolicy, task: TextTask, settings: Settings) -> Evaluation:
    """The final evaluation on test problems; the same problems and sampling seed for every run on the task."""
    return evaluate(
        policy,
        task,
        task.examples("test", settings.test_examples),
        sampling=Sampling(settings.max_new_tokens or task.max_new_tokens, settings.eval_temperature),
        samples=settings.test_samples,
        seed=EVALUATION_SEED,
        decode_batch=settings.decode_batch,
        token_budget=settings.micro_batch_tokens,
    )


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the step in progress can end; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _note(step: int, metrics: dict[str, float]) -> str:
    parts = [f"step {step}", f"{1 / metrics['time/step']:.1f} steps/s", f"{metrics['tokens_per_second']:.0f} tokens/s"]
    parts += [f"{label} {metrics[name]:.3g}" for name, label in (("reward/mean", "reward"), ("loss", "loss")) if name in metrics]
    return "  ".join(parts)
