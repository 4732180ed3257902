"""Candidate plans: which degrees are legal, where the ranks go, which plan wins and why."""
