"""What devices can compute at most, so that a run can say which share of it the model's arithmetic reached."""

import torch

# Dense peak in bfloat16 with float32 accumulation, operations per second, from the makers' data sheets. Where a sheet states
# the rate with structured sparsity, half of it. The first name that the device's name holds counts, so variants come first.
PEAKS: dict[str, float] = {
    "H100 PCIe": 756e12,  # NVIDIA H100 data sheet, 2023: 1,513 sparse
    "H100 NVL": 835e12,  # NVIDIA H100 NVL data sheet: 1,671 sparse
    "H100": 989e12,  # SXM5, NVIDIA H100 data sheet: 1,979 sparse; PyTorch calls it "NVIDIA H100 80GB HBM3"
    "H800": 989e12,  # H100 SXM5 with slower links
    "H200 NVL": 835e12,  # NVIDIA H200 data sheet: 1,671 sparse
    "H200": 989e12,  # SXM, NVIDIA H200 data sheet: 1,979 sparse
    "GH200": 990e12,  # NVIDIA GH200 data sheet: 1,979 sparse
    "GB200": 2500e12,  # NVIDIA GB200 NVL72 data sheet: 5,000 sparse per GPU
    "B200": 2250e12,  # NVIDIA HGX B200 data sheet: 4,500 sparse per GPU
    "A100": 312e12,  # NVIDIA A100 data sheet, PCIe and SXM alike
    "A800": 312e12,  # A100 with slower links
    "A40": 149.7e12,  # NVIDIA A40 data sheet
    "A10": 125e12,  # NVIDIA A10 data sheet
    "L40S": 362e12,  # NVIDIA L40S data sheet
    "L4": 121e12,  # NVIDIA L4 data sheet: 242 sparse
    "RTX 4090": 165.2e12,  # NVIDIA Ada GPU architecture white paper, appendix A
    "RTX 3090": 71e12,  # NVIDIA Ampere GA102 white paper
    "MI250X": 191.5e12,  # AMD CDNA 2 white paper: 383 per card of two devices
    "MI300X": 1307.4e12,  # AMD Instinct MI300X data sheet
    "MI325X": 1307.4e12,  # AMD Instinct MI325X data sheet
}


def peak_flops(device: torch.device) -> float | None:
    """The device's peak in operations per second, for utilisation; None if it is a CPU or not in the table.

    Not run on a GPU yet.
    """
    if device.type != "cuda":
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """The same for a device of this name, such as "NVIDIA A100-SXM4-80GB"."""
    words = name.replace("-", " ").replace("_", " ").split()
    for known, peak in PEAKS.items():
        parts = known.split()
        if any(words[start : start + len(parts)] == parts for start in range(len(words))):
            return peak
    return None
