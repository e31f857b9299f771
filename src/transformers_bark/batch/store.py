"""The output's folder: a path of this machine, or an fsspec address. Every file there is whole or not there."""

from __future__ import annotations

import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import output_files


class Store:
    """Files below one folder, by names with `/`.

    Args:
        address: a path, or as in "s3://bucket/corpus".
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._fs: Any = None
        self.path: Path | None = None
        """The folder, where it is one of this machine."""
        if "://" not in address:
            self.path = Path(address)
        elif address.startswith("file://"):
            self.path = Path(address.removeprefix("file://"))
        else:
            from fsspec.core import url_to_fs

            self._fs, self._root = url_to_fs(address)
            self._root = self._root.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        """Writes a file under a temporary name, and renames it.

        Raises:
            OSError: it cannot be written.
        """
        if self.path is not None:
            output_files.write_bytes(self.path / name, data, make_folder=True)
            return
        folder, _, last = f"{self._root}/{name}".rpartition("/")
        draft = f"{folder}/.{secrets.token_hex(8)}.part"
        self._fs.makedirs(folder, exist_ok=True)
        try:
            self._fs.pipe_file(draft, data)
            self._fs.mv(draft, f"{folder}/{last}")
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(draft)
            raise

    def upload(self, local: Path, name: str) -> None:
        """Moves a file of this machine here, as `write` does."""
        if self.path is not None:
            with open(local, "rb") as source, output_files.open_output(self.path / name, make_folder=True) as target:
                shutil.copyfileobj(source, target)  # the two may be on different disks
            local.unlink()
            return
        draft = f"{self._root}/{name}.{secrets.token_hex(8)}.part"
        self._fs.makedirs(draft.rpartition("/")[0], exist_ok=True)
        self._fs.put_file(str(local), draft)
        self._fs.mv(draft, f"{self._root}/{name}")
        local.unlink()

    def read(self, name: str) -> bytes | None:
        """A file's content; None where there is none."""
        try:
            if self.path is not None:
                return (self.path / name).read_bytes()
            return self._fs.cat_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return None

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file below a folder, by name; those of unfinished ones are left out."""
        if self.path is not None:
            found = {
                path.relative_to(self.path).as_posix(): path.stat().st_size
                for path in (self.path / folder).rglob("*")
                if path.is_file()
            }
        else:
            root = f"{self._root}/{folder}"
            self._fs.invalidate_cache(root)
            listed = self._fs.find(root, detail=True) if self._fs.exists(root) else {}
            found = {path[len(self._root) + 1 :]: int(about["size"] or 0) for path, about in listed.items()}
        return {name: size for name, size in found.items() if not name.endswith(".part")}

    def remove(self, name: str) -> None:
        """Removes a file, if it is there."""
        with suppress(FileNotFoundError):
            if self.path is not None:
                (self.path / name).unlink()
            else:
                self._fs.rm_file(f"{self._root}/{name}")

    def remove_folder(self, name: str) -> None:
        """Removes a folder and all in it, if it is there."""
        if self.path is not None:
            shutil.rmtree(self.path / name, ignore_errors=True)
        elif self._fs.exists(f"{self._root}/{name}"):
            self._fs.rm(f"{self._root}/{name}", recursive=True)

    def remove_drafts(self, folder: str) -> None:
        """Removes what killed workers have left half written below a folder."""
        if self.path is not None:
            for path in (self.path / folder).rglob(".*.part"):
                path.unlink(missing_ok=True)
        elif self._fs.exists(f"{self._root}/{folder}"):
            for path in self._fs.find(f"{self._root}/{folder}"):
                if path.endswith(".part"):
                    self._fs.rm_file(path)
