"""The loop: train a method on a task, evaluate, write checkpoints, and go on where a run was interrupted."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from braid.data.examples import Example
from braid.errors import BraidError, Interrupted, StorageError, TrainingDiverged, UsageError
from braid.evaluation.evaluate import Evaluation, evaluate
from braid.methods.token import TokenMethod
from braid.rollout.sampler import Sampling
from braid.training.checkpoint import (
    damaged,
    load_progress,
    load_state,
    remove_leftovers,
    save_checkpoint,
    write_atomically,
)
from braid.training.configuration import Configuration
from braid.training.learner import Learner, check_fit
from braid.training.models import initial_model, load_checkpoint, load_policy
from braid.training.progress import Bar, progress_bar, say
from braid.training.run import INITIAL, REFERENCE, Run
from braid.training.settings import Settings
from braid.training.tracking import Tracker, make_trackers

if TYPE_CHECKING:
    from braid.policies.causal import CausalPolicy
    from braid.tasks.task import TextTask

GENERATED_EXAMPLES = 4096
EVALUATION_SEED = 1_000_003


class Host:
    """What a run has of its process: everything, unless `train_together` lends it a share."""

    def admit(self, policy: CausalPolicy) -> CausalPolicy:
        """The policy, once loaded, as the run uses it."""
        return policy

    @contextmanager
    def watch(self, title: str, *, show: bool) -> Iterator[tuple[threading.Event, Bar]]:
        """An event that asks the run to stop after its step, and where it says how far it is, of 1.

        Args:
            title: of the run.
            show: False shows nothing.
        """
        with stop_request() as stop, progress_bar(title, 1.0, show=show) as bar:
            yield stop, bar


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
    return start(configuration, path, policy=in_memory, show_progress=show_progress)


def start(
    configuration: Configuration,
    path: Path,
    *,
    policy: CausalPolicy | None = None,
    show_progress: bool = True,
    host: Host | None = None,
) -> Run:
    """Start a run from its whole configuration.

    Args:
        configuration: method, task and settings.
        path: the run's folder, which must not hold a run.
        policy: what is trained, if it is in memory; else the settings name it.
        show_progress: print a progress bar.
        host: of the run; by default it has the process to itself.

    Returns:
        The run's folder, with its result.

    Raises:
        BraidError: as for `train`.
    """
    run = Run(path)
    run.check_free()
    with run.lock():
        run.check_free()  # another process may just have taken it
        try:
            if policy is not None:
                initial = (run.path / INITIAL).resolve()
                write_atomically(initial, policy.save)
                settings = dataclasses.replace(configuration.settings, model=str(initial))
                configuration = dataclasses.replace(configuration, settings=settings)
            run.create(configuration.to_json())
            return _run_to_end(run, configuration, show_progress, host)
        except BraidError as error:
            if not isinstance(error, Interrupted) and run.last_metrics() is None:
                run.discard()  # a mistake at the start leaves nothing behind that is in the way of the next try
            raise


def resume(
    run: str | Path, *, task: TextTask | None = None, show_progress: bool = True, host: Host | None = None
) -> Run:
    """Go on with an interrupted run from its last checkpoint, or from its start if there is none.

    Args:
        run: the run's folder.
        task: needed if the run's task was an object or held data or a function in memory.
        show_progress: print a progress bar.
        host: of the run; by default it has the process to itself.

    Returns:
        The run's folder, with its result; a finished run is returned as it is.

    Raises:
        UsageError: no run is there, another process trains it, or its task is needed.
        BraidError: as for `train`.
    """
    directory = Run.open(run)
    if directory.result is not None:
        return directory
    with directory.lock():
        if directory.result is not None:
            return directory
        return _run_to_end(directory, Configuration.from_json(directory.config, task), show_progress, host)


def new_run_path(configuration: Configuration, root: str | Path = "runs") -> Path:
    """A folder that does not exist yet, named by method, task and seed."""
    content = configuration.to_json()
    method = content["method"].rpartition(":")[2]
    stem = f"{method}-{content['task']}-seed{configuration.settings.seed}"
    number = 1
    while (path := Path(root) / f"{stem}-{number}").exists():
        number += 1
    return path


def _run_to_end(run: Run, configuration: Configuration, show_progress: bool, host: Host | None) -> Run:
    go_on = f"braid resume {run.path}"
    try:
        return _Session(run, configuration, show_progress, host or Host()).run_to_end()
    except KeyboardInterrupt:  # before the first step, or asked for twice
        raise Interrupted(f"stopped at once; go on with: {go_on}") from None
    except (StorageError, TrainingDiverged) as error:
        if run.last_metrics() is None:
            raise
        last = run.latest_checkpoint
        kept = f"the last good checkpoint is {last}" if last else "there is no checkpoint yet"
        advice = f"; when the cause is mended: {go_on}" if isinstance(error, StorageError) else ""
        raise type(error)(f"{error}; {kept}{advice}") from error


class _Session:
    """A run in this process, from its first or a later step to its end."""

    def __init__(self, run: Run, configuration: Configuration, show_progress: bool, host: Host) -> None:
        import torch

        self.run, self.show, self.host = run, show_progress, host
        self.task, self.settings = configuration.task, configuration.settings
        method, settings = configuration.method, configuration.settings
        if settings.threads:
            torch.set_num_threads(settings.threads)
        remove_leftovers(run.path)
        remove_leftovers(run.checkpoint_folder)
        self.checkpoint = run.latest_checkpoint
        self.limit = settings.max_new_tokens or self.task.max_new_tokens
        prompts, demonstrations = training_examples(configuration)
        check_fit(method, self.task, demonstrations)
        validation = self.task.examples("validation", settings.eval_examples)
        test = self.task.examples("test", settings.test_examples) if settings.test_examples else []
        loaded = load_checkpoint(self.checkpoint, settings) if self.checkpoint else self._initial_policy()
        self.policy = host.admit(loaded)
        self.validation = self._fitting(validation, "validation prompts")
        if test:
            self._fitting(test, "test prompts")  # fails now rather than after training
        self.learner = Learner(
            self._with_reference(method),
            method,
            self.task,
            settings,
            prompts=self._fitting(prompts, "training prompts"),
            demonstrations=demonstrations and self._fitting(demonstrations, "demonstrations", with_completion=True),
            max_new_tokens=self.limit,
        )
        self.seconds = self._restore(self.checkpoint) if self.checkpoint else 0.0
        done = self.learner.step_count if self.checkpoint else -1
        run.forget_after(done)
        self.trackers: list[Tracker] = make_trackers(settings.trackers, run.path, done + 1, run.config)

    # start

    def _initial_policy(self) -> CausalPolicy:
        own = self.run.path / INITIAL
        made = str(own) if own.is_dir() else None
        source = made or initial_model(self.task, self.settings, self.run.path, show_progress=self.show)
        return load_policy(source, self.settings)

    def _with_reference(self, method: TokenMethod) -> CausalPolicy:
        """The policy, with the frozen copy of where it started that some methods need."""
        if method.needs_reference and not self.policy.has_adapter:
            reference = self.run.path / REFERENCE
            if not reference.is_dir():
                initial = self._initial_policy() if self.checkpoint else self.policy
                write_atomically(reference, initial.save)
            self.policy.keep_reference(reference)
        return self.policy

    def _restore(self, checkpoint: Path) -> float:
        """Go on from a checkpoint; returns the seconds of training until then."""
        progress, tensors = load_progress(checkpoint), load_state(checkpoint)
        try:
            self.learner.restore(tensors, progress)
            return float(progress["seconds"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(checkpoint, error) from error

    def _fitting(self, examples: Sequence[Example], kind: str, *, with_completion: bool = False) -> list[Example]:
        """The examples that fit into the model's context; says how many do not."""
        if with_completion:
            cut = self.settings.max_demonstration_tokens
            fitting = [e for e in examples if demonstration_fits(self.policy, e, cut)]
        else:
            fitting = [e for e in examples if prompt_fits(self.policy, e, self.limit)]
        longest = self.settings.max_prompt_tokens
        if longest:
            fitting = [e for e in fitting if len(self.policy.encode_prompt(e.prompt)) <= longest]
        if not fitting:
            raise UsageError(
                f"none of the {len(examples)} {kind} fits: the model's context is {self.policy.context_length} tokens, "
                f"of which a response may take {self.limit}; lower --max-new-tokens or shorten the prompts"
                + (f" (or raise --max-prompt-tokens, now {longest})" if longest else "")
            )
        if len(fitting) < len(examples) and self.show:
            say(f"left out {len(examples) - len(fitting)} of {len(examples)} {kind}: too long")
        return fitting

    # training

    def run_to_end(self) -> Run:
        """Train until the budget is used up, then evaluate and write the result."""
        title = self.run.path.name
        with self._closing_trackers(), self.host.watch(title, show=self.show) as (stop, bar):
            if self.learner.step_count == 0:
                self._log({"step": 0, **self._evaluate()})
            while self._progress() < 1.0:
                self._one_step(bar)
                if stop.is_set() and self._progress() < 1.0:
                    self._save()
                    done = self.learner.step_count
                    raise Interrupted(f"stopped after step {done}; go on with: braid resume {self.run.path}")
            self._finish(bar)
        return self.run

    @contextmanager
    def _closing_trackers(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for tracker in self.trackers:
                with contextlib.suppress(StorageError):  # the first error is the one to report
                    tracker.close()
            raise
        for tracker in self.trackers:
            tracker.close()

    def _one_step(self, bar: Bar) -> None:
        settings, learner = self.settings, self.learner
        started, tokens = time.perf_counter(), learner.tokens
        try:
            metrics = learner.step(self._progress())
        except TrainingDiverged:
            self.run.write_samples(learner.step_count + 1, learner.last_samples)
            raise
        elapsed = time.perf_counter() - started
        self.seconds += elapsed
        step = learner.step_count
        metrics["time/step"], metrics["time/total"] = elapsed, self.seconds
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
        return self.settings.budget_used(self.learner.step_count, self.learner.tokens, self.seconds)

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
    limit = settings.max_new_tokens or task.max_new_tokens
    return evaluate(
        policy,
        task,
        [e for e in task.examples("test", settings.test_examples) if prompt_fits(policy, e, limit)],
        sampling=Sampling(limit, settings.eval_temperature),
        samples=settings.test_samples,
        seed=EVALUATION_SEED,
        decode_batch=settings.decode_batch,
        token_budget=settings.micro_batch_tokens,
    )


def prompt_fits(policy: CausalPolicy, example: Example, max_new_tokens: int) -> bool:
    """Whether the model's context holds the prompt and a response of the longest length."""
    return len(policy.encode_prompt(example.prompt)) + max_new_tokens <= policy.context_length


def demonstration_fits(policy: CausalPolicy, example: Example, max_tokens: int) -> bool:
    """Whether the model's context holds the prompt and its demonstration, which is cut at `max_tokens`."""
    response = min(len(policy.encode_completion(example.completion or "")), max_tokens)
    return len(policy.encode_prompt(example.prompt)) + response <= policy.context_length


@contextmanager
def stop_request() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that the step in progress can end; a second Ctrl-C stops at once."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return

    def ask(number: int, frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
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
    parts += [
        f"{label} {metrics[name]:.3g}"
        for name, label in (("reward/mean", "reward"), ("loss", "loss"))
        if name in metrics
    ]
    return "  ".join(parts)
