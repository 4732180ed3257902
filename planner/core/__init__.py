"""The vocabulary: frozen dataclasses and their invariants. No I/O, no clock, nothing of ours but units and errors."""
