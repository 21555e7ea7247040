"""Options of weightings: they reach the method, or are refused by name."""

import dataclasses
import json

import pytest

from keras_taskrobust import cli, weighting
from keras_taskrobust.cli_options import Comparison, parse_options
from keras_taskrobust.recipes import comparison, pretraining
from keras_taskrobust.recipes.text_settings import TINY

VALUES = {
    "alpha": 3.0, "loss_momentum": 0.5, "reference_losses": [1.0, 2.0], "num_groups": 3,
    "window": 7, "initial_groups": [0, 1], "weighting": "cvar", "scale": "median", "c": 0.25,
    "rescaling": "linear", "radius": 0.5, "fraction": 0.25, "beta": 0.25, "decay": 0.5,
    "temperature": 4.0, "step_size": 0.5, "smoothing": 0.25, "weighting_rate": 0.5,
    "weight_decay": 0.25, "minimum_losses": [0.0, 0.5], "leak": 0.5, "seed": 3,
    "learning_rate": 0.5, "adjustment": 0.0, "group_sizes": [3.0, 4.0], "half": True,
    "normalisation": "l2", "beta_decay": 0.25, "gamma": 0.5, "gamma_decay": 0.25, "rho": 0.5,
    "max_norm": 2.0, "regularisation": 0.5, "iterations": 3, "rate": 2.0, "weights": [1.0, 2.0],
    "mu": 0.5, "warmup_steps": 3, "nadir_steps": 2, "normalize_over": "all",
    "loss_memory": 40.0, "trivial_losses": [1.0, 2.0], "unit_free": True, "largest_score": 2.0,
    "through_weights": True,
}  # fmt: skip
#: Where these are the defaults.
OTHERS = {"scale_free_minimax": {"unit_free": False}}


def options_of(**fields):
    """The config of the weighting that a recipe makes of them."""
    return dataclasses.replace(TINY, **fields).make_weighting().get_config()


@pytest.mark.parametrize("name", weighting.available())
def test_every_option_reaches_its_method(name):
    for option in weighting.options_of(name):
        value = {**VALUES, **OTHERS.get(name, {})}[option]
        given = {option: value}
        if option == "nadir_steps":  # at most as many
            given["warmup_steps"] = 3
        if option == "normalize_over" and "minimax" in name:  # over the averages of the losses
            given["loss_momentum"] = 0.5
        if option in ("unit_free", "largest_score") and name == "minimax":
            given["trivial_losses"] = [1.0, 2.0]
        if option == "through_weights" and name == "scale_free_minimax":
            given |= {"trivial_losses": None, "unit_free": False}
        config = options_of(weighting=name, weighting_options=given)
        found = config[option]
        assert (found["config"]["name"] if option == "weighting" else found) == value
        assert weighting.get(name).get_config()[option] != value or option == "adjustment"


@pytest.mark.parametrize("name", weighting.available())
def test_what_a_method_does_not_have_is_refused_by_name(name):
    known = weighting.options_of(name)
    for option in sorted({*VALUES, "name", "dtype", "nothing"} - {*known}):
        with pytest.raises(ValueError, match=f"{name!r} has .*Received: {option}=1") as error:
            dataclasses.replace(TINY, weighting=name, weighting_options={option: 1})
        assert all(one in str(error.value) for one in known or ["no options"])


@pytest.mark.parametrize("name", weighting.available())
@pytest.mark.parametrize("value", ["junk", {"a": 1}, [[]], -1e39, True], ids=str)
def test_a_method_checks_its_options(name, value):
    """Whatever comes, it is taken as it is or refused in words that name it."""
    for option in weighting.options_of(name):
        refusal = ""
        try:
            config = options_of(weighting=name, weighting_options={option: value})
        except ValueError as error:
            refusal = str(error)
        if refusal:
            assert option == "weighting" or f"`{option}`" in refusal
            assert "Received" in refusal
        else:
            assert config[option] == value


def test_the_names_of_the_paper_are_options_of_whatever_has_them():
    assert options_of(alpha=3.0, loss_momentum=0.5)["alpha"] == 3.0
    assert options_of(weighting="group_dro", loss_momentum=0.5)["loss_momentum"] == 0.5
    assert options_of(weighting="gradnorm")["alpha"] == 1.5
    assert options_of(weighting="gradnorm", alpha=0.5)["alpha"] == 0.5
    groups = options_of(weighting="adaptive_groups", alpha=3.0, weighting_options={"window": 9})
    assert groups["weighting"]["config"]["alpha"] == 3.0
    assert groups["window"] == 9
    for name in ("uniform", "pcgrad"):
        with pytest.raises(ValueError, match=f"{name!r} has .*Received: alpha=3.0"):
            options_of(weighting=name, alpha=3.0)
    with pytest.raises(ValueError, match="`weighting_options` must not have what `alpha`"):
        options_of(alpha=3.0, weighting_options={"alpha": 2.0})
    with pytest.raises(ValueError, match="JSON can hold.*SquareRootSchedule"):
        options_of(weighting_options={"alpha": weighting.SquareRootSchedule()})


def test_options_tell_runs_apart_and_old_records_are_read_as_they_were():
    def changes(former, **fields):
        return dataclasses.replace(TINY, **fields).changes(former, 0)

    def recorded(**fields):
        return json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(TINY, **fields))))

    group_dro = {"weighting": "group_dro", "weighting_options": {"step_size": 0.1}}
    assert changes(recorded(**group_dro), **group_dro) == []
    assert changes(recorded(**group_dro), weighting="group_dro") == ["weighting option step_size"]
    assert changes(recorded(), alpha=2.0) == ["alpha"]
    assert changes(recorded(alpha=2.0), weighting_options={"alpha": 2.0}) == []
    for name, alpha, expected in (
        ("minimax", 1.0, []),
        ("minimax", 2.0, ["alpha"]),
        ("uniform", 2.0, []),  # it was not used
        ("gradnorm", 1.0, []),
    ):
        former = recorded(weighting=name) | {"alpha": alpha, "loss_momentum": 0.0}
        del former["weighting_options"]
        assert changes(former, weighting=name) == expected
    assert changes(former, weighting="gradnorm", alpha=1.0) == ["alpha"]


def test_a_comparison_takes_options_by_row():
    rows = Comparison(TINY, weightings=("pooled", "minimax:alpha=3,loss_momentum=0.5")).rows()
    assert rows == {
        "pooled": {"weighting": "pooled"},
        "minimax alpha=3 loss_momentum=0.5": {
            "weighting": "minimax",
            "weighting_options": {"alpha": 3, "loss_momentum": 0.5},
        },
    }
    cells_of = comparison.grid(TINY, rows, (0,))
    assert [cell.recipe.make_weighting().name for cell in cells_of] == ["pooled", "minimax"]
    assert cells_of[1].recipe.make_weighting().alpha == 3.0
    assert len({cell.folder for cell in cells_of}) == 2
    rows = {"pooled": rows["pooled"], "minimax": {"weighting": "minimax"}, **rows}
    assert comparison.described(rows | {"sharp": {"weighting": "minimax", "alpha": 5.0}}) == (
        "pooled; minimax: alpha 1.0; minimax alpha=3 loss_momentum=0.5: minimax, alpha 3, "
        "loss_momentum 0.5; sharp: minimax, alpha 5.0"
    )
    with pytest.raises(ValueError, match="'pooled' has no options. Received: alpha=3"):
        comparison.grid(TINY, {"x": {"weighting": "pooled", "alpha": 3}}, (0,))
    with pytest.raises(ValueError, match=r"must be given with it.*Received: .*alpha=3\.0"):
        comparison.grid(dataclasses.replace(TINY, alpha=3.0), rows, (0,))


@pytest.mark.parametrize(
    ("command", "flags", "words"),
    [
        ("pretrain", "--weighting uniform --alpha 3", "'uniform' has no options.*alpha=3"),
        ("pretrain", "--weighting dwa --alpha 3", "'dwa' has the options temperature, window"),
        ("pretrain", "--weighting-options alpha=-1", "`--alpha` must be a positive number"),
        ("pretrain", "--weighting mgda --weighting-options normalisation=x", "`normalisation`"),
        ("pretrain", "--weighting-options alpha", "OPTION=VALUE|NAME=VALUE"),
        ("compare", "--alpha 3", "with its name, `--weightings .*Received: --alpha"),
        ("compare", "--weighting-options a=1", "with its name.*Received: --weighting-options"),
        ("compare", "--weightings uniform:alpha=3", "'uniform' has no options.*alpha=3"),
        ("compare", "--weightings minimax:3", "NAME=VALUE, each once. Received: 3"),
        ("compare", "--weightings dwa:window=2 dwa:window=2", "`--weightings` must be .*different"),
    ],
)
def test_the_command_line_refuses_by_name(command, flags, words, tmp_path):
    output = ["--output", str(tmp_path / "run"), "--corpus", "nowhere"]
    with pytest.raises(SystemExit, match=words):
        cli.main([command, "text", "pos-bert-tiny", *flags.split(), *output])
    assert not (tmp_path / "run").exists()


def test_options_reach_a_run_from_the_command_line(monkeypatch, tmp_path):
    def pretrain(family, recipe, directory):
        assert recipe.make_weighting().get_config()["step_size"] == 0.5
        assert recipe.loss_momentum == 0.25
        raise ValueError("far enough")

    monkeypatch.setattr(pretraining, "pretrain", pretrain)
    words = "--weighting group_dro --weighting-options step_size=0.5 --loss-momentum 0.25"
    with pytest.raises(SystemExit, match="far enough"):
        cli.main(["pretrain", "text", "pos-bert-tiny", *words.split()])


@pytest.mark.parametrize("text", ["a", "1", "a=1, a=2", "a=f()", "**x", "a=1) + f(b=2", "*x"])
def test_what_are_no_options(text):
    with pytest.raises(ValueError, match="NAME=VALUE"):
        parse_options(text)


def test_what_are_options():
    found = parse_options("a=-1, b=[1, 2], c=(1.5,), d=median, e='x y', f=True, g=None")
    assert found == {
        "a": -1, "b": [1, 2], "c": [1.5], "d": "median", "e": "x y", "f": True, "g": None
    }  # fmt: skip
    assert parse_options("") == {}
