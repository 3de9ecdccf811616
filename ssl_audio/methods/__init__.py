"""Training methods, one LightningModule per file, over `Method` or, for two views of each clip, `SiameseMethod`."""

from ssl_audio.methods.base import Method, Objective
from ssl_audio.methods.byol import BYOL
from ssl_audio.methods.contrastive import Contrastive
from ssl_audio.methods.cpc import CPC
from ssl_audio.methods.dino import DINO
from ssl_audio.methods.distillation import Distillation
from ssl_audio.methods.moco import MoCo
from ssl_audio.methods.nt_xent import NTXent
from ssl_audio.methods.siamese import SiameseMethod
from ssl_audio.methods.simsiam import SimSiam
from ssl_audio.methods.sogclr import SogCLR
from ssl_audio.methods.sup_con import SupCon
from ssl_audio.methods.uniformity_alignment import UniformityAlignment
from ssl_audio.methods.vicreg import VICReg

__all__ = [
    "BYOL",
    "CPC",
    "DINO",
    "Contrastive",
    "Distillation",
    "Method",
    "MoCo",
    "NTXent",
    "Objective",
    "SiameseMethod",
    "SimSiam",
    "SogCLR",
    "SupCon",
    "UniformityAlignment",
    "VICReg",
]
