"""Reading Minari: every episode row by row against what was recorded, and every error."""

from __future__ import annotations

import json
import shutil
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pytest

from envs.datasets import Dataset
from envs.datasets.hdf5 import RawFile
from envs.datasets.minari import location, parse, read

minari = pytest.importorskip("minari", reason='needs pip install "orbs[minari]"')
# The shipped package warns about each piece of metadata that a test dataset does not give.
pytestmark = [pytest.mark.extra, pytest.mark.filterwarnings("ignore::UserWarning")]

ID = "pendulum/test-v0"
BOX = gym.spaces.Box(-1.0, 1.0, (2,), np.float32)
Episode = dict[str, Any]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Minari's folder is the test's own, and there is no network."""

    def offline(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network in tests")

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setattr(minari, "download_dataset", offline)
    return tmp_path / "minari"


def episode(steps: int, seed: int, terminated: bool = False, truncated: bool = True, obs: Any = None) -> Episode:
    """Random steps of BOX actions; no two rows are alike, so a shift cannot pass."""
    rng = np.random.default_rng(seed)
    last = np.arange(steps) == steps - 1
    return {
        "observations": rng.normal(size=(steps + 1, 3)).astype(np.float32) if obs is None else obs,
        "actions": rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        "rewards": rng.normal(size=steps),
        "terminations": last & terminated,
        "truncations": last & truncated,
    }


def put(episodes: list[Episode], obs_space: gym.Space[Any] | None = None, **options: Any) -> None:
    space = gym.spaces.Box(-np.inf, np.inf, (3,), np.float32) if obs_space is None else obs_space
    buffers = [minari.data_collector.EpisodeBuffer(**fields) for fields in episodes]
    options = {"action_space": BOX, **options}
    minari.create_dataset_from_buffers(ID, buffers, observation_space=space, **options)


def assert_rows(raw: RawFile, episodes: list[Episode], flat: Callable[[Any], np.ndarray] | None = None) -> None:
    """Every row of every episode, and what follows its last."""
    assert len(raw.obs) == len(raw.action) == len(raw.reward) == sum(len(fields["rewards"]) for fields in episodes)
    assert raw.timeout is not None
    assert raw.final_obs is not None
    assert len(raw.final_obs) == len(episodes)
    assert raw.obs.dtype == raw.action.dtype == raw.reward.dtype == raw.final_obs.dtype == np.float32
    start = 0
    for index, fields in enumerate(episodes):
        obs = fields["observations"] if flat is None else flat(fields["observations"])
        rows = slice(start, start + len(fields["rewards"]))
        np.testing.assert_array_equal(raw.obs[rows], np.asarray(obs[:-1], np.float32))
        np.testing.assert_array_equal(raw.final_obs[index], np.asarray(obs[-1], np.float32))
        np.testing.assert_array_equal(raw.action[rows], fields["actions"])
        np.testing.assert_array_equal(raw.reward[rows], np.asarray(fields["rewards"], np.float32))
        terminated = bool(fields["terminations"][-1])
        ends = [False] * (len(fields["rewards"]) - 1)
        assert raw.terminal[rows].tolist() == [*ends, terminated]
        assert raw.timeout[rows].tolist() == [*ends, not terminated]
        start = rows.stop


def as_dataset(raw: RawFile) -> Dataset:
    low, high = raw.attributes["action_low"], raw.attributes["action_high"]
    timeout = raw.timeout
    assert timeout is not None
    fields = (raw.obs, raw.action, raw.reward, raw.terminal, timeout, low, high)
    return Dataset("read", *fields, Path(), raw.sha256, final_obs=raw.final_obs)


@pytest.mark.parametrize("name", ["minari:mujoco/hopper/medium-v0", "minari/mujoco/hopper/medium-v0"])
def test_names(name: str) -> None:
    assert parse(name) == "mujoco/hopper/medium-v0"


@pytest.mark.parametrize(
    "name", ["mujoco/hopper/medium-v0", "minari/data.hdf5", "local/minari", "minari", "a/minari:b"]
)
def test_names_of_others(name: str) -> None:
    assert parse(name) is None


@pytest.mark.parametrize("data_format", ["hdf5", "arrow", "parquet"])
def test_every_episode_of_an_environment(data_format: str) -> None:
    """Pendulum episodes of different lengths, recorded step by step beside what Minari is given."""
    episodes = []
    for index, steps in enumerate((7, 1, 12, 3, 20)):
        env = gym.make("Pendulum-v1", max_episode_steps=steps)
        env.action_space.seed(index)
        observed = [env.reset(seed=index)[0]]
        played: list[tuple[Any, ...]] = []
        while not played or not played[-1][-1]:
            action = env.action_space.sample()
            obs, reward, terminated, truncated, _ = env.step(action)
            observed.append(obs)
            played.append((action, reward, terminated, truncated))
        env.close()
        fields = zip(("actions", "rewards", "terminations", "truncations"), zip(*played, strict=True), strict=True)
        episodes.append({"observations": np.array(observed), **{key: np.array(values) for key, values in fields}})
    assert [len(fields["rewards"]) for fields in episodes] == [7, 1, 12, 3, 20]
    put(episodes, env="Pendulum-v1", action_space=None, data_format=data_format)
    raw = read(ID)
    assert_rows(raw, episodes)
    assert raw.attributes["env_id"] == "Pendulum-v1"
    assert raw.attributes["max_episode_steps"] == 200
    assert (raw.attributes["action_low"].tolist(), raw.attributes["action_high"].tolist()) == ([-2.0], [2.0])
    view = as_dataset(raw).transitions()
    assert len(view) == 43  # the last step of an episode is a transition like any other
    np.testing.assert_array_equal(view.next_obs, np.concatenate([fields["observations"][1:] for fields in episodes]))


def test_data_collector() -> None:
    """Minari's own recorder: also an episode that a reset cut short."""
    pytest.importorskip("jax", reason='needs pip install "minari[create]"')
    env = minari.DataCollector(gym.make("Pendulum-v1", max_episode_steps=9), record_infos=True)
    env.action_space.seed(0)
    episodes: list[Episode] = []
    for steps in (9, 4, 9, 2):
        observed, actions, rewards = [env.reset(seed=steps)[0]], [], []
        for _ in range(steps):
            actions.append(env.action_space.sample())
            obs, reward, *_ = env.step(actions[-1])
            observed.append(obs)
            rewards.append(reward)
        flags = np.zeros(steps, np.bool_)
        episodes.append({"observations": np.array(observed), "actions": np.array(actions), "rewards": rewards})
        episodes[-1] |= {"terminations": flags, "truncations": flags}
    env.create_dataset(ID)
    env.close()
    assert_rows(read(ID), episodes)


def test_kinds_of_ends() -> None:
    kinds = [(False, True), (True, False), (True, True), (False, False)]
    episodes = [episode(3 + index, index, *kind) for index, kind in enumerate(kinds)]
    put(episodes)
    raw = read(ID)
    assert_rows(raw, episodes)
    assert raw.timeout is not None
    assert np.flatnonzero(raw.terminal).tolist() == [6, 11]
    assert np.flatnonzero(raw.timeout).tolist() == [2, 17]


def test_flags_inside_an_episode_end_one_there() -> None:
    fields = episode(6, 0)
    fields["terminations"][1] = fields["truncations"][3] = True
    put([fields])
    raw = read(ID)
    np.testing.assert_array_equal(raw.final_obs, fields["observations"][[2, 4, 6]])
    np.testing.assert_array_equal(as_dataset(raw).transitions().next_obs, fields["observations"][1:])


SORTED = gym.spaces.Dict({"b": gym.spaces.Box(-9, 9, (2,)), "a": gym.spaces.Box(-9, 9, (2, 2), np.float64)})
NESTED = gym.spaces.Dict(
    OrderedDict(z=gym.spaces.Box(-9, 9, ()), goal=SORTED, a=gym.spaces.Tuple((gym.spaces.Box(-9, 9, (1,)), SORTED)))
)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize(
    "space", [SORTED, NESTED, gym.spaces.Tuple((NESTED, gym.spaces.Box(-9, 9, (1,))))], ids=["dict", "nested", "tuple"]
)
def test_composite_observations_as_gymnasium_flattens_them(space: gym.Space[Any], data_format: str) -> None:
    if data_format == "arrow" and space is not SORTED:
        pytest.skip("Minari's Arrow writer takes no box of rank 0")
    space.seed(0)
    lengths = (4, 2, 5)
    samples = [[space.sample() for _ in range(steps + 1)] for steps in lengths]

    def stack(values: list[Any]) -> Any:
        if isinstance(values[0], dict):
            return {key: stack([value[key] for value in values]) for key in values[0]}
        if isinstance(values[0], tuple):
            return tuple(stack(list(part)) for part in zip(*values, strict=True))
        return np.array(values)

    put(
        [episode(n, n, obs=stack(part)) for n, part in zip(lengths, samples, strict=True)],
        space,
        data_format=data_format,
    )
    flat = [np.array([gym.spaces.flatten(space, sample) for sample in part]) for part in samples]
    assert_rows(read(ID), [episode(n, n, obs=part) for n, part in zip(lengths, flat, strict=True)])


def test_scores_digest_and_notes() -> None:
    put([episode(4, 0)], env="Pendulum-v1", eval_env="Pendulum-v1")
    edit(lambda metadata: metadata.update(ref_min_score=-1200.0, ref_max_score=-140.0))
    raw = read(ID)
    assert (raw.attributes["ref_min_score"], raw.attributes["ref_max_score"]) == (-1200.0, -140.0)
    assert "env_note" not in raw.attributes
    assert read(ID).sha256 == raw.sha256
    assert len(raw.sha256) == 64
    edit(lambda metadata: metadata.update(eval_env_spec=json.dumps({"id": "Other-v3", "kwargs": {"g": 9.0}})))
    assert read(ID).attributes["env_id"] == "Other-v3"
    assert "Other-v3 is evaluated by its id" in read(ID).attributes["env_note"]
    edit(lambda metadata: metadata.update(ref_min_score=float("nan")))
    assert "ref_max_score" not in read(ID).attributes


def edit(change: Callable[[dict[str, Any]], None]) -> None:
    path = location(ID, download=False) / "metadata.json"
    metadata = json.loads(path.read_text())
    change(metadata)
    path.write_text(json.dumps(metadata))


def expect(*parts: str, dataset_id: str = ID, kind: type[Exception] = ValueError, download: bool = True) -> None:
    with pytest.raises(kind) as caught:
        read(dataset_id, download)
    for part in (*parts, "expected", "got", "Fix: "):
        assert part in str(caught.value), str(caught.value)


def test_nothing_that_the_data_name_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    put([episode(4, 0)])
    monkeypatch.setattr(gym, "make", lambda *args, **kwargs: pytest.fail("an environment was built"))
    spec = {"id": "Evil-v0", "entry_point": "this_module_does_not_exist:Evil", "kwargs": {}, "additional_wrappers": []}
    edit(lambda metadata: metadata.update(env_spec=json.dumps(spec), eval_env_spec=json.dumps(spec)))
    assert read(ID).attributes["env_id"] == "Evil-v0"
    edit(lambda metadata: metadata.pop("observation_space"))
    expect("observation_space: expected a space in the dataset's metadata", "not built")


def test_spaces_that_are_unsupported() -> None:
    images = gym.spaces.Dict({"image": gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)})
    put([episode(2, 0, obs={"image": np.zeros((3, 4, 4, 3), np.uint8)})], images)
    expect("observations['image']", "images of shape (4, 4, 3)")
    for space in (gym.spaces.Discrete(3), gym.spaces.Text(5), gym.spaces.MultiBinary(2)):
        minari_space = minari.serialization.serialize_space(gym.spaces.Tuple((SORTED, space)))
        edit(lambda metadata, text=minari_space: metadata.update(observation_space=text))
        expect("observations[1]", f"the space {type(space).__name__}, which is unsupported")
    for space in (gym.spaces.Discrete(3), gym.spaces.Box(0, 3, (2,), np.int64), SORTED):
        text = minari.serialization.serialize_space(space)
        edit(lambda metadata, text=text: metadata.update(action_space=text))
        expect("actions: expected continuous actions in one box", "discrete actions are unsupported")


def test_ids_that_are_not_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put([episode(4, 0)])
    other = "pendulum/tset-v0"
    expect("did you mean 'pendulum/test-v0'", "minari list local", str(home), dataset_id=other, download=False)
    expect(
        str(home / other), "no network in tests", "MINARI_DATASETS_PATH", "minari download", "did you", dataset_id=other
    )
    for malformed in ("../x-v0", "/etc/x-v0", "hopper", "mujoco/hopper", "hf://a/b-v0", ""):
        expect("(namespace/)name-vN", dataset_id=malformed)

    def unknown(dataset_id: str) -> None:
        print("on standard output")
        (home / dataset_id / "data").mkdir(parents=True)
        raise ValueError("Couldn't find any version")

    monkeypatch.setattr(minari, "download_dataset", unknown)
    expect("find any version", "minari list remote", "did you mean 'pendulum/test-v0'", dataset_id=other)
    assert not (home / other).exists()  # a part is not taken for the whole

    def missing(dataset_id: str) -> None:
        raise ImportError("huggingface_hub is not installed")

    monkeypatch.setattr(minari, "download_dataset", missing)
    expect("huggingface_hub", 'pip install "orbs[minari]"', dataset_id=other, kind=ImportError)


def test_download_prints_nothing_on_standard_output(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    put([episode(4, 0)])
    shutil.move(home / ID, home / "elsewhere")

    def fetch(dataset_id: str) -> None:
        print("Downloading")
        shutil.move(home / "elsewhere", home / dataset_id)

    monkeypatch.setattr(minari, "download_dataset", fetch)
    capsys.readouterr()
    assert len(read(ID).obs) == 4
    assert capsys.readouterr().out == ""


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    expect('pip install "orbs[minari]"', kind=ImportError)


def test_damaged_datasets() -> None:
    put([episode(40, 0), episode(50, 1)])
    main = location(ID) / "main_data.hdf5"
    whole, metadata = main.read_bytes(), (location(ID) / "metadata.json").read_text()

    def broken(change: Callable[[h5py.File], None], *parts: str) -> None:
        with h5py.File(main, "a") as file:
            change(file)
        expect(*parts)
        main.write_bytes(whole)

    def put_array(key: str, values: Any) -> Callable[[h5py.File], None]:
        def change(file: h5py.File) -> None:
            del file[key]
            file[key] = values

        return change

    for size in (0, 100, len(whole) // 2):
        main.write_bytes(whole[:size])
        expect("a whole Minari dataset", "truncated or corrupt")
    main.write_bytes(whole)
    broken(lambda file: file.pop("episode_1"), "episode 1", "truncated or corrupt")
    broken(lambda file: file["episode_1"].pop("rewards"), "episode 1")
    broken(put_array("episode_1/observations", np.zeros((50, 3))), "observations in episode 1", "(51, 3)", "(50, 3)")
    broken(put_array("episode_0/actions", np.zeros((40, 3))), "actions in episode 0", "(40, 2)")
    broken(put_array("episode_0/terminations", np.zeros(39)), "terminations in episode 0")
    broken(put_array("episode_0/terminations", np.full(40, 2)), "terminations: expected 0 or 1")
    broken(put_array("episode_0/observations", np.full((41, 3), b"x")), "observations in episode 0")
    broken(put_array("episode_0/rewards", np.zeros(0)), "at least one step in each", "episode 0")
    for change, parts in (
        ({"total_steps": 91}, ("90 steps where its metadata say 91",)),
        ({"total_steps": 89}, ("more than the 89 steps",)),
        ({"total_episodes": 3}, ("episode 2",)),
        ({"total_steps": 10**16}, ("truncated or corrupt",)),
        ({"total_steps": 0}, ("at least one episode",)),
        ({"minari_version": "9.9.9"}, ("data that Minari", "data of Minari 9.9.9")),
        ({"data_format": "punch cards"}, ("truncated or corrupt",)),
        ({"observation_space": "{"}, ("metadata.json", "truncated or corrupt")),
    ):
        edit(lambda values, change=change: values.update(change))
        expect(*parts)
        (location(ID) / "metadata.json").write_text(metadata)
    assert len(read(ID).obs) == 90
    main.unlink()
    expect("truncated or corrupt")
