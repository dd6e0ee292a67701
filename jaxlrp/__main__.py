"""The command line: `python -m jaxlrp attribute | show | export | cluster`.

Each command is a call of the function of that name. What is wrong is said in a
sentence; the exit status is 1, or 2 where the arguments cannot be read.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from jaxlrp import clusters, errors, runs

_EXAMPLE = """example:
  python -m jaxlrp attribute model:explain --data digits.npz --out run/
  python -m jaxlrp show run/
  python -m jaxlrp cluster run/ --by label --out clusters.html
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; an exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        return 130
    except (errors.JaxlrpError, OSError, ValueError, TypeError, KeyError) as error:
        if options.traceback:
            raise
        text = str(error.args[0]) if isinstance(error, KeyError) else str(error)
        notes = "".join(f", {note}" for note in getattr(error, "__notes__", ()))
        print(f"error: {text}{notes}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m jaxlrp",
        description="Explain whole datasets.",
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="command")
    adders = (_add_attribute, _add_show, _add_export, _add_cluster)
    for add in adders:
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Any, text: str, example: str) -> Any:
    command = commands.add_parser(
        name,
        help=text,
        description=text,
        epilog=f"example:\n  python -m jaxlrp {name} {example}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    command.add_argument(
        "--traceback", action="store_true", help="show where an error came from"
    )
    return command


def _add_attribute(commands: Any) -> None:
    add = _command(
        commands,
        "attribute",
        _attribute,
        "Explain a dataset, or go on with it.",
        "model:explain --data digits.npz --out run/ --batch-size 64",
    ).add_argument
    add("explain", help="module:function, from a batch to arrays, under jax.jit")
    add("--data", required=True, help="a path, or module:name of a dataset")
    add("--out", required=True, help="the folder")
    add("--batch-size", type=int, default=128, help="rows of a call (128)")
    add("--block", type=int, help="rows that are written at once")
    add("--shard", type=_shard, help="i/n: the ith of n parts, counted from 0")
    add("--write", nargs="+", help="the results that are written (all)")
    add("--dtype", help="of floating results in the store")
    add("--ahead", type=int, default=2, help="calls on their way for each device (2)")
    flag = argparse.BooleanOptionalAction
    add("--resume", action=flag, default=True, help="go on with a run that is there")
    add(
        "--verify", action="store_true", help="read what is done, repair what is broken"
    )
    add("--sync", action="store_true", help="be safe from a loss of power, too")
    add("--quiet", action="store_true", help="no bar")


def _shard(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not i.isdecimal() or not n.isdecimal() or int(i) >= int(n):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected i/n with i < n")
    return int(i), int(n)


def _attribute(options: argparse.Namespace) -> None:
    found = runs.attribute(
        _named(options.explain, "explain"),
        _data(options.data),
        options.out,
        batch_size=options.batch_size,
        block=options.block,
        shard=options.shard,
        write=options.write,
        dtype=options.dtype,
        ahead=options.ahead,
        resume=options.resume,
        verify=options.verify,
        sync=options.sync,
        progress=False if options.quiet else None,
    )
    print(found)


def _named(text: str, what: str) -> Any:
    """What `module:name` stands for.

    Raises:
      ValueError: if there is no such module, or nothing of that name in it.
    """
    module, _, name = text.partition(":")
    if not module or not name:
        raise ValueError(f"{what}: got {text!r}, expected module:name")
    if (folder := str(pathlib.Path.cwd())) not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"{what}: got {text!r}: {error}") from error
    try:
        for part in name.split("."):
            found = getattr(found, part)
    except AttributeError as error:
        raise ValueError(f"{what}: got {text!r}: {error}") from error
    return found


def _data(text: str) -> Any:
    if ":" in text and not pathlib.Path(text).exists():
        return _named(text, "data")
    return text


def _add_show(commands: Any) -> None:
    text = "Say what is in a run's folder."
    command = _command(commands, "show", _show, text, "run/")
    command.add_argument("run_folder", metavar="run", help="the folder")
    command.add_argument(
        "--verify", action="store_true", help="read everything, compare checksums"
    )


def _show(options: argparse.Namespace) -> None:
    run = runs.Attributions(options.run_folder)
    print(run)
    for name in run.names:
        array = run[name]
        print(f"  {name}: {array.dtype.name} {array.shape}")
    for name in run.reductions:
        print(f"  reduced: {name}")
    identity = run.identity
    for name in ("jaxlrp", "jax", "platform", "batch_size", "block"):
        print(f"  {name}: {identity[name]}")
    if options.verify:
        done, whole = run.done(), run.done(verify=True)
        broken = sorted(set(done) - set(whole))
        if broken:
            raise errors.StoreError(
                f"blocks {broken} are broken; attribute --verify repairs them"
            )
        print(f"  all {len(done)} blocks are as they were written")


def _add_export(commands: Any) -> None:
    command = _command(
        commands,
        "export",
        _export,
        "Write a run in another package's format.",
        "run/ --format virelay --images data.npz:x --labels data.npz:y "
        "--predictions scores --out project/",
    )
    add = command.add_argument
    add("run_folder", metavar="run", help="the folder")
    add("--format", choices=("virelay", "crp", "inseq"), required=True)
    add("--out", required=True, help="the folder; inseq: the file")
    add("--images", help="virelay: path.npz:name or path.npy")
    add("--labels", help="virelay: path.npz:name or path.npy, or an array of the run")
    add("--predictions", help="virelay: as --labels")
    add("--relevance", default="relevance", help="the run's array (relevance)")
    add("--tokens", help='inseq: JSON, {"target": [[token, ...], ...], "source": ...}')
    add("--top", nargs="+", metavar="LAYER=REDUCTION", help="crp: the layers")


def _export(options: argparse.Namespace) -> None:
    run = runs.Attributions(options.run_folder)
    if options.format == "crp":
        pairs = [pair.partition("=") for pair in options.top or ()]
        if not pairs or not all(name for _, _, name in pairs):
            raise ValueError(f"top: got {options.top}, expected layer=reduction")
        layers = {layer: name for layer, _, name in pairs}
        print(*runs.export_crp(run, options.out, layers), sep="\n")
        return
    if options.format == "inseq":
        if options.tokens is None:
            raise ValueError("tokens: got none, expected a file for inseq")
        with open(options.tokens, encoding="utf-8") as file:
            tokens = json.load(file)
        if not isinstance(tokens, dict) or "target" not in tokens:
            raise ValueError(f'tokens: {options.tokens} has no "target"')
        path = runs.export_inseq(
            run,
            options.out,
            target=tokens["target"],
            source=tokens.get("source"),
            relevance=options.relevance,
        )
        print(path)
        return
    given = {n: getattr(options, n) for n in ("images", "labels", "predictions")}
    if missing := [name for name, value in given.items() if value is None]:
        raise ValueError(f"{missing[0]}: got none, expected one for virelay")
    arrays = {name: _array(run, value) for name, value in given.items()}
    classes = arrays["predictions"].shape[1]
    print(
        runs.export_virelay(
            run,
            options.out,
            names=[str(i) for i in range(classes)],
            relevance=options.relevance,
            **arrays,
        )
    )


def _array(run: runs.Attributions, text: str) -> Any:
    """An array of the run, or one in a file."""
    import numpy as np

    if text in run:
        return run[text][:]
    path, _, name = text.partition(":")
    found = np.load(path, allow_pickle=False)
    return found[name] if name else found


def _add_cluster(commands: Any) -> None:
    command = _command(
        commands,
        "cluster",
        _cluster,
        "Cluster a run's relevances class by class, and show them on a page.",
        "run/ --by label --out clusters.html",
    )
    add = command.add_argument
    add("run_folder", metavar="run", help="the folder")
    add("--out", required=True, help="the page")
    add("--by", required=True, help="each row's class: as --images")
    add("--relevance", default="relevance", help="the run's array (relevance)")
    add("--images", help="path.npz:name or path.npy, or an array of the run")
    add("--clusters", type=int, help="of k-means (as the eigenvalues say)")
    add("--neighbours", type=int, default=10, help="of each row in the graph (10)")


def _cluster(options: argparse.Namespace) -> None:
    run = runs.Attributions(options.run_folder)
    relevance = run[options.relevance][:]
    if relevance.ndim == 4:
        relevance = relevance.sum(-1)
    found = clusters.by_class(
        clusters.prepared(relevance),
        _array(run, options.by),
        clusters=options.clusters,
        neighbours=options.neighbours,
    )
    for c, one in found.items():
        sizes = ", ".join(map(str, one.sizes))
        print(f"class {c}: separation {one.separation:.2f}, clusters of {sizes}")
    images = None if options.images is None else _array(run, options.images)
    clusters.save(options.out, clusters.page(found, relevance, images))
    print(f"wrote {options.out}")


if __name__ == "__main__":
    raise SystemExit(main())
