"""What `python -m circuit_breaker` shows: one server that falls ill, and eight callers that do not suffer from it.

`plan` says what happens when, `server` is what falls ill, `threads` and `tasks` are what a user would write, `story`
lets it happen and keeps the figures, `screen` draws them. Nothing in the library imports any of it.
"""
