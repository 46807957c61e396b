"""The soak's estimator finds a leak in noise, and does not find one where there is none."""

from __future__ import annotations

import mmap
import xml.etree.ElementTree as ET
from pathlib import Path
from random import Random

import psutil
import pytest

from bench.soak.drawing import Line, Panel, draw
from bench.soak.samples import kind_of, resident_bytes
from bench.soak.slope import slope

SECONDS = [float(second) for second in range(1440)]


def memory(random: Random, *, megabytes_per_hour: float) -> list[float]:
    """Return simulated memory of an allocator: bursts above a rising floor."""
    level, values = 0.0, []
    for second in SECONDS:
        level = max(0.0, 0.9 * level + random.gauss(0, 1))
        values.append(100 + megabytes_per_hour * second / 3600 + level)
    return values


def test_memory_that_does_not_grow_stays_below_the_bound() -> None:
    bounds = [slope(SECONDS, memory(Random(seed), megabytes_per_hour=0)).upper for seed in range(40)]
    assert sum(bound < 5 for bound in bounds) >= 38


def test_a_leak_is_above_the_bound() -> None:
    bounds = [slope(SECONDS, memory(Random(seed), megabytes_per_hour=10)).upper for seed in range(40)]
    assert min(bounds) > 5


def test_the_interval_has_the_true_slope_nearly_always() -> None:
    slopes = [slope(SECONDS, memory(Random(seed), megabytes_per_hour=3)) for seed in range(200)]
    assert sum(each.lower <= 3 <= each.upper for each in slopes) >= 180


def test_a_single_step_in_the_middle_yields_a_wide_interval() -> None:
    values = [100.0 if second < 720 else 103.0 for second in SECONDS]
    estimate = slope(SECONDS, values)
    assert estimate.upper > 5
    assert estimate.lower < estimate.per_hour < estimate.upper


def test_too_short_a_series_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least"):
        slope(SECONDS[:60], [1.0] * 60)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("vilix:{s07}:limits:key_0123456789ab:settled:r1", "settled"),
        ("vilix:{s07}:limits:key_0123456789ab", "limits"),
        ("vilix:{s07}:usage", "usage stream"),
        ("vilix:{s07}:usage:key_0123456789ab:2026-11-28", "usage"),
        ("vilix:names", "names"),
    ],
)
def test_the_name_of_a_redis_key_yields_its_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_plot_is_well_formed_and_small() -> None:
    line = Line("gateway <1>", SECONDS, memory(Random(1), megabytes_per_hour=5))
    text = draw([Panel("Memory & more", [line] * 9)], warm_up_seconds=300)
    root = ET.fromstring(text)  # noqa: S314  # it is our own
    assert "gateway <1>" in [element.text for element in root.iter() if element.tag.endswith("text")]
    assert len(text) < 100_000


def test_resident_memory_counts_anonymous_pages_and_no_file_pages(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a" * 2**25)
    process = psutil.Process()
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before, whole = resident_bytes(process), process.memory_info().rss
        assert sum(mapped[::4096]) > 0
        assert process.memory_info().rss - whole > 2**24
        assert resident_bytes(process) - before < 2**23
        # A new private mapping: a bytearray might reuse pages that the allocator has kept.
        with mmap.mmap(-1, 2**25, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as anonymous:
            anonymous.write(b"a" * 2**25)
            assert resident_bytes(process) - before > 2**24
