"""Each recorded case again, against Mayfly: shapes, defaults, error types and exact texts."""

import pytest

import recorded_api  # noqa: F401 (registers its scenarios)
import recorded_calls  # noqa: F401
import recorded_sources  # noqa: F401
from not_replayed import LEFT_KEYS, LEFT_MEMBERS, reason_of
from replay import OUTCOMES, RECORDED, SCENARIOS, Recording, World


@pytest.mark.parametrize("case", sorted(SCENARIOS), ids=[case.encode("ascii", "backslashreplace").decode() for case in sorted(SCENARIOS)])
def test_mayfly_answers_as_was_recorded(case, server):
    scenario, variant = SCENARIOS[case]
    world, recording = World(server), Recording(case, server)
    for (name, key), reason in LEFT_KEYS.items():
        if name == case:
            recording.leave(key, reason)
    recording.left_members = {path for name, path in LEFT_MEMBERS if name == case}
    trouble = None
    try:
        if variant is None:
            scenario(world, recording)
        else:
            scenario(world, recording, variant)
    except Exception as error:  # what is different before the end is told all the same
        trouble = f"the scenario ended early: {type(error).__name__}: {error}"
    finally:
        world.close()
    problems = recording.differences + [trouble] if trouble else recording.problems()
    OUTCOMES["different" if problems else "alike"] += 1
    if problems:
        pytest.fail(f"{len(problems)} differences:\n" + "\n".join(problems[:60]), pytrace=False)


def test_every_case_is_replayed_or_named_with_its_reason():
    names = [*RECORDED["cases"], *RECORDED["others"]]
    assert len(names) == len(set(names)) == RECORDED["count"]
    unexplained = [name for name in names if name not in SCENARIOS and reason_of(name) is None]
    assert not unexplained
    needless = [name for name in SCENARIOS if reason_of(name) is not None]
    assert not needless
