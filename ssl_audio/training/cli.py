"""LightningCLI for stacked files: takes merged YAML files and turns Lightning's errors into one-line messages."""

import errno
import logging
import os
import re
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
import yaml
from pytorch_lightning import Callback, LightningDataModule, LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from ssl_audio.callbacks.run_folder import RunFolder
from ssl_audio.callbacks.verification import Verification
from ssl_audio.data.batch_spec import batch_spec_of
from ssl_audio.errors import InputError
from ssl_audio.methods.base import Method
from ssl_audio.training.checkpoints import AtomicCheckpointIO
from ssl_audio.training.config import Config, look_up, shorten
from ssl_audio.training.failures import Monitors, line_of, refuse_what_cannot_train
from ssl_audio.training.logger import RunLogger, claim_number
from ssl_audio.training.processes import said_elsewhere
from ssl_audio.training.resuming import ConfiguredSettings, check_resumable, resolve
from ssl_audio.weights import read_weights


class TrainCLI(LightningCLI):
    """Checks the merged config against the types of all constructors, then builds model, data and trainer.

    Args:
        merged: the config, from `load_config`.
        command: what was typed, for `run.json`.
        word: what `run` does: fit, validate or test.
    """

    def __init__(self, merged: Config, command: list[str], word: str = "fit") -> None:
        for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.seed"):
            logging.getLogger(name).addFilter(_Quiet())
        self.merged = merged
        self.command = command
        self.run_folder: RunFolder | None = None
        self.word = word
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            save_config_callback=None,
            seed_everything_default=0,
            parser_kwargs={"exit_on_error": False},
            args=merged,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        parser.add_argument("--ckpt_path", type=str | None, default=None)
        for name in self.merged["callbacks"]:
            parser.add_subclass_arguments(Callback, f"callbacks.{name}")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        config = {**args, "callbacks": args["callbacks"] or None}
        if config["callbacks"] is None:
            del config["callbacks"]
        try:
            self.config = parser.parse_object(config)
        except ArgumentError as error:
            raise InputError(missing_package(error) or explain(str(error), self.merged)) from error

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (ArgumentError, MisconfigurationException, ValueError, TypeError, ImportError) as error:
            reason = root_reason(error) or missing_package(error) or explain(str(error), self.merged)
            raise InputError(reason) from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        callbacks = [*vars(self.config_init.callbacks).values()] if "callbacks" in self.config_init else []
        settings = {**self.config_init.trainer}
        if settings["enable_progress_bar"] is False:  # keep the bar's log of waiting for data, but show nothing
            for bar in (callback for callback in callbacks if isinstance(callback, ProgressBar)):
                bar.disable()
                settings["enable_progress_bar"] = True
        settings |= self._folder(settings)
        resolved = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        resolved["trainer"].pop("callbacks")
        if settings["accumulate_grad_batches"] < 1:
            raise InputError(
                f"trainer.accumulate_grad_batches is {settings['accumulate_grad_batches']}; expected at least 1"
            )
        # The parser turns 1 into 1.0 where both are allowed, but 1 means one batch to Lightning, and 1.0 all batches.
        for key, value in (self.merged.get("trainer") or {}).items():
            if type(value) is int and isinstance(settings[key], float):
                settings[key] = resolved["trainer"][key] = value
        callbacks.sort(key=lambda callback: isinstance(callback, Verification))  # after those that change the model
        if self.word == "fit" and not settings["fast_dev_run"]:
            self.run_folder = RunFolder(resolved, self.command)
            callbacks += [ConfiguredSettings(), Monitors(), self.run_folder]
        plugins = settings["plugins"] or []
        plugins = [*(plugins if isinstance(plugins, list) else [plugins]), AtomicCheckpointIO()]
        return self.trainer_class(**{**settings, "callbacks": callbacks, "plugins": plugins})

    def _folder(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Trainer arguments that give the run a folder of its own, whatever its logger is, or none where none is due.

        Lightning writes into the working folder if there is no logger, or one that knows no folder of the run (W&B,
        MLflow); there it would replace files that are not the run's.
        """
        if self.word != "fit":
            return {"logger": False}
        if settings["fast_dev_run"]:  # Lightning then replaces the loggers, and none writes
            return {}
        logger = settings["logger"]
        runs = os.path.join(settings["default_root_dir"] or "runs", "run")
        if logger is False or logger == []:
            return {"default_root_dir": os.path.join(runs, claim_number(runs))}
        loggers = logger if isinstance(logger, list) else [logger]
        if logger in (None, True) or isinstance(loggers[0], (TensorBoardLogger, CSVLogger)):
            return {}
        return {"logger": [RunLogger(*os.path.split(runs)), *loggers]}

    def run(self) -> None:
        """Carry out the word."""
        if self.word == "fit":
            self.fit()
        else:
            self.measure()

    def measure(self) -> None:
        """Print the metrics of the validation or test set, with the weights of `ckpt_path` if it is given.

        Raises:
            InputError: the data holds out no such set, or the method has no step for it.
        """
        stage = {"validate": "val", "test": "test"}[self.word]
        step, loader = {"val": "validation_step"}.get(stage, "test_step"), f"{stage}_dataloader"
        for part, name, base in ((self.model, step, LightningModule), (self.datamodule, loader, LightningDataModule)):
            if getattr(type(part), name) is getattr(base, name):
                raise InputError(
                    f"{self.word}: {type(part).__name__} has no {name}; measure a model on other recordings with "
                    "ssl-audio evaluate, or its held-out singers with ssl-audio train validate"
                )
        checkpoint = self._checked(self.config.ckpt_path)
        with warnings.catch_warnings(), self._errors(checkpoint):
            _quieten()
            getattr(self.trainer, self.word)(
                self.model, datamodule=self.datamodule, ckpt_path=checkpoint, weights_only=True
            )

    def fit(self) -> Trainer:
        """Train to the end, from the checkpoint `ckpt_path` if it is given."""
        logger = self.trainer.logger
        runs = logger.root_dir if isinstance(logger, RunLogger) else None
        try:
            return self._fit(resolve(self.config.ckpt_path, runs))
        except InputError as error:
            # `trainer.log_dir` would wait for the other processes, which may be training.
            if self.trainer.is_global_zero and isinstance(logger, RunLogger):
                with suppress(OSError):
                    os.rmdir(logger.log_dir)  # a run that never began leaves no empty folder
            if said_elsewhere(str(error)):
                raise SystemExit(2) from error
            raise

    def _fit(self, checkpoint: str | None) -> Trainer:
        refuse_what_cannot_train(self.trainer)
        if self.run_folder is not None:
            self.run_folder.resumed_from = checkpoint
        if isinstance(self.trainer.logger, RunLogger):
            self.trainer.logger.check_free(checkpoint)
        self._checked(checkpoint, continues=True)
        with warnings.catch_warnings(), self._errors(checkpoint):
            _quieten()
            self.trainer.fit(self.model, datamodule=self.datamodule, ckpt_path=checkpoint, weights_only=True)
        self._check_trained(checkpoint)
        return self.trainer

    def _check_trained(self, checkpoint: str | None) -> None:
        if self.run_folder is None or self.run_folder.trained:
            return
        if checkpoint is not None:
            raise InputError(
                f"nothing was left to train: {checkpoint} is at the end of this config's training; raise "
                "trainer.max_epochs (or max_steps, or max_time)"
            )
        raise InputError(
            "nothing was trained; set trainer.max_epochs, max_steps and limit_train_batches above 0 (-1 is no limit)"
        )

    def _checked(self, checkpoint: str | None, continues: bool = False) -> str | None:
        """The checkpoint, after a check that it can be read and that model and data fit, before data is scanned.

        Args:
            continues: the run goes on from the checkpoint, which must hold the state of its optimiser.
        """
        content = None if checkpoint is None else read_weights(checkpoint)  # name a damaged file before data is read
        if isinstance(self.model, Method):
            if (spec := batch_spec_of(self.datamodule)) is not None:
                self.model.check_data(spec)
                self.model.check(spec.batch_size, spec.samples)
            try:
                optimizer = self.model.optimizer([torch.nn.Parameter(torch.zeros(1))])
            except ValueError as error:
                raise InputError(f"model.optimizer: {' '.join(str(error).split())}") from error
            if continues and checkpoint is not None and content is not None:
                check_resumable(checkpoint, content, optimizer)
        return checkpoint

    @contextmanager
    def _errors(self, checkpoint: str | None) -> Iterator[None]:
        """Turns errors of the trainer that a user can mend into one line."""
        try:
            yield
        except MisconfigurationException as error:
            raise InputError(explain(str(error), self.merged)) from error
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            folder = self.trainer.default_root_dir if self.trainer.logger is None else self.trainer.logger.save_dir
            raise InputError(f"no space left in {folder}; what was written before is whole") from error
        except Exception as error:
            if isinstance(error, RuntimeError) and checkpoint is not None and "loading state_dict" in str(error):
                reason = shorten(" ".join(str(error).split()), 300)
                raise InputError(f"{checkpoint} does not fit this config: {reason}") from error
            line = line_of(error, self.trainer, self.merged)
            if line is None:
                raise
            raise InputError(line) from error


def root_reason(error: BaseException | None) -> str | None:
    """The message of a constructor's InputError that the parser has wrapped; None if there is none."""
    while error is not None:
        if isinstance(error, InputError):
            return str(error)
        error = error.__cause__ or error.__context__
    return None


_MISSING = (r"No module named '([\w.]+)'", r"[Rr]equirement '?([\w-]+)[^']*'? not met", r"pip install (?:-U )?([\w-]+)")


def missing_package(error: BaseException | None) -> str | None:
    """One line about a package that a class in the config needs and that is not installed; None if there is none."""
    if error is None:
        return None
    texts = [str(error)]
    while error is not None:
        if isinstance(error, ModuleNotFoundError) and error.name:
            return f"this needs {error.name}; install it with: pip install {error.name.split('.')[0]}"
        texts.append(str(error))
        error = error.__cause__ or error.__context__
    for text in texts:
        for pattern in (
            r"No module named '([\w.]+)'",
            r"[Rr]equirement '?([\w-]+)[^']*'? not met",
            r"pip install -?U? ?([\w-]+)",
        ):
            if found := re.search(pattern, text):
                return f"this needs {found[1]}; install it with: pip install {found[1].split('.')[0]}"
    return None


def explain(message: str, config: Mapping[str, Any]) -> str:
    """One line from jsonargparse's nested messages: the full key, its value, what was expected.

    >>> print(explain('Parser key "trainer.max_epochs":\\n  Expected a <class \\'int\\'>. Got value: x',
    ...               {"trainer": {"max_epochs": "x"}}))
    trainer.max_epochs is 'x'; expected int
    """
    if "gpu backend" in message:
        return (
            f"trainer.accelerator is {config['trainer']['accelerator']}, and torch finds none here; stack hardware/cpu"
        )
    message = message.split("Given value type: <class 'dict'>")[0]
    if missing := re.search(r"the following arguments are required: ([\w., ]+)", message):
        where = _full_key(re.findall(r'[kK]ey "([^"]+)"', message[: missing.start()]), config)
        remedy = "stack a config that gives it, such as --config common"
        return f"{where} needs {missing.group(1).strip()}; {remedy}"
    keys = re.findall(r'[kK]ey "([^"]+)"', message)
    if not keys:
        message = message.split("Given value type:")[0]
        reasons = [" ".join(reason.split()) for reason in re.findall(r"^ *- (.*)$", message, re.MULTILINE)]
        return "; ".join(reason for reason in reasons if "'NoneType'" not in reason) or " ".join(message.split())
    key = _full_key(keys, config)
    inner = message[message.rindex(f'"{keys[-1]}"') :]
    if wrong := re.search(r"Import path (\S+) does not correspond to a subclass of (\w+)", inner):
        return f"{key} is {wrong[1]}; expected a subclass of {wrong[2]}"
    expected = [_plain(kind) for kind in re.findall(r"Expected an? (.+?)(?:\. Got value|$)", inner, re.MULTILINE)]
    expected = [kind for kind in expected if not re.match(r"path but |dot import path", kind)] or expected
    if len(keys) > 1:  # the last alternative, null, is for the whole section
        expected = [kind for kind in expected if kind != "null"] or expected
    if not expected:
        return f"{key}: {' '.join(inner.split(':', 1)[-1].split())}"
    return f"{key} is {shorten(look_up(config, key))}; expected {' or '.join(dict.fromkeys(expected))}"


def _full_key(keys: list[str], config: Mapping[str, Any]) -> str:
    path = ""
    for key in keys:
        if not path:
            path = key
        elif key != path:
            inside = look_up(config, path)
            path += f".init_args.{key}" if isinstance(inside, Mapping) and "class_path" in inside else f".{key}"
    return path or "the config"


def _plain(kind: str) -> str:
    kind = kind.strip().rstrip(".")
    if match := re.fullmatch(r"<class '(?:[\w.]*\.)?(\w+)'>", kind):
        return {"NoneType": "null", "Sequence": "list", "dict": "mapping"}.get(match.group(1), match.group(1))
    if match := re.fullmatch(r"typing\.Literal\[(.*)\]", kind):
        return f"one of {match.group(1)}"
    return kind


def _quieten() -> None:
    """Silence warnings that are wrong here or that users cannot act on."""
    for pattern in (
        ".*does not have many workers.*",  # chosen in the config
        ".*smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",  # several checkpoint callbacks share the folder
        ".*The dirpath has changed.*",  # a resumed run has a folder of its own
        ".*could not find the monitored key.*",  # a run that ends inside of an epoch has no validation
        ".*lr_scheduler.step.*before.*optimizer.step.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
    ):
        warnings.filterwarnings("ignore", pattern)


class _Quiet(logging.Filter):
    """Drops Lightning's advertisement and its list of absent devices."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not re.search(r"litlogger|TPU available|GPU available|HPU available|^Seed set", record.getMessage())
