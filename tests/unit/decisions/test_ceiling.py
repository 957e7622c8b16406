"""The ceiling check: it always says what it found, and training asks it."""

import numpy as np
import pandas as pd
import pytest

from latentwire.decisions.ceiling import check_ceiling
from latentwire.decisions.requirements import require_ceiling
from latentwire.errors import InputError
from latentwire.files import write_json

QUESTIONS = 200


def arm(name, share, questions=QUESTIONS, predictions=None):
    """Scores of one arm, of which ``share`` are 1 and the others 0."""
    right = (np.arange(questions) < round(share * questions)).astype(float)
    return pd.DataFrame(
        {
            "arm": name,
            "id": [f"q{n}" for n in range(questions)],
            "article": np.arange(questions) % 25,
            "f1": right,
            "em": right,
            "unseen_answer_type": False,
            "prediction": [f"answer {n}" for n in range(questions)] if predictions is None else predictions,
            "finished": "stop",
        }
    )


def check(*arms, threshold=0.70, override=False):
    return check_ceiling(pd.concat(arms), threshold=threshold, override=override, resamples=400, seed=0)


@pytest.mark.parametrize(("share", "passed"), [(0.9, True), (0.70, True), (0.695, False), (0.0, False)])
def test_it_passes_at_the_threshold(share, passed):
    found = check(arm("text", share))
    assert found["passed"] is passed
    assert found["arms"]["text"]["f1"]["estimate"] == pytest.approx(share)
    assert found["threshold"] == 0.70


def test_the_text_arm_alone_decides():
    assert check(arm("text", 0.8), arm("mean", 0.0), arm("question", 0.1))["passed"]
    assert not check(arm("text", 0.1), arm("identity", 0.9))["passed"]


def test_it_says_how_often_identity_equals_text():
    predictions = ["another" if n in (3, 7) else f"answer {n}" for n in range(50)]
    found = check(arm("text", 0.8), arm("identity", 0.8, 50, predictions))
    assert found["identity_equals_text"] == {"questions": 50, "equal": 48}
    assert "identity_equals_text" not in check(arm("text", 0.8))


@pytest.mark.parametrize(
    ("share", "override", "refused"), [(0.8, False, False), (0.6, True, False), (0.6, False, True)]
)
def test_training_is_refused_below_it_unless_overridden(tmp_path, share, override, refused):
    path = tmp_path / "ceiling.json"
    found = check(arm("text", share), override=override)
    write_json(path, found)
    if not refused:
        assert require_ceiling(path) == found
        return
    with pytest.raises(InputError) as error:
        require_ceiling(path)
    for part in (str(path), "F1 0.600", "0.70", "model.prompt_style", "set gate.override_ceiling to true"):
        assert part in str(error.value)
