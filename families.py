"""What a package needs that adds a family of models: `from penstock.families import ...` (docs/add-a-family.md).

The names here are public: they stay, and a change of what they do has a line in CHANGELOG.md. It loads torch and
transformers; `import penstock` alone does not.
"""

from __future__ import annotations

from .engine.embeddings import Embeddings, EncodedPrompt, EncodedSpan, Features
from .engine.families.one_axis import OneAxisTowers, load_one_axis
from .engine.families.opened import open_model
from .engine.families.text import load as load_text
from .engine.families.towers import ATTENTION, PictureTowers, open_sight
from .engine.family import Family, FamilyData, Loaded, Towers
from .engine.runner.gate import tower_pass
from .engine.words.template import learn
from .streams.segment import AudioSegment, ImageSegment, MediaSpec, RowSpec, Segment, SizeRule, VideoSegment

__all__ = (
    "ATTENTION",
    "AudioSegment",
    "Embeddings",
    "EncodedPrompt",
    "EncodedSpan",
    "Family",
    "FamilyData",
    "Features",
    "ImageSegment",
    "Loaded",
    "MediaSpec",
    "OneAxisTowers",
    "PictureTowers",
    "RowSpec",
    "Segment",
    "SizeRule",
    "Towers",
    "VideoSegment",
    "learn",
    "load_one_axis",
    "load_text",
    "open_model",
    "open_sight",
    "tower_pass",
)
