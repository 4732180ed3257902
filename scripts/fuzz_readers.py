"""Fuzz the readers of captures: whatever comes in, a checked graph or an explained refusal comes out, in time.

    python scripts/fuzz_readers.py --seconds 600 --seeds FOLDER... [--engine atheris] [--measurements]

With ``--measurements`` the seeds are outputs of nccl-tests and of programs like it, and their readers are tried.

With ``--engine hypothesis`` texts are put together from lines of the seeds and lines made up. Without ``--engine`` lines and cells of the seeds are cut, doubled, swapped and spoilt at random, the same way for the same
``--random-seed``. With ``--engine atheris`` (to be installed beside the project) libFuzzer's coverage guides the mutation.
Prints how many inputs were tried, how many gave a graph, the slowest and the peak of memory; ends with 1 on the first input
that raises anything but ``PlannerError``, or takes longer than a second of processor time, and writes it to ``--keep``.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from planner.core.measured import MeasuredTable
from planner.documents.topology import dump_topology, parse_topology
from planner.errors import PlannerError
from planner.graph.assemble import assemble
from planner.graph.join import join
from planner.readers import read_all
from planner.readers.measurements import read_measurements

MOST_SECONDS = 1.0
MOST_BYTES = 2_000_000


@dataclass
class Tally:
    """What came of the inputs so far."""

    read: Callable[[str], None]
    tried: int = 0
    good: int = 0
    slowest: float = 0.0

    def __str__(self) -> str:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        return f"{self.tried} inputs, {self.good} read, slowest {self.slowest:.3f} s, peak {peak:.0f} MB"


def read_topology(text: str) -> None:
    """A checked graph that survives YAML."""
    topology = assemble(join(read_all(text, "fuzz")), "fuzz", "capture", lambda _: None)
    topology.check()
    if len(text) % 50 == 1:
        assert parse_topology(dump_topology(topology), "fuzz") == topology, "not the same after YAML"


def read_measured(text: str) -> None:
    """Points that ascend, times and bandwidths above zero."""
    for found in read_measurements(text, "fuzz"):
        if isinstance(found, MeasuredTable):
            sizes = [size for size, _ in found.points]
            assert sizes == sorted(set(sizes)), "sizes do not ascend"
            assert all(size > 0 and taken > 0 for size, taken in found.points), "a point that is none"
            assert found.points, "no points"
            assert found.candidates, "no operation"
        else:
            assert found.bandwidth or found.latency, "nothing measured"
            assert all(value > 0 for value in [*found.bandwidth.values(), *found.latency.values()]), "not above zero"


def check(data: bytes, tally: Tally) -> None:
    """The property: what the reader promises, or a ``PlannerError``, within a second of processor time."""
    start = time.process_time()
    tally.tried += 1
    try:
        tally.read(data.decode("utf-8", "replace"))
    except PlannerError:
        pass
    else:
        tally.good += 1
    took = time.process_time() - start
    tally.slowest = max(tally.slowest, took)
    assert took <= MOST_SECONDS, f"took {took:.2f} s"


def mutated(seed: bytes, seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """``seed`` with some of its lines and bytes spoilt."""
    lines = seed.split(b"\n")
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(lines))
        act = chance.randrange(8)
        if act == 0:
            del lines[place]
        elif act == 1:
            lines.insert(place, lines[chance.randrange(len(lines))])
        elif act == 2:
            lines[place] = lines[place][: chance.randint(0, len(lines[place]))]
        elif act == 3:
            other = chance.choice(seeds).split(b"\n")
            lines[place:place] = other[chance.randrange(len(other)) :][: chance.randint(1, 20)]
        elif act == 4:
            words = lines[place].split()
            chance.shuffle(words)
            lines[place] = b"\t".join(words)
        elif act == 5:
            lines[place] = (lines[place] * chance.choice((2, 10, 1000)))[:MOST_BYTES] if len(lines[place]) < 4000 else b""
        else:
            line = bytearray(lines[place] or b" ")
            line[chance.randrange(len(line))] = chance.choice((chance.randrange(256), *b'0123456789-,:<>"= X\t'))
            lines[place] = bytes(line)
        lines = lines or [b""]
    return b"\n".join(lines)[:MOST_BYTES]


def by_hypothesis(seeds: Sequence[bytes], seconds: float, tally: Tally) -> None:
    """The property on texts of hypothesis's making, in rounds until the time is up."""
    from hypothesis import HealthCheck, given, seed, settings
    from hypothesis import strategies as st

    known = sorted({line for one in seeds for line in one.decode("utf-8", "replace").split("\n")})
    cells = st.sampled_from(sorted({cell for line in known for cell in line.split()}))
    line = st.sampled_from(known) | st.lists(cells, max_size=12).map("\t".join) | st.text(max_size=60)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:

        @seed(number)
        @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(line, max_size=40).map("\n".join))
        def one_round(text: str) -> None:
            if time.monotonic() < end:
                check(text.encode("utf-8", "surrogatepass"), tally)

        one_round()
        number += 1


def main() -> int:
    """Run; the exit code is 0 where the property held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seeds", type=Path, nargs="+", required=True, help="files or folders of captures")
    parser.add_argument("--engine", choices=["random", "hypothesis", "atheris"], default="random")
    parser.add_argument("--measurements", action="store_true")
    parser.add_argument("--random-seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failure.txt"))
    options = parser.parse_args()
    paths = [path for seed in options.seeds for path in (sorted(seed.iterdir()) if seed.is_dir() else [seed])]
    seeds = [path.read_bytes() for path in paths if path.is_file()]
    tally = Tally(read_measured if options.measurements else read_topology)
    if options.engine == "atheris":
        import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore] # not a dependency

        def one(data: bytes) -> None:
            check(data, tally)

        atheris.instrument_all()
        atheris.Setup([sys.argv[0], f"-max_total_time={int(options.seconds)}", "-max_len=20000", *map(str, options.seeds)], one)
        atheris.Fuzz()
        return 0
    if options.engine == "hypothesis":
        by_hypothesis(seeds, options.seconds, tally)
        sys.stdout.write(f"{tally}\n")
        return 0
    chance = random.Random(options.random_seed)  # noqa: S311 - repeatable, no secret
    end = time.monotonic() + options.seconds
    while time.monotonic() < end:
        data = mutated(chance.choice(seeds), seeds, chance)
        try:
            check(data, tally)
        except Exception:
            options.keep.write_bytes(data)
            sys.stderr.write(f"failed on {options.keep}; {tally}\n")
            raise
    sys.stdout.write(f"{tally}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
