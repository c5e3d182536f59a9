import os
import subprocess
import sys
import time

import pytest

from benchmarks import machine


def test_machine_is_described_with_its_versions() -> None:
    description = machine.describe()
    assert "core(s)" in description["processor"]
    assert description["memory"].endswith(" GB")
    assert description["openvino"].startswith("20")
    assert all(description.values())


@pytest.mark.parametrize(
    ("maker", "flags", "kind", "amx"),
    [
        ("GenuineIntel", "avx2 avx512f avx512_bf16 amx_tile amx_int8", "Intel with AMX", True),
        (
            "AuthenticAMD",
            "avx2 avx512f avx512_vnni avx512_bf16",
            "AMD with AVX-512 and bfloat16",
            False,
        ),
        ("GenuineIntel", "avx2 avx512f avx512_vnni", "Intel with AVX-512 and VNNI", False),
        ("AuthenticAMD", "sse4_2 avx2", "AMD with AVX2", False),
    ],
)
def test_kind_is_the_maker_and_the_widest_instructions(
    monkeypatch: pytest.MonkeyPatch, maker: str, flags: str, kind: str, amx: bool
) -> None:
    monkeypatch.setattr(machine, "_field", lambda path, name: {"vendor_id": maker}[name])
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset(flags.split()))

    assert machine.kind() == kind
    assert machine.has_amx() is amx


def test_others_are_who_is_neither_this_process_nor_its_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ticks = iter([(1000, 5000), (1400, 6000)])
    seconds = iter([10.0, 11.0])
    monkeypatch.setattr(machine, "_ticks", lambda: next(ticks))
    monkeypatch.setattr(machine, "_own_seconds", lambda: next(seconds))
    monkeypatch.setattr(os, "sysconf", lambda _: 100)

    assert machine.Others().share == pytest.approx((400 - 100) / 1000)


def test_a_childs_work_counts_as_own() -> None:
    program = "import time\nsum(range(10_000_000))\nprint(time.process_time())"
    before, own = machine._own_seconds(), time.process_time()

    child = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE)

    child_s = machine._own_seconds() - before - (time.process_time() - own)
    assert child_s >= float(child.stdout) - 0.02  # the resolution of the kernel's counters


def test_busy_ticks_are_part_of_all() -> None:
    busy, total = machine._ticks()
    assert 0 < busy < total
