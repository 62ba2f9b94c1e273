"""A recipe: everything a training run is made of, as one frozen dataclass; every field is a flag of train.py."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Iterator
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
    """Largest norm of the gradient, that of the κ head included; none by default."""
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
    name: str | None = None
    """Name of the run, which its folder gets without --output-dir; by default the recipe's."""
    output_dir: str | None = None
    """Where the run goes; by default the first of runs/NAME, runs/NAME-2, … that holds no run."""
    overwrite: bool = False
    """Remove the run that is in the output folder, by default runs/NAME, and start over."""
    log_every: int = 20
    """Steps between lines of metrics.jsonl."""
    save_every: int = 500
    """Optimizer steps between checkpoints; there is always one at the end."""
    save_minutes: float = 10.0
    """Minutes after which a checkpoint is due in any case."""
    keep_checkpoints: int = 2
    """How many checkpoints stay, at least 1; the older ones go when a newer one is whole."""
    resume: Literal["off", "on", "auto"] = "off"
    """Go on from the newest whole checkpoint in the output folder, by default in the newest of runs/NAME, runs/NAME-2,
    …; `--resume` alone is `on`; `auto` starts anew where there is none."""
    resume_force: bool = False
    """Go on though the number of processes, the batch, the place of the images or accelerate's settings differ; what is
    then no longer exact is told."""
    max_minutes: float | None = None
    """Save and stop after this long; `--resume` goes on exactly where it stopped."""
    tracker: str | None = None
    """Also log to a tracker that accelerate knows and that is installed (tensorboard, wandb, ...)."""
    profile: bool = False
    """Watch steps 11 to 15 by torch's profiler: a table in profile.txt and a trace for chrome://tracing in
    profile.json of the output folder. The training goes on (stop it with --max-steps 15)."""
    fit: bool = True
    """Fit κ anew to clusters of the training images when the training is done, where the method learns κ beside its
    trunk (all but DINO, and VI-SimSiam's `paper` and `beta`) and there are 1,000 images or more; without, κ stays as
    the loss learnt it."""
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
        for names, holds, must in _RULES:
            for name in names.split():
                value = operator.attrgetter(name)(self)
                if value is not None and not holds(self, value):
                    flag = name.replace("_", "-")
                    raise UserError(f"--{flag} {must.format(value=value, size=self.image_size)}")


# Fields, what must hold of each of them (None is never asked), and the error behind the flag's name otherwise.
_RULES: tuple[tuple[str, Callable[[Recipe, Any], bool], str], ...] = (
    (
        "image_size batch_size gradient_accumulation max_steps lr lr_batch_size clip_gradient log_every save_every "
        "keep_checkpoints save_minutes "
        "max_minutes threads report_images data.memory_gib data.buffer",
        lambda recipe, value: value > 0,
        "must be a positive number, not {value}",
    ),
    (
        "warmup_epochs weight_decay seed data.workers data.disk_gib views.low",
        lambda recipe, value: value >= 0,
        "must not be negative, and not {value}",
    ),
    (
        "epochs",
        lambda recipe, value: value > 0 or recipe.max_steps is not None,
        "must be a positive number, not {value}",
    ),
    (
        "name",
        lambda recipe, value: value.strip(". ") and not set("/\\") & set(value),
        "must be the name of one folder, not {value!r}",
    ),
    (
        "overwrite",
        lambda recipe, value: not value or recipe.resume == "off",
        "and --resume exclude each other",
    ),
    (
        "resume_force",
        lambda recipe, value: not value or recipe.resume != "off",
        "needs --resume",
    ),
    ("momentum", lambda recipe, value: 0 <= value < 1, "must be in [0, 1), not {value}"),
    ("seed", lambda recipe, value: value < 2**32, "must be less than 2**32, not {value}"),
    (
        "batch_size",
        lambda recipe, value: value >= 2,
        "must be at least 2: batch norm needs more than one image",
    ),
    ("data.max_bad_fraction", lambda recipe, value: 0 <= value <= 1, "must be in [0, 1], not {value}"),
    (
        "data.streaming",
        lambda recipe, value: not value or recipe.max_steps is not None,
        "needs --max-steps: a stream does not say how long it is",
    ),
    (
        "views.standard",
        lambda recipe, value: value >= 2,
        "must be at least 2, not {value}: one view is predicted from another",
    ),
    (
        "views.low",
        lambda recipe, value: value == 0 or recipe.views.low_size is not None,
        "needs --views.low-size, the side of those views in pixels",
    ),
    (  # of equal size they would pass for standard views, which are targets
        "views.low_size",
        lambda recipe, value: recipe.views.low == 0 or 0 < value < recipe.image_size,
        "must be positive and less than --image-size {size}, not {value}",
    ),
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
