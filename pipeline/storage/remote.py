"""Object stores: what is kept at an `s3://` place, read and written whole, through obstore.

Endpoint and credentials come from the environment, under the names that the AWS tools use: AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL, AWS_MAX_ATTEMPTS.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import StoreError, UsageError
from pipeline.files import atomic_file
from pipeline.storage.places import bucket_and_prefix, url_of

MULTIPART_BYTES = 64 << 20
"""Larger objects are sent in parts of this size; smaller ones, and so all usual shards, in one request."""
STREAM_BYTES = 4 << 20
DEFAULT_ATTEMPTS = 10
LONGEST_WAIT = timedelta(minutes=3)
"""How long one request is tried again and again."""
_CLIENT = {"connect_timeout": "10s", "read_timeout": "60s", "timeout": "15m"}
_ERROR_CODE = re.compile(r"<Code>(\w+)</Code>\s*<Message>([^<]*)</Message>")
CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, or, from a profile: "
    'eval "$(aws configure export-credentials --format env)"'
)
ENDPOINT = (
    "look whether the server is up, and what AWS_ENDPOINT_URL says; then run the command again: it resumes"
)


class ConflictError(StoreError):
    """An object is not, or no longer, what a conditional write expected it to be."""


class UnreachableError(StoreError):
    """The server cannot be reached, does not let us in, or gave up: to look at another place will not help."""


@dataclass(frozen=True, slots=True)
class Tagged:
    """The bytes of an object, and the tag by which the server tells this version of it."""

    data: bytes
    tag: str


class RemoteStore:
    """What lies below one `s3://` place; keys are relative to it. Use `RemoteStore.open`."""

    def __init__(self, url: str, client: Any) -> None:
        self.url = url
        self._client = client

    @classmethod
    def open(cls, url: str) -> "RemoteStore":
        """Connect to `s3://bucket` or `s3://bucket/prefix`; nothing is asked of the server yet.

        Raises:
            UsageError: no such place can be, or obstore is not installed.
        """
        bucket, prefix = bucket_and_prefix(url)
        try:
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError as error:
            raise UsageError(
                f"{url}: object stores need the package obstore: {error}", "pip install 'obstore>=0.6'"
            ) from error
        plain = endpoint().startswith("http://")  # whoever writes it means it
        try:
            client = S3Store(
                bucket,
                prefix=prefix or None,
                client_options={**_CLIENT, "allow_http": plain},
                retry_config={"max_retries": _attempts() - 1, "retry_timeout": LONGEST_WAIT},
            )
        except (BaseError, ValueError) as error:
            raise UsageError(f"{url}: {_cause(error)}", CREDENTIALS) from error
        return cls(url_of(url), client)

    def get(self, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            StoreError: there is none, or it cannot be read.
        """
        found = self.find(key)
        if found is None:
            raise StoreError(f"{self.url}/{key} is missing")
        return found.data

    def find(self, key: str) -> Tagged | None:
        """An object with its tag; None where there is none."""
        import obstore

        with self._errors(key):
            try:
                result = obstore.get(self._client, key)
                return Tagged(bytes(result.bytes()), result.meta["e_tag"])
            except FileNotFoundError as error:
                self._require_bucket(error)
                return None

    def fetch(self, key: str, path: Path) -> None:
        """Copy an object to a local file, which appears when it is complete; memory use is a few MiB.

        The file is not made durable: it is a copy, and can be fetched again.

        Raises:
            StoreError: there is none, or it cannot be read to its end.
        """
        import obstore

        with self._errors(key), atomic_file(path, durable=False) as file:
            result = obstore.get(self._client, key)
            for part in result.stream(min_chunk_size=STREAM_BYTES):
                file.write(part)
            if file.tell() != result.meta["size"]:
                raise StoreError(f"{self.url}/{key}: only {file.tell()} of {result.meta['size']} bytes came")

    def put(self, key: str, data: bytes | Path) -> None:
        """Write an object, whole or not at all: these bytes, or those of a file."""
        import obstore

        with self._errors(key):
            obstore.put(self._client, key, data, chunk_size=MULTIPART_BYTES)

    def replace(self, key: str, data: bytes, tag: str | None) -> str:
        """Write an object if it is still the one with this tag, or, with None, if there is none; return its new tag.

        Raises:
            ConflictError: it is another one by now.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create" if tag is None else {"e_tag": tag}
        with self._errors(key):
            try:
                result = obstore.put(self._client, key, data, mode=mode)
            except (AlreadyExistsError, PreconditionError) as error:
                found = self.find(key)
                if found is not None and found.data == data:  # ours: only the answer to it was lost
                    return found.tag
                raise ConflictError(f"{self.url}/{key}: another process wrote it just now") from error
        return str(result["e_tag"])

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Every object below a prefix, or all, by one listing (a request per thousand): key and size in bytes."""
        import obstore

        with self._errors(prefix):
            batches = obstore.list(self._client, prefix or None)
            return {one["path"]: one["size"] for batch in batches for one in batch}

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the store, on the server."""
        import obstore

        with self._errors(key):
            obstore.copy(self._client, key, to)

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""
        import obstore

        with self._errors(""):
            if keys := list(keys):
                obstore.delete(self._client, keys)

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Say of whatever goes wrong where, why, and what to do."""
        from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

        place = f"{self.url}/{key}".rstrip("/")
        try:
            yield
        except FileNotFoundError as error:
            self._require_bucket(error)
            raise StoreError(f"{place} is missing") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise UnreachableError(f"{place}: {_cause(error)}", CREDENTIALS) from error
        except BaseError as error:
            self._require_bucket(error)
            raise UnreachableError(f"{place}: {_cause(error)}", ENDPOINT) from error

    def _require_bucket(self, error: Exception) -> None:
        if "<Code>NoSuchBucket</Code>" in str(error):
            bucket, _ = bucket_and_prefix(self.url)
            raise StoreError(
                f"{self.url}: there is no bucket {bucket}", f"aws s3 mb s3://{bucket}"
            ) from error


def connect(url: str) -> RemoteStore:
    """The connection of this process to a place: made once, with its pool of sockets, for all threads."""
    return _connect(url, endpoint())


@functools.lru_cache(maxsize=64)
def _connect(url: str, _: str) -> RemoteStore:
    return RemoteStore.open(url)


def endpoint() -> str:
    """The server, where it is not Amazon's; else nothing."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""


def _attempts() -> int:
    text = os.environ.get("AWS_MAX_ATTEMPTS", str(DEFAULT_ATTEMPTS))
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"AWS_MAX_ATTEMPTS={text}: expected a whole number above 0")
    return int(text)


def _cause(error: Exception) -> str:
    """What a server or a connection said, without what is meant for the library's authors."""
    text = str(error).partition("\n\nDebug source")[0]
    if said := _ERROR_CODE.search(text):
        return f"the server says {said[1]}: {said[2]}"
    for noise in ("Generic S3 error: ", "HTTP error: "):
        text = text.replace(noise, "")
    return " ".join(text.split())[:400]
