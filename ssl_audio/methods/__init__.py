"""Training methods: one LightningModule a file over `SiameseMethod`; they import losses and heads, never data."""

from ssl_audio.methods.base import Objective, SiameseMethod
from ssl_audio.methods.byol import BYOL
from ssl_audio.methods.contrastive import Contrastive
from ssl_audio.methods.cpc import CPC
from ssl_audio.methods.nt_xent import NTXent
from ssl_audio.methods.simsiam import SimSiam
from ssl_audio.methods.uniformity_alignment import UniformityAlignment
from ssl_audio.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "CPC",
    "Contrastive",
    "NTXent",
    "Objective",
    "SiameseMethod",
    "SimSiam",
    "UniformityAlignment",
    "VICReg",
]
