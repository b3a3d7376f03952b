import torch

from scoremri_core.priors.precision import fastest_precision, mixed_precision

CPU = torch.device("cpu")


def test_a_gpu_computes_in_bfloat16():
    assert fastest_precision(torch.device("cuda")) == torch.bfloat16


def test_a_cpu_that_emulates_bfloat16_computes_in_float32(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    for supported, precision in ((False, torch.float32), (True, torch.bfloat16)):
        fastest_precision.cache_clear()
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(
                torch.cpu, name, lambda supported=supported: supported, raising=False
            )
        assert fastest_precision(CPU) == precision
        with mixed_precision(CPU):
            product = torch.ones(2, 2) @ torch.ones(2, 2)
        assert product.dtype == precision
    fastest_precision.cache_clear()
