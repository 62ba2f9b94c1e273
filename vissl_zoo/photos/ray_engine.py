"""`score --engine ray`: the shards of a set, scored by actors of Ray, each written as its own part of one folder.

An actor runs what `score --shard K/N` runs, so that there is one way to score. Nothing flows from shard to shard: Ray's
actors are all that is needed of it, and not its data sets.
"""

from __future__ import annotations

import math
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from vissl_zoo.cpu.cores import usable_cores
from vissl_zoo.errors import UserError, first_line
from vissl_zoo.file_lock import Locked, output_locked
from vissl_zoo.photos.inputs import Inputs
from vissl_zoo.photos.score_table import read_embeddings, read_scores

if (
    TYPE_CHECKING
):  # what loads torch is imported in functions, so that actors start while the command loads it
    from vissl_zoo.photos.set_fit import SetFit

IMAGES = 1000  # of a shard: what an actor holds at once, some seconds to some minutes of work
RETRIES = 3  # of a shard whose actor died
WAIT = 60  # seconds for the actors of a command that was killed to end: Ray takes some to notice


def import_ray() -> Any:
    """The module `ray`, which sends no word of its use to its makers.

    Raises:
        UserError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray.exceptions
        import ray.util
    except ImportError as error:
        raise UserError("--engine ray needs Ray: pip install vissl_zoo[ray]") from error
    return ray


class RayParts:
    """The parts K-of-N.parquet of a folder. Inside its context Ray runs, from the start if a part is absent.

    Ray is the cluster that RAY_ADDRESS names, the one that this process has joined, or one that is started here. All
    its machines must see the images, `datasets`' cache and the folders by the same paths.
    """

    def __init__(
        self, inputs: Inputs, folder: Path, embeddings: Path | None, shards: int | None, actors: int | None
    ):
        """Check what the folder holds.

        Args:
            inputs: the images.
            folder: where the parts go; it exists.
            embeddings: where their embeddings go, K-of-N.npy; none are written if None.
            shards: how many parts; by default one for each parquet file where there are several and nothing else, else
                one for 1,000 images.
            actors: how many, each with a GPU where there are any, else with a core; by default as many as there are.

        Raises:
            UserError: Ray is not there, there are more shards than images, or the folder holds parts of another set.
        """
        self._ray, self.inputs, self.folder, self.actors = import_ray(), inputs, folder, actors
        files = inputs.file_count
        of = shards or (files if files > 1 else max(1, math.ceil(len(inputs) / IMAGES)))
        if of > len(inputs):
            raise UserError(f"--shards {of}: there are only {len(inputs)} images")
        names = [f"{number}-of-{of}" for number in range(1, of + 1)]
        self.tables = [folder / f"{name}.parquet" for name in names]
        self.embeddings = embeddings
        self.arrays = [None if embeddings is None else embeddings / f"{name}.npy" for name in names]
        strangers = sorted(file.name for file in set(folder.glob("[!.]*.parquet")) - set(self.tables))
        if strangers:
            raise UserError(
                f"--output-dir {folder} holds {strangers[0]}, which is none of the {of} parts of these images; "
                "give another folder, or the same number of --shards"
            )

    def __enter__(self) -> RayParts:
        self._joined, self._thread = self._ray.is_initialized(), ThreadPoolExecutor(1)
        self._started: Future | None = None
        if absent := sum(not table.exists() for table in self.tables):
            self._started = self._thread.submit(self._start, absent)
        return self

    def __exit__(self, *exception: object) -> None:
        self._thread.shutdown()
        if not self._joined:
            self._ray.shutdown()

    def score(self, fitted: SetFit, **options: Any) -> tuple[pd.DataFrame, np.ndarray | None]:
        """Make the parts that are absent or do not verify, and read all as one table.

        Args:
            fitted: a model with a κ head, and the reference of the set, if any. Each actor gets them once.
            options: as for `score_inputs`; `views` and `exact` among them.

        Returns:
            The scores of the N images and their embeddings (N, F) float32; None if they were not asked for.

        Raises:
            UserError: Ray cannot be reached, or a shard cannot be scored.
        """
        from vissl_zoo.photos.scoring import is_finished, settings_of

        settings = settings_of(fitted, views=options["views"], exact=options["exact"])
        ray, of, missing = self._ray, len(self.tables), []
        with tqdm(total=len(self.inputs), desc="scoring", unit=" images", smoothing=0.05) as bar:
            for place, (table, array) in enumerate(zip(self.tables, self.arrays, strict=True)):
                shard = self.inputs.shard(place + 1, of)
                if is_finished(table, settings, shard, array):
                    bar.update(len(shard))
                else:
                    missing.append(place)
            try:
                for count, error in self._scored(missing, fitted, options):
                    if error is not None:
                        raise UserError(error)
                    bar.update(count)
            except ray.exceptions.RayTaskError:  # a fault of ours, with its traceback
                raise
            except (ray.exceptions.RayError, ConnectionError) as error:
                raise UserError(f"--engine ray: {first_line(error)}") from error
        for left in self.folder.glob(".*-of-*.parquet"):  # what was being written when an actor was killed
            left.unlink(missing_ok=True)
        table = read_scores(os.fspath(self.folder))
        where = self.embeddings
        return table, None if where is None else read_embeddings(os.fspath(where), table, "score")

    def _scored(self, missing: list[int], fitted: SetFit, options: dict[str, Any]) -> Any:
        """What the actors say of each shard, in the order in which they end."""
        if not missing:
            return []
        actors = (self._started or self._thread.submit(self._start, len(missing))).result()
        model = fitted.loaded.model.cpu()  # from a machine that may have a GPU, to one that may have none
        sent = [self._ray.put(fitted._replace(loaded=fitted.loaded._replace(model=model)))]

        def begin(actor: Any, place: int) -> Any:  # called only when an actor is free
            shard = place + 1, len(self.tables)
            inputs = self.inputs.shard(*shard)
            return actor.score.remote(sent, inputs, shard, self.tables[place], self.arrays[place], options)

        return self._ray.util.ActorPool(actors).map_unordered(begin, missing)

    def _start(self, shards: int) -> list[Any]:
        ray = self._ray
        if not self._joined:
            address = os.environ.get("RAY_ADDRESS") or "local"
            own = {"num_cpus": max(usable_cores(), self.actors or 1), "include_dashboard": False}
            ray.init(
                address, log_to_driver=False, logging_level="ERROR", **(own if address == "local" else {})
            )
        held = ray.cluster_resources()
        kind = "GPU" if held.get("GPU", 0) >= 1 else "CPU"
        most = max(1, int(held.get(kind, 1)))  # one that cannot be placed would wait for ever
        count = min(self.actors or most, most, shards)
        actor = ray.remote(ShardScorer).options(
            **{f"num_{kind.lower()}s": 1}, max_restarts=-1, max_task_retries=RETRIES
        )
        return [actor.remote(os.getcwd()) for _ in range(count)]


class ShardScorer:
    """An actor: a model that comes once, and scores shard after shard. Its memory is that of one shard."""

    def __init__(self, folder: str):
        """Relative paths are meant against the `folder`."""
        import vissl_zoo.photos.scoring  # noqa: F401  (while the command loads the model)

        os.chdir(folder)
        self.fitted: Any = None

    def score(
        self,
        sent: list,
        inputs: Inputs,
        shard: tuple[int, int],
        table: Path,
        array: Path | None,
        options: dict[str, Any],
    ) -> tuple[int, str | None]:
        """Write a part; returns how many images it has, and one line on what the user can put right."""
        from vissl_zoo.cpu.device import take_device
        from vissl_zoo.photos.scoring import score_inputs

        if self.fitted is None:
            fitted = import_ray().get(sent[0])
            model = fitted.loaded.model.to(take_device())
            self.fitted = fitted._replace(loaded=fitted.loaded._replace(model=model))
        began = time.monotonic()
        while True:
            try:
                with output_locked(table):
                    score_inputs(
                        self.fitted, inputs, output=table, embeddings_output=array, shard=shard, **options
                    )
                return len(inputs), None
            except UserError as error:
                if not isinstance(error, Locked) or time.monotonic() - began > WAIT:
                    return 0, str(error)
            time.sleep(1)
