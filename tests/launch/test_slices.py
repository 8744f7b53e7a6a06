"""A slice's names on GKE and on Cloud TPU, and its hosts."""

from errors import LaunchError
import pytest
import slices

# accelerator, hosts, chips of a host, accelerator type, runtime
TABLE = {
    "v4:2x2x1": ("tpu-v4-podslice", 1, 4, "v4-8", "tpu-ubuntu2204-base"),
    "v4:4x4x4": ("tpu-v4-podslice", 16, 4, "v4-128", "tpu-ubuntu2204-base"),
    "v4:8x16x16": ("tpu-v4-podslice", 512, 4, "v4-4096", "tpu-ubuntu2204-base"),
    "v5e:1x1": ("tpu-v5-lite-podslice", 1, 1, "v5litepod-1", "v2-alpha-tpuv5-lite"),
    "v5e:2x2": ("tpu-v5-lite-podslice", 1, 4, "v5litepod-4", "v2-alpha-tpuv5-lite"),
    "v5e:2x4": ("tpu-v5-lite-podslice", 1, 8, "v5litepod-8", "v2-alpha-tpuv5-lite"),
    "v5e:4x4": ("tpu-v5-lite-podslice", 4, 4, "v5litepod-16", "v2-alpha-tpuv5-lite"),
    "v5e:16x16": ("tpu-v5-lite-podslice", 64, 4, "v5litepod-256", "v2-alpha-tpuv5-lite"),
    "v5p:2x2x1": ("tpu-v5p-slice", 1, 4, "v5p-8", "v2-alpha-tpuv5"),
    "v5p:2x2x2": ("tpu-v5p-slice", 2, 4, "v5p-16", "v2-alpha-tpuv5"),
    "v5p:4x4x4": ("tpu-v5p-slice", 16, 4, "v5p-128", "v2-alpha-tpuv5"),
    "v5p:4x4x12": ("tpu-v5p-slice", 48, 4, "", "v2-alpha-tpuv5"),
    "v5p:16x16x24": ("tpu-v5p-slice", 1536, 4, "", "v2-alpha-tpuv5"),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_slice(name):
  accelerator, hosts, chips, kind, runtime = TABLE[name]
  assert slices.read(name) == slices.Slice(accelerator, name.split(":")[1], hosts, chips, kind, runtime)


@pytest.mark.parametrize("name", [
    "v5e:3x5", "v5e:4x2", "v5e:32x32", "v5e:4x4x4", "v5e:", "v5e", "v5e:4X4", "v4:5x4x4", "v4:4x4", "v4:2x2x8", "v4:4x8x4",
    "v4:16x16x20", "v4:4x4x04", "v4:4x4x4x", "v5p:4x4x6", "v5p:0x4x4", "v5p:16x24x24", "v5p:4x4x٤"])
def test_a_topology_that_does_not_exist(name):
  with pytest.raises(LaunchError, match=f"--tpu={name}: .* has no topology .*; it has "):
    slices.read(name)


@pytest.mark.parametrize("name", ["v6e:4x4", "4x4", "", "V4:4x4x4"])
def test_a_tpu_that_is_not_known(name):
  with pytest.raises(LaunchError, match="is none of v4, v5e, v5p"):
    slices.read(name)
