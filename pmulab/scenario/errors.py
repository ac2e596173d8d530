"""What is wrong with a scenario, where, and what would be right."""

from __future__ import annotations


class ScenarioError(Exception):
    """A user's mistake: one line with the place (`file:line` or `--set …`), the problem and the remedy."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        super().__init__(f"{where}: {problem}; {remedy}")
        self.where = where
        self.problem = problem
        self.remedy = remedy
