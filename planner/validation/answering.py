"""What the rows of a table lean on: models, machines and estimates, each remembered. Handed in, for they are the API's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from planner.core.model import ModelSpec
from planner.core.plan import Infeasible, Parallelism
from planner.core.topology import Topology
from planner.core.workload import Workload
from planner.documents.tables import TableRow
from planner.errors import BadInput, named_once
from planner.machines import load_topology
from planner.search.rank import Ranked


class LoadModel(Protocol):
    """:func:`planner.api.load_model`."""

    def __call__(self, reference: str, *, quant: str | None = None) -> ModelSpec:
        """The model of a name. Raises ``BadInput``."""
        ...


Price = Callable[[ModelSpec, Topology, Workload, Parallelism, str, str, float], Ranked | Infeasible]
"""One configuration, placed as well as can be, on an engine of a release (its newest where that is empty), with a share of the memory
(0: what it takes by itself).
"""
MOST_MEMORY = 0.96
"""The share of a GPU's memory that benchmarks go up to where a model would not fit otherwise."""

ENGINES = {"vllm": "vllm", "trtllm": "tensorrt-llm", "tensorrt": "tensorrt-llm", "sglang": "sglang", "tgi": "tgi"}
"""Engines by how tables of measurements start their names."""

FORMATS = {
    "": None,
    "bf16": None,
    "bfloat16": None,
    "fp16": None,
    "fp8": "fp8",
    "fp8_block": "fp8-block",
    "nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "int8": "int8",
    "int8-w8a8": "int8",
    "awq-int4": "awq",
    "bnb-4bit": "bnb-4bit",
    "int4": "awq",
    "int4-wo": "awq",
    "gptq-int4-w4a16": "gptq",
}
"""Weight formats by how tables of measurements call them; none where the checkpoint's own is meant."""


PLAIN_NAMES = {"llama 7b": "llama-2-7b", "llama 13b": "llama-2-13b", "llama 70b": "llama-2-70b"}
"""Models that tables name without their generation, as the catalogue has them: Llama 1 and 2 share 7B and 13B, only 2 has a 70B."""
_CACHED_IN_8_BITS = frozenset({"fp8", "nvfp4"})


@dataclass
class Library:
    """Models and machines by name, or why there are none."""

    load_model: LoadModel
    price: Price
    _models: dict[tuple[str, str], ModelSpec | str] = field(default_factory=dict)
    _machines: dict[str, Topology | str] = field(default_factory=dict)

    def model(self, name: str, quant: str) -> ModelSpec | str:
        """A model as a table names it and its weights, or why there is none."""
        key = name, quant
        if key not in self._models:
            self._models[key] = self._load(name, quant)
        return self._models[key]

    def _load(self, name: str, quant: str) -> ModelSpec | str:
        if quant not in FORMATS:
            return f"weights in {quant!r} are not known"
        wanted = FORMATS[quant]
        try:
            known = self._known_as(name, wanted)
            own = self.load_model(known)
            # what a table calls fp8 may be the checkpoint's own blocks of it
            if wanted is None or own.checkpoint_format.name.startswith(wanted):
                return own
            chosen = self.load_model(known, quant=wanted)
            # such checkpoints come with scales for a cache in 8 bits, and engines use them
            return replace(chosen, kv_element_bytes=1) if wanted in _CACHED_IN_8_BITS else chosen
        except BadInput as error:
            return named_once("model", name, error.problem)

    def _known_as(self, name: str, wanted: str | None) -> str:
        """What a model is loaded by: a checkpoint that is not known of itself is its model in the format at the end of its name,
        where the row says the same of its weights (``nvidia/DeepSeek-R1-NVFP4``, nvfp4).
        """
        name = PLAIN_NAMES.get(name.lower(), name)
        model, _, suffix = name.rpartition("/")[2].rpartition("-")
        if not model or wanted is None or FORMATS.get(suffix.lower()) != wanted:
            return name
        for one in (name, model):
            try:
                self.load_model(one)
            except BadInput:
                continue
            return one
        return name

    def kind_of(self, cells: Mapping[str, str]) -> str:
        """``dense`` or ``moe`` (a mixture of experts), by the model of a row; empty where there is none."""
        model = self.model(cells.get("model", "").strip(), cells.get("quant", "").strip())
        return "" if isinstance(model, str) else "moe" if model.experts else "dense"

    def estimate(
        self, model: ModelSpec, topology: Topology, workload: Workload, degrees: Parallelism, engine: str
    ) -> Ranked | Infeasible:
        """What a run that was measured is predicted to do, however long its requests, by an engine as tables name it with its release.

        Those who publish runs of weights in 8 bits or fewer keep the cache in 8 bits as well, and give a model that hardly fits more
        memory than engines take by themselves. Raises ``BadInput``.
        """
        model = served_beyond(model, workload.total_tokens)
        if model.weight_format.math in {"fp8", "fp4"}:
            model = replace(model, kv_element_bytes=1)
        asked = model, topology, workload, degrees, engine_of(engine) or engine, release_of(engine)
        found = self.price(*asked, 0.0)
        return self.price(*asked, MOST_MEMORY) if isinstance(found, Infeasible) and found.rule == "memory" else found

    def machine(self, reference: str) -> Topology | str:
        """A machine as a table names it, or why there is none."""
        if reference not in self._machines:
            try:
                self._machines[reference] = load_topology(reference)
            except BadInput as error:
                self._machines[reference] = named_once("topology", reference, error.problem)
        return self._machines[reference]


def served_beyond(model: ModelSpec, tokens: int) -> ModelSpec:
    """The model as a benchmark serves it with requests of ``tokens`` that go beyond the positions it was trained for.

    A measured run is proof that it ran, and rotary tables can be made as long as they are asked for. A table of learned positions
    cannot: such a model stays as it is.
    """
    if tokens <= model.max_positions or model.learned_positions:
        return model
    tables = tuple((max(rows, tokens), size) for rows, size in model.rope_tables)
    return replace(model, max_positions=tokens, rope_tables=tables)


def engine_of(text: str) -> str | None:
    """The engine a table means by ``vllm-0.19.0`` or ``trtllm-1.0``; ``None`` for one that is not planned for."""
    return ENGINES.get(text.split("-", maxsplit=1)[0].split("(", maxsplit=1)[0].lower())


def release_of(text: str) -> str:
    """The release of an engine in ``vllm-0.19.0``; empty where a table does not say.

    >>> release_of("trtllm-1.0.0rc3"), release_of("sglang-unversioned"), release_of("vllm")
    ('1.0.0rc3', '', '')
    """
    said = text.partition("-")[2]
    return said if said[:1].isdecimal() else ""


def degrees_of(row: TableRow) -> Parallelism:
    """The parallelism of a row; a cell that is empty means 1."""
    return Parallelism(*(row.count(name, 1) for name in ("tp", "pp", "dp", "ep")))
