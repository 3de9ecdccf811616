"""Tiny Hugging Face models with random weights, and what their library computes of a clip."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tone

transformers = pytest.importorskip("transformers")

BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STILL = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
WAVE = {**BODY, **STILL, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
XVECTOR = {"tdnn_dim": (16, 16, 16, 16, 48), "xvector_output_dim": 24, "num_labels": 7}
WHISPER = {
    **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **{"d_model": 32, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "decoder_start_token_id": 1,
}
TOWER = {"patch_embeds_hidden_size": 16, "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2], "hidden_size": 128}
TEXT = {**BODY, "num_hidden_layers": 1, "vocab_size": 100}
CLIP = (tone(1.3) + 0.05 * np.random.default_rng(0).standard_normal(20800)).astype(np.float32)


def make(name: str, folder: Path) -> Path:
    """A tiny model of a family in a folder."""
    t = transformers
    torch.manual_seed(0)
    wave, extractor = t.Wav2Vec2FeatureExtractor(), None
    if name == "wav2vec2":
        model = t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WAVE, vocab_size=20))  # a head that no embedding needs
    elif name == "wav2vec2 large":
        model = t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **LARGE))
    elif name == "hubert":
        model = t.HubertModel(t.HubertConfig(**WAVE))
    elif name == "wavlm":
        model = t.WavLMModel(t.WavLMConfig(**WAVE))
    elif name == "wavlm x-vector":
        model = t.WavLMForXVector(t.WavLMConfig(**WAVE, **XVECTOR))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)  # or its vectors are near zero
    elif name == "unispeech-sat":
        model = t.UniSpeechSatModel(t.UniSpeechSatConfig(**WAVE))
    elif name == "data2vec-audio":
        model = t.Data2VecAudioModel(t.Data2VecAudioConfig(**WAVE, conv_pos_kernel_size=3))
    elif name == "sew":
        model = t.SEWModel(t.SEWConfig(**{**WAVE, "conv_dim": (16,) * 13}))
    elif name == "w2v-bert":
        model = t.Wav2Vec2BertModel(
            t.Wav2Vec2BertConfig(**BODY, **STILL, conformer_conv_dropout=0, feature_projection_input_dim=160)
        )
        extractor = t.SeamlessM4TFeatureExtractor()
    elif name == "whisper":
        model = t.WhisperForConditionalGeneration(t.WhisperConfig(**WHISPER)).half()
        extractor = t.WhisperFeatureExtractor()
    elif name == "ast":
        model, extractor = t.ASTForAudioClassification(t.ASTConfig(**BODY)), t.ASTFeatureExtractor()
    else:
        fused = name == "clap fused"
        config = {"audio_config": {**TOWER, "enable_fusion": fused}, "text_config": TEXT, "projection_dim": 48}
        model = t.ClapModel(t.ClapConfig(**config))
        extractor = t.ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50)
    model.save_pretrained(folder)
    (extractor or wave).save_pretrained(folder)
    return folder


def theirs(folder: Path, clip: np.ndarray = CLIP, kind: str = "AutoModel", rate: int = 16000, **options):
    """What the library computes of one clip: its inputs and its output."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder).float().eval()
    inputs = extractor(clip, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        if hasattr(model, "encoder") and "Whisper" in type(model).__name__:
            return inputs, model.encoder(inputs["input_features"], **options)
        return inputs, model(**inputs, **options)


def near(ours: np.ndarray, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=tolerance * float(expected.abs().max()))


def stored(folder: Path, *left_out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in left_out}
