"""Which LLM, layer and pooling says most of what the complex prompt says beyond the text encoder, without training."""

from sur.analysis.probe.measure import probe
from sur.analysis.probe.results import Findings
from sur.config.probe import ProbeConfig

__all__ = ["Findings", "ProbeConfig", "probe"]
