"""How many samples a second a loader delivers."""
