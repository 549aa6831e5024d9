"""What the command and the admin say of names that routines had, and do by them."""

from typing import Any

import pytest
from django.core import checks

from once import Routine
from once.databases import database
from once.models import Attempt, Completion, State, Trigger, Wish
from once.record import recorder, wishes
from once.routines.names import TOMBSTONE
from tests.behaviour.command import Answer, failing, held, reset
from tests.support import begin, effects, run, seed, take

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "sqlite"])


@pytest.fixture
def routine(using: str, declared: list[Routine]) -> Routine:
    """A routine that had another name."""
    declared.append(seed(using, "shop.new", renamed_from=["shop.old", "shop.older"]))
    return declared[0]


def shown(name: str) -> dict[str, object]:
    routines = {each["name"]: each for each in Answer("status", "--json").json["routines"]}
    found: dict[str, object] = routines[name]
    return found


def release_before(routine: Routine, declared: list[Routine]) -> None:
    """Be the release that has the old name."""
    declared[:] = [seed(routine.using, "shop.old", renamed_from="shop.older")]


def test_run_says_that_it_renames_and_once(using: str, routine: Routine) -> None:
    run(seed(using, "shop.old"))
    answer = Answer("run")
    assert answer.code == 0
    assert "  Renaming shop.old to shop.new... OK\n" in answer.out.replace("...\n  shop.old", "")
    assert "Running" not in answer.out
    assert Answer("run").out == "  No routines to run.\n"
    assert effects(using) == ["shop.old"]


def test_status_before_the_record_is_carried_over(using: str, routine: Routine) -> None:
    run(seed(using, "shop.old"))
    answer = Answer("status", "--check")
    assert answer.code == 0
    assert "completed" in answer.out
    assert "Its record stands under its old name shop.old. The next `manage.py once run` or" in (
        answer.out
    )
    found = shown("shop.new")
    assert (found["state"], found["recorded_version"], found["renamed_to"]) == (
        "completed",
        1,
        None,
    )
    assert found["completed_at"] is not None
    before = shown("shop.old")
    assert (before["state"], before["renamed_to"]) == ("renamed", "shop.new")
    assert not Attempt.objects.using(using).filter(trigger=Trigger.RENAME).exists()


def test_items_and_pauses_under_the_old_name_are_found_before_it_is_carried_over(
    using: str, declared: list[Routine]
) -> None:
    def fill(batch: list[int]) -> None:
        raise LookupError(f"no item {batch[0]}")

    options: dict[str, Any] = {"function": fill, "over": lambda: [1], "max_errors": 1}
    run(seed(using, "shop.old", **options))
    declared.append(seed(using, "shop.new", renamed_from="shop.old", startup=False, **options))
    assert "LookupError: no item 1" in Answer("items", "shop.new").out
    assert shown("shop.new")["failed_items"] == 1
    assert Answer("run", "--failed-items", "shop.new").code == 1
    assert Trigger.ITEMS in Attempt.objects.using(using).values_list("trigger", flat=True)


def test_pause_under_the_old_name_is_resumed_before_it_is_carried_over(
    using: str, declared: list[Routine], routine: Routine
) -> None:
    wishes.add(using, "shop.old", Wish.Kind.PAUSE, user="ada", reason="")
    recorder.close(begin(seed(using, "shop.old")), State.FAILED)
    assert "shop.new is resumed" in Answer("resume", "shop.new").out
    assert Answer("run", "shop.new").code == 0
    assert effects(using) == ["shop.new"]


def test_status_of_a_new_database_says_nothing_of_names(using: str, routine: Routine) -> None:
    assert Answer("status").out.startswith("[ ] shop.new  v1  pending")
    assert len(Answer("status").out.splitlines()) == 1


def test_status_after_the_record_is_carried_over(using: str, routine: Routine) -> None:
    run(seed(using, "shop.old"))
    Answer("run")
    found, before = shown("shop.new"), shown("shop.old")
    assert (found["state"], found["attempts"], found["message"]) == ("completed", 1, None)
    assert (before["state"], before["renamed_to"]) == ("renamed", "shop.new")
    assert (before["recorded_version"], before["version"]) == (None, None)
    lines = Answer("status").out.splitlines()
    assert lines[1].startswith("[ ] shop.old  renamed")  # a tombstone has no version of a routine
    assert lines[2].strip() == "Its name is shop.new now."
    assert Answer("status", "--check").code == 0


def test_release_before_finds_it_superseded(
    using: str, routine: Routine, declared: list[Routine]
) -> None:
    run(seed(using, "shop.old"))
    Answer("run")
    release_before(routine, declared)
    found = shown("shop.old")
    assert (found["state"], found["renamed_to"]) == ("superseded", "shop.new")
    assert str(found["message"]).startswith("Another release renamed it to shop.new, so that")
    assert found["completed_at"] is not None
    assert "2147483647" not in Answer("status").out
    assert Answer("status", "--check").code == 0
    assert "Another release renamed it to shop.new" in Answer("run", "shop.old").out
    refused = reset("shop.old")
    assert (refused.code, refused.message) == (
        2,
        "shop.old has the name shop.new in another release of the code. Decide with that "
        "release, by that name.",
    )
    assert effects(using) == ["shop.old"]


def test_release_before_leaves_the_new_name_alone(
    using: str, routine: Routine, declared: list[Routine]
) -> None:
    """It neither takes it for gone, nor another routine for that by a new name."""
    run(seed(using, "shop.old"))
    Answer("run")
    release_before(routine, declared)
    declared.append(seed(using, "shop.fresh"))
    found = shown("shop.new")
    assert (found["state"], found["message"]) == (
        "unknown",
        "Another release has shop.old by this name. Its record is left to that release.",
    )
    assert shown("shop.fresh")["message"] is None
    assert checks.run_checks(tags=[checks.Tags.database], databases=[using]) == []
    assert "may have run" not in Answer("run", "--plan").out
    refused = Answer("forget", "shop.new", "--noinput")
    assert (refused.code, refused.message) == (
        2,
        "shop.new is the name that another release gave to shop.old of this code. That release "
        "needs its record. Remove it by code that has neither name.",
    )
    answer = Answer("run")
    assert "renamed" not in answer.out
    assert effects(using) == ["shop.fresh", "shop.old"]


def test_what_comes_after_it_waits_in_the_release_before(
    using: str, routine: Routine, declared: list[Routine]
) -> None:
    """As long as it is not done under its present name."""
    run(failing(using, "shop.old"))
    run(failing(using, "shop.new", renamed_from=["shop.old", "shop.older"]))
    release_before(routine, declared)
    declared.append(seed(using, "shop.behind", after=["shop.old"]))
    assert shown("shop.behind")["waits_for"] == "shop.old"
    assert Answer("run").code == 3
    run(routine)
    assert shown("shop.behind")["waits_for"] is None
    assert Answer("run").code == 0
    assert effects(using) == ["shop.behind", "shop.new"]


def test_status_says_which_process_runs_it_under_its_old_name(declared: list[Routine]) -> None:
    declared.append(seed("default", "shop.new", renamed_from="shop.old"))
    begin(seed("default", "shop.old"))
    with database("default").lock("shop.old", 5) as lock:
        take(lock)
        out = Answer("status").out
    assert "carries it over, once " in out
    assert " is done with that." in out


def test_old_name_means_the_routine(using: str, routine: Routine) -> None:
    held(using, "shop.old")
    Answer("run")
    assert Answer("status", "shop.older").out.startswith("[ ] shop.new  v1  held")
    assert Answer("history", "shop.old").out.startswith("shop.new")
    assert reset("shop.old").code == 0
    assert Answer("run", "shop.older").code == 0
    assert effects(using) == ["shop.new"]


def test_held_under_its_old_name_is_held(using: str, routine: Routine) -> None:
    held(using, "shop.old")
    assert Answer("wait", "--timeout", "0").code == 4  # until a run has carried it over
    assert Answer("run").code == 5
    assert Answer("wait").code == 5


def test_history_tells_where_the_record_came_from(using: str, routine: Routine) -> None:
    run(seed(using, "shop.old"))
    Answer("run")
    [found] = Answer("history", "shop.new", "--json").json["routines"]
    told = [(each["trigger"], each["version"], each["reason"]) for each in found["attempts"]]
    assert told == [("test", 1, None), ("rename", None, "from shop.old")]
    answer = Answer("history", "shop.new")
    assert "from shop.old" in answer.out
    assert "v-" not in answer.out  # a rename moved those of all versions


def test_w004_is_silent_about_old_names(using: str, declared: list[Routine]) -> None:
    run(seed(using, "shop.old"))
    declared.append(seed(using, "shop.new", renamed_from="shop.old"))
    assert checks.run_checks(tags=[checks.Tags.database], databases=[using]) == []
    assert "may have" not in Answer("status").out
    Answer("run")
    declared[:] = [seed(using, "shop.new"), seed(using, "shop.another")]  # a later release
    assert checks.run_checks(tags=[checks.Tags.database], databases=[using]) == []
    assert Answer("run").code == 0


def test_forget_refuses_a_tombstone_without_force(using: str, routine: Routine) -> None:
    Answer("run")
    refused = Answer("forget", "--noinput", "shop.old")
    assert (refused.code, refused.message.partition(",")[0]) == (
        2,
        "shop.old has the name shop.new now",
    )
    assert "pass --force" in refused.message
    answer = Answer("forget", "--noinput", "--force", "shop.old")
    assert answer.out == "  shop.old: removed 1 anchors, 1 attempts, 1 completions.\n"
    assert not Completion.objects.using(using).filter(routine="shop.old").exists()
    assert Completion.objects.using(using).filter(version=TOMBSTONE).count() == 1
    Answer("run")  # renamed_from still names it
    assert Completion.objects.using(using).filter(version=TOMBSTONE).count() == 2


def test_forget_refuses_what_is_still_to_be_carried_over(using: str, routine: Routine) -> None:
    run(seed(using, "shop.old"))
    for force in ([], ["--force"]):
        refused = Answer("forget", "--noinput", *force, "shop.old")
        assert refused.code == 2
        assert refused.message.startswith("shop.old is in this code, by the name shop.new, so that")


def test_forgotten_name_may_be_used_again(using: str, declared: list[Routine]) -> None:
    run(seed(using, "shop.new", renamed_from="shop.old"))
    declared += [seed(using, "shop.new"), seed(using, "shop.old")]
    assert Answer("run").code == 0
    assert effects(using) == ["shop.new"]
    assert Answer("forget", "--noinput", "--force", "shop.old").code == 0
    assert Answer("run").code == 0
    assert effects(using) == ["shop.new", "shop.old"]


def test_w004_is_silent_about_what_is_still_to_be_carried_over(
    using: str, declared: list[Routine]
) -> None:
    """In a higher version it would run, and the record of another routine is there as well."""
    run(seed(using, "shop.old"), seed(using, "shop.gone"))
    declared.append(seed(using, "shop.new", renamed_from="shop.old", version=2))
    assert checks.run_checks(tags=[checks.Tags.database], databases=[using]) == []
    assert Answer("run").out.count("may have run") == 0


def test_done_routine_waits_for_no_process_to_be_carried_over(
    declared: list[Routine],
) -> None:
    """Another program may hold the lock of the old name for as long as it likes."""
    run(seed("default", "shop.old"))
    declared.append(seed("default", "shop.new", renamed_from="shop.old"))
    with database("default").lock("shop.old", 5) as lock:
        take(lock)
        assert Answer("run").out == "  No routines to run.\n"
    assert shown("shop.new")["state"] == "completed"
    assert "Renaming" in Answer("run").out
