"""The mathematics: what a plan costs in time and memory. Plain arithmetic, one formula one function, each with its source."""
