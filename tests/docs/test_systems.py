"""docs/systems.md: what it names exists, and it names every command, option and key of the originals."""

import argparse
import importlib
import re
import shlex

import pytest
from pages import DOCS

from ssl_audio import cli
from ssl_audio.errors import InputError
from ssl_audio.training.arguments import read_arguments
from ssl_audio.training.config import load_config
from ssl_audio.training.config_files import packaged_configs

TEXT = (DOCS / "systems.md").read_text(encoding="utf-8")
ROWS = [line.strip("| ").split(" | ", 1) for line in TEXT.splitlines() if line.startswith("|") and "---" not in line]
HERE = " ".join(cells[1] for cells in ROWS if len(cells) == 2)

# what the five originals let a user say, from their parsers, signatures and config files
ORIGINALS = {
    "eval.py": "-s -r -d -meta -m -so -p -f -cr -ce -bs -du -rv",
    "preprocess_dataset.py": "dataset_root_dir dataset_name segment_length sample_rate metadata_path_dir clean",
    "create_speaker_pairs.py": "-r -o -n -p -s",
    "convert_checkpoint.py": "checkpoint config output_dir num_trials",
    "load_model": "source torchscript savedir input_sr",
    "singer data": "dataset_dirs batch_size nr_samples num_workers eval_frac batch_sampling_mode multi_epoch "
    "max_groups group_by_artist group_name_is_folder",
    "singer augmentation": "gaussian_noise time_stretch formant_shift_parselmouth pitch_shift_parselmouth "
    "pitch_range_parselmouth pitch_shift_naive shift gain parametric_eq tanh_distortion time_mask reverb",
    "singer losses": "use_contrastive_loss temp nr_negative decouple use_variance_reg use_covariance_reg "
    "use_invariance_loss use_vicreg_loss use_align_loss use_uniform_loss gamma",
    "singer callbacks": "EEREvaluation OrderEvaluation HypersphereEvaluation MAWeightUpdate",
    "singer networks": "spec_layer n_fft hop_length n_mels efficientnet_b0 efficientnet_b4 efficientnet_b0_att "
    "embedding_dim pretrained Projection MLP EncoderWrapper",
    "wav2rec": "Wav2RecDataset Wav2RecNet SimSam AudioResnet50 AudioVit AudioImageNetwork MelSpectrogram Resize "
    "projection_size projection_hidden_size distance_metric similarity_metric NearestNeighbors get_projection fitted "
    "recommend FmaMetadata res_type zero_pad n_features get_audio_files",
    "clmr": "main.py preprocess.py linear_evaluation.py export.py SampleCNN SampleCNNXL ShortChunkCNN_Res SincNet "
    "NT_Xent ContrastiveLearning ContrastiveDataset extract_representations PlotSpectogramCallback magnatagatune msd "
    "gtzan librispeech audio finetuner_mlp finetuner_max_epochs finetuner_learning_rate finetuner_batch_size "
    "checkpoint_path",
    "jtm": "hiddenEncoder hiddenGar nPredicts negativeSamplingExt learningRate schedulerStep schedulerRamp beta1 beta2 "
    "epsilon sizeWindow batchSize nEpoch samplingType samecategory samesequence sequential nLevelsPhone cpcMode "
    "encoderType normMode onEncoder randomSeed arMode nLevelsGRU dropout abspos ignoreCache chunkSize maxChunksInMem "
    "labelsBy supervised task transcriptionWindow pathCheckpoint loggingStep saveStep load loadCriterion",
    "wavebyol": "pretext downstream downstream_transfer audio_window sampling_rate epoch batch_size learning_rate "
    "train_dataset test_dataset train_augmentation augmentation_count num_workers dataset_shuffle pin_memory "
    "encoder_hidden_dim encoder_filter_size encoder_stride encoder_padding mlp_hidden_dim mlp_output_dim "
    "pretext_checkpoint downstream_checkpoint weight_decay eps betas AdamP",
}


@pytest.mark.parametrize("system", ORIGINALS)
def test_the_page_has_a_row_for_everything_that_an_original_lets_a_user_say(system):
    left = " ".join(cells[0] for cells in ROWS) if system != "load_model" else TEXT
    missing = [word for word in ORIGINALS[system].split() if not re.search(rf"(?<!\w){re.escape(word)}(?!\w)", left)]
    assert not missing, missing


def test_the_configs_that_it_names_exist():
    names = set(re.findall(r"--config ([a-z][\w/-]*\w)", HERE.replace("data/...", "")))
    assert len(names) > 15 and names <= set(packaged_configs()), names - set(packaged_configs())


def test_the_classes_that_it_names_exist():
    paths = set(re.findall(r"`(ssl_audio(?:\.\w+)+)", HERE))
    for path in paths:
        module, _, name = path.rpartition(".")
        try:
            importlib.import_module(path)
        except ModuleNotFoundError:
            assert hasattr(importlib.import_module(module), name), path
    assert len(paths) > 20


def options(command):
    parser = argparse.ArgumentParser()
    importlib.import_module(f"ssl_audio.commands.{command.replace('-', '_')}").add_arguments(parser)
    return {option for action in parser._actions for option in action.option_strings}


def test_the_commands_and_options_that_it_names_exist():
    seen = 0
    for line in re.findall(r"`ssl-audio ([^`]+)`", TEXT):
        command, *words = line.split()
        assert command in cli.COMMANDS, line
        if command == "train":
            continue  # its options are keys of the configs
        known = options(command)
        for word in words:
            if word == "--":
                break
            if word.startswith("--"):
                seen += 1
                assert word in known, (line, word)
    assert seen > 40


def test_the_keys_of_its_trainings_exist():
    """Every `ssl-audio train` of the page is a stack of files and keys that can be put together."""
    lines = [line for line in re.findall(r"`ssl-audio train ([^`]+)`", TEXT) if "--help" not in line]
    for line in lines:
        typed = read_arguments(shlex.split(line))
        files, overrides = typed.files, typed.overrides
        try:
            load_config(files, overrides)
        except InputError as error:
            pytest.fail(f"{line}: {error}")
    assert len(lines) >= 5
