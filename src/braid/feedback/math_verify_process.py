"""math-verify in a process of its own, so that one formula can take neither the run's time nor its memory.

math-verify limits its time with a signal, which works in the main thread only and cannot interrupt a long computation
on big integers. The process here is started when first needed, answers one JSON line per question, and is killed and
replaced when an answer is late.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from importlib.util import find_spec
from typing import IO

MEMORY_LIMIT = 4 * 2**30
"""Bytes of address space of the process, where the system supports such limits."""
START_SECONDS = 120.0
"""How long the process may take to import math-verify."""


def math_verify_installed() -> bool:
    """Whether the optional package math-verify can be imported (it is not imported here)."""
    return find_spec("math_verify") is not None


class MathVerifyProcess:
    """Asks math-verify in another process; safe to share between threads and after a fork."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._answers: queue.Queue[str] = queue.Queue()
        atexit.register(self.close)

    def equal(self, text: str, reference: str, seconds: float) -> bool:
        """Whether math-verify holds the two texts equal; False if it fails or takes longer than `seconds`."""
        with self._lock:
            try:
                process = self._running()
                assert process.stdin is not None
                process.stdin.write(json.dumps([text, reference]) + "\n")
                process.stdin.flush()
                return self._answers.get(timeout=seconds) == "true"
            except (queue.Empty, OSError, ValueError):
                self.close()
                return False

    def close(self) -> None:
        """Ends the process, if this one started it; a later question starts another."""
        process, self._process = self._process, None
        if process is not None and self._owner == os.getpid():
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def _running(self) -> subprocess.Popen[str]:
        process = self._process
        if process is not None and self._owner == os.getpid() and process.poll() is None:
            return process
        self.close()
        self._process = process = subprocess.Popen(
            [sys.executable, "-P", "-m", "braid.feedback.math_verify_process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="ascii",
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        self._owner = os.getpid()
        self._answers = queue.Queue()
        threading.Thread(target=_read_lines, args=(process.stdout, self._answers), daemon=True).start()
        if self._answers.get(timeout=START_SECONDS) != "ready":
            raise ValueError("math-verify did not start")
        return process


def _read_lines(stream: IO[str], lines: queue.Queue[str]) -> None:
    try:
        for line in stream:
            lines.put(line.strip())
    except ValueError:
        pass
    lines.put("ended")


def _serve() -> None:
    """The process: for each line `[text, reference]` on standard input, a line `true` or `false`."""
    from math_verify import parse, verify

    replies, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: SIM115
    _limit_memory()
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        try:
            text, reference = (parse(f"${part}$", parsing_timeout=None) for part in json.loads(line))
            verdict = bool(text and reference and verify(reference, text, timeout_seconds=None))
        except Exception:
            verdict = False
        print("true" if verdict else "false", file=replies, flush=True)


def _limit_memory() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
    except (ImportError, OSError, ValueError):
        pass


if __name__ == "__main__":
    _serve()
