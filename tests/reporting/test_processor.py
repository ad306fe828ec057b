"""What of a processor a run's environment.json says: kind, instruction sets, caches, threads."""

import os

import jax
import pytest

from mskjax.reporting import environment, processor

X86 = """\
processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz
stepping\t: 8
flags\t\t: fpu sse4_1 sse4_2 avx avx2 fma f16c smep avx512f avx512_bf16 amx_tile amx_bf16 rdseed

processor\t: 1
model name\t: another
"""
ARM = """\
processor\t: 0
Features\t: fp asimd evtstrm aes fphp asimdhp asimddp sve svebf16 bf16 i8mm
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""


def test_a_processor_of_x86():
    found = processor.of_cpuinfo(X86)
    assert found["model"] == "Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz"
    assert found["kind"] == {
        "vendor_id": "GenuineIntel", "cpu family": "6", "model": "143", "stepping": "8",
    }  # fmt: skip
    assert found["features"] == [
        "amx_bf16", "amx_tile", "avx", "avx2", "avx512_bf16", "avx512f", "f16c", "fma", "sse4_1",
        "sse4_2",
    ]  # fmt: skip


def test_a_processor_of_arm_has_no_name_but_numbers():
    found = processor.of_cpuinfo(ARM)
    assert found["model"]
    assert found["kind"] == {"CPU implementer": "0x41", "CPU part": "0xd40"}
    expected = ["asimd", "asimddp", "asimdhp", "bf16", "fphp", "i8mm", "sve", "svebf16"]
    assert found["features"] == expected


def test_a_processor_of_apple():
    found = processor.of_sysctl(
        {
            "machdep.cpu.brand_string": "Apple M2",
            "hw.cpufamily": "-634136515",
            "hw.l1dcachesize": "65536",
            "hw.l2cachesize": "4194304",
            "hw.optional.arm.FEAT_BF16": "1",
            "hw.optional.arm.FEAT_SME": "0",
            "hw.optional.AdvSIMD": "1",
            "kern.hostname": "somebody",
        }
    )
    assert found == {
        "model": "Apple M2",
        "kind": {"hw.cpufamily": "-634136515"},
        "features": ["AdvSIMD", "FEAT_BF16"],
        "caches": [65536, 4194304],
    }


def test_an_intel_processor_under_macos():
    found = processor.of_sysctl(
        {"machdep.cpu.features": "FPU SSE4.2 AVX1.0 FMA", "machdep.cpu.leaf7_features": "AVX2"}
    )
    assert found["features"] == ["avx2", "fma", "sse4_2"]


def test_threads_are_those_of_the_variable_or_of_the_cores(monkeypatch):
    monkeypatch.setenv("NPROC", "3")
    assert processor.threads() == 3
    monkeypatch.delenv("NPROC")
    assert 1 <= processor.threads() <= os.cpu_count()


def test_caches_are_read_without_those_of_instructions(tmp_path, monkeypatch):
    for number, (level, kind, size) in enumerate(
        [("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "1024K")]
    ):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, value in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{value}\n")
    monkeypatch.setattr(processor, "CACHES", tmp_path)
    assert processor.processor()["caches"] == [48 * 1024, 1024 * 1024]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ("--xla_dump_to=/home/somebody/x --xla_a=1", "--xla_dump_to=PATH --xla_a=1"),
        ("--xla_cpu_max_isa=AVX2", "--xla_cpu_max_isa=AVX2"),
    ],
)
def test_paths_in_flags_are_not_said(monkeypatch, flags, said):
    jax.devices()  # reads the flags once, and ends the process over one that it does not know
    monkeypatch.setenv("XLA_FLAGS", flags)
    monkeypatch.setenv("NPROC", "2")
    found = environment.environment()
    assert found["xla_flags"] == said
    assert found["variables"]["NPROC"] == "2"
