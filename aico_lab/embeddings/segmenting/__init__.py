"""Group messages into segments by pauses and by coherence, and keep the segments up to date."""

from aico_lab.embeddings.segmenting.parameters import SEGMENTER, SegmentParameters
from aico_lab.embeddings.segmenting.writing import Segmented, is_current, update_segments

__all__ = ["SEGMENTER", "SegmentParameters", "Segmented", "is_current", "update_segments"]
