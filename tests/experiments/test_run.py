"""A plan of runs is timed, trained in pieces, evaluated and tabulated, and goes on where it was."""

import json
import re
import sys

import pytest

import run as script
from vissl_zoo import weights
from vissl_zoo.commands import main
from vissl_zoo.errors import UserError
from vissl_zoo.methods import RECIPES


@pytest.fixture
def commands(monkeypatch):
    """What the script would run, noted instead of run."""
    seen: list[list[str]] = []
    monkeypatch.setattr(script, "call", seen.append)
    return seen


def test_every_run_of_every_plan_is_of_a_known_recipe_and_has_readable_flags():
    from vissl_zoo.recipes import parse

    for name, plan in script.PLANS.items():
        assert len({run.name for run in plan}) == len(plan), name
        for run in plan:
            assert run.recipe in RECIPES
            recipe = parse([run.recipe, *run.flags], RECIPES)
            if ".cifar10" in run.name:  # the weights are called after the model that they are of
                assert run.name.split(".")[0] == recipe.model


def test_the_weights_that_are_shipped_have_their_run():
    ours = [run for name in ("cifar10_gpu", "cifar10_cpu") for run in script.PLANS[name] if run.ship]
    names = [run.name for run in ours] + [f"{name}.cifar10" for run in ours for name, _, _ in run.also]
    assert sorted(names) == sorted(name for name in weights.shipped() if not name.startswith("kappa."))


def test_a_run_is_resumed_where_there_is_something_to_resume(commands, tmp_path, monkeypatch):
    run = script.Experiment("a.b", "demo", ("--epochs", "2"))
    flags = script.Arguments(piece_minutes=3)

    def work(command):
        commands.append(command)
        (tmp_path / "checkpoints").mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / "1").touch()
        if len(commands) == 2:
            (tmp_path / "export").mkdir()
            (tmp_path / "export" / "model.safetensors").touch()

    monkeypatch.setattr(script, "call", work)
    assert script.train(run, flags, tmp_path, deadline=float("inf"))
    assert len(commands) == 2
    assert all(command[-2:] == ["--resume", "auto"] for command in commands)
    assert commands[0][commands[0].index("--max-minutes") + 1] == "3.000"
    assert script.train(run, flags, tmp_path, deadline=0)
    assert len(commands) == 2


def test_no_time_left_means_no_training(commands, tmp_path, capsys):
    run = script.Experiment("a.b", "demo")
    assert not script.train(run, script.Arguments(), tmp_path, deadline=0)
    assert commands == []
    assert "call again" in capsys.readouterr().out


def test_only_what_is_finished_is_evaluated_and_shipped(commands, tmp_path):
    run = script.Experiment(
        "a.tag",
        "demo",
        splits=("train[:10]", "train[10:]"),
        note="few epochs",
        also=(("simsiam_resnet18", "SimSiam", "the same"),),
    )
    script.evaluate(run, script.Arguments(), tmp_path)
    script.ship(run, tmp_path)
    assert commands == []
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "model.safetensors").touch()
    (tmp_path / "recipe.json").write_text('{"epochs": 12, "image_size": 32}')
    script.evaluate(run, script.Arguments(), tmp_path)
    script.ship(run, tmp_path)
    assert [("--random-init" in c) for c in commands] == [False, True, False, False]
    assert "train[10:]" in commands[0]
    assert commands[2][commands[2].index("--tag") + 1] == "tag"
    assert commands[2][-1] == "few epochs"
    assert "CIFAR-10, 12 epochs at 32 pixels" in commands[2]
    assert commands[3][-6:] == [
        "--model",
        "simsiam_resnet18",
        "--method",
        "SimSiam",
        "--note",
        "the same few epochs",
    ]


def test_the_table_has_a_dash_for_what_was_not_measured(tmp_path):
    runs = [script.Experiment("one", "demo"), script.Experiment("two", "demo")]
    (tmp_path / "one" / "evaluation").mkdir(parents=True)
    metrics = {"knn": {"top1": 0.51234}, "uncertainty": {"knn": {"auroc": {"kappa": {"value": 0.7}}}}}
    (tmp_path / "one" / "evaluation" / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "one" / "metrics.jsonl").write_text('{"epoch": 40.0}\n')
    header, _, one, two = script.tabulate(runs, tmp_path).splitlines()
    assert one.startswith("| one | 40 | 0.512 | – | – | 0.700 |")
    assert set(two.removeprefix("| two |").replace(" ", "")) == {"|", "–"}
    assert header.count("|") == one.count("|") == two.count("|")
    assert (tmp_path / "RESULTS.md").read_text().count("\n") == 4


def test_a_failed_command_stops_with_one_line():
    with pytest.raises(UserError, match="ended with code 3"):
        script.call([sys.executable, "-c", "raise SystemExit(3)"])


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["cifar"], "unknown plan 'cifar'; there are: cifar10"),
        ([], "PLAN is one of"),
        (["cifar10", "--only", "resnet"], "no run resnet"),
        (["cifar10", "--stages", "fly"], "stages"),
    ],
)
def test_bad_input_is_one_line(arguments, said, capsys):
    assert script.main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_plan_really_runs(train_main, small, tmp_path, monkeypatch, capsys):
    """Timed, trained, evaluated and tabulated by the commands themselves, in this process; then nothing is left."""
    done = []

    def call(command):
        done.append(command)
        if "evaluate" in command:
            protocols = ["--protocols", "knn"]  # all of them are measured elsewhere
            assert main([*command[command.index("evaluate") :], *protocols]) == 0
        else:
            outcome = train_main(*command[command.index(str(script.TRAIN)) + 1 :])
            assert outcome.code == 0, outcome.err

    monkeypatch.setattr(script, "call", call)
    monkeypatch.setattr(script, "PROBE_STEPS", 4)
    run = script.Experiment("demo", "demo", (*small, "--epochs", "1", "--max-steps", "4", "--no-report"))
    monkeypatch.setitem(script.PLANS, "tiny", [run])
    data = small[small.index("--data.path") + 1]
    arguments = ["tiny", "--data.path", data, "--output-dir", str(tmp_path)]
    for _ in range(2):
        assert script.main(arguments) == 0
    assert len(done) == 4
    assert (tmp_path / "demo" / "export" / "model.safetensors").exists()
    assert (tmp_path / "demo" / "untrained" / "metrics.json").exists()
    [table] = [
        line for line in (tmp_path / "RESULTS.md").read_text().splitlines() if line.startswith("| demo ")
    ]
    assert re.match(r"\| demo \| 1 \| 0\.\d{3} \| 0\.\d{3} \|", table)
    assert table in capsys.readouterr().out
