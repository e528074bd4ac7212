"""Retry: the policy and its settings, what is decided about a failed attempt, waits, budgets and totals."""
