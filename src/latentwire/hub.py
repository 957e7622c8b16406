"""Errors of the hub and of its cache, as messages that say what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator

from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from latentwire.commands import typed
from latentwire.errors import InputError, said

_OUT_OF_REACH = (LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError)


def unavailable(kind: str, name: str, revision: str | None, error: BaseException) -> InputError:
    """The error that tells a user why a model or data set is unavailable, and how to fix it.

    Args:
        kind: ``model`` or ``data``: the section of the configuration that names it.
        name: on the hub, or a directory.
        revision: asked for; None for the newest.
        error: what the hub's client, or a library on top of it, raised.
    """
    what = "model" if kind == "model" else "data set"
    return InputError(
        f"{what} {name!r} ({kind}.path) at revision {revision!r} can't be loaded: "
        f"{_way_out(kind, name, list(_causes(error)))}. ({said(error)})"
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _way_out(kind: str, name: str, causes: list[BaseException]) -> str:
    # The hub's client wraps what the hub answered, so the innermost error says most.
    for cause in reversed(causes):
        if isinstance(cause, GatedRepoError):
            return f"it is gated: accept its licence on its page, then run '{typed('hf')} auth login' or set HF_TOKEN"
        if isinstance(cause, RepositoryNotFoundError):
            return (
                f"the hub has no such repository, or a private one: check {kind}.path (a local directory must exist), "
                "or log in"
            )
        if isinstance(cause, RevisionNotFoundError):
            return f"it has no such revision: check {kind}.revision"
        if isinstance(cause, HfHubHTTPError) and cause.response.status_code in (401, 403):
            return (
                f"the hub refused the token: run '{typed('hf')} auth login', "
                "or set an HF_TOKEN that may read gated repositories"
            )
        if isinstance(cause, ImportError):
            return f"a package that it needs is missing: install it into this environment, or check {kind}.path"
        if isinstance(cause, OSError) and cause.errno == errno.ENOSPC:
            return "the disk is full: free some space, or set HF_HOME to a folder on another one"
        if isinstance(cause, OSError) and cause.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
            return f"no permission for {cause.filename or 'the cache'}: give it, or set HF_HOME to a folder of yours"
    if any(isinstance(cause, _OUT_OF_REACH) for cause in causes):
        option = "" if kind == "model" else " --repo-type dataset"
        return (
            f"check {kind}.path and {kind}.revision; without a network, prefetch it where there is one "
            f"('{typed('hf')} download {name}{option}') and set HF_HOME, or use local files"
        )
    return f"check {kind}.path and {kind}.revision; if a download broke off, run the same command again"
