"""What people paste instead of a topology, recognised by name."""

from __future__ import annotations

import re

from planner.errors import BadInput
from planner.readers import HOW_TO_CAPTURE, Refusal

_REFUSALS = (
    Refusal(
        re.compile(r"npu-smi|\bHCCS\b", re.IGNORECASE),
        "npu-smi output (Ascend NPUs)",
        "planner reads NVIDIA and AMD GPUs; write the machine as topology YAML",
    ),
    Refusal(re.compile(r"\balgbw\b"), "an nccl-tests result", f"{HOW_TO_CAPTURE}; a result corrects a topology, it is not one"),
    Refusal(
        re.compile(
            r"P2P Connectivity Matrix|P2P CLIQUE|P2P=(?:En|Dis)abled|Uni-?directional|nvbandwidth|memcpy (?:CE|SM|local)",
            re.IGNORECASE,
        ),
        "a bandwidth measurement",
        f"{HOW_TO_CAPTURE}; a measurement corrects a topology, it is not one",
    ),
    Refusal(
        re.compile(r"\bLinks? [0-9-]{1,7}: (?:(?:Replay|Recovery|CRC) Errors|No errors)"),
        "the output of nvidia-smi nvlink -e (error counters)",
        f"{HOW_TO_CAPTURE}, or that of 'nvidia-smi nvlink -s'",
    ),
    Refusal(
        re.compile(r"\bLink [0-9]{1,3}: (?:[0-9.]{1,12} GB/s|<inactive>|Remote Device )"),
        "the output of nvidia-smi nvlink without its lines 'GPU 0: …'",
        f"{HOW_TO_CAPTURE}, or all of what 'nvidia-smi nvlink -s' prints",
    ),
    Refusal(
        re.compile(r"Unable to determine the device handle for GPU"),
        "the message of a driver that does not reach a GPU",
        "look for 'Xid' in the kernel's log, bring the GPU back, then run 'nvidia-smi topo -m'",
    ),
    Refusal(re.compile(r"^\s*<\?xml|^\s*<[a-z]+\b", re.MULTILINE), "XML, but no NCCL topology with a GPU in it"),
    Refusal(re.compile(r"Could not collect"), "a report that says 'Could not collect'"),
)


def refuse(text: str, source: str) -> BadInput:
    """The refusal of a text that no reader recognises."""
    for refusal in _REFUSALS:
        if place := refusal.pattern.search(text):
            line = text.count("\n", 0, place.start()) + 1
            return BadInput(f"is {refusal.what}, not a link matrix", path=f"{source}, line {line}", hint=refusal.hint)
    return BadInput("holds no link matrix: no line starts with GPU0", path=f"{source}, line 1", hint=HOW_TO_CAPTURE)
