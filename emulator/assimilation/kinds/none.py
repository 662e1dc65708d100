"""No analysis: the cycle is a free run, which every other kind has to beat."""

import dataclasses
from typing import Literal

from emulator.assimilation.kinds.registry import assimilation
from emulator.assimilation.window import Analysis, Window
from emulator.options import Options, option


@dataclasses.dataclass(frozen=True)
class NoneOptions(Options):
    """The background as it is."""

    kind: Literal["none"] = option("none")


@assimilation("none", NoneOptions)
class FreeRun:
    """The background as it is; observations are only compared with it."""

    ensemble, static, several_times = False, False, True

    def __init__(self, options: NoneOptions):
        pass

    def analyse(self, window: Window) -> Analysis:
        return Analysis(window.background)
