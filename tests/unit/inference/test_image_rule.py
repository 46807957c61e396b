"""Sizes and token counts equal those of the checkpoints' own image processors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vilix.inference.v1 import inference_service_pb2 as pb

from services.inference.model.catalog import ImagesSpec, load_model
from services.inference.model.image_rule import AspectRatioError, ImageRule

NOWHERE = Path("/nonexistent")
AUTO, LOW, HIGH = pb.IMAGE_DETAIL_AUTO, pb.IMAGE_DETAIL_LOW, pb.IMAGE_DETAIL_HIGH


def rule(model: str, directory: Path = NOWHERE) -> ImageRule:
    spec = load_model(model).images
    assert spec is not None
    return ImageRule.load(spec, directory)


@pytest.mark.parametrize(
    ("model", "size", "detail", "seen", "tokens"),
    [
        # 640/28 = 22.86 → 23, 480/28 = 17.14 → 17.
        ("qwen2.5vl", (640, 480), AUTO, (644, 476), 23 * 17),
        # 640/32 = 20, 480/32 = 15.
        ("qwen3-vl", (640, 480), AUTO, (640, 480), 20 * 15),
        # Halves are rounded to even: 48/32 = 1.5 → 2, 80/32 = 2.5 → 2; 4096 pixels are fewer than 65536, so
        # scale = √(65536/3840) = 4.1312: 48 · 4.1312/32 = 6.20 → 7, 80 · 4.1312/32 = 10.33 → 11.
        ("qwen3-vl", (48, 80), AUTO, (224, 352), 7 * 11),
        # √(3136/1) = 56.
        ("qwen2.5vl", (1, 1), AUTO, (56, 56), 4),
        # 12.2 million pixels; 2048 tokens are 2048 · 1024 pixels, √(12192768/2097152) = 2.41122:
        # 4032/2.41122/32 = 52.26 → 52, 3024/2.41122/32 = 39.19 → 39.
        ("qwen3-vl", (4032, 3024), AUTO, (1664, 1248), 52 * 39),
        # 256 · 1024 pixels, √(12192768/262144) = 6.81994: 18.47 → 18, 13.86 → 13.
        ("qwen3-vl", (4032, 3024), LOW, (576, 416), 18 * 13),
        # 8192 · 1024 pixels, √(12192768/8388608) = 1.20561: 104.51 → 104, 78.38 → 78.
        ("qwen3-vl", (4032, 3024), HIGH, (3328, 2496), 104 * 78),
        ("qwen3-vl", (4032, 3024), pb.IMAGE_DETAIL_UNSPECIFIED, (1664, 1248), 52 * 39),
        # 536 · 28 by 4 · 28 would be too many; √(1500000/1605632) = 0.96655: 554.3 → 554, 3.69 → 3.
        ("qwen2.5vl", (15000, 100), AUTO, (15512, 84), 554 * 3),
        # 5615/28 = 200.54 would become 201 times 28, which the checkpoint's processor rejects.
        ("qwen2.5vl", (29, 5615), AUTO, (28, 5600), 200),
    ],
)
def test_an_image_is_resized_and_counted_as_its_model_does(
    model: str, size: tuple[int, int], detail: pb.ImageDetail.ValueType, seen: tuple[int, int], tokens: int
) -> None:
    found = rule(model)
    assert found.size(*size, detail) == seen
    assert found.token_count(seen) == tokens


@pytest.mark.parametrize("model", ["qwen3-vl", "qwen2.5vl"])
@given(width=st.integers(1, 20_000), height=st.integers(1, 20_000), detail=st.sampled_from([AUTO, LOW, HIGH]))
def test_the_checkpoints_own_resizing_does_not_change_the_size(
    model: str, width: int, height: int, detail: pb.ImageDetail.ValueType
) -> None:
    """The engine resizes again, by the checkpoint's bounds only, which must not change the worker's size."""
    found = rule(model)
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(AspectRatioError):
            found.size(width, height, detail)
        return
    seen = found.size(width, height, detail)
    assert all(side % found.factor == 0 and side for side in seen)
    assert found.min_pixels <= seen[0] * seen[1] <= found.max_pixels
    unbounded = ImageRule(found.placeholder, found.factor, found.min_pixels, found.max_pixels, {AUTO: 10**9})
    assert unbounded.size(*seen, AUTO) == seen


@pytest.mark.parametrize(
    ("configuration", "least", "most", "factor"),
    [
        ({"min_pixels": 6272, "max_pixels": 1003520, "patch_size": 14, "merge_size": 2}, 6272, 1003520, 28),
        ({"size": {"shortest_edge": 4096, "longest_edge": 999424}, "patch_size": 16}, 4096, 999424, 32),
        ({}, 65536, 16777216, 32),
    ],
)
def test_the_checkpoints_configuration_overrides_the_catalog(
    tmp_path: Path, configuration: dict[str, object], least: int, most: int, factor: int
) -> None:
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(configuration))
    found = rule("qwen3-vl", tmp_path)
    assert (found.min_pixels, found.max_pixels, found.factor) == (least, most, factor)
    width, height = found.size(9_000, 9_000, HIGH)
    assert width * height <= most


@pytest.mark.parametrize("text", ["[]", "{", '{"patch_size": "a"}', '{"min_pixels": 10, "max_pixels": 5}'])
def test_an_impossible_configuration_is_rejected(tmp_path: Path, text: str) -> None:
    (tmp_path / "preprocessor_config.json").write_text(text)
    with pytest.raises(ValueError, match=r"preprocessor_config\.json"):
        ImageRule.load(ImagesSpec(patch_size=14, min_pixels=1, max_pixels=100), tmp_path)
