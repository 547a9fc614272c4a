"""IAM and STS as deployments use them: roles and policies by boto3, the AWS CLI; temporary credentials; ECR's refusal."""
import datetime
import json
import os
import re
import subprocess
import urllib.error
import urllib.request
import uuid
from urllib.parse import unquote

import boto3
import botocore.exceptions
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

from mayfly_server import ROOT, invoke, python_function, zip_of

TRUST = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
LOGS = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "logs:*", "Resource": "*"}]}
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"
ACCOUNT = "000000000000"
AWS_CLIS = {"v1": os.path.join(ROOT, "build", "venv", "bin", "aws"), "v2": "/usr/bin/aws"}


@pytest.fixture
def iam(server):
    return server.client("iam")


@pytest.fixture
def sts(server):
    return server.client("sts")


@pytest.fixture
def role(iam):
    """The name of a fresh role, taken away afterwards with all it has."""
    fresh = "r-" + uuid.uuid4().hex[:12]
    iam.create_role(RoleName=fresh, AssumeRolePolicyDocument=json.dumps(TRUST))
    yield fresh
    remove_role(iam, fresh)


@pytest.fixture
def policy(iam):
    """The ARN of a fresh managed policy."""
    arn = iam.create_policy(PolicyName="p-" + uuid.uuid4().hex[:12], PolicyDocument=json.dumps(LOGS))["Policy"]["Arn"]
    yield arn
    remove_policy(iam, arn)


def remove_role(iam, name):
    try:
        for attached in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=attached["PolicyArn"])
        for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=inline)
        iam.delete_role(RoleName=name)
    except iam.exceptions.NoSuchEntityException:
        pass


def remove_policy(iam, arn):
    try:
        for version in iam.list_policy_versions(PolicyArn=arn)["Versions"]:
            if not version["IsDefaultVersion"]:
                iam.delete_policy_version(PolicyArn=arn, VersionId=version["VersionId"])
        for holder in iam.list_entities_for_policy(PolicyArn=arn, PolicyUsageFilter="PermissionsPolicy")["PolicyRoles"]:
            iam.detach_role_policy(RoleName=holder["RoleName"], PolicyArn=arn)
        iam.delete_policy(PolicyArn=arn)
    except iam.exceptions.NoSuchEntityException:
        pass


def refused(call, **arguments):
    """The code, status and text of the error that `call` answers."""
    with pytest.raises(botocore.exceptions.ClientError) as error:
        call(**arguments)
    answer = error.value.response
    return answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Message"]


def unchecked(server, service="iam"):
    """A client that sends what the SDK would refuse itself."""
    return server.client(service, parameter_validation=False)


# --- Roles ---


def test_a_role_is_made_told_changed_and_deleted(iam):
    name = "Life-" + uuid.uuid4().hex[:8]
    made = iam.create_role(RoleName=name, Path="/team/a/", AssumeRolePolicyDocument=json.dumps(TRUST), Description="é & <b>", MaxSessionDuration=7200,
                           Tags=[{"Key": "Team", "Value": "a/b"}, {"Key": "Empty", "Value": ""}])["Role"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/team/a/{name}"
    assert re.fullmatch(r"AROA[A-Z0-9]{17}", made["RoleId"])
    assert made["AssumeRolePolicyDocument"] == TRUST
    assert abs((datetime.datetime.now(datetime.timezone.utc) - made["CreateDate"]).total_seconds()) < 60

    role = iam.get_role(RoleName=name)["Role"]
    assert {key: role[key] for key in ("Path", "RoleName", "RoleId", "Arn", "CreateDate")} == {key: made[key] for key in ("Path", "RoleName", "RoleId", "Arn", "CreateDate")}
    assert role["Description"] == "é & <b>" and role["MaxSessionDuration"] == 7200 and role["RoleLastUsed"] == {}
    assert sorted(tag["Key"] + "=" + tag["Value"] for tag in role["Tags"]) == ["Empty=", "Team=a/b"]

    iam.update_role(RoleName=name, Description="two", MaxSessionDuration=3600)
    assert iam.update_role_description(RoleName=name, Description="three")["Role"]["Description"] == "three"
    other = json.loads(json.dumps(TRUST).replace("lambda.", "events."))
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(other))
    role = iam.get_role(RoleName=name)["Role"]
    assert (role["Description"], role["MaxSessionDuration"], role["AssumeRolePolicyDocument"]) == ("three", 3600, other)
    assert iam.list_instance_profiles_for_role(RoleName=name)["InstanceProfiles"] == []

    iam.delete_role(RoleName=name)
    assert refused(iam.get_role, RoleName=name) == ("NoSuchEntity", 404, f"The role with name {name} cannot be found.")
    assert refused(iam.delete_role, RoleName=name)[0] == "NoSuchEntity"


def test_defaults_are_those_of_iam(iam, role):
    told = iam.get_role(RoleName=role)["Role"]
    assert told["Path"] == "/" and told["MaxSessionDuration"] == 3600 and told["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/{role}"
    assert "Tags" not in told and "PermissionsBoundary" not in told and "Description" not in told


def test_documents_are_percent_encoded_on_the_wire_and_kept_to_the_letter(iam, role):
    document = '{ "Version":"2012-10-17",\n  "Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::ü+%20/*"}] }'
    iam.put_role_policy(RoleName=role, PolicyName="inline", PolicyDocument=document)
    raw = []
    iam.meta.events.register("after-call.iam.GetRolePolicy", lambda http_response, **_: raw.append(http_response.text))
    iam.get_role_policy(RoleName=role, PolicyName="inline")
    encoded = re.search("<PolicyDocument>(.*)</PolicyDocument>", raw[0])[1]
    assert re.fullmatch(r"(%[0-9A-F]{2}|[A-Za-z0-9._~-])+", encoded)
    assert "ResponseMetadata><RequestId>" in raw[0] and 'xmlns="https://iam.amazonaws.com/doc/2010-05-08/"' in raw[0]
    assert unquote(encoded) == document


def test_names_are_unique_whatever_their_case_and_checked(server, iam, role):
    assert refused(iam.create_role, RoleName=role.upper(), AssumeRolePolicyDocument=json.dumps(TRUST)) == ("EntityAlreadyExists", 409, f"Role with name {role.upper()} already exists.")
    loose = unchecked(server)
    code, status, text = refused(loose.create_role, RoleName="a b", AssumeRolePolicyDocument=json.dumps(TRUST))
    assert (code, status) == ("ValidationError", 400)
    assert text == "The specified value for roleName is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_-"
    code, status, text = refused(loose.create_role, RoleName="x" * 65, AssumeRolePolicyDocument=json.dumps(TRUST))
    assert (code, status) == ("ValidationError", 400)
    assert text == f"1 validation error detected: Value '{'x' * 65}' at 'roleName' failed to satisfy constraint: Member must have length less than or equal to 64"
    text = refused(loose.create_role, RoleName="", MaxSessionDuration=1)[2]
    assert text.startswith("3 validation errors detected: ") and "Value null at 'assumeRolePolicyDocument' failed to satisfy constraint: Member must not be null" in text
    assert "Value '1' at 'maxSessionDuration' failed to satisfy constraint: Member must have value greater than or equal to 3600" in text
    assert refused(loose.create_role, RoleName="x", Path="no-slash", AssumeRolePolicyDocument=json.dumps(TRUST))[2].startswith("The specified value for path is invalid.")
    iam.create_role(RoleName="x" * 60 + "+=,@", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.delete_role(RoleName="x" * 60 + "+=,@")


def test_roles_are_listed_by_name_by_path_and_in_pages(iam):
    mark = uuid.uuid4().hex[:8]
    path = f"/page/{mark}/"
    names = [f"{letter}-{mark}" for letter in ("b", "A", "d", "c", "E")]
    for name in names:
        iam.create_role(RoleName=name, Path=path, AssumeRolePolicyDocument=json.dumps(TRUST))
    try:
        ordered = sorted(names, key=str.lower)
        first = iam.list_roles(PathPrefix=path, MaxItems=2)
        assert [role["RoleName"] for role in first["Roles"]] == ordered[:2] and first["IsTruncated"] and first["Marker"]
        assert first["Roles"][0]["AssumeRolePolicyDocument"] == TRUST and "Tags" not in first["Roles"][0]
        rest = iam.list_roles(PathPrefix=path, MaxItems=3, Marker=first["Marker"])
        assert [role["RoleName"] for role in rest["Roles"]] == ordered[2:] and rest["IsTruncated"] is False and "Marker" not in rest
        pages = iam.get_paginator("list_roles").paginate(PathPrefix=path, PaginationConfig={"PageSize": 1})
        assert [role["RoleName"] for page in pages for role in page["Roles"]] == ordered
        assert iam.list_roles(PathPrefix=f"/page/{mark}x/")["Roles"] == []
        assert refused(iam.list_roles, Marker="not a marker")[:2] == ("ValidationError", 400)
        assert refused(iam.list_roles, PathPrefix="page")[0] == "ValidationError"
    finally:
        for name in names:
            remove_role(iam, name)


def test_malformed_documents_are_refused(iam, role):
    bad = "MalformedPolicyDocument", 400
    assert refused(iam.create_role, RoleName="never", AssumeRolePolicyDocument="{") == (*bad, "This policy contains invalid Json")
    assert refused(iam.create_role, RoleName="never", AssumeRolePolicyDocument=json.dumps(LOGS)) == (*bad, "Has prohibited field Resource")
    assert refused(iam.update_assume_role_policy, RoleName=role, PolicyDocument="[]")[:2] == bad
    assert refused(iam.put_role_policy, RoleName=role, PolicyName="x", PolicyDocument="nonsense") == (*bad, "Syntax errors in policy.")
    assert refused(iam.put_role_policy, RoleName=role, PolicyName="x", PolicyDocument=json.dumps(TRUST)) == (*bad, "Policy document should not specify a principal.")
    assert refused(iam.create_policy, PolicyName="never", PolicyDocument="{}") == (*bad, "Syntax errors in policy.")
    assert refused(iam.get_role, RoleName="never")[0] == "NoSuchEntity"


def test_inline_policies(iam, role):
    for name in ("two", "one", "three"):
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(LOGS))
    assert iam.list_role_policies(RoleName=role)["PolicyNames"] == ["one", "three", "two"]
    page = iam.list_role_policies(RoleName=role, MaxItems=2)
    assert page["PolicyNames"] == ["one", "three"] and page["IsTruncated"]
    assert iam.list_role_policies(RoleName=role, Marker=page["Marker"])["PolicyNames"] == ["two"]
    told = iam.get_role_policy(RoleName=role, PolicyName="two")
    assert (told["RoleName"], told["PolicyName"], told["PolicyDocument"]) == (role, "two", LOGS)
    assert refused(iam.delete_role, RoleName=role) == ("DeleteConflict", 409, "Cannot delete entity, must delete policies first.")
    iam.delete_role_policy(RoleName=role, PolicyName="two")
    assert refused(iam.get_role_policy, RoleName=role, PolicyName="two") == ("NoSuchEntity", 404, "The role policy with name two cannot be found.")
    assert refused(iam.delete_role_policy, RoleName=role, PolicyName="two")[0] == "NoSuchEntity"
    resource = boto3.resource("iam")  # as Zappa does, by the variables that the server fixture set
    resource.RolePolicy(role, "zappa").put(PolicyDocument=json.dumps(LOGS))
    assert resource.RolePolicy(role, "zappa").policy_document == LOGS and resource.Role(role).arn.endswith(role)


def test_attachments(iam, role, policy):
    iam.attach_role_policy(RoleName=role, PolicyArn=BASIC)
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    iam.attach_role_policy(RoleName=role, PolicyArn="arn:aws:iam::aws:policy/NobodyKnowsThis")
    attached = iam.list_attached_role_policies(RoleName=role)
    assert [one["PolicyName"] for one in attached["AttachedPolicies"]] == ["AWSLambdaBasicExecutionRole", "NobodyKnowsThis", policy.rsplit("/", 1)[1]]
    assert {one["PolicyArn"] for one in attached["AttachedPolicies"]} >= {BASIC, policy} and attached["IsTruncated"] is False
    assert [one["PolicyArn"] for one in iam.list_attached_role_policies(RoleName=role, PathPrefix="/service-role/")["AttachedPolicies"]] == [BASIC]
    assert refused(iam.delete_role, RoleName=role) == ("DeleteConflict", 409, "Cannot delete entity, must detach all policies first.")
    assert refused(iam.delete_policy, PolicyArn=policy) == ("DeleteConflict", 409, "Cannot delete a policy attached to entities.")
    assert iam.get_policy(PolicyArn=policy)["Policy"]["AttachmentCount"] == 1
    entities = iam.list_entities_for_policy(PolicyArn=policy)
    assert [one["RoleName"] for one in entities["PolicyRoles"]] == [role] and entities["PolicyUsers"] == entities["PolicyGroups"] == []
    assert entities["PolicyRoles"][0]["RoleId"] == iam.get_role(RoleName=role)["Role"]["RoleId"]
    assert iam.list_entities_for_policy(PolicyArn=policy, EntityFilter="User")["PolicyRoles"] == []
    iam.detach_role_policy(RoleName=role, PolicyArn=policy)
    assert refused(iam.detach_role_policy, RoleName=role, PolicyArn=policy) == ("NoSuchEntity", 404, f"Policy {policy} was not found.")
    none = f"arn:aws:iam::{ACCOUNT}:policy/none"
    assert refused(iam.attach_role_policy, RoleName=role, PolicyArn=none) == ("NoSuchEntity", 404, f"Policy {none} does not exist or is not attachable.")
    assert refused(iam.attach_role_policy, RoleName=role, PolicyArn="not-an-arn-of-a-policy") == ("InvalidInput", 400, "ARN not-an-arn-of-a-policy is not valid.")
    assert refused(iam.attach_role_policy, RoleName="nobody", PolicyArn=BASIC)[2] == "The role with name nobody cannot be found."


def test_permissions_boundaries(iam, role, policy):
    iam.put_role_permissions_boundary(RoleName=role, PermissionsBoundary=policy)
    assert iam.get_role(RoleName=role)["Role"]["PermissionsBoundary"] == {"PermissionsBoundaryType": "Policy", "PermissionsBoundaryArn": policy}
    assert iam.get_policy(PolicyArn=policy)["Policy"]["PermissionsBoundaryUsageCount"] == 1
    assert iam.list_entities_for_policy(PolicyArn=policy, PolicyUsageFilter="PermissionsBoundary")["PolicyRoles"][0]["RoleName"] == role
    assert iam.list_entities_for_policy(PolicyArn=policy, PolicyUsageFilter="PermissionsPolicy")["PolicyRoles"] == []
    assert refused(iam.put_role_permissions_boundary, RoleName=role, PermissionsBoundary=f"arn:aws:iam::{ACCOUNT}:policy/none")[0] == "NoSuchEntity"
    iam.delete_role_permissions_boundary(RoleName=role)
    assert "PermissionsBoundary" not in iam.get_role(RoleName=role)["Role"]


def test_role_tags(server, iam, role):
    iam.tag_role(RoleName=role, Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}, {"Key": "c", "Value": "3"}])
    iam.tag_role(RoleName=role, Tags=[{"Key": "A", "Value": "one"}])
    iam.untag_role(RoleName=role, TagKeys=["b"])
    assert iam.list_role_tags(RoleName=role)["Tags"] == [{"Key": "A", "Value": "one"}, {"Key": "c", "Value": "3"}]
    page = iam.list_role_tags(RoleName=role, MaxItems=1)
    assert page["IsTruncated"] and iam.list_role_tags(RoleName=role, Marker=page["Marker"])["Tags"] == [{"Key": "c", "Value": "3"}]
    assert refused(iam.tag_role, RoleName=role, Tags=[{"Key": "x", "Value": "1"}, {"Key": "X", "Value": "2"}]) == (
        "InvalidInput", 400, "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    assert refused(iam.tag_role, RoleName=role, Tags=[{"Key": "aws:x", "Value": "1"}])[0] == "InvalidInput"
    assert refused(iam.tag_role, RoleName=role, Tags=[{"Key": f"k{n}", "Value": ""} for n in range(49)])[:2] == ("LimitExceeded", 409)
    assert refused(iam.tag_role, RoleName=role, Tags=[{"Key": "a;b", "Value": ""}])[0] == "ValidationError"
    assert len(iam.list_role_tags(RoleName=role)["Tags"]) == 2


# --- Managed policies ---


def test_a_managed_policy_and_its_versions(iam, policy):
    told = iam.get_policy(PolicyArn=policy)["Policy"]
    assert re.fullmatch(r"ANPA[A-Z0-9]{17}", told["PolicyId"])
    assert (told["DefaultVersionId"], told["AttachmentCount"], told["IsAttachable"], told["Path"]) == ("v1", 0, True, "/")
    first = iam.get_policy_version(PolicyArn=policy, VersionId="v1")["PolicyVersion"]
    assert first["Document"] == LOGS and first["IsDefaultVersion"] is True
    other = json.loads(json.dumps(LOGS).replace("logs:*", "s3:*"))
    made = iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(other))["PolicyVersion"]
    assert made["VersionId"] == "v2" and made["IsDefaultVersion"] is False
    assert iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(other), SetAsDefault=True)["PolicyVersion"]["IsDefaultVersion"] is True
    versions = iam.list_policy_versions(PolicyArn=policy)["Versions"]
    assert [(one["VersionId"], one["IsDefaultVersion"]) for one in versions] == [("v3", True), ("v2", False), ("v1", False)]
    iam.set_default_policy_version(PolicyArn=policy, VersionId="v2")
    assert iam.get_policy(PolicyArn=policy)["Policy"]["DefaultVersionId"] == "v2"
    for _ in range(2):
        iam.create_policy_version(PolicyArn=policy, PolicyDocument=json.dumps(LOGS))
    code, status, text = refused(iam.create_policy_version, PolicyArn=policy, PolicyDocument=json.dumps(LOGS))
    assert (code, status) == ("LimitExceeded", 409) and "up to 5 versions" in text
    assert refused(iam.delete_policy_version, PolicyArn=policy, VersionId="v2") == ("DeleteConflict", 409, "Cannot delete the default version of a policy.")
    assert refused(iam.delete_policy, PolicyArn=policy)[:2] == ("DeleteConflict", 409)
    iam.delete_policy_version(PolicyArn=policy, VersionId="v1")
    assert refused(iam.get_policy_version, PolicyArn=policy, VersionId="v1")[:2] == ("NoSuchEntity", 404)
    page = iam.list_policy_versions(PolicyArn=policy, MaxItems=2)
    assert [one["VersionId"] for one in page["Versions"]] == ["v5", "v4"] and page["IsTruncated"]
    assert refused(iam.create_policy, PolicyName=policy.rsplit("/", 1)[1].upper(), PolicyDocument=json.dumps(LOGS))[:2] == ("EntityAlreadyExists", 409)


def test_policy_tags_and_description(iam):
    name = "p-" + uuid.uuid4().hex[:8]
    arn = iam.create_policy(PolicyName=name, Path="/x/", PolicyDocument=json.dumps(LOGS), Description="what it is for", Tags=[{"Key": "a", "Value": "1"}])["Policy"]["Arn"]
    try:
        assert arn == f"arn:aws:iam::{ACCOUNT}:policy/x/{name}"
        told = iam.get_policy(PolicyArn=arn)["Policy"]
        assert told["Description"] == "what it is for" and told["Tags"] == [{"Key": "a", "Value": "1"}]
        iam.tag_policy(PolicyArn=arn, Tags=[{"Key": "b", "Value": "2"}])
        iam.untag_policy(PolicyArn=arn, TagKeys=["a"])
        assert iam.list_policy_tags(PolicyArn=arn)["Tags"] == [{"Key": "b", "Value": "2"}]
        assert refused(iam.get_policy, PolicyArn=arn.replace("/x/", "/")) == ("NoSuchEntity", 404, f"Policy {arn.replace('/x/', '/')} was not found.")
    finally:
        remove_policy(iam, arn)


def test_policies_are_listed_by_scope_use_and_path(iam, role, policy):
    def listed(**filters):
        return [one["Arn"] for page in iam.get_paginator("list_policies").paginate(**filters, PaginationConfig={"PageSize": 7}) for one in page["Policies"]]

    everything = listed()
    assert policy in everything and BASIC in everything and len(everything) == len(set(everything))
    assert policy in listed(Scope="Local") and BASIC not in listed(Scope="Local")
    assert policy not in listed(Scope="AWS") and BASIC in listed(Scope="AWS")
    assert policy not in listed(OnlyAttached=True)
    iam.attach_role_policy(RoleName=role, PolicyArn=policy)
    assert policy in listed(OnlyAttached=True) and policy in listed(PolicyUsageFilter="PermissionsPolicy") and policy not in listed(PolicyUsageFilter="PermissionsBoundary")
    assert BASIC in listed(PathPrefix="/service-role/") and policy not in listed(PathPrefix="/service-role/")
    assert refused(iam.list_policies, Scope="Some")[0] == "ValidationError"


def test_policies_of_aws_can_be_read_and_not_changed(iam):
    for name in ("service-role/AWSLambdaBasicExecutionRole", "service-role/AWSLambdaVPCAccessExecutionRole", "service-role/AWSLambdaSQSQueueExecutionRole", "service-role/AWSLambdaRole",
                 "AmazonS3ReadOnlyAccess", "AWSXRayDaemonWriteAccess"):
        told = iam.get_policy(PolicyArn="arn:aws:iam::aws:policy/" + name)["Policy"]
        version = iam.get_policy_version(PolicyArn=told["Arn"], VersionId=told["DefaultVersionId"])["PolicyVersion"]
        assert told["PolicyName"] == name.split("/")[-1] and version["Document"]["Statement"][0]["Effect"] == "Allow"
    assert refused(iam.get_policy, PolicyArn="arn:aws:iam::aws:policy/NobodyKnowsThis")[:2] == ("NoSuchEntity", 404)
    assert refused(iam.delete_policy, PolicyArn=BASIC)[:2] == ("AccessDenied", 403)


# --- The account, and what is not there ---


def test_the_account_has_a_root_user_and_no_alias(iam):
    user = iam.get_user()["User"]
    assert user["Arn"] == f"arn:aws:iam::{ACCOUNT}:root" and user["UserId"] == ACCOUNT
    assert refused(iam.get_user, UserName="ada") == ("NoSuchEntity", 404, "The user with name ada cannot be found.")
    assert iam.list_account_aliases()["AccountAliases"] == []


def test_what_is_missing_names_itself(server, iam):
    for call, arguments in [(iam.get_account_authorization_details, {}), (iam.create_service_linked_role, {"AWSServiceName": "lambda.amazonaws.com"}), (iam.create_user, {"UserName": "ada"}), (iam.list_users, {})]:
        with pytest.raises(botocore.exceptions.ClientError) as error:
            call(**arguments)
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400
        assert error.value.operation_name in error.value.response["Error"]["Message"]
    code, status, text = refused(server.client("ecr").describe_repositories)
    assert status == 400 and code == "UnsupportedOperationException"
    assert "DescribeRepositories" in text and "ECR" in text and "image" in text


def test_hostile_forms_are_refused_and_change_nothing(server, iam):
    before = iam.list_roles()["Roles"]
    for body in ("", "Action=", "Action=CreateRole&RoleName=%zz", "Action=CreateRole&RoleName=" + "x" * 70000, "Action=" + "C" * 5000, "&&&===", "Action=CreateRole&RoleName=%00%ff",
                 "Action=TagRole&RoleName=a&" + "&".join(f"Tags.member.{n}.Key=k{n}&Tags.member.{n}.Value=" for n in range(1, 5000))):
        request = AWSRequest("POST", server.endpoint + "/", data=body.encode(), headers={"Content-Type": "application/x-www-form-urlencoded"})
        SigV4Auth(Credentials(server.credentials["access_key"], server.credentials["secret_key"]), "iam", "us-east-1").add_auth(request)
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(urllib.request.Request(request.url, data=body.encode(), headers=dict(request.headers)), timeout=20)
        assert 400 <= error.value.code < 500 and b"<ErrorResponse>" in error.value.read(), body[:60]
    assert iam.list_roles()["Roles"] == before


def test_iam_is_signed_for_us_east_1_wherever_the_server_is(own_server):
    server = own_server("--region", "eu-central-1")
    key = {"aws_access_key_id": server.credentials["access_key"], "aws_secret_access_key": server.credentials["secret_key"], "endpoint_url": server.endpoint}
    for region in ("us-east-1", "eu-central-1"):
        boto3.client("iam", region_name=region, **key).list_roles()
    assert refused(boto3.client("iam", region_name="eu-west-3", **key, config=Config(retries={"max_attempts": 0})).list_roles)[1] == 403


def test_roles_survive_kill_9(own_server):
    server = own_server()
    iam = server.client("iam")
    made = iam.create_role(RoleName="kept", Path="/p/", AssumeRolePolicyDocument=json.dumps(TRUST), Tags=[{"Key": "a", "Value": "b"}])["Role"]
    policy = iam.create_policy(PolicyName="kept-policy", PolicyDocument=json.dumps(LOGS))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="kept", PolicyArn=policy)
    iam.put_role_policy(RoleName="kept", PolicyName="inline", PolicyDocument=json.dumps(LOGS))
    iam.create_role(RoleName="gone", AssumeRolePolicyDocument=json.dumps(TRUST))
    iam.delete_role(RoleName="gone")
    server.kill()
    server.start()
    iam = server.client("iam")
    role = iam.get_role(RoleName="kept")["Role"]
    assert (role["RoleId"], role["Arn"], role["CreateDate"], role["AssumeRolePolicyDocument"]) == (made["RoleId"], made["Arn"], made["CreateDate"], TRUST)
    assert role["Tags"] == [{"Key": "a", "Value": "b"}]
    assert iam.list_attached_role_policies(RoleName="kept")["AttachedPolicies"][0]["PolicyArn"] == policy
    assert iam.get_role_policy(RoleName="kept", PolicyName="inline")["PolicyDocument"] == LOGS
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["kept"]


# --- Temporary credentials ---


def client_of(server, service, credentials):
    return boto3.client(service, endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=credentials["AccessKeyId"], aws_secret_access_key=credentials["SecretAccessKey"],
                        aws_session_token=credentials["SessionToken"], config=Config(retries={"max_attempts": 0}))


def test_an_assumed_role_works_until_its_role_is_gone(server, iam, sts, aws, role, name):
    answer = sts.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="ci+1", DurationSeconds=900)
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{role}/ci+1"
    credentials = answer["Credentials"]
    assert answer["AssumedRoleUser"] == {"AssumedRoleId": iam.get_role(RoleName=role)["Role"]["RoleId"] + ":ci+1", "Arn": arn}
    left = (credentials["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds()
    assert 840 < left <= 900 and credentials["AccessKeyId"].startswith("ASIA")
    identity = client_of(server, "sts", credentials).get_caller_identity()
    assert identity["Arn"] == arn and identity["Account"] == ACCOUNT and identity["UserId"] == answer["AssumedRoleUser"]["AssumedRoleId"]

    functions = client_of(server, "lambda", credentials)
    python_function(functions, name, "def handler(e, c):\n    return 'made by a session'\n")
    functions.get_waiter("function_active_v2").wait(FunctionName=name)
    assert invoke(functions, name)[0] == "made by a session"
    link = functions.get_function(FunctionName=name)["Code"]["Location"]
    assert urllib.request.urlopen(link, timeout=20).read()[:2] == b"PK"
    assert client_of(server, "iam", credentials).get_role(RoleName=role)["Role"]["RoleName"] == role
    assert refused(client_of(server, "iam", credentials).get_user)[:2] == ("ValidationError", 400)

    for call, arguments in (("assume_role", {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/{role}", "RoleSessionName": "again"}), ("get_session_token", {})):
        assert refused(getattr(client_of(server, "sts", credentials), call), **arguments)[:2] == ("AccessDenied", 403), "a session makes no sessions"
    wrong = {**credentials, "SessionToken": credentials["SessionToken"][:-4] + "AAAA"}
    assert refused(client_of(server, "sts", wrong).get_caller_identity)[:2] == ("InvalidClientTokenId", 403)
    iam.delete_role(RoleName=role)
    assert refused(client_of(server, "sts", credentials).get_caller_identity)[:2] == ("InvalidClientTokenId", 403)


def test_only_roles_that_exist_are_assumed_and_nothing_is_promised_that_is_not_kept(server, iam, role):
    sts = unchecked(server, "sts")
    arn = f"arn:aws:iam::{ACCOUNT}:role/{role}"
    for none in (f"arn:aws:iam::{ACCOUNT}:role/none", f"arn:aws:iam::111111111111:role/{role}", "x" * 30):
        assert refused(sts.assume_role, RoleArn=none, RoleSessionName="me") == (
            "AccessDenied", 403, f"User: arn:aws:iam::{ACCOUNT}:root is not authorized to perform: sts:AssumeRole on resource: {none}")
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", DurationSeconds=7200) == (
        "ValidationError", 400, "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.")
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", DurationSeconds=1)[0] == "ValidationError"
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="a b")[0] == "ValidationError"
    assert "Policy" in refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", Policy=json.dumps(LOGS))[2]
    assert "PolicyArns" in refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", PolicyArns=[{"arn": BASIC}])[2]
    assert "MFA" in refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", SerialNumber="GAHT12345678", TokenCode="123456")[2]
    iam.update_role(RoleName=role, MaxSessionDuration=7200)
    assert sts.assume_role(RoleArn=arn, RoleSessionName="me", DurationSeconds=7200, SourceIdentity="ada")["SourceIdentity"] == "ada"


def test_session_tokens_are_the_accounts_for_an_hour(server, sts):
    credentials = sts.get_session_token(DurationSeconds=43200)["Credentials"]
    assert (credentials["Expiration"] - datetime.datetime.now(datetime.timezone.utc)).total_seconds() <= 3600
    assert client_of(server, "sts", credentials).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"
    client_of(server, "lambda", credentials).list_functions()


SIGNS_FOR_ITSELF = """
import datetime, hashlib, hmac, os, re, urllib.error, urllib.request
def call(service, form):
    endpoint, body = os.environ['AWS_ENDPOINT_URL'], form.encode()
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime('%Y%m%dT%H%M%SZ')
    sent = {'content-type': 'application/x-www-form-urlencoded', 'host': endpoint.split('//')[1], 'x-amz-date': stamp, 'x-amz-security-token': os.environ['AWS_SESSION_TOKEN']}
    names, scope = ';'.join(sorted(sent)), f"{stamp[:8]}/us-east-1/{service}/aws4_request"
    canonical = '\\n'.join(['POST', '/', '', *[f'{k}:{sent[k]}' for k in sorted(sent)], '', names, hashlib.sha256(body).hexdigest()])
    text = '\\n'.join(['AWS4-HMAC-SHA256', stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = ('AWS4' + os.environ['AWS_SECRET_ACCESS_KEY']).encode()
    for part in scope.split('/'):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    sent['Authorization'] = f"AWS4-HMAC-SHA256 Credential={os.environ['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={signature}"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(endpoint + '/', data=body, headers=sent), timeout=10).read().decode()
        return re.search('<UserId>(.*)</UserId>', answer)[1] if '<UserId>' in answer else answer
    except urllib.error.HTTPError as error:
        return error.code, re.search('<Code>(.*)</Code>', error.read().decode())[1]
def handler(event, context):
    return [call('sts', 'Action=AssumeRole&RoleSessionName=me&RoleArn=' + event), call('sts', 'Action=GetSessionToken'), call('iam', 'Action=ListRoles'), call('sts', 'Action=GetCallerIdentity')]
"""


def test_a_function_can_neither_assume_roles_nor_call_iam_and_knows_its_roles_id(iam, aws, role, name):
    arn = iam.get_role(RoleName=role)["Role"]["Arn"]
    aws.create_function(FunctionName=name, Runtime="python3.11", Role=arn, Handler="app.handler", Timeout=30, Code={"ZipFile": zip_of({"app.py": SIGNS_FOR_ITSELF})})
    aws.get_waiter("function_active_v2").wait(FunctionName=name)
    answer, error, log, _ = invoke(aws, name, arn)
    assert error is None, (answer, log)
    assert answer == [[403, "AccessDenied"], [403, "AccessDenied"], [403, "AccessDenied"], iam.get_role(RoleName=role)["Role"]["RoleId"] + ":" + name]


# --- The AWS CLI ---


@pytest.mark.parametrize("version", sorted(AWS_CLIS))
def test_the_aws_cli_keeps_roles(server, tmp_path, version):
    program = AWS_CLIS[version]
    if not os.path.exists(program):
        pytest.skip(f"the AWS CLI {version} is not installed")
    name = "cli-" + uuid.uuid4().hex[:8]
    (tmp_path / "trust.json").write_text(json.dumps(TRUST, indent=2), encoding="ascii")

    def run(*words, status=0):
        done = subprocess.run([program, "--endpoint-url", server.endpoint, *words, "--output", "json"], capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path, env={**os.environ, **server.env})
        assert done.returncode == status, (words, done.stdout, done.stderr)
        return json.loads(done.stdout) if done.stdout.strip() else done.stderr

    run("iam", "create-role", "--role-name", name, "--assume-role-policy-document", "file://trust.json", "--tags", "Key=a,Value=b")
    assert run("iam", "get-role", "--role-name", name)["Role"]["AssumeRolePolicyDocument"] == TRUST, "decoded"
    run("iam", "attach-role-policy", "--role-name", name, "--policy-arn", BASIC)
    assert run("iam", "list-attached-role-policies", "--role-name", name)["AttachedPolicies"] == [{"PolicyName": "AWSLambdaBasicExecutionRole", "PolicyArn": BASIC}]
    assert "DeleteConflict" in run("iam", "delete-role", "--role-name", name, status=254 if version == "v2" else 255)
    run("iam", "detach-role-policy", "--role-name", name, "--policy-arn", BASIC)
    run("iam", "wait", "role-exists", "--role-name", name)
    assert run("sts", "assume-role", "--role-arn", f"arn:aws:iam::{ACCOUNT}:role/{name}", "--role-session-name", "cli")["Credentials"]["SessionToken"]
    run("iam", "delete-role", "--role-name", name)
    assert "NoSuchEntity" in run("iam", "get-role", "--role-name", name, status=254 if version == "v2" else 255)
