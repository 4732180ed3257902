"""Results → something to look at. The only rooms that format numbers; the only ones that know rich."""
