"""Chat templates end in a bounded time, memory and size, whatever they hold, and leave no bound behind."""

import copy
import resource
import signal
import threading
import time

import pytest

from latentwire import templates
from latentwire.data.prompts import PromptRenderer
from latentwire.errors import InputError
from latentwire.evaluation.generate import end_of_turn
from latentwire.templates import chat_template, rendered

MESSAGES = [{"role": "user", "content": "A question"}]


@pytest.fixture
def written(tokenizer, monkeypatch):
    """A tokenizer whose chat template is this."""
    monkeypatch.setattr(templates, "SECONDS", 0.3)

    def write(template):
        own = copy.deepcopy(tokenizer)
        own.chat_template = template
        return own

    return write


LOOPS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
DOUBLED = "{% set own = namespace(s='x' * 1000) %}{% for i in range(60) %}{% set own.s = own.s ~ own.s %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        (LOOPS, "takes more than 0 s"),
        ("{{ 9 ** 999999999 }}", "takes more than 0 s"),
        ("{{ 'x' * 10 ** 10 }}", "takes more than 1 GB"),
        (DOUBLED, "takes more than"),
        ("{{ 'x' | center(10 ** 10) }}", "takes more than 1 GB"),
        ("{{ 'x' * 20000000 }}", "adds more than 100000 characters"),
        ("{{ raise_exception('x' * 100000) }}", "TemplateError: x+…"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
        ("{% include 'other' %}", "no loader"),
    ],
)
def test_a_template_without_bounds_ends_in_one_short_message(written, template, said):
    start = time.process_time()
    with pytest.raises(InputError, match=f"can't render a question .*{said}.*model.prompt_style to 'plain'") as error:
        PromptRenderer(written(template)).render("Context: a")
    assert len(str(error.value)) < 600 and time.process_time() - start < 3


@pytest.mark.parametrize("template", [7, True, ["{{ messages }}"], {"default": ["a"]}, {"other": "a"}, {}])
def test_a_template_that_is_no_text_is_named(written, template):
    with pytest.raises(InputError, match="chat template.*'plain'"):
        PromptRenderer(written(template))


def test_of_several_templates_the_default_one_is_taken(written):
    assert chat_template(written({"default": "a", "tool_use": "b"})) == "a"


def test_an_end_of_turn_is_not_looked_for_without_end(written, caplog):
    assert end_of_turn(written(LOOPS)) is None
    assert "does not render an answer (it takes more than 0 s)" in caplog.text


def test_no_bound_is_left_behind(written):
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)
    assert rendered(written("{{ messages[0].content }}"), MESSAGES) == "A question"
    for template in ("{{ 'x' * 10 ** 10 }}", LOOPS):
        with pytest.raises((MemoryError, TimeoutError)):
            rendered(written(template), MESSAGES)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGVTALRM)) == before
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


def test_another_thread_renders_too(written):
    own, found = written("{{ messages[0].content }}"), []
    thread = threading.Thread(target=lambda: found.append(rendered(own, MESSAGES)))
    thread.start()
    thread.join()
    assert found == ["A question"]


def test_long_messages_may_be_long(written):
    long = [{"role": "user", "content": "word " * 100_000}]
    assert rendered(written("{{ messages[0].content }}!"), long) == long[0]["content"] + "!"
