"""Encoders, one architecture per file: features of a clip -> one vector."""

from ssl_audio.encoders.aisfx import AISFX
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.cam_plus_plus import CAMPlusPlus
from ssl_audio.encoders.compact_cnn import CompactCNN
from ssl_audio.encoders.cpc import CPC
from ssl_audio.encoders.ecapa_tdnn import ECAPATDNN
from ssl_audio.encoders.efficientnet import EfficientNet
from ssl_audio.encoders.eres2net import ERes2Net
from ssl_audio.encoders.fast_resnet34 import FastResNet34
from ssl_audio.encoders.huggingface import HuggingFace
from ssl_audio.encoders.mobilenet_v3 import MobileNetV3
from ssl_audio.encoders.musicnn import Musicnn
from ssl_audio.encoders.patch_transformer import PatchTransformer
from ssl_audio.encoders.resemblyzer import Resemblyzer
from ssl_audio.encoders.resnet import ResNet50
from ssl_audio.encoders.resnet34 import ResNet18, ResNet34
from ssl_audio.encoders.sample_cnn import SampleCNN, SampleCNNXL
from ssl_audio.encoders.short_chunk_cnn import ShortChunkCNN
from ssl_audio.encoders.sinc_net import SincNet
from ssl_audio.encoders.views import Joined, Views
from ssl_audio.encoders.vit import VisionTransformer
from ssl_audio.encoders.wavebyol import WaveBYOL
from ssl_audio.encoders.whitened import NearestMean, Whitened, Whitening

__all__ = [
    "AISFX",
    "CPC",
    "ECAPATDNN",
    "CAMPlusPlus",
    "CompactCNN",
    "ERes2Net",
    "EfficientNet",
    "Encoder",
    "FastResNet34",
    "HuggingFace",
    "Joined",
    "MobileNetV3",
    "Musicnn",
    "NearestMean",
    "PatchTransformer",
    "ResNet18",
    "ResNet34",
    "ResNet50",
    "Resemblyzer",
    "SampleCNN",
    "SampleCNNXL",
    "ShortChunkCNN",
    "SincNet",
    "Views",
    "VisionTransformer",
    "WaveBYOL",
    "Whitened",
    "Whitening",
]
