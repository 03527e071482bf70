"""A contestant in a process of its own, told over a pipe how many steps to take.

Started as `python -m braid.bench.worker`, it reads one JSON object a line on standard input (first the contestant and
its options, then orders) and answers each with a line on standard output; whatever the library prints goes to a log.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from braid.errors import BraidError

LAST_LINES = 6


class Worker:
    """The parent's end of a contestant's process.

    Args:
        workload: its name, for errors.
        library: the contestant's name.
        factory: `module:factory`.
        options: for the factory.
        threads: that it may use; 0 leaves it to PyTorch.
        log: file for what the library prints.
    """

    def __init__(
        self, workload: str, library: str, factory: str, options: dict[str, Any], threads: int, log: Path
    ) -> None:
        self.name = f"{library} on {workload}"
        self.log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._send({"factory": factory, "options": options, "threads": threads})

    def ready(self) -> dict[str, Any]:
        """Wait until the contestant is prepared.

        Returns:
            `version`, `configuration` and the number of `threads`.

        Raises:
            BraidError: it failed, or its process died.
        """
        return self._receive()

    def run(self, steps: int) -> dict[str, Any]:
        """Let it take steps.

        Args:
            steps: how many, at least 1.

        Returns:
            `steps`, a list of timings as `StepTiming.to_json` makes them, and `peak_memory_mib` so far.

        Raises:
            BraidError: it failed, or its process died.
        """
        self._send({"steps": steps})
        return self._receive()

    def close(self) -> None:
        """End the process, by force if it does not go by itself, and wait until it is gone."""
        with contextlib.suppress(OSError):
            self._input.close()
        try:
            self._process.wait(timeout=10)
        except BaseException as error:
            self.kill()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
        finally:
            self._output.close()

    def kill(self) -> None:
        """End the process at once, and wait until it is gone."""
        self._process.kill()
        self._process.wait()

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _output(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it died; the answer, which is none, will tell
            self._input.write(json.dumps(message) + "\n")
            self._input.flush()

    def _receive(self) -> dict[str, Any]:
        line = self._output.readline()
        if not line:
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            raise BraidError(f"{self.name}: the process died ({how}); {self._last_lines()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BraidError(f"{self.name} failed: {answer['error']}")
        return answer

    def _last_lines(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST_LINES:]
        return "its last words:\n" + "\n".join(lines) if lines else "it said nothing"


def main() -> None:
    """Serve one contestant: prepare it, and run it as long as orders come."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which closes the pipe
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not get between the answers

    def answer(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        _serve(sys.stdin, answer)
    except Exception as error:
        lines = traceback.format_exc().strip().splitlines()[-LAST_LINES:]
        answer({"error": str(error) if isinstance(error, BraidError) else "\n".join(lines)})
        sys.exit(1)


def _serve(orders: IO[str], answer: Any) -> None:
    from braid.bench.contestant import Contestant
    from braid.bench.workload import locate

    first = json.loads(orders.readline())
    threads = first["threads"]
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # read by OpenMP and MKL when they start
    contestant: Contestant = locate(first["factory"])(first["options"])
    contestant.prepare()
    answer(
        {
            "version": contestant.version,
            "configuration": contestant.configuration,
            "threads": threads_in_use(threads),
        }
    )

    def steps() -> Iterator[int]:
        for line in orders:
            yield json.loads(line)["steps"]

    contestant.run(
        steps(),
        lambda timings: answer(
            {"steps": [timing.to_json() for timing in timings], "peak_memory_mib": peak_memory_mib()}
        ),
    )
    contestant.close()


def threads_in_use(default: int) -> int:
    """The threads of PyTorch, if the contestant has loaded it."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else default


def peak_memory_mib() -> float:
    """The most memory this process has held at a time, MiB."""
    with contextlib.suppress(OSError):  # unlike ru_maxrss, this does not begin with what the parent held
        found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
        if found:
            return int(found[1]) / 1024
    import resource  # not on every system

    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


if __name__ == "__main__":
    main()
