"""Downloads against a server on this machine: cuts, other versions, wrong sizes, refusals, damage, two at once."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from envs.datasets import download, records
from envs.datasets.download import DownloadError, fetch

BODY = bytes(range(256)) * 1000  # 256 000 bytes
OTHER = bytes(reversed(BODY))
CHECKOUT = Path(__file__).resolve().parents[2]
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def server(http_server: Any) -> Any:
    """It serves BODY; `server.does` says how, and holds what was asked."""
    http_server.does.body = BODY
    return http_server


@pytest.fixture
def get(server: Any, tmp_path: Path) -> Callable[..., Path]:
    return partial(fetch, server.url, tmp_path / "set.hdf5", progress=False, pause=0.0)


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_download_is_recorded(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    path = get()
    assert path.read_bytes() == BODY
    assert left(tmp_path) == ["set.hdf5", "set.hdf5.json"]
    known = records.recorded(path)
    assert known == records.Record(server.url, len(BODY), SHA256, path.stat().st_mtime_ns)
    assert server.does.asked[0]["User-Agent"].startswith("orbs/")
    assert "Range" not in server.does.asked[0]
    assert get() == path
    assert len(server.does.asked) == 1  # a file that is there needs no network


def test_cuts_are_resumed_in_one_call(server: Any, get: Callable[..., Path]) -> None:
    server.does.cuts = [1000, 2000, 3000]
    assert get(tries=2).read_bytes() == BODY  # each try brings something, so none counts as the last
    assert [ask.get("Range") for ask in server.does.asked] == [None, "bytes=1000-", "bytes=3000-", "bytes=6000-"]
    assert server.does.asked[1]["If-Range"] == '"one"'


def test_what_came_is_kept_for_the_next_call(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    server.does.cuts = [1000, 0, 0]
    with pytest.raises(DownloadError, match=r"broke, tried 3 times; 1000 of 256000 bytes lie in .*\.part, and the nex"):
        get(tries=3)
    assert left(tmp_path) == ["set.hdf5.part", "set.hdf5.part.json"]
    assert download.partial_size(tmp_path / "set.hdf5") == 1000
    assert get().read_bytes() == BODY
    assert server.does.asked[-1]["Range"] == "bytes=1000-"
    assert left(tmp_path) == ["set.hdf5", "set.hdf5.json"]


def test_interruption_leaves_a_part(
    server: Any, get: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(self: Any, answer: Any, blocks: list[int] = []) -> bytes:  # noqa: B006 (counts the calls)
        blocks.append(1)
        if len(blocks) > 2:
            raise KeyboardInterrupt
        found: bytes = answer.read(500)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(download._Download, "_read", read)
        with pytest.raises(KeyboardInterrupt):
            get()
    assert (tmp_path / "set.hdf5.part").read_bytes() == BODY[:1000]
    assert get().read_bytes() == BODY
    assert server.does.asked[-1]["Range"] == "bytes=1000-"


def test_last_modified_serves_where_there_is_no_strong_tag(server: Any, get: Callable[..., Path]) -> None:
    server.does.tag, server.does.changed, server.does.cuts = 'W/"weak"', "Sat, 21 Nov 2026 00:00:00 GMT", [700]
    assert get().read_bytes() == BODY
    assert server.does.asked[1]["If-Range"] == server.does.changed


def test_no_version_no_resume(server: Any, get: Callable[..., Path]) -> None:
    server.does.tag, server.does.cuts = None, [700]
    assert get().read_bytes() == BODY
    assert "Range" not in server.does.asked[1]


def test_a_changed_file_is_begun_again(server: Any, get: Callable[..., Path]) -> None:
    server.does.cuts = [1000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        get()
    server.does.cuts, server.does.tag, server.does.body = [], '"two"', OTHER
    assert get().read_bytes() == OTHER


@pytest.mark.parametrize("body", [OTHER, BODY + b"more"])
def test_a_changed_file_on_a_server_that_ignores_if_range(server: Any, get: Callable[..., Path], body: bytes) -> None:
    server.does.cuts, server.does.obeys_if_range = [1000, 0, 0, 0, 0], False
    with pytest.raises(DownloadError):
        get()
    server.does.cuts, server.does.tag, server.does.body = [], '"two"', body
    assert get().read_bytes() == body


def test_a_file_that_became_shorter_than_the_part(server: Any, get: Callable[..., Path]) -> None:
    server.does.cuts, server.does.obeys_if_range = [1000, 0, 0, 0, 0], False
    with pytest.raises(DownloadError):
        get()
    server.does.cuts, server.does.body = [], BODY[:900]
    assert get().read_bytes() == BODY[:900]


def test_a_part_of_another_address_is_not_used(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "set.hdf5.part").write_bytes(b"x" * 50)
    version = {"url": "http://elsewhere/set.hdf5", "etag": '"one"', "length": len(BODY)}
    (tmp_path / "set.hdf5.part.json").write_text(json.dumps(version))
    assert get().read_bytes() == BODY


def test_a_part_that_is_whole_needs_no_request(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "set.hdf5.part").write_bytes(BODY)
    version = {"url": server.url, "etag": '"one"', "length": len(BODY)}
    (tmp_path / "set.hdf5.part.json").write_text(json.dumps(version))
    assert get().read_bytes() == BODY
    assert not server.does.asked


def test_a_server_that_ignores_ranges(server: Any, get: Callable[..., Path]) -> None:
    server.does.ranges, server.does.cuts = False, [1000, 500]
    assert get().read_bytes() == BODY


def test_a_server_that_always_cuts_at_the_same_place(server: Any, get: Callable[..., Path]) -> None:
    server.does.ranges, server.does.cuts = False, [1000] * 50
    with pytest.raises(DownloadError, match=r"tried 4 times; 1000 of 256000"):
        get()
    assert len(server.does.asked) == 4


def test_a_stated_length_that_never_comes(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    server.does.stated_length = len(BODY) + 10
    with pytest.raises(DownloadError, match="tried 4 times"):
        get()
    assert not (tmp_path / "set.hdf5").exists()


def test_a_stated_length_that_is_too_short_meets_the_check(
    server: Any, get: Callable[..., Path], tmp_path: Path
) -> None:
    server.does.stated_length = 5000
    with pytest.raises(DownloadError, match=r"sent half a file$"):
        get(check=lambda path: "half a file" if path.stat().st_size != len(BODY) else None)
    assert left(tmp_path) == []


def test_no_stated_length(server: Any, get: Callable[..., Path]) -> None:
    server.does.stated_length = -1
    assert get().read_bytes() == BODY


def test_an_empty_file(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    server.does.body = b""
    with pytest.raises(DownloadError, match="sent an empty file"):
        get()
    assert left(tmp_path) == []


@pytest.mark.parametrize("state", [401, 403, 404, 410])
def test_refusals_are_final(server: Any, get: Callable[..., Path], tmp_path: Path, state: int) -> None:
    server.does.states = [state] * 10
    with pytest.raises(DownloadError, match=rf"^HTTP {state} \(.+\) from {server.url}$"):
        get()
    assert len(server.does.asked) == 1
    assert left(tmp_path) == []


def test_a_refusal_keeps_the_part(server: Any, get: Callable[..., Path]) -> None:
    server.does.cuts, server.does.states = [1000], [200, 403]
    with pytest.raises(DownloadError, match=r"^HTTP 403 .*; 1000 of 256000 bytes lie in"):
        get()
    assert get().read_bytes() == BODY
    assert server.does.asked[-1]["Range"] == "bytes=1000-"


def test_a_busy_server_is_tried_again(server: Any, get: Callable[..., Path]) -> None:
    server.does.states = [503, 429, 500]
    assert get().read_bytes() == BODY


def test_a_server_that_stays_busy(server: Any, get: Callable[..., Path]) -> None:
    server.does.states = [503] * 10
    with pytest.raises(DownloadError, match=r"HTTP 503 .*, tried 4 times"):
        get()
    assert len(server.does.asked) == 4


def test_no_server_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/set.hdf5"
    with pytest.raises(DownloadError, match=rf"^no connection to {url} \(Connection refused\)$"):
        fetch(url, tmp_path / "set.hdf5", pause=100.0)
    with pytest.raises(DownloadError, match=r"^no connection to http://orbs\.invalid/set\.hdf5 \("):
        fetch("http://orbs.invalid/set.hdf5", tmp_path / "set.hdf5", pause=100.0)
    with pytest.raises(DownloadError, match="no address"):
        fetch("set.hdf5", tmp_path / "set.hdf5")


def test_silence_is_a_failure(server: Any, get: Callable[..., Path]) -> None:
    server.does.silent = True
    with pytest.raises(DownloadError, match=r"no answer from .* \(timed out\), tried 2 times"):
        get(timeout=0.2, tries=2)


def test_redirects_are_followed(server: Any, get: Callable[..., Path]) -> None:
    server.does.redirect, server.does.cuts = "/moved/set.hdf5", [1000]
    assert get().read_bytes() == BODY
    assert server.does.asked[-1]["path"] == "/moved/set.hdf5"
    assert server.does.asked[-1]["Range"] == "bytes=1000-"  # the rest is asked for at the new address too


def test_a_damaged_file_is_found(server: Any, get: Callable[..., Path]) -> None:
    path = get()
    path.write_bytes(OTHER)
    os.utime(path, ns=(0, 0))
    for look in (get, partial(records.verify, path), partial(records.confirm, path, "0" * 64)):
        with pytest.raises(ValueError, match=rf"{SHA256}, as recorded, got .*delete it and call again"):
            look()
    path.write_bytes(BODY[:-1])
    with pytest.raises(ValueError, match=r"expected 256000 bytes .* got 255999 bytes"):
        get()
    path.unlink()
    assert get().read_bytes() == BODY
    records.confirm(path, SHA256)


def test_bits_that_rot_are_found_by_verify(get: Callable[..., Path]) -> None:
    path = get()
    moment = path.stat().st_mtime_ns
    path.write_bytes(OTHER)
    os.utime(path, ns=(moment, moment))
    assert get() == path  # neither size nor time moved: the cheap look passes
    with pytest.raises(ValueError, match="as recorded"):
        records.verify(path)


def test_a_copied_file_is_compared_once(get: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = get()
    os.utime(path, ns=(5, 5))
    get()
    monkeypatch.setattr(records, "digest", None)  # the new time is recorded, so nothing is read again
    assert get() == path


def test_a_file_put_there_by_hand_is_recorded(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "set.hdf5").write_bytes(OTHER)
    path = get()
    known = records.recorded(path)
    assert known is not None
    assert (known.url, known.size) == (None, len(OTHER))
    assert not server.does.asked


def test_another_download_than_the_first(server: Any, get: Callable[..., Path], tmp_path: Path) -> None:
    path = get()
    path.unlink()
    server.does.body, server.does.tag = OTHER, '"two"'
    with pytest.raises(DownloadError, match=rf"the first download had 256000 with {SHA256}.*delete .*set\.hdf5\.json"):
        get()
    (tmp_path / "set.hdf5.json").unlink()
    assert get().read_bytes() == OTHER


def test_full_disk(server: Any, get: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=1000)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        with pytest.raises(DownloadError, match=r"cannot write in .* \(256000 bytes are to come, 1000 are free\)"):
            get()
    assert get().read_bytes() == BODY


def test_no_folder_can_be_made(server: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot write in"):
        fetch(server.url, tmp_path / "file" / "set.hdf5")
    with pytest.raises(ValueError, match="the folder"):
        fetch(server.url, tmp_path)


def test_the_bar(server: Any, get: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    get()
    assert capsys.readouterr().err == ""
    fetch(server.url, tmp_path / "shown.hdf5", progress=True)
    assert "shown.hdf5: 100%" in capsys.readouterr().err


def test_two_processes_at_once(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process downloads, this one waits for its lock and then finds the file."""
    server.does.gate = threading.Event()
    path, waits = tmp_path / "set.hdf5", threading.Event()
    code = "import sys; from pathlib import Path; from envs.datasets.download import fetch; "
    code += "fetch(sys.argv[1], Path(sys.argv[2]), progress=False)"
    with subprocess.Popen([sys.executable, "-c", code, server.url, path], cwd=CHECKOUT) as child:
        while not server.does.asked:
            assert child.poll() is None
            time.sleep(0.01)

        def lock(handle: int, waiting: str, wait: Callable[[int, str], bool] = download._lock) -> bool:
            waits.set()
            return wait(handle, waiting)

        monkeypatch.setattr(download, "_lock", lock)
        here = threading.Thread(target=fetch, args=(server.url, path), kwargs={"progress": False})
        here.start()
        assert waits.wait(10)
        time.sleep(0.05)
        assert here.is_alive()
        server.does.gate.set()
        here.join(10)
        assert not here.is_alive()
    assert child.returncode == 0
    assert path.read_bytes() == BODY
    assert len(server.does.asked) == 1
    assert left(tmp_path) == ["set.hdf5", "set.hdf5.json"]


def test_a_waiting_process_goes_on_when_the_other_fails(server: Any, get: Callable[..., Path]) -> None:
    """The one that had the lock is refused and removes its part; the waiting one opens a new part and downloads."""
    server.does.gate, server.does.states = threading.Event(), [404]
    failed: list[Exception] = []

    def refused() -> None:
        try:
            get()
        except DownloadError as error:
            failed.append(error)

    first, second = threading.Thread(target=refused), threading.Thread(target=get)
    first.start()
    while not server.does.asked:
        time.sleep(0.01)
    second.start()
    time.sleep(0.05)
    server.does.gate.set()
    first.join(10)
    second.join(10)
    assert len(failed) == 1
    assert get().read_bytes() == BODY
    assert len(server.does.asked) == 2


def test_without_locks_each_process_has_a_part_of_its_own(
    server: Any, get: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "_lock", lambda handle, waiting: False)
    assert get().read_bytes() == BODY
    assert left(tmp_path) == ["set.hdf5", "set.hdf5.json"]
