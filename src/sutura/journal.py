"""A journal: records that are appended, checksummed and forced to the disk, so that killed work can go on.

It knows nothing of what it records. A file is one header line that names the work by a digest, then records:
length (4 bytes, big-endian), payload, and the first 16 bytes of SHA-256(previous checksum, payload). A tail
that does not check, torn by a crash or changed, is cut off when the file is opened. One process at a time.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, final

from sutura.errors import JournalError

MAGIC = b"sutura journal 1 "
CHECK = 16
LARGEST = 2**31 - 1
"""Bytes of a checksum, and most bytes of a record."""

SYNCED_EVERY = 1.0
"""Seconds after which written records are forced to the disk; a result that rests on them waits for it."""


@final
class Journal:
    """An open journal. Records belong to tracks, named sequences that are read and written independently."""

    def __init__(self, file: BinaryIO, place: Path, header: bytes) -> None:
        self.place = place
        self._file = file
        self._check = hashlib.sha256(header).digest()[:CHECK]
        self._found: dict[str, list[tuple[int, int]]] = {}
        self._synced = time.monotonic()
        self._end = len(header)
        self._scan()

    @property
    def records(self) -> int:
        """How many records count."""
        return sum(len(found) for found in self._found.values())

    def track(self, name: str) -> Track:
        """The sequence of that name, from its beginning."""
        return Track(self, name)

    def sync(self) -> None:
        """Force what was written to the disk; after this it survives a crash of the machine too."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from None
        self._synced = time.monotonic()

    def close(self, *, remove: bool = False) -> None:
        """Release the file; one that holds no record, or whose work is done (`remove`), goes away."""
        if self._file.closed:
            return
        if remove or not self.records:
            self.place.unlink(missing_ok=True)
        self._file.close()

    def _scan(self) -> None:
        """Find the records that check, and cut off what follows them."""
        size = self._file.seek(0, os.SEEK_END)
        for start, length, check in self._checked(size):
            self._enter(start, length)
            self._end, self._check = start + length + CHECK, check
        if self._end < size:
            self._file.truncate(self._end)

    def _checked(self, size: int) -> Iterator[tuple[int, int, bytes]]:
        """Start, length and checksum of each payload, up to the first that does not check."""
        at, check = self._end, self._check
        while at + 4 + CHECK <= size:
            self._file.seek(at)
            length = int.from_bytes(self._file.read(4), "big")
            if at + 4 + length + CHECK > size:
                return
            payload = self._file.read(length)
            check = _chained(check, payload)
            if self._file.read(CHECK) != check or b"\n" not in payload:
                return
            yield at + 4, length, check
            at += 4 + length + CHECK

    def _enter(self, start: int, length: int) -> None:
        """A payload is its track's name, a line feed, and the record; where the name starts with "!", the
        record says how many of the track still count."""
        name, mark, record = self._read(start, length).partition(b"\n")
        found = self._found.setdefault(name.removeprefix(b"!").decode("utf-8", "replace"), [])
        if name.startswith(b"!"):
            del found[int.from_bytes(record, "big") :]
        else:
            skipped = len(name) + len(mark)
            found.append((start + skipped, length - skipped))

    def _read(self, start: int, length: int) -> bytes:
        try:
            self._file.seek(start)
            return self._file.read(length)
        except OSError as error:
            raise self._failure(error) from None

    def _append(self, name: bytes, record: bytes) -> None:
        payload = name + b"\n" + record
        if len(payload) > LARGEST:
            raise JournalError(f"a record for {self.place} has {len(payload):,} bytes, {LARGEST:,} fit")
        check = _chained(self._check, payload)
        try:
            self._file.seek(self._end)
            self._file.write(len(payload).to_bytes(4, "big") + payload + check)
            self._file.flush()
        except OSError as error:
            raise self._failure(error) from None
        start = self._end + 4
        self._end, self._check = start + len(payload) + CHECK, check
        self._enter(start, len(payload))
        if time.monotonic() - self._synced > SYNCED_EVERY:
            self.sync()

    def _failure(self, error: OSError) -> JournalError:
        return JournalError(
            f"cannot write the journal {self.place}: {error.strerror or error}; what it holds is kept: make "
            "room and run the same command again"
        )


@final
class Track:
    """One sequence of records: those of earlier runs are read one by one, then new ones are added."""

    def __init__(self, journal: Journal, name: str) -> None:
        self._journal = journal
        self._name = name.replace("\n", " ")
        self._at = 0

    def take(self) -> bytes | None:
        """The next record of an earlier run; None where there is no more."""
        found = self._journal._found.get(self._name, [])  # pyright: ignore[reportPrivateUsage]
        if self._at >= len(found):
            return None
        self._at += 1
        return self._journal._read(*found[self._at - 1])  # pyright: ignore[reportPrivateUsage]

    def reject(self) -> None:
        """The record just taken, and all that follow, do not count."""
        self._at -= 1
        self._journal._append(  # pyright: ignore[reportPrivateUsage]
            f"!{self._name}".encode(), self._at.to_bytes(8, "big")
        )

    def append(self, record: bytes) -> None:
        """Add a record. Raises JournalError where it cannot be written."""
        self._journal._append(self._name.encode(), record)  # pyright: ignore[reportPrivateUsage]
        self._at += 1


def open_journal(place: Path, work: bytes, *, afresh: bool = False) -> Journal:
    """The journal at `place` for the work with that digest; made where there is none.

    One of other work is replaced where `afresh`, and an error otherwise; a file that is no journal is never
    touched. Raises JournalError, in one line, also where another process has it open or it cannot be written.
    """
    header = MAGIC + work.hex().encode() + b"\n"
    while True:
        file = _opened(place)
        try:
            _lock(file, place)
            if os.fstat(file.fileno()).st_nlink:
                _head(file, place, header, afresh)
                return Journal(file, place, header)
        except OSError as error:
            file.close()
            raise JournalError(f"cannot use the journal {place}: {error.strerror or error}") from None
        except BaseException:
            file.close()
            raise
        file.close()  # it was removed while we waited; make another


def _opened(place: Path) -> BinaryIO:
    try:
        handle = os.open(place, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        return os.fdopen(handle, "r+b")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no file can have this name"
        raise JournalError(f"cannot open the journal {place}: {reason}; choose another place") from None


def _head(file: BinaryIO, place: Path, header: bytes, afresh: bool) -> None:
    """Make sure that the file starts with the header of this work."""
    found = file.read(len(header))
    if found == header:
        return
    if not header.startswith(found):
        if not found.startswith(MAGIC):
            raise JournalError(f"{place} is no journal of sutura, and is left alone; choose another place")
        if not afresh:
            raise JournalError(
                f"the journal {place} is of other work: another network, property, option or version of "
                "sutura; remove it, or choose another place"
            )
    file.seek(0)
    file.truncate()
    file.write(header)
    file.flush()
    os.fsync(file.fileno())
    _sync_folder(place.parent)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(file: BinaryIO, place: Path) -> None:
    """Hold the file for this process; the lock ends with the process, however that ends."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**40)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(0)
        else:
            import fcntl

            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise JournalError(
            f"the journal {place} is in use by another run; wait for it, or choose another place"
        ) from None


def _chained(check: bytes, payload: bytes) -> bytes:
    digest = hashlib.sha256(check)
    digest.update(payload)
    return digest.digest()[:CHECK]
