"""The guard for torchaudio and torchvision, each case in a process of its own."""

from __future__ import annotations

import subprocess
import sys
import textwrap

_BROKEN = """
import importlib, sys
def broken(name):
    try:
        importlib.import_module(name)
        return False
    except (OSError, ImportError, RuntimeError):
        return True
print(sorted(name for name in ("torchaudio", "torchvision") if broken(name)))
"""


def python(code: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def test_transformers_works_after_mending() -> None:
    python(
        """
        from penstock.codecs.wheels import mend_wheels
        mend_wheels()
        import numpy as np, torch, torchaudio, torchvision
        from transformers import Qwen2_5OmniProcessor, Qwen2VLVideoProcessor, WhisperFeatureExtractor
        features = WhisperFeatureExtractor(feature_size=128)(np.ones(1600, np.float32), sampling_rate=16000)
        assert np.isfinite(features["input_features"][0]).all()
        video = np.zeros((4, 56, 56, 3), np.uint8)
        out = Qwen2VLVideoProcessor(cap_pixels_per_frame=False)(videos=[video], return_tensors="pt")
        assert out["pixel_values_videos"].shape[0] == out["video_grid_thw"].prod()
        assert torchaudio.functional.resample(torch.ones(480), 48000, 16000).shape == (160,)
        """
    )


def test_mends_what_is_broken_and_only_that_and_says_so_once() -> None:
    broken = python(_BROKEN).stdout
    done = python(
        """
        import logging
        logging.basicConfig(format="LOG %(message)s")
        from penstock.codecs.wheels import mend_wheels
        names = mend_wheels()
        assert mend_wheels() == names
        print(names)
        """
    )
    assert done.stdout == broken
    said = [line for line in done.stderr.splitlines() if line.startswith("LOG")]
    assert [line.split()[1].rstrip(":") for line in said] == eval(broken)


def test_leaves_a_loaded_package_alone() -> None:
    python(
        """
        import sys, types
        for name in ("torchaudio", "torchvision"):
            sys.modules[name] = types.ModuleType(name)
        before = dict(sys.modules)
        from penstock.codecs.wheels import mend_wheels
        assert mend_wheels() == []
        assert "torch" not in sys.modules
        assert all(sys.modules[name] is before[name] for name in ("torchaudio", "torchvision"))
        """
    )


def test_harmless_where_the_packages_are_absent() -> None:
    python(
        """
        import importlib.util, sys
        found = importlib.util.find_spec
        importlib.util.find_spec = lambda name, *rest: None if name.startswith("torch") else found(name, *rest)
        from penstock.codecs.wheels import mend_wheels
        assert mend_wheels() == [] and "torch" not in sys.modules
        """
    )


def test_decoders_load_no_torch() -> None:
    python(
        """
        import sys
        import penstock.codecs, penstock.codecs.container, penstock.codecs.pcm, penstock.codecs.picture
        import penstock.codecs.resample, penstock.codecs.wheels, penstock.codecs.worker
        assert not {"torch", "torchaudio", "torchvision", "transformers", "asyncio"} & set(sys.modules)
        """
    )
