"""What `python -m circuit_breaker` shows: a server that fails and recovers, and the eight callers of it.

`plan` says what happens when, `server` is what fails, `threads` and `tasks` are what a user would write, `story` runs
the plan and keeps the figures, `screen` draws them. Nothing in the library imports any of it.
"""
