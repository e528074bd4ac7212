"""How long a test waits for what has to come; a test that fails may take this long, one that passes never does."""

PATIENCE_S = 20.0
