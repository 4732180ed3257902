"""What people paste instead of a topology, recognised by name."""

from __future__ import annotations

import re

from planner.errors import BadInput
from planner.readers import HOW_TO_CAPTURE, Refusal

_FAR = 500_000
"""Characters in which a text shows what it is."""
_REFUSALS = (
    Refusal(
        re.compile(r"npu-smi|\bHCCS\b", re.IGNORECASE),
        "npu-smi output (Ascend NPUs)",
        "planner reads NVIDIA and AMD GPUs; write the machine as topology YAML",
    ),
    Refusal(
        re.compile(r"\balgbw\b|\bbusbw\b|Avg bus bandwidth|^# nThread ", re.MULTILINE),
        "an nccl-tests result",
        f"it corrects a topology: 'planner calibrate --topology BOX FILE'; for the topology {HOW_TO_CAPTURE}",
    ),
    Refusal(
        re.compile(
            r"P2P Connectivity Matrix|P2P CLIQUE|P2P=(?:En|Dis)abled|Uni-?directional|nvbandwidth|memcpy (?:CE|SM|local)",
            re.IGNORECASE,
        ),
        "a bandwidth measurement",
        f"it corrects a topology: 'planner calibrate --topology BOX FILE'; for the topology {HOW_TO_CAPTURE}",
    ),
    Refusal(
        re.compile(r"\bLinks? [0-9-]{1,7}: (?:(?:Replay|Recovery|CRC) Errors|No errors)"),
        "the output of nvidia-smi nvlink -e (error counters)",
        f"{HOW_TO_CAPTURE}, or that of 'nvidia-smi nvlink -s'",
    ),
    Refusal(
        re.compile(r"\bLink [0-9]{1,3}(?:, |: (?![0-9.]{1,12} GB/s|<inactive>|Remote Device ))|\bLink\((?:Data|Raw)"),
        "the output of nvidia-smi nvlink with another option than -s (capabilities, counters)",
        f"{HOW_TO_CAPTURE}, or that of 'nvidia-smi nvlink -s'",
    ),
    Refusal(
        re.compile(r"Unable to retrieve NVLink information", re.IGNORECASE),
        "NVML's message that no NVLink is up, without the GPUs it is about",
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
    Refusal(
        re.compile(
            r"(?:nvidia|rocm|amd)-smi\S*[: ]{1,3}(?:command )?not found|command not found: (?:nvidia|rocm|amd)-smi|'nvidia-smi' is not recog"
        ),
        "a shell's message that a program is missing",
        "run 'nvidia-smi topo -m' (AMD: 'rocm-smi --showtopo') on the GPU host and pass its text",
    ),
    Refusal(
        re.compile(
            r"couldn't communicate with the NVIDIA driver|Failed to initialize NVML|No devices were found|Driver not initialized",
            re.IGNORECASE,
        ),
        "the message of a driver that is not loaded or has no GPU",
        "bring the driver up (is this the GPU host, the container started with its GPUs?), then run 'nvidia-smi topo -m'",
    ),
    Refusal(
        re.compile(r"^[^\w\n]{0,8}(?:GPU: [0-9]{1,3}\s{1,20}(?:BDF|ASIC):|LINK METRIC TABLE:)", re.MULTILINE),
        "the output of another command of amd-smi",
        "run 'amd-smi topology' (or 'rocm-smi --showtopo') and pass its text",
    ),
    Refusal(
        re.compile(r"<nvidia_smi_log>"),
        "the XML of 'nvidia-smi -q -x'",
        "pass the text of 'nvidia-smi -q', without -x, and that of 'nvidia-smi topo -m'",
    ),
    Refusal(
        re.compile(r"^[^\w\n]{0,4}(?:[0-9]{1,3}, {0,2})?(?:NVIDIA|Tesla|Quadro|GRID) [^\n,]{1,60}, {0,2}\S", re.MULTILINE),
        "the CSV of nvidia-smi without its header line",
        f"leave 'noheader' out; and {HOW_TO_CAPTURE}",
    ),
    Refusal(re.compile(r"^[ \t]{0,99}<(?:\?xml|[a-z]+\b)", re.MULTILINE), "XML, but no NCCL topology with a GPU in it"),
    Refusal(re.compile(r"Could not collect"), "a report that says 'Could not collect'"),
)

_BANNER = re.compile(
    r"^[^\w\n]{0,8}(npu-smi|HL-SMI|mx-smi|mthreads-gmi|ixsmi|IX-ML|XPU-SMI|cnmon|neuron-ls|tpu-info)(?:[ :]{1,4}v?(?:[Vv]ersion|[0-9])|: )",
    re.MULTILINE | re.IGNORECASE,
)
"""The first line of what another maker's program prints; some of them go on as nvidia-smi does."""


def refuse_other_maker(text: str, source: str) -> BadInput | None:
    """The refusal of what a program for accelerators of another maker printed; ``None`` where none did."""
    banner = _BANNER.search(text, 0, _FAR)
    if banner is None:
        return None
    line = text.count("\n", 0, banner.start(1)) + 1
    hint = "planner reads NVIDIA and AMD GPUs; write the machine as topology YAML"
    return BadInput(
        f"is {banner[1]} output, of accelerators that planner does not know", path=f"{source}, line {line}", hint=hint
    )


def refuse(text: str, source: str) -> BadInput:
    """The refusal of a text that no reader recognises."""
    for refusal in _REFUSALS:
        if place := refusal.pattern.search(text, 0, _FAR):
            line = text.count("\n", 0, place.start()) + 1
            return BadInput(f"is {refusal.what}, not a link matrix", path=f"{source}, line {line}", hint=refusal.hint)
    return BadInput("holds no link matrix: no line starts with GPU0", path=f"{source}, line 1", hint=HOW_TO_CAPTURE)
