"""Retry: the policy, what it decides about a failed attempt, delays and budgets."""
