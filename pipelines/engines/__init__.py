"""How a plan becomes pixels."""
