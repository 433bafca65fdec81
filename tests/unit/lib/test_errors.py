import pickle

import pytest

from cpm.lib import errors


def test_an_error_renders_its_data_into_words_and_one_field():
    error = errors.NotFound("policy", 17, field="policy")

    fields = error.to_fields()

    assert str(error) == "There is no policy with id 17."
    assert fields == {"policy": [{"message": "There is no policy with id 17.", "code": "not_found"}]}


def test_an_error_without_field_blames_no_field():
    assert list(errors.PermissionDenied("run_backup").to_fields()) == ["non_field_errors"]
    assert "run_backup" in str(errors.PermissionDenied("run_backup"))


def test_validation_carries_several_fields_with_several_messages():
    error = errors.ValidationFailed(
        {
            "name": [("Too long.", "max_length"), ("Has a tab.", "control")],
            "non_field_errors": [("No.", "invalid")],
        }
    )

    fields = error.to_fields()

    assert [item["code"] for item in fields["name"]] == ["max_length", "control"]
    assert fields["non_field_errors"] == [{"message": "No.", "code": "invalid"}]
    assert str(error) == "name: Too long. name: Has a tab. No."


def test_validation_message_with_braces_is_kept_as_it_is():
    assert str(errors.ValidationFailed.one("name", "Write {0} or {name}.")) == "name: Write {0} or {name}."


def test_validation_without_any_error_is_a_programming_mistake():
    with pytest.raises(ValueError):
        errors.ValidationFailed({"name": []})


def test_coded_errors_keep_the_code_they_were_given():
    error = errors.PreconditionFailed(
        "backup_running", "A backup of this policy is running; wait or abort it."
    )

    assert error.to_fields()["non_field_errors"][0]["code"] == "backup_running"
    assert isinstance(error, errors.DomainError)


def test_in_use_names_the_first_users_and_counts_the_rest():
    error = errors.InUse("schedule", [f"policy {n}" for n in range(13)])

    assert "policy 9" in str(error) and "policy 10" not in str(error)
    assert "and 3 more" in str(error)
    assert len(error.by) == 13


@pytest.mark.parametrize(
    "error",
    [
        errors.ValidationFailed.one("name", "Bad."),
        errors.NotFound("account", 3),
        errors.PermissionDenied("admin"),
        errors.AuthenticationFailed(),
        errors.PreconditionFailed("busy", "Busy."),
        errors.Conflict("taken", "Taken.", field="name"),
        errors.InUse("account", ["policy p"]),
        errors.LimitExceeded("targets", 500),
        errors.FeatureOff("cost explorer"),
    ],
)
def test_every_error_survives_pickling(error):
    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert copy.to_fields() == error.to_fields()
