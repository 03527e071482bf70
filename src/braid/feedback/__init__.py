"""What judges behaviour: verifiers, reward functions and their checked scores."""

from braid.feedback.extraction import extract_answer
from braid.feedback.number_text import parse_number, same_number
from braid.feedback.rewards import VERIFIERS, RewardFunction, WeightedSum, get_reward, name_of
from braid.feedback.scoring import score
from braid.feedback.verifiers import Exact, Format, Math, Numeric

__all__ = [
    "VERIFIERS",
    "Exact",
    "Format",
    "Math",
    "Numeric",
    "RewardFunction",
    "WeightedSum",
    "extract_answer",
    "get_reward",
    "name_of",
    "parse_number",
    "same_number",
    "score",
]
