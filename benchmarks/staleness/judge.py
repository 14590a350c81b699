"""What a tool got wrong after a mutation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.staleness.mutations import Mutation


@dataclass(frozen=True)
class Verdict:
    """Of one mutation and one tool: stages served as fresh though stale, and stages executed for nothing."""

    mutation: str
    served_stale: frozenset[str]
    needless: frozenset[str]

    @property
    def is_right(self) -> bool:
        return not self.served_stale and not self.needless

    def __str__(self) -> str:
        told = [f"stale served as fresh: {', '.join(sorted(self.served_stale))}"] if self.served_stale else []
        told += [f"needless: {', '.join(sorted(self.needless))}"] if self.needless else []
        return "; ".join(told) or "right"


@dataclass(frozen=True)
class Score:
    """Of one tool: mutations it was asked, those after which it served something stale, those with needless work."""

    asked: int
    served_stale: int
    needless: int


def applies(mutation: Mutation, stages: Iterable[str]) -> bool:
    """Whether a tool that has `stages` can be judged: nothing is stale, or something that it has."""
    return not mutation.stale or bool(mutation.stale & set(stages))


def judge(mutation: Mutation, executed: frozenset[str], stages: Iterable[str]) -> Verdict:
    """The verdict on a tool that has `stages` and executed `executed`."""
    return Verdict(mutation.name, (mutation.stale & set(stages)) - executed, executed - mutation.stale)


def score(verdicts: Iterable[Verdict]) -> Score:
    judged = list(verdicts)
    return Score(len(judged), sum(bool(one.served_stale) for one in judged), sum(bool(one.needless) for one in judged))
