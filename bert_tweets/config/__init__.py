"""The settings of all stages, as typed dataclasses whose fields carry a description, unit, choices and bounds.

`parser.py` fills them from YAML files and `key=value` arguments, and prints them for `--help`. Fields declare how a
single value is validated (type, choices, bounds); the method `problems` reports conflicts between settings.
"""

from .fields import PERIODS, Settings
from .prepare import FilterConfig, InspectConfig, NearConfig, PrepareConfig, VerifyConfig
from .train import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig, ScratchConfig, TrainConfig
from .words import (
    AnalyzeConfig,
    DemoConfig,
    DoctorConfig,
    EmbedConfig,
    EvaluateConfig,
    ExportConfig,
    MeaningTestConfig,
    ReportConfig,
    RunConfig,
)

__all__ = ["PERIODS", "Settings"]
__all__ += ["FilterConfig", "InspectConfig", "NearConfig", "PrepareConfig", "VerifyConfig"]
__all__ += ["DataConfig", "ModelConfig", "OptimizerConfig", "ScheduleConfig", "ScratchConfig", "TrainConfig"]
__all__ += ["AnalyzeConfig", "DemoConfig", "DoctorConfig", "EmbedConfig", "EvaluateConfig", "ExportConfig"]
__all__ += ["MeaningTestConfig", "ReportConfig", "RunConfig"]
