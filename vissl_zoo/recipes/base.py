"""A recipe: everything a training run is made of, as one frozen dataclass; every field is a flag of train.py."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from vissl_zoo.errors import UserError

LARGEST_WHOLE = 2**62  # torch counts in 64 bits
LARGEST = 1e30  # of a flag's value: float32 ends at 3e38, and a learning rate is multiplied by the batch


@dataclass(frozen=True)
class Data:
    """The images."""

    path: str = "shapes"
    """A Hub data set (org/name), a folder of images, parquet files or a folder of them, or `shapes`, the
    embedded data set."""
    split: str = "train"
    """The split to train on."""
    eval_split: str | None = None
    """The split the report measures on; by default `test` or `validation`, else a tenth of the
    training images."""
    image_column: str | None = None
    """The column that holds the images; found by its type if not given."""
    label_column: str | None = None
    """The column that holds the class labels, which only the report uses; found if not given, and optional."""
    streaming: bool = False
    """Read the images as a stream, for data too large to download or to index; needs --max-steps."""
    buffer: int = 10_000
    """Images that a stream is shuffled among."""
    workers: int | None = None
    """Workers that decode images; by default one for each CPU, 16 at most."""
    memory_gib: float = 4.0
    """Decoded images are kept in memory, in each process, if they fit in this many GiB."""
    disk_gib: float = 0.0
    """Images that do not fit in memory are decoded once into a file of the cache folder ($VISSL_ZOO_CACHE), which all
    processes and later runs share, if they fit in this many GiB; by default they are decoded on the fly."""
    max_bad_fraction: float = 0.01
    """Stop when more than this fraction of the images is corrupt; fewer are skipped and named."""


@dataclass(frozen=True)
class Views:
    """The random views: SimSiam's augmentations by default."""

    standard: int = 2
    """How many views of full size; each is predicted from the others."""
    scale: tuple[float, float] = (0.2, 1.0)
    """Area of a random crop, as a fraction of the image's."""
    low: int = 0
    """How many low-resolution views beside the standard ones (multi-crop)."""
    low_size: int | None = None
    """Side of a low-resolution view in pixels; needed if there are any."""
    low_scale: tuple[float, float] = (0.05, 0.2)
    """Area of a low-resolution view's crop, as a fraction of the image's."""
    flip: float = 0.5
    """Probability of a horizontal flip."""
    jitter: float = 0.8
    """Probability of colour jitter, with the strengths below."""
    brightness: float = 0.4
    """Strength of the brightness jitter."""
    contrast: float = 0.4
    """Strength of the contrast jitter."""
    saturation: float = 0.4
    """Strength of the saturation jitter."""
    hue: float = 0.1
    """Strength of the hue jitter, in turns of the colour circle."""
    grayscale: float = 0.2
    """Probability of conversion to grey."""
    blur: float = 0.5
    """Probability of Gaussian blur; 0 is usual for images of 32 pixels."""
    sigma: tuple[float, float] = (0.1, 2.0)
    """Standard deviation of the blur, in pixels of the view."""


@dataclass(frozen=True)
class MethodOptions:
    """Options of one method; a subclass names the method and says which options belong to the model."""

    name: ClassVar[str]
    model_options: ClassVar[tuple[str, ...]]

    def model_args(self) -> dict[str, Any]:
        """Keyword arguments of the timm model, which its config.json keeps."""
        return {k: getattr(self, k) for k in self.model_options}

    def method_args(self) -> dict[str, Any]:
        """Keyword arguments of the method."""
        names = [f.name for f in dataclasses.fields(self)]
        return {k: getattr(self, k) for k in names if k not in self.model_options}


@dataclass(frozen=True)
class Recipe:
    """Everything a training run is made of."""

    method: MethodOptions
    model: str
    """A registered model of the recipe's method, such as vi_simsiam_resnet50."""
    backbone: str | None = None
    """Any timm backbone, where the model is the method's bare name, such as vi_simsiam."""
    data: Data = field(default_factory=Data)
    views: Views = field(default_factory=Views)
    image_size: int = 224
    """Side of a standard view, in pixels."""
    batch_size: int = 512
    """Images in one batch, over all processes together: a recipe means the same on one device and on eight."""
    gradient_accumulation: int = 1
    """Batches whose gradients are averaged in one optimizer step."""
    epochs: int = 200
    """Passes over the training images."""
    max_steps: int | None = None
    """End after this many optimizer steps; the learning rate's schedule then spans these."""
    lr: float = 0.1
    """Learning rate for `lr_batch_size` images; it scales linearly with the images per optimizer step."""
    lr_batch_size: int = 512
    """The batch that `lr` is meant for."""
    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate falls over the training."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly at the start."""
    constant_predictor_lr: bool = False
    """Keep the predictor's learning rate at its peak, as SimSiam's own recipe does."""
    momentum: float = 0.9
    """Momentum of SGD."""
    weight_decay: float = 1e-4
    """Weight decay, on all parameters."""
    clip_gradient: float | None = None
    """Largest norm of the gradient; none by default."""
    seed: int = 0
    """Weights, order of the images and views all follow from it."""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    """Precision of the backbone: `auto` is what accelerate was told, else bf16 where the hardware computes in it;
    `no` is plain float32. κ and the loss have float32 or better."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of the weights; float64 is for checking one run against another."""
    compile: Literal["on", "off"] = "off"
    """torch.compile for the backbone, which takes a minute or more at the start."""
    threads: int | None = None
    """CPU threads of each process in a training on a CPU; by default all cores, in equal parts."""
    sync_batch_norm: bool = True
    """Batch norm over the global batch when there are several processes."""
    output_dir: str | None = None
    """Where the run goes; by default runs/ and the recipe's name."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    save_every: int = 500
    """Optimizer steps between checkpoints; there is always one at the end."""
    resume: bool = False
    """Go on from the newest checkpoint in the output folder."""
    max_minutes: float | None = None
    """Save and stop after this long (on several accelerators at the next tenth step); `--resume` goes on exactly where
    it stopped."""
    tracker: str | None = None
    """Also log to a tracker that accelerate knows and that is installed (tensorboard, wandb, ...)."""
    profile: bool = False
    """Watch steps 11 to 15 by torch's profiler: a table in profile.txt and a trace for chrome://tracing in
    profile.json of the output folder. The training goes on (stop it with --max-steps 15)."""
    report: bool = True
    """Draw the report when the training is done."""
    report_images: int = 10_000
    """At most this many training images, and a quarter as many test images, are looked at for the report."""

    def validate(self) -> None:
        """Refuse what cannot work, before any data is read.

        What a method or the views know better (a β in [0, 1], an ordered pair) they refuse themselves.

        Raises:
            UserError: one line that names the flag.
        """
        for flag, value in _numbers(self):
            if isinstance(value, int) and flag.startswith("method.") and value < 1:
                raise UserError(f"--{flag} must be at least 1, not {value}")
            largest = LARGEST_WHOLE if isinstance(value, int) else LARGEST
            if not abs(value) <= largest:  # also of a NaN
                raise UserError(f"--{flag} must be a finite number of at most {largest:.0e}, not {value}")
        positive = {
            "image-size": self.image_size,
            "batch-size": self.batch_size,
            "gradient-accumulation": self.gradient_accumulation,
            "lr": self.lr,
            "lr-batch-size": self.lr_batch_size,
            "log-every": self.log_every,
            "save-every": self.save_every,
            "report-images": self.report_images,
            "data.memory-gib": self.data.memory_gib,
            "data.buffer": self.data.buffer,
        }
        if self.max_steps is None:
            positive["epochs"] = self.epochs
        else:
            positive["max-steps"] = self.max_steps
        if self.max_minutes is not None:
            positive["max-minutes"] = self.max_minutes
        if self.threads is not None:
            positive["threads"] = self.threads
        if self.clip_gradient is not None:
            positive["clip-gradient"] = self.clip_gradient
        for flag, value in positive.items():
            if not (value > 0 and math.isfinite(value)):
                raise UserError(f"--{flag} must be a positive number, not {value}")
        for flag, value in {
            "warmup-epochs": self.warmup_epochs,
            "weight-decay": self.weight_decay,
            "data.workers": self.data.workers or 0,
            "data.disk-gib": self.data.disk_gib,
            "seed": self.seed,
        }.items():
            if not (value >= 0 and math.isfinite(value)):
                raise UserError(f"--{flag} must not be negative, and not {value}")
        if not 0 <= self.momentum < 1:
            raise UserError(f"--momentum must be in [0, 1), not {self.momentum}")
        if not 0 <= self.data.max_bad_fraction <= 1:
            raise UserError(f"--data.max-bad-fraction must be in [0, 1], not {self.data.max_bad_fraction}")
        if self.seed >= 2**32:
            raise UserError(f"--seed must be less than 2**32, not {self.seed}")
        if self.views.standard < 2:
            raise UserError(
                f"--views.standard must be at least 2, not {self.views.standard}: one view is predicted from another"
            )
        if self.views.low < 0:
            raise UserError(f"--views.low must not be negative, and not {self.views.low}")
        if self.data.streaming and self.max_steps is None:
            raise UserError("--data.streaming needs --max-steps: a stream does not say how long it is")
        if self.batch_size < 2:
            raise UserError("--batch-size must be at least 2: batch norm needs more than one image")
        if self.views.low > 0 and self.views.low_size is None:
            raise UserError("--views.low needs --views.low-size, the side of those views in pixels")
        if self.views.low > 0 and not 0 < self.views.low_size < self.image_size:
            raise UserError(  # of equal size they would pass for standard views, which are targets
                f"--views.low-size must be positive and less than --image-size {self.image_size}, "
                f"not {self.views.low_size}"
            )


def _numbers(options: Any, prefix: str = "") -> Iterator[tuple[str, int | float]]:
    """Every number in a dataclass and those inside it, under its flag's name."""
    for option in dataclasses.fields(options):
        value, flag = getattr(options, option.name), prefix + option.name.replace("_", "-")
        if dataclasses.is_dataclass(value):
            yield from _numbers(value, f"{flag}.")
            continue
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, (int, float)) and not isinstance(number, bool):
                yield flag, number


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe under its name, with what a reader asks first.

    `cost` and `expected` say where a figure comes from; what nobody has measured yet says so.
    """

    name: str
    recipe: Recipe
    about: str
    cost: str
    expected: str

    @property
    def command(self) -> str:
        """The command that runs it."""
        if self.name == "demo":
            return "accelerate launch train.py"
        return f"accelerate launch train.py {self.name} --data.path {self.recipe.data.path}"

    @property
    def statement(self) -> str:
        """What it is, its command, its cost and what to expect: the head of its `--help`."""
        return "\n\n".join(
            [self.about, f"Command: {self.command}", f"Cost: {self.cost}", f"Expected: {self.expected}"]
        )
