"""A device's peak goes by its name, and is unknown rather than wrong."""

import pytest
import torch

from trainer.peaks import peak_flops, peak_of


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", 312e12), ("NVIDIA A100-PCIE-40GB", 312e12), ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12), ("NVIDIA H100 NVL", 835e12), ("NVIDIA H200", 989e12), ("NVIDIA GH200 480GB", 990e12),
        ("NVIDIA B200", 2250e12), ("NVIDIA L40S", 362e12), ("NVIDIA L4", 121e12), ("AMD Instinct MI300X", 1307.4e12),
        ("NVIDIA GeForce RTX 4090", 165.2e12), ("NVIDIA A1000 Laptop GPU", None), ("Tesla V100-SXM2-16GB", None), ("NVIDIA L40", None),
    ],
)  # fmt: skip
def test_the_peak_goes_by_the_whole_words_of_a_devices_name(name: str, peak: float | None) -> None:
    assert peak_of(name) == peak


def test_a_cpu_has_no_peak() -> None:
    assert peak_flops(torch.device("cpu")) is None
