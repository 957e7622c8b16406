"""Chat templates: programs that come with a model, run within bounds of time, memory and size."""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from latentwire.errors import InputError, said

# Of the processor, for one rendering; templates of models in use take milliseconds.
SECONDS = 2.0
# Above what the process has taken before.
BYTES = 2**30
# Besides its messages.
CHARACTERS = 100_000


def chat_template(tokenizer: Any) -> str:
    """The tokenizer's chat template; of several, the one called ``default``.

    Raises:
        InputError: it has none, or none that is text.
    """
    try:
        template = tokenizer.get_chat_template() if tokenizer.chat_template else None
    except Exception as error:  # several, none of which is the default
        raise InputError(f"the tokenizer's chat template can't be chosen ({said(error)}): use 'plain'") from error
    if template is None:
        raise InputError("model.prompt_style is 'chat' but the tokenizer has no chat template: use 'plain'")
    if not isinstance(template, str):
        raise InputError(
            f"the tokenizer's chat template is no text but a {type(template).__name__}: mend it "
            "(chat_template.jinja or tokenizer_config.json), or set model.prompt_style to 'plain'"
        )
    return template


def rendered(tokenizer: Any, messages: Sequence[Mapping[str, str]], **options: Any) -> str:
    """The messages as the chat template writes them.

    Args:
        tokenizer: whose template it is.
        messages: each with ``role`` and ``content``.
        options: of ``apply_chat_template``, and variables of the template.

    Raises:
        TimeoutError, MemoryError, ValueError: it takes too long, too much memory, or adds too much text.
        Exception: whatever a template raises, or Jinja about it.
    """

    def render() -> str:
        with _within_seconds(SECONDS), _within_memory(BYTES):
            return str(tokenizer.apply_chat_template(messages, tokenize=False, **options))

    kind = (options.get("chat_template", tokenizer.chat_template), tuple(message["role"] for message in messages))
    if kind not in _tried:
        _try_apart(render)
        _tried.append(kind)
    text = render()
    if len(text) > CHARACTERS + sum(len(message["content"]) for message in messages):
        raise ValueError(f"it adds more than {CHARACTERS} characters to the messages")
    return text


# Templates, with the roles of what they rendered, that came to an end.
_tried: list[tuple[Any, tuple[str, ...]]] = []


def _try_apart(render: Callable[[], str]) -> None:
    """Raise TimeoutError if a process of its own comes to no end: no signal interrupts a power of whole numbers."""
    child = os.fork()
    if not child:
        try:
            most = math.ceil(2 * SECONDS)
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
            render()
        finally:
            os._exit(0)  # what it raises is raised again
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        raise TimeoutError(f"it takes more than {SECONDS:.0f} s")


@contextmanager
def _within_seconds(most: float) -> Iterator[None]:
    """Raise TimeoutError after so much time of the processor, if this is the main thread: others get no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it takes more than {most:.0f} s")

    before: Callable[..., Any] | int | None = signal.signal(signal.SIGVTALRM, stop)
    try:
        signal.setitimer(signal.ITIMER_VIRTUAL, most)
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@contextmanager
def _within_memory(most: int) -> Iterator[None]:
    """Raise MemoryError if so many bytes more are taken; on Linux alone, which tells what a process has taken."""
    if not sys.platform.startswith("linux"):
        yield
        return
    before, hard = resource.getrlimit(resource.RLIMIT_AS)
    taken = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    bounds = [taken + most, *(limit for limit in (before, hard) if limit != resource.RLIM_INFINITY)]
    resource.setrlimit(resource.RLIMIT_AS, (min(bounds), hard))
    try:
        yield
    except MemoryError:
        raise MemoryError(f"it takes more than {most / 2**30:.0f} GB") from None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (before, hard))
