"""Findings as a page, as text for a terminal, and as data: three forms of the same figures and the same words."""
