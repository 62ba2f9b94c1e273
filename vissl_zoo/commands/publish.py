"""`vissl-zoo publish RUN --repo-id ORG/NAME`: a run as a repository that timm loads, with its model card."""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

from vissl_zoo.cli import Required, Run, parse_flags


@dataclass(frozen=True)
class Options:
    """What is published, and where."""

    run: Run = ""
    """A run folder or an export folder."""
    repo_id: Required = ""
    """The repository, ORG/NAME. It is made if it does not exist."""
    dry_run: bool = False
    """Write the folder and touch no network."""
    output_dir: str | None = None
    """Where the folder goes; by default it is temporary."""
    evaluation: str | None = None
    """The folder that `vissl-zoo evaluate` left: its figures go into the card."""
    license: str = "apache-2.0"
    """Of the weights, as the Hub names it."""
    dataset: str | None = None
    """The training data's name on the Hub (uoft-cs/cifar10); by default what the run was trained on, if it has one."""
    note: str | None = None
    """A sentence that stands beside every figure of the card."""
    private: bool = False
    """Make the repository private if it is made."""
    revision: str = "main"
    """Branch of the plain timm model; the whole model goes to `full`, beside other branches to REVISION-full."""


def main(arguments: list[str]) -> None:
    """Run the subcommand; a UserError is one line about the run, a flag, the token or the Hub."""
    flags = parse_flags(Options, Options(), arguments, "vissl-zoo publish", "Publish a run or an export.")
    from vissl_zoo.hub import repository as hub
    from vissl_zoo.hub.card import read_record
    from vissl_zoo.hub.export import find_export

    hub.check_repo_id(flags.repo_id)
    export = find_export(flags.run)
    evaluation = None if flags.evaluation is None else hub.read_evaluation(flags.evaluation)
    if not flags.dry_run:
        hub.require_token()
    record = read_record(export)
    if flags.note:
        record = dataclasses.replace(record, note=flags.note)
    with tempfile.TemporaryDirectory() as temporary:
        folder = hub.write_repository(
            export,
            flags.output_dir or Path(temporary) / flags.repo_id.split("/")[1],
            flags.repo_id,
            record,
            metrics=evaluation,
            revision=flags.revision,
            dataset=flags.dataset,
            license=flags.license,
        )
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            print(f"{file.stat().st_size / 1e6:8.2f} MB  {file.relative_to(folder)}")
        if flags.dry_run:
            where = f"written to {folder}; " if flags.output_dir else ""
            print(f"\ndry run: {where}nothing was sent")
            return
        url = hub.push(folder, flags.repo_id, revision=flags.revision, private=flags.private)
    whole = f"hf-hub:{flags.repo_id}@{hub.full_branch(flags.revision)}"
    print(f"\n{url}\nwith vissl_zoo: timm.create_model('{whole}', pretrained=True)")
