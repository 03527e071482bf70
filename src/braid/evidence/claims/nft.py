"""NFT: supervised learning that uses wrong answers."""

from braid.evidence.claim import Claim, ClaimArm, Comparison, Tuning

CLAIM = Claim(
    slug="nft",
    statement=(
        "A likelihood objective that models wrong answers by an implicit negative policy beats rejection "
        "fine-tuning, and is not worse than GRPO."
    ),
    task="countdown",
    arms={
        "nft": ClaimArm("nft", role="method"),
        "rft": ClaimArm("nft", {"negative_weight": 0.0}),
        "grpo": ClaimArm("grpo"),
        "equal prompts": ClaimArm("nft", {"prompt_weight": "one"}, role="ablation"),
    },
    comparisons=(
        Comparison("nft", "rft", "pass@1", smallest=0.02),
        Comparison("nft", "grpo", "pass@1", smallest=-0.02),
    ),
    steps=60,
    settings={
        "prompts_per_step": 16,
        "group_size": 16,
        "updates_per_batch": 8,
        "max_generation_batches": 1,
        "eval_every": 10,
        "test_examples": 256,
        "test_samples": 16,
    },
    tuning=Tuning("learning_rate", (5e-5, 1.5e-4, 4e-4), seeds=(1000,), metric="pass@1"),
    setting=(
        "A model of 0.2 M parameters on problems of three numbers instead of 7 and 32 B parameters on competition "
        "mathematics; 16 prompts x 16 responses and 8 updates a step for all arms, without refilling filtered "
        "groups, so that all arms use the same number of responses; the learning rate of every arm is the best of "
        "three."
    ),
    note=(
        "NFT beats rejection fine-tuning in every seed but one, by 5 points in the mean; the interval does not "
        "exclude that the effect is below 2 points. It is not worse than GRPO. Checked: the exact tests of the "
        "losses; each arm has its best learning rate of three, and rejection fine-tuning prefers the largest."
    ),
)
