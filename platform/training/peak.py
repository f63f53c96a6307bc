"""What a GPU can do at most, by its data sheet: the denominator of model-FLOPs utilisation. Needs nothing but torch."""

from __future__ import annotations

import re

import torch

# Dense products of 16-bit matrices summed in float32, in TFLOP/s: (bfloat16, float16). Data sheets that give "with
# sparsity" are halved. The first pattern that is found in the device's name counts, so the narrower stand above.
_PEAK_TFLOPS: tuple[tuple[str, float | None, float], ...] = (
    # NVIDIA HGX B200 data sheet: 36 PFLOP/s with sparsity, of eight.
    (r"\bB200\b", 2250.0, 2250.0),
    # NVIDIA H200 data sheet: 1,671 (NVL) and 1,979 (SXM) with sparsity.
    (r"\bH200 NVL\b", 835.5, 835.5),
    (r"\bG?H200\b", 989.5, 989.5),
    # NVIDIA H100 data sheet: 1,513 (PCIe), 1,671 (NVL) and 1,979 (SXM) with sparsity.
    (r"\bH100 PCIe\b", 756.5, 756.5),
    (r"\bH100 NVL\b", 835.5, 835.5),
    (r"\bH100 (80GB HBM3|SXM)", 989.5, 989.5),
    # NVIDIA A100 data sheet: 312, or 624 with sparsity, in all its forms.
    (r"\bA100\b", 312.0, 312.0),
    # NVIDIA A10, A40, L4, L40 and L40S data sheets, and the RTX A6000's.
    (r"\bA10\b", 125.0, 125.0),
    (r"\bA40\b", 149.7, 149.7),
    (r"\bRTX A6000\b", 154.8, 154.8),
    (r"\bL4\b", 121.0, 121.0),
    (r"\bL40\b", 181.05, 181.05),
    (r"\bL40S\b", 362.05, 362.05),
    # NVIDIA V100 and T4 data sheets. Their tensor cores take no bfloat16.
    (r"\bV100S-PCIE", None, 130.0),
    (r"\bV100-PCIE", None, 112.0),
    (r"\bV100-SXM", None, 125.0),
    (r"\bT4\b", None, 65.0),
    # NVIDIA Ada and Ampere GA102 white papers: "FP16 tensor TFLOPS with FP32 accumulate", which is what torch does.
    (r"\bRTX 4090$", 165.2, 165.2),
    (r"\bRTX 3090$", 71.0, 71.0),
    # AMD Instinct MI300X data sheet.
    (r"\bMI300X\b", 1307.4, 1307.4),
)


def peak_flops(device_name: str, dtype: torch.dtype) -> float | None:
    """FLOP/s of dense matrix products in `dtype`, of a device by the name that torch.cuda.get_device_name() gives.

    None where it is not known, or the device has no units for it: a guessed utilisation would be worse than none. So
    for other dtypes than bfloat16 and float16, for CPUs, and for parts of a GPU (MIG).
    """
    if dtype not in (torch.bfloat16, torch.float16) or "MIG" in device_name:
        return None
    for pattern, bfloat16, float16 in _PEAK_TFLOPS:
        if re.search(pattern, device_name):
            tflops = bfloat16 if dtype == torch.bfloat16 else float16
            return None if tflops is None else tflops * 1e12
    return None
