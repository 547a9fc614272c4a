"""Versions, qualifiers and tags."""

import pytest

from support import create, error_of, expect, expect_golden, package


def test_publishing_twice_without_a_change_is_one_version(aws, name):
    create(aws, name)
    first = aws.publish_version(FunctionName=name, Description="one")
    again = aws.publish_version(FunctionName=name, Description="two")
    assert (first["Version"], again["Version"], again["Description"]) == ("1", "1", "one")
    aws.update_function_code(FunctionName=name, ZipFile=package("z = 3\n"))
    assert aws.publish_version(FunctionName=name)["Version"] == "2"
    listed = aws.list_versions_by_function(FunctionName=name)["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "1", "2"]
    assert listed[0]["FunctionArn"].endswith(":$LATEST")


def test_versions_are_listed_in_pages(aws, name):
    create(aws, name, Publish=True)
    for number in range(2):
        aws.update_function_configuration(FunctionName=name, Description=str(number))
        aws.publish_version(FunctionName=name)
    pages = list(aws.get_paginator("list_versions_by_function").paginate(FunctionName=name, PaginationConfig={"PageSize": 1}))
    assert [page["Versions"][0]["Version"] for page in pages] == ["$LATEST", "1", "2", "3"]


def test_a_published_version_never_changes(aws, name):
    create(aws, name, Description="first", Publish=True)
    aws.update_function_configuration(FunctionName=name, Description="second")
    assert aws.get_function_configuration(FunctionName=name, Qualifier="1")["Description"] == "first"
    assert aws.get_function_configuration(FunctionName=f"{name}:1")["Description"] == "first"


def test_a_wrong_digest_is_refused_as_recorded(aws, name):
    made = create(aws, name)
    refused = error_of(aws.publish_version, FunctionName=name, CodeSha256="somenonexistentsha256")
    expect(
        refused,
        400,
        "InvalidParameterValueException",
        f"CodeSHA256 (somenonexistentsha256) is different from current CodeSHA256 in $LATEST ({made['CodeSha256']}). "
        "Please try again with the CodeSHA256 in $LATEST.",
    )
    assert aws.publish_version(FunctionName=name, CodeSha256=made["CodeSha256"])["Version"] == "1"


def test_qualifiers_that_disagree_are_refused_as_recorded(aws, name, golden):
    create(aws, name)
    wrong = golden("errors", "qualifier_mismatch")
    for call in (aws.get_function, aws.get_function_configuration, aws.delete_function, aws.invoke):
        expect_golden(error_of(call, FunctionName=f"{name}:1", Qualifier="$LATEST"), wrong)


def test_unknown_versions_and_aliases_are_not_found_as_recorded(aws, name, golden, arn):
    create(aws, name)
    for call in (aws.get_function, aws.get_function_configuration, aws.invoke):
        expect_golden(error_of(call, FunctionName=name, Qualifier="1221"), golden("errors", "version_not_found", name))
        expect(
            error_of(call, FunctionName=name, Qualifier="live"), 404, "ResourceNotFoundException", f"Function not found: {arn(name)}:live"
        )


def test_the_latest_version_is_deleted_with_the_function_only(aws, name, golden):
    create(aws, name, Publish=True)
    expect_golden(error_of(aws.delete_function, FunctionName=name, Qualifier="$LATEST"), golden("errors", "latest_deleted"))
    assert aws.delete_function(FunctionName=name, Qualifier="1")["ResponseMetadata"]["HTTPStatusCode"] == 204
    expect(error_of(aws.get_function, FunctionName=name, Qualifier="1"), 404, "ResourceNotFoundException")
    assert aws.get_function(FunctionName=name)["Configuration"]["Version"] == "$LATEST"


def test_tags_live_as_recorded(aws, name, arn):
    create(aws, name, Tags={"key_a": "value_a"})
    resource = arn(name)
    assert aws.list_tags(Resource=resource)["Tags"] == {"key_a": "value_a"}
    assert aws.tag_resource(Resource=resource, Tags={"key_b": "value_b", "key_a": "new"})["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert aws.get_function(FunctionName=name)["Tags"] == {"key_a": "new", "key_b": "value_b"}
    assert aws.untag_resource(Resource=resource, TagKeys=["key_a", "absent"])["ResponseMetadata"]["HTTPStatusCode"] == 204
    aws.untag_resource(Resource=resource, TagKeys=["key_b"])
    assert aws.list_tags(Resource=resource)["Tags"] == {}
    assert "Tags" not in aws.get_function(FunctionName=name)


def test_refusals_of_tags_are_as_recorded(aws, name, arn, golden):
    create(aws, name)
    expect_golden(error_of(aws.tag_resource, Resource="arn:aws:something", Tags={"a": "b"}), golden("errors", "tag_arn"))
    expect_golden(error_of(aws.tag_resource, Resource=arn(name) + ":1", Tags={"a": "b"}), golden("errors", "tag_qualifier"))
    expect_golden(error_of(aws.tag_resource, Resource=arn(name), Tags={}), golden("errors", "tag_empty"))
    expect_golden(error_of(aws.untag_resource, Resource=arn(name), TagKeys=[]), golden("errors", "untag_keys"))
    expect(
        error_of(aws.list_tags, Resource=arn(name + "-none")),
        404,
        "ResourceNotFoundException",
        "Function not found: " + arn(name + "-none"),
    )


def test_fifty_tags_are_the_limit(aws, name, arn):
    create(aws, name, Tags={f"k{i}": "v" for i in range(50)})
    expect(
        error_of(aws.tag_resource, Resource=arn(name), Tags={"one more": "v"}),
        400,
        "InvalidParameterValueException",
        "Number of tags exceeds resource tag limit.",
    )
    assert len(aws.list_tags(Resource=arn(name))["Tags"]) == 50


@pytest.mark.parametrize("tags", [{"k" * 129: "v"}, {"k": "v" * 257}, {"": "v"}, {"k": "a\u0007b"}])
def test_shapes_of_tags_are_checked(aws, name, arn, tags):
    create(aws, name)
    expect(
        error_of(aws.tag_resource, Resource=arn(name), Tags=tags),
        400,
        "ValidationException",
        "at 'tags' failed to satisfy constraint: Map ",
    )
