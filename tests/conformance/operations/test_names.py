"""Names, ARNs and qualifiers in every operation that takes a function: all forms, right and wrong."""

import json

import pytest

import interface
from scenario import ACCOUNT, REGION, function_arn
from wire import error_problems

TAKES_FUNCTION = [
    name for name in interface.OFFERED if any(member["name"] == "FunctionName" for member in interface.OPERATIONS[name]["members"])
]
# A source may be listed, and a mapping changed, without a function; CreateFunction makes the name it is given.
NAMES_EXISTING = [
    name
    for name in TAKES_FUNCTION
    if name not in ("CreateFunction", "CreateEventSourceMapping", "UpdateEventSourceMapping", "ListEventSourceMappings")
]
FORMS = {
    "name": "{name}",
    "partial ARN": "{account}:function:{name}",
    "short partial ARN": "function:{name}",
    "ARN": "arn:aws:lambda:{region}:{account}:function:{name}",
}
QUALIFIED = {
    "name": "{name}:{qualifier}",
    "partial ARN": "{account}:function:{name}:{qualifier}",
    "ARN": "arn:aws:lambda:{region}:{account}:function:{name}:{qualifier}",
}
# Texts that were recorded to differ from the usual one, for a function that does not exist.
NO_CONFIGURATION = "The function {arn}:$LATEST doesn't have an EventInvokeConfig"
MISSING = {
    "GetFunctionEventInvokeConfig": NO_CONFIGURATION,
    "DeleteFunctionEventInvokeConfig": NO_CONFIGURATION,
    "PutFunctionEventInvokeConfig": "The function doesn't exist.",
    "UpdateFunctionEventInvokeConfig": "The function doesn't exist.",
    "ListFunctionEventInvokeConfigs": "The function doesn't exist.",
    "Invoke": "Function not found: {arn}:$LATEST",
    "CreateFunctionUrlConfig": "Function does not exist",
    "GetPolicy": None,
    "RemovePermission": None,
    "GetFunctionUrlConfig": None,
    "UpdateFunctionUrlConfig": None,
    "DeleteFunctionUrlConfig": None,
    "GetAlias": None,
    "ListFunctionUrlConfigs": None,
}


def unqualified(name):
    """A minimal call without a qualifier where the operation can do without."""
    operation = interface.OPERATIONS[name]
    return interface.base_input(operation)


def with_form(form, name, qualifier="", region=REGION, account=ACCOUNT):
    return form.format(name=name, qualifier=qualifier, region=region, account=account)


def takes_qualifier_in_name(operation):
    shape = next(member["shape"] for member in operation["members"] if member["name"] == "FunctionName")
    return interface.matches(interface.SHAPES[shape], "name:7") and operation["name"] not in (
        # The qualifier in the name is refused or ignored here: these act on the whole function.
        "PutFunctionConcurrency", "GetFunctionConcurrency", "DeleteFunctionConcurrency")  # fmt: skip


@pytest.mark.parametrize("name", NAMES_EXISTING)
def test_a_function_that_does_not_exist_is_not_found_in_any_form(caller, cases, name):
    with cases(name) as tally:
        answers = {}
        for what, form in FORMS.items():
            values = {**unqualified(name), "FunctionName": with_form(form, interface.NOWHERE)}
            reply = caller.send(name, values)
            problems = error_problems(reply)
            if (reply.status, reply.error) not in (
                (404, "ResourceNotFoundException"),
                (404, "ProvisionedConcurrencyConfigNotFoundException"),
            ):
                problems.append(f"expected 404 ResourceNotFoundException, got {reply}")
            text = MISSING.get(name, "Function not found: {arn}")
            wanted = None if text is None else text.format(arn=function_arn(interface.NOWHERE))
            if wanted and wanted not in (reply.message or ""):
                problems.append(f"expected the text {wanted!r}, got {reply.message!r}")
            answers[what] = (reply.status, reply.error, reply.message)
            tally.record(f"by {what}", problems)
        tally.record("alike in all forms", [] if len(set(answers.values())) == 1 else [f"the forms differ: {answers}"])


@pytest.mark.parametrize("name", NAMES_EXISTING)
def test_functions_of_other_regions_and_accounts_are_refused(caller, cases, name):
    with cases(name) as tally:
        elsewhere = with_form(FORMS["ARN"], interface.NOWHERE, region="eu-west-3")
        reply = caller.send(name, {**unqualified(name), "FunctionName": elsewhere})
        wanted = f"Functions from 'eu-west-3' are not reachable in this region ('{REGION}')"
        good = (reply.status, reply.error, reply.message) == (404, "ResourceNotFoundException", wanted)
        tally.record("of another region", error_problems(reply) + ([] if good else [f"expected 404 {wanted!r}, got {reply}"]))
        for what in ("ARN", "partial ARN"):
            foreign = with_form(FORMS[what], interface.NOWHERE, account="123456789012")
            reply = caller.send(name, {**unqualified(name), "FunctionName": foreign})
            good = reply.status in (403, 404) and reply.error in ("AccessDeniedException", "ResourceNotFoundException")
            tally.record(
                f"of another account, by {what}", error_problems(reply) + ([] if good else [f"expected AccessDeniedException, got {reply}"])
            )


@pytest.mark.parametrize("name", [
    name for name in NAMES_EXISTING
    if takes_qualifier_in_name(interface.OPERATIONS[name])
    and any(member["name"] == "Qualifier" for member in interface.OPERATIONS[name]["members"])
])  # fmt: skip
def test_qualifiers_that_disagree_are_refused(caller, cases, name):
    with cases(name) as tally:
        for what, form in QUALIFIED.items():
            # Each of the two must be possible alone: aliases where only aliases may be given.
            values = {**unqualified(name), "FunctionName": with_form(form, interface.NOWHERE, "other"), "Qualifier": "live"}
            if name in ("PutProvisionedConcurrencyConfig", "GetProvisionedConcurrencyConfig", "DeleteProvisionedConcurrencyConfig"):
                values["Qualifier"] = "7"
            reply = caller.send(name, values)
            wanted = "The derived qualifier from the function name does not match the specified qualifier."
            good = (reply.status, reply.error, reply.message) == (400, "InvalidParameterValueException", wanted)
            tally.record(f"by {what}", error_problems(reply) + ([] if good else [f"expected 400 {wanted!r}, got {reply}"]))


READS = {
    "GetFunction": {},
    "GetFunctionConfiguration": {},
    "GetFunctionConcurrency": {},
    "GetPolicy": {},
    "GetFunctionEventInvokeConfig": {},
    "GetFunctionUrlConfig": {},
    "GetRuntimeManagementConfig": {},
    "GetFunctionCodeSigningConfig": {},
    "GetAlias": {"Name": "live"},
    "ListAliases": {},
    "ListVersionsByFunction": {},
    "ListProvisionedConcurrencyConfigs": {},
    "ListFunctionEventInvokeConfigs": {},
    "ListFunctionUrlConfigs": {},
    "ListEventSourceMappings": {},
    "Invoke": {},
}


@pytest.fixture(scope="module")
def furnished(caller):
    """A function that has one of everything that can be read, as far as it is offered."""
    from scenario import ROLE, package

    name, client = "conf-furnished", caller.client
    client.create_function(
        FunctionName=name, Runtime="python3.11", Role=ROLE, Handler="app.handler", Code={"ZipFile": package()}, Publish=True
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name, WaiterConfig={"Delay": 0.05})
    for operation, values in (
        ("CreateAlias", {"Name": "live", "FunctionVersion": "1"}),
        ("PutFunctionConcurrency", {"ReservedConcurrentExecutions": 2}),
        ("AddPermission", {"StatementId": "s", "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}),
        ("PutFunctionEventInvokeConfig", {"MaximumRetryAttempts": 1}),
        ("CreateFunctionUrlConfig", {"AuthType": "NONE"}),
    ):
        caller.send(operation, {"FunctionName": name, **values})
    yield name
    client.delete_function(FunctionName=name)


@pytest.mark.parametrize("name", READS)
def test_every_form_of_a_name_reads_the_same(caller, cases, furnished, name):
    with cases(name) as tally:
        answers = {}
        for what, form in FORMS.items():
            reply = caller.send(name, {**READS[name], "FunctionName": with_form(form, furnished)})
            problems = [] if reply.status == 200 else [f"expected an answer, got {reply}"]
            tally.record(f"by {what}", problems)
            body = reply.json if isinstance(reply.json, dict) else {}
            body.get("Code", {}).pop("Location", None)  # signed anew each time
            answers[what] = json.dumps(body, sort_keys=True)
        tally.record("alike in all forms", [] if len(set(answers.values())) == 1 else [f"the forms differ: {answers}"])


@pytest.mark.parametrize("name", ["GetFunction", "GetFunctionConfiguration", "Invoke"])
def test_a_qualifier_may_stand_in_the_name(caller, cases, furnished, name):
    with cases(name) as tally:
        for qualifier in ("$LATEST", "1", "live"):
            for what, form in QUALIFIED.items():
                for values in ({}, {"Qualifier": qualifier}):
                    reply = caller.send(name, {**values, "FunctionName": with_form(form, furnished, qualifier)})
                    problems = [] if reply.status == 200 else [f"expected an answer, got {reply}"]
                    if name != "Invoke" and not problems:
                        configuration = reply.json.get("Configuration", reply.json)
                        if configuration["FunctionArn"] != function_arn(furnished, qualifier):
                            problems.append(f"FunctionArn is {configuration['FunctionArn']}")
                    tally.record(f"{qualifier} by {what} {values}", problems)


@pytest.mark.parametrize("name", NAMES_EXISTING)
def test_what_is_no_name_is_refused_by_its_pattern(caller, cases, name):
    shape_name = next(member["shape"] for member in interface.OPERATIONS[name]["members"] if member["name"] == "FunctionName")
    shape = interface.SHAPES[shape_name]
    with cases(name) as tally:
        for bad in (
            "a b",
            "a/b",
            "a%2Fb",
            "name:",
            ":1",
            "a:b:c:d",
            "arn:aws:lambda",
            "arn:aws:s3:::bucket",
            "arn:aws:lambda:us-east-1:1:function:f",
            "\u00e4",
            "$LATEST",
            "a;b",
            "function:",
            "x" * 300,
        ):
            expected = interface.violations_of(shape, bad)
            reply = caller.send(name, {**unqualified(name), "FunctionName": bad})
            if not expected:
                good = reply.status in (400, 403, 404)
                tally.record(f"{bad!r}", error_problems(reply) if good else [f"expected a refusal, got {reply}"])
                continue
            problems = error_problems(reply)
            if reply.error != "ValidationException" or not all(text in reply.message for text in expected):
                problems.append(f"expected {expected}, got {reply}")
            tally.record(f"{bad!r}", problems)
