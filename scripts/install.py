"""Install Braid and its development tools for the Python that runs this; no CUDA packages on a CPU machine."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CPU_INDEX = "https://download.pytorch.org/whl/cpu"


def pip(*arguments: str) -> bool:
    """Run pip; returns whether it succeeded."""
    return subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *arguments], cwd=ROOT).returncode == 0


def pinned_torch() -> str:
    """The requirement in constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line.strip() for line in lines if line.startswith("torch=="))


def install_torch() -> bool:
    """Install PyTorch: what is there stays; the CPU build where there is no NVIDIA GPU."""
    if importlib.util.find_spec("torch") is not None:
        return True
    if shutil.which("nvidia-smi"):
        return pip("torch>=2.10")
    pinned = pinned_torch()
    if platform.system() != "Linux":
        return pip(pinned)
    return pip(f"{pinned}+cpu") or pip(pinned, "--index-url", CPU_INDEX)


def main() -> None:
    """Install PyTorch, then the rest."""
    if not install_torch():
        sys.exit(f"could not install {pinned_torch()} for the CPU; install PyTorch 2.10 or newer, then run this again")
    constraint = [] if shutil.which("nvidia-smi") else ["--constraint", "constraints.txt"]
    if not pip(*constraint, "--editable", ".[dev]"):
        sys.exit("installation failed; the lines above say why")


if __name__ == "__main__":
    main()
