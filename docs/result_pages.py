"""The tables and figures of the page of results, from `benchmarks/results/`."""

import statistics
from collections.abc import Iterable, Sequence

import figures

_TASKS = {
    "ppattach": "ppattach",
    "sentence_polarity": "sentence polarity",
    "STS-B": "STS-B (worst)",
    "QQP": "QQP sample",
    "semseg": "segmentation",
    "depth": "depth (worst)",
    "classification": "room type",
}
_BACKENDS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch", "": ""}
_PEERS = {
    ("pretraining", "hugging face gathered"): "Hugging Face, logits where words are hidden",
    ("pretraining", "hugging face"): "Hugging Face, logits everywhere",
    ("finetuning", "hugging face"): "Hugging Face in a plain loop",
    ("images", "multimae"): "MultiMAE's code",
}
_CASES = {
    "pretraining": "pre-training, BERT 4 x 256",
    "finetuning": "fine-tuning, BERT 4 x 256",
    "images": "MM-MAE, ViT-Tiny",
}


def pages() -> dict[str, str | bytes]:
    """File names to their content."""
    return {
        "idea.svg": figures.draw_idea(),
        "worst_task.svg": figures.draw_worst_tasks(),
        "costs.svg": figures.draw_costs(),
        "brown.inc": _losses(),
        "tags.inc": _tags(),
        "texts.inc": _scores(figures.TEXTS),
        "images.inc": _scores(figures.NYU),
        "costs.inc": f"![Cost by tasks](generated/results/costs.svg)\n\n{_costs()}",
        "peers.inc": _peers(),
        "replicas.inc": _replicas(),
    }


def _losses() -> str:
    found = figures.losses(figures.BROWN)
    rows = {name: one for name, one in found.items() if "momentum" not in name}
    tasks = list(next(iter(next(iter(rows.values())).values())))
    table = [("weighting", "worst", "mean", *tasks)]
    for name, seeds in rows.items():
        means = [statistics.fmean(one.values()) for one in seeds.values()]
        by_task = [statistics.fmean(one[task] for one in seeds.values()) for task in tasks]
        worst = statistics.fmean(figures.worst(seeds, max))
        table.append((name, *_in_words([worst, statistics.fmean(means), *by_task], 2)))
    return _table(table)


def _tags() -> str:
    found = figures.losses(figures.TAGS)
    worst = {name: statistics.fmean(figures.worst(seeds, max)) for name, seeds in found.items()}
    return _table(
        [("weighting", "worst tag"), *((name, f"{one:.2f}") for name, one in worst.items())]
    )


def _scores(folder: str) -> str:
    found, trivial = figures.scores(folder), figures.scores(folder, "trivial")
    rows = {"trivial": next(iter(trivial.values())), **found}
    tasks = list(next(iter(next(iter(found.values())).values())))
    table = [("row", *(_TASKS.get(task, task) for task in tasks))]
    for name, seeds in rows.items():
        means = [statistics.fmean(one[task] for one in seeds.values()) for task in tasks]
        table.append((name, *_in_words(means, 3)))
    return _table(table)


def _costs() -> str:
    groups = figures.costs()
    numbers = sorted({number for of_tasks in groups.values() for number in of_tasks})
    table = [("tasks", *map(str, numbers))]
    for name, of_tasks in groups.items():
        table.append((name, *(_spread(of_tasks.get(number, ())) for number in numbers)))
    return _table(table)


def _peers() -> str:
    """Our time over another's, one row a case and backend."""
    table = [("what", "backend", "over", "ratio", "quartiles", "equal steps")]
    for row in figures.rows("summary.csv"):
        if row["benchmark"] in ("peers", "tagging"):
            table.append(
                (
                    _CASES.get(row["case"], f"tagging, {row['case']}"),
                    _BACKENDS[row["backend"]],
                    _PEERS.get((row["case"], row["over"]), row["over"]),
                    f"{float(row['ratio']):.2f}",
                    f"{float(row['lower_quartile']):.2f}-{float(row['upper_quartile']):.2f}",
                    f"{float(row['noise']):.2f}",
                )
            )
    return _table(table)


def _replicas() -> str:
    """The largest difference over the weightings, by engine, model and replicas."""
    rows = figures.rows("replicas_amd-epyc_cpu.csv")
    models = list(dict.fromkeys(row["model"] for row in rows))
    largest: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        of_models = largest.setdefault((row["engine"], row["replicas"]), {})
        found = max(float(row["difference"]), of_models.get(row["model"], 0.0))
        of_models[row["model"]] = found
    table = [("engine", "replicas", *models)]
    for (engine, replicas), found in largest.items():
        differences = [f"{found[model]:.1e}" if model in found else "" for model in models]
        table.append((_BACKENDS[engine], replicas, *differences))
    return _table(table)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _in_words(values: Iterable[float], digits: int) -> list[str]:
    return [f"{value:.{digits}f}" for value in values]


def _table(rows: Sequence[Sequence[str]]) -> str:
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
