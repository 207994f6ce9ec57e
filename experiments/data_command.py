"""What `orbs data` does; the options are in `experiments.data_options`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path

from experiments.data_options import Data, DataDownload, DataExport, DataInfo, DataList, DataPicture, DataVerify

__all__ = ["data"]


def data(options: Data) -> int:
    """Run one of its commands; returns the exit status.

    Raises:
        ValueError, OSError, ImportError: as `envs.datasets.load`.
    """
    command = options.command
    if isinstance(command, DataList):
        _list(command)
    elif isinstance(command, DataInfo):
        _info(command)
    elif isinstance(command, DataDownload):
        _download(command)
    elif isinstance(command, DataVerify):
        return _verify(command)
    elif isinstance(command, DataExport):
        _export(command)
    else:
        _picture(command)
    return 0


def _list(command: DataList) -> None:
    from envs.d4rl_tasks import task
    from envs.datasets import d4rl, local

    rows: list[tuple[str, ...]] = [("name", "on this machine", "0 is", "100 is", "scored on")]
    for name, entry in local.ENTRIES.items():
        reference = entry.reference
        size = "shipped" if entry.shipped else _size(local.place(name)) or "made on first use"
        rows.append((name, size, f"{reference.minimum:.5g}", f"{reference.maximum:.5g}", entry.env_id))
    for name, known in d4rl.ENTRIES.items():
        scores = [f"{bound:.5g}" if bound is not None else "-" for bound in (known.minimum, known.maximum)]
        rows.append((name, _size(d4rl.place(name)) or "downloaded on first use", *scores, task(name).env_id or "-"))
    for name in _minari_ids():
        rows.append((f"minari:{name}", "here", "-", "-", "-"))
    shown = [row for row in rows[1:] if all(word in row[0] for word in command.words)]
    if command.here:
        shown = [row for row in shown if not row[1].endswith("on first use")]
    if not shown:
        print("No dataset of this description; `orbs data list` shows all.")
        return
    _table([rows[0], *shown])
    print(
        f"{len(shown)} datasets. Local ones lie in {local.cache_folder()}, D4RL's in {d4rl.folder()}. Any Minari "
        "dataset is minari:<id>."
    )


def _minari_ids() -> list[str]:
    """The Minari datasets on this machine; none where Minari is not installed."""
    if importlib.util.find_spec("minari") is None:
        return []
    from envs.datasets import minari

    root = minari.folder()
    return sorted(str(path.parent.parent.relative_to(root)) for path in root.glob("**/data/main_data.hdf5"))


def _info(command: DataInfo) -> None:
    from envs.datasets import d4rl, load, local, minari

    for name in command.names:
        if name in d4rl.ENTRIES:
            print(f"{name}: address {d4rl.ENTRIES[name].url}, place {d4rl.place(name)}")
            if not d4rl.place(name).is_file():
                print(f"  not downloaded; orbs data download {name} fetches it")
                _print_task(name)
                continue
        elif name in local.ENTRIES:
            print(f"{name}: place {local.place(name)}")
            if not local.place(name).is_file():
                wanted = local.expected(name)
                what = f"; {wanted['rows']} rows, mean return {wanted['return']['value']:.1f}" if wanted else ""
                print(f"  not made yet; orbs data download {name} makes it{what}")
                continue
        if (minari_id := minari.parse(name)) is not None:
            minari.location(minari_id, download=False)  # says so if it is not here
        found = load(name, env=command.env, clip_actions=command.clip_actions, progress=False)
        print(f"  {found.summary()}")
        if found.env_note:
            print(f"  {'scored in' if found.env_id else 'cannot be scored:'} {found.env_note}")
        print("  " + ", ".join(filter(None, (_size(found.path), f"sha256 {found.sha256}"))))


def _print_task(name: str) -> None:
    from envs.d4rl_tasks import task

    found = task(name)
    print(f"  {'scored in' if found.env_id else 'cannot be scored:'} {found.note}")


def _download(command: DataDownload) -> None:
    from envs.datasets import d4rl, generate, load, local

    for name in command.names:
        if name in local.ENTRIES:
            path = generate.fetch(name, progress=not command.quiet)
        elif name in d4rl.ENTRIES:
            path = d4rl.fetch(name, progress=not command.quiet)
        else:
            path = load(name, progress=not command.quiet).path
        print(f"{name}: {path}" + (f", {_size(path)}" if _size(path) else ""))


def _verify(command: DataVerify) -> int:
    from envs.datasets import d4rl, generate, local
    from orbs import reject

    names = list(command.names)
    for name in names:
        if name not in local.ENTRIES and name not in d4rl.ENTRIES:
            reject("NAME", "a local or D4RL dataset, which alone have checksums", f"'{name}'", "see orbs data list")
    if not names:
        names = [name for name in local.ENTRIES if local.place(name).is_file()]
        names += [name for name in d4rl.ENTRIES if d4rl.place(name).is_file()]
    wrong = 0
    for name in names:
        try:
            verdict = generate.verify(name) if name in local.ENTRIES else d4rl.verify(name).sentence()
        except ValueError as error:
            wrong += 1
            verdict = f"WRONG: {error}"
        print(f"{name}: {verdict}")
    if not names:
        print("No dataset is on this machine; orbs data download NAME fetches one.")
    return 1 if wrong else 0


def _picture(command: DataPicture) -> None:
    from envs.datasets import load
    from experiments.data_plots import draw

    dataset = load(command.name, env=command.env, clip_actions=command.clip_actions)
    out = command.out or Path(f"{dataset.name.replace('/', '-').replace(':', '-')}.png")
    print(draw(dataset, out))


def _export(command: DataExport) -> None:
    from envs.datasets import load, minari, minari_export

    dataset = load(command.name, env=command.env, clip_actions=command.clip_actions)
    made = minari_export.export(
        dataset,
        minari.parse(command.minari_id) or command.minari_id,
        overwrite=command.overwrite,
        author=command.author,
        description=command.description,
    )
    print(f"minari:{made}: {minari.folder(made)}")


def _size(path: Path) -> str:
    if not path.is_file():
        return ""
    size = path.stat().st_size
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} KB"


def _table(rows: Iterable[tuple[str, ...]]) -> None:
    rows = list(rows)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(f"{cell:{width}s}" for cell, width in zip(row, widths, strict=True)).rstrip())
