"""Records of claims: what was found, with everything that is needed to check it and to find it again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import braid
from braid.errors import StorageError
from braid.evaluation.statistics import Interval
from braid.evidence.claim import Claim, claim_names, find_claim
from braid.evidence.verdict import Finding, Verdict, judge, weakest, with_base
from braid.training.checkpoint import read_json

Record = dict[str, Any]


def records_folder() -> Path:
    """Where records are kept: `evidence` of the source tree that Braid runs from, else of the working directory."""
    root = Path(braid.__file__).parents[2]
    return (root if (root / "pyproject.toml").is_file() else Path()) / "evidence"


def read_record(slug: str, folder: Path | None = None) -> Record | None:
    """The record of a claim, or None if there is none.

    Args:
        slug: of the claim.
        folder: of the records; by default `records_folder`.

    Raises:
        StorageError: the file is damaged, or of another claim.
    """
    file = (folder or records_folder()) / f"{slug}.json"
    if not file.is_file():
        return None
    record = read_json(file)
    if record.get("slug") != slug:
        raise StorageError(f"{file} is no record of claim {slug!r}; delete it and run: braid reproduce {slug}")
    return record


def records(folder: Path | None = None) -> dict[str, Record | None]:
    """The record of every claim, by slug; None for those that were not run yet."""
    return {slug: read_record(slug, folder) for slug in claim_names()}


def stale_parts(record: Mapping[str, Any]) -> list[str]:
    """Which parts of the code have changed since the record was made: of `claim`, `method`, `spine` and `task`."""
    from braid.evidence.version import changes

    return changes(find_claim(record["slug"]), record["code"])


def judge_again(record: Mapping[str, Any]) -> tuple[Verdict, list[Finding]]:
    """Verdict and findings from the numbers that a record holds."""
    claim = find_claim(record["slug"])
    numbers = {name: arm["per_seed"] for name, arm in record["arms"].items()}
    findings = judge(claim, with_base(numbers, record["base"], len(record["seeds"])))
    return weakest([finding.verdict for finding in findings]), findings


def finding_as_json(finding: Finding) -> dict[str, Any]:
    """A finding as JSON values."""
    comparison = finding.comparison
    return {
        "says": str(comparison),
        "arm": comparison.arm,
        "other": comparison.other,
        "metric": comparison.metric,
        "smallest": comparison.smallest,
        "lower": comparison.lower,
        "differences": list(finding.differences),
        "effect": finding.effect,
        "interval": [finding.interval.low, finding.interval.high],
        "confidence": finding.confidence,
        "probability_of_improvement": finding.improvement,
        "verdict": finding.verdict,
    }


def interval_of(finding: Mapping[str, Any]) -> Interval:
    """The interval of a finding that was read from a record."""
    return Interval(*finding["interval"])


def make_record(claim: Claim, **found: Any) -> Record:
    """A record in the order in which people read it.

    Args:
        claim: that was run.
        found: `findings`, `verdict`, `base`, `arms` and what is known of the runs.
    """
    findings: list[Finding] = found.pop("findings")
    first = findings[0]
    return {
        "slug": claim.slug,
        "claim": claim.statement,
        "verdict": found.pop("verdict"),
        "effect": first.effect,
        "interval": [first.interval.low, first.interval.high],
        "metric": first.comparison.metric,
        "comparisons": [finding_as_json(finding) for finding in findings],
        "seeds": list(claim.seeds),
        "setting": claim.setting,
        **found,
    }
