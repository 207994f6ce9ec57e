"""Fetching one file over HTTP: resumed after a cut, checked for size, whole or not there at all.

`fetch(url, path)` gives `path` its name when all of it has come and passed the checks. Until then the bytes lie in
`<name>.part`, and `<name>.part.json` says which version of the server's file they are: the next call asks for the
rest of that version (`Range` with `If-Range`), and begins again if the server has another. Size and SHA-256 are
recorded (`envs.datasets.records`) and compared ever after.
"""

from __future__ import annotations

import contextlib
import email.message
import errno
import http.client
import json
import os
import re
import shutil
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from envs.datasets.records import beside, compare, digest, read_json, record, recorded
from orbs import __version__, reject, write_atomically

__all__ = ["DownloadError", "fetch", "partial_size"]

_BLOCK = 1 << 20
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # HTTP states that another try may not meet


class DownloadError(OSError):
    """A file could not be fetched. The text says why; `part`, `received` and `length` (or None) what lies there."""

    def __init__(self, why: str, part: Path, received: int = 0, length: int | None = None) -> None:
        whole = "" if length is None else f" of {length}"
        rest = f"; {received}{whole} bytes lie in {part}, and the next call goes on from there"
        super().__init__(why + (rest if received else ""))
        self.part, self.received, self.length = part, received, length


class _Passing(Exception):
    """A failure that another try may mend."""


def fetch(
    url: str,
    path: Path,
    *,
    progress: bool = True,
    timeout: float = 30.0,
    tries: int = 4,
    pause: float = 1.0,
    check: Callable[[Path], str | None] | None = None,
) -> Path:
    """The file at `path`: compared with its record if it is there (no network then), else downloaded and recorded.

    Two processes may call this at once: one downloads, the other waits for it.

    Args:
        url: http or https; redirects are followed.
        progress: show a bar on standard error.
        timeout: seconds of silence after which a try counts as failed.
        tries: how many in a row may bring nothing new.
        pause: seconds before the next try, doubled from one failure to the next.
        check: looks at a file and says what is wrong with it, or None; a download that fails it is thrown away.

    Raises:
        ValueError: the file differs from its record, or `path` is a folder.
        DownloadError: it could not be downloaded. What has come stays, and the next call goes on from there.
    """
    if path.is_dir():
        reject("file", "a place for a file", f"the folder {path}", "move that folder away")
    if path.exists():
        return compare(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _own_part(path, progress) as part:
            if not path.exists():  # else another process brought it while this one waited
                _Download(url, path, part, timeout, check).run(progress, tries, pause)
    except DownloadError:
        raise
    except OSError as error:  # the disk: full, read-only, not ours
        length = read_json(beside(path, ".part.json")).get("length")
        why = f"cannot write in {path.parent} ({_reason(error)})"
        raise DownloadError(why, beside(path, ".part"), partial_size(path), length) from error
    return compare(path)


def partial_size(path: Path) -> int:
    """Bytes of `path` that a broken download left, 0 if none."""
    part = beside(path, ".part")
    return part.stat().st_size if part.exists() else 0


class _Download:
    """One download into `part`, by as many requests as it takes."""

    def __init__(
        self, url: str, path: Path, part: Path, timeout: float, check: Callable[[Path], str | None] | None
    ) -> None:
        self.url, self.path, self.part, self.timeout, self.check = url, path, part, timeout, check
        self.version = beside(part, ".json")
        self.length: int | None = None  # bytes of the whole file, once known

    def run(self, progress: bool, tries: int, pause: float) -> None:
        from tqdm import tqdm

        with tqdm(desc=self.path.name, unit="B", unit_scale=True, unit_divisor=1024, disable=not progress) as bar:
            failed, begun, reached = 0, False, self.part.stat().st_size
            while True:
                try:
                    self._request(bar)
                    break
                except _Passing as why:
                    size = self.part.stat().st_size
                    # What counts is a part longer than ever: a server that ignores Range and cuts sends bytes forever.
                    failed = 1 if size > reached else failed + 1
                    begun, reached = begun or size > reached, max(reached, size)
                    # No such host, no network, nobody listens: waiting helps only where it worked a moment ago.
                    hopeless = not begun and _never_connected(why.__cause__)
                    if failed >= tries or hopeless:
                        self._fail(f"{why}, tried {failed} times" if failed > 1 else str(why))
                    time.sleep(pause * 2 ** (failed - 1))
        self._finish()

    def _request(self, bar: Any) -> None:
        """One request; returns when the whole file has come."""
        offset, headers = self._rest()
        if offset and offset == self.length:
            return
        headers |= {"User-Agent": f"orbs/{__version__}", "Accept-Encoding": "identity"}
        try:
            request = urllib.request.Request(self.url, headers=headers)
            answer = urllib.request.urlopen(request, timeout=self.timeout)
        except urllib.error.HTTPError as error:
            error.close()
            why = f"HTTP {error.code} ({error.reason}) from {self.url}"
            if error.code == 416:  # the server's file ends before the part does
                self._restart()
            elif error.code not in _PASSING:
                self._fail(why)
            raise _Passing(why) from error
        except urllib.error.URLError as error:
            raise _Passing(f"no connection to {self.url} ({_reason(error.reason)})") from error
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"no answer from {self.url} ({_reason(error)})") from error
        except ValueError as error:
            self._fail(f"'{self.url}' is no address ({error})")
        with answer:
            self._receive(answer, offset, bar)

    def _rest(self) -> tuple[int, dict[str, Any]]:
        """How many bytes are there, and the headers that ask for the rest of the same version."""
        offset, known = self.part.stat().st_size, read_json(self.version)
        tag, length = known.get("etag"), known.get("length")
        validator = tag if tag and not tag.startswith("W/") else known.get("last_modified")  # If-Range bars weak tags
        self.length = length
        if not offset or known.get("url") != self.url or not validator or (length is not None and offset > length):
            self._restart()
            return 0, {}
        return offset, {"Range": f"bytes={offset}-", "If-Range": validator}

    def _receive(self, answer: Any, offset: int, bar: Any) -> None:
        headers: email.message.Message = answer.headers
        stated = headers.get("Content-Length", "")
        to_come = int(stated) if stated.isdigit() else None
        if answer.status == 206:
            self._check_rest(headers, offset)
        elif answer.status == 200:  # from the start: the first request, another version, or a server without ranges
            offset = 0
            self._restart()
            self.length = to_come
            version = {"url": self.url, "etag": headers.get("ETag"), "last_modified": headers.get("Last-Modified")}
            write_atomically(self.version, json.dumps({**version, "length": self.length}))
        else:
            self._fail(f"HTTP {answer.status} from {self.url}")
        free = shutil.disk_usage(self.part.parent).free
        if to_come is not None and to_come > free:
            raise OSError(errno.ENOSPC, f"{to_come} bytes are to come, {free} are free")
        bar.total, bar.n = self.length, offset
        bar.refresh()
        with open(self.part, "r+b") as file:
            file.seek(offset)
            while block := self._read(answer):
                file.write(block)
                bar.update(len(block))
        size = self.part.stat().st_size
        if self.length is not None and size < self.length:
            raise _Passing(f"the connection to {self.url} broke")
        if self.length is not None and size > self.length:
            self._restart()
            raise _Passing(f"{self.url} sent {size} bytes, more than the {self.length} of the file")

    def _check_rest(self, headers: email.message.Message, offset: int) -> None:
        """Reject a partial answer that is not the rest of the version that the part holds."""
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", headers.get("Content-Range", "").strip())
        first = int(match[1]) if match else None
        total = int(match[2]) if match and match[2] != "*" else self.length
        tag, known = headers.get("ETag"), read_json(self.version).get("etag")
        if first != offset or (self.length is not None and total != self.length) or (tag and known and tag != known):
            self._restart()
            raise _Passing(f"{self.url} sent another part of the file, or of another version, than was asked for")
        self.length = total

    def _read(self, answer: Any) -> bytes:
        """What has come, up to a megabyte; nothing at the end. Apart from the writing, whose errors are the disk's."""
        try:
            block: bytes = answer.read1(_BLOCK)
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(f"the connection to {self.url} broke ({_reason(error)})") from error
        return block

    def _restart(self) -> None:
        """Forget what has come. The part is emptied, never removed: others wait for the lock on it."""
        os.truncate(self.part, 0)
        self.version.unlink(missing_ok=True)
        self.length = None

    def _finish(self) -> None:
        """Check what has come, give it its name, record it."""
        with open(self.part, "rb+") as file:
            os.fsync(file.fileno())
        size = self.part.stat().st_size
        wrong = "an empty file" if not size else self.check(self.part) if self.check else None
        if wrong:
            self._restart()
            self._fail(f"{self.url} sent {wrong}")
        known, found = recorded(self.path), digest(self.part)
        if known is not None and known.url is not None and (known.size, known.sha256) != (size, found):
            self._restart()
            self._fail(
                f"{self.url} sent {size} bytes with SHA-256 {found}, the first download had {known.size} with "
                f"{known.sha256}; if the server's file was meant to change, delete {beside(self.path, '.json')}"
            )
        os.replace(self.part, self.path)
        self.version.unlink(missing_ok=True)
        record(self.path, found, self.url)

    def _fail(self, why: str) -> NoReturn:
        raise DownloadError(why, self.part, self.part.stat().st_size, self.length)


@contextlib.contextmanager
def _own_part(path: Path, progress: bool) -> Iterator[Path]:
    """The part file of `path`, kept from other processes until the end; removed then if it is empty.

    Waits for a process that downloads the same file. The lock goes with the process, however that ends. Where there
    are no locks, each process has a part of its own, which is not resumed.
    """
    part = beside(path, ".part")
    while True:
        handle = os.open(part, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not _lock(handle, f"{path.name}: waiting for another process that downloads it" if progress else ""):
                own = beside(path, f".{os.getpid()}.part")
                own.touch()
                if not os.fstat(handle).st_size:
                    part.unlink(missing_ok=True)
            elif not _same(handle, part):  # finished or removed while this process waited
                if not path.exists():
                    continue
                own = part
            else:
                own = part
            try:
                yield own
            finally:
                if own.exists() and not own.stat().st_size:
                    own.unlink()
                    beside(own, ".json").unlink(missing_ok=True)
            return
        finally:
            os.close(handle)


def _lock(handle: int, waiting: str) -> bool:
    """Wait for the lock on an open file; False where there are no locks (Windows, some network file systems)."""
    try:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                print(waiting, file=sys.stderr)
            fcntl.flock(handle, fcntl.LOCK_EX)
    except (ImportError, OSError):
        return False
    return True


def _same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _never_connected(error: BaseException | None) -> bool:
    return isinstance(error, urllib.error.URLError) and not isinstance(error, urllib.error.HTTPError)


def _reason(error: object) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
