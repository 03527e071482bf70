"""The loop: learner, optimiser, checkpoints, exact resume, metrics, seeds, devices.

- `settings`: what a run is told beside method and task.
- `learner`: one step of training.
- `loop`: `train` and `resume`.
- `together`, `meeting`: several seeds of a small model as one program.
- `checkpoint`, `run`: what is written, and how it survives a crash.
- `base_model`: base checkpoints of the embedded tasks.
- `tracking`: TensorBoard, Weights & Biases, trackio.
"""
