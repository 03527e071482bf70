"""Lite PPO: group mean, batch standard deviation, token mean."""

from braid.evidence.claim import Claim, ClaimArm, Comparison, Tuning

CLAIM = Claim(
    slug="lite-ppo",
    statement=(
        "On data with many almost solved questions and a verifier that errs now and then, group mean with the "
        "batch's standard deviation and the mean over tokens ends above GRPO's group statistics and mean over "
        "sequences."
    ),
    task="arithmetic",
    task_options={"level_mix": "easy", "label_noise": 0.03, "corpus_styles": "A:0.6,padded:0.2,skipping:0.2"},
    arms={
        "lite-ppo": ClaimArm("lite-ppo", role="method"),
        "grpo": ClaimArm("grpo"),
        "batch std alone": ClaimArm("grpo", {"scale": "batch"}, role="ablation"),
        "token mean alone": ClaimArm("grpo", {"aggregation": "token-mean"}, role="ablation"),
    },
    comparisons=(Comparison("lite-ppo", "grpo", "pass@1", smallest=0.01),),
    steps=100,
    settings={
        "prompts_per_step": 16,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "eval_every": 20,
        "test_examples": 256,
        "test_samples": 4,
    },
    tuning=Tuning("learning_rate", (5e-5, 1.5e-4, 4e-4), seeds=(1000,), metric="pass@1"),
    setting=(
        "A model of 0.2 M parameters on one to three operations, easy ones frequent, with 3 % wrong verdicts of "
        "the verifier, instead of 4 and 8 B models on mathematics; 16 prompts x 8 responses and plain sampling for "
        "all arms; the learning rate of every arm is the best of three."
    ),
)
