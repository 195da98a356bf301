"""Which LLM, layer and pooling says most of what the complex prompt says beyond the text encoder, without training."""

from sur.probe.config import ProbeConfig
from sur.probe.measure import probe
from sur.probe.results import Findings

__all__ = ["Findings", "ProbeConfig", "probe"]
