"""Names: whatever the keys, each gets a file of its own."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.errors import Problems
from atlaswriter.names import is_path_like, plan_names, safe_name

# Few letters, so that keys clash; some that file names cannot have.
keys = st.lists(st.text("aAbB_-1./ β", max_size=5), max_size=15)


def file_of(key, case_sensitive):
    name = safe_name(key)
    return name if case_sensitive else name.lower()


@settings(max_examples=300, derandomize=True, deadline=None)
@given(keys, st.booleans())
def test_make_unique(keys, case_sensitive):
    problems = Problems()
    plan = plan_names(keys, where="genes", make_unique=True, case_sensitive=case_sensitive, problems=problems)
    files = [file_of(key, case_sensitive) for key in plan.keys]
    assert problems.found == []
    assert len(plan.keys) == len(keys)
    assert len(set(files)) == len(files)
    assert not any(is_path_like(key) for key in plan.keys)
    assert plan.renamed == [(old, new) for old, new in zip(keys, plan.keys, strict=True) if old != new]
    seen = set()
    for old, new in zip(keys, plan.keys, strict=True):
        name = file_of(old, case_sensitive)
        if name not in seen and not is_path_like(old):
            assert new == old
        seen.add(name)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(keys, st.booleans())
def test_refusing_and_renaming_agree(keys, case_sensitive):
    """Keys are refused exactly where make_unique would rename one."""
    problems, none = Problems(), Problems()
    plan_names(keys, where="genes", make_unique=False, case_sensitive=case_sensitive, problems=problems)
    renamed = plan_names(keys, where="genes", make_unique=True, case_sensitive=case_sensitive, problems=none).renamed
    assert bool(problems.found) == bool(renamed)


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.text(max_size=40))
def test_safe_name_is_safe_and_stable(key):
    name = safe_name(key)
    assert name == safe_name(name)
    assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    assert name
    assert name[0] not in "._"
    assert name[-1] not in "._"
