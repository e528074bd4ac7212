"""Logs of calls as files: JSON Lines as `CallLog` writes them, and those of other programs, CSV too."""
