"""S3 as the tools use it: boto3 with its default checksums, the AWS CLI, presigned URLs, and functions from inside."""
import base64
import concurrent.futures
import hashlib
import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
import zlib

import pytest

from mayfly_server import ROOT, invoke, python_function, zip_of

AWS_CLIS = {"v1": os.path.join(ROOT, "build", "venv", "bin", "aws"), "v2": "/usr/bin/aws"}


@pytest.fixture
def s3(server):
    return server.client("s3")


@pytest.fixture
def bucket(s3):
    """A fresh bucket, emptied and deleted afterwards."""
    name = "t-" + uuid.uuid4().hex[:16]
    s3.create_bucket(Bucket=name)
    yield name
    for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if keys:
            s3.delete_objects(Bucket=name, Delete={"Objects": keys})
    s3.delete_bucket(Bucket=name)


def refused(code, status, call, **arguments):
    from botocore.exceptions import ClientError

    with pytest.raises(ClientError) as error:
        call(**arguments)
    assert error.value.response["Error"]["Code"] == code, error.value.response
    assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    return error.value.response["Error"]["Message"]


@pytest.mark.smoke
def test_buckets_and_objects_live_their_lives(s3, bucket):
    assert bucket in [entry["Name"] for entry in s3.list_buckets()["Buckets"]]
    assert s3.get_bucket_location(Bucket=bucket).get("LocationConstraint") is None
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    put = s3.put_object(Bucket=bucket, Key="a/b c+d%ü.txt", Body=b"hello", ContentType="text/plain", Metadata={"Colour": "green"}, CacheControl="no-cache", Tagging="stage=test")
    assert put["ETag"] == '"%s"' % hashlib.md5(b"hello").hexdigest()
    assert base64.b64decode(put["ChecksumCRC32"]) == zlib.crc32(b"hello").to_bytes(4, "big")
    got = s3.get_object(Bucket=bucket, Key="a/b c+d%ü.txt")
    assert got["Body"].read() == b"hello"
    assert (got["ContentType"], got["CacheControl"], got["Metadata"], got["ContentLength"], got["TagCount"]) == ("text/plain", "no-cache", {"colour": "green"}, 5, 1)
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    head = s3.head_object(Bucket=bucket, Key="a/b c+d%ü.txt")
    assert head["ContentLength"] == 5 and head["ETag"] == put["ETag"] and head["LastModified"] == got["LastModified"]
    assert refused("BucketNotEmpty", 409, s3.delete_bucket, Bucket=bucket) == "The bucket you tried to delete is not empty"
    s3.delete_object(Bucket=bucket, Key="a/b c+d%ü.txt")
    s3.delete_object(Bucket=bucket, Key="a/b c+d%ü.txt")
    assert refused("NoSuchKey", 404, s3.get_object, Bucket=bucket, Key="a/b c+d%ü.txt") == "The specified key does not exist."
    refused("404", 404, s3.head_object, Bucket=bucket, Key="a/b c+d%ü.txt")


def test_errors_are_those_of_aws(server, s3, bucket):
    assert refused("NoSuchBucket", 404, s3.get_object, Bucket="never-made-here", Key="k") == "The specified bucket does not exist"
    assert refused("InvalidBucketName", 400, s3.create_bucket, Bucket="Not_Valid") == "The specified bucket is not valid."
    refused("IllegalLocationConstraintException", 400, s3.create_bucket, Bucket="elsewhere-x", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    refused("404", 404, s3.head_bucket, Bucket="never-made-here")
    s3.create_bucket(Bucket=bucket)  # one's own again, as in us-east-1
    s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    refused("InvalidRange", 416, s3.get_object, Bucket=bucket, Key="k", Range="bytes=10-")
    refused("PreconditionFailed", 412, s3.get_object, Bucket=bucket, Key="k", IfMatch='"0"')
    refused("PreconditionFailed", 412, s3.put_object, Bucket=bucket, Key="k", Body=b"x", IfNoneMatch="*")
    refused("304", 304, s3.get_object, Bucket=bucket, Key="k", IfNoneMatch=s3.head_object(Bucket=bucket, Key="k")["ETag"])
    refused("BadDigest", 400, s3.put_object, Bucket=bucket, Key="k", Body=b"x", ContentMD5=base64.b64encode(hashlib.md5(b"y").digest()).decode())
    refused("BadDigest", 400, s3.put_object, Bucket=bucket, Key="k", Body=b"x", ChecksumCRC32="AAAAAA==")
    refused("KeyTooLongError", 400, s3.put_object, Bucket=bucket, Key="k" * 1025, Body=b"x")
    refused("MetadataTooLarge", 400, s3.put_object, Bucket=bucket, Key="k", Body=b"x", Metadata={"m": "v" * 2048})
    refused("NoSuchUpload", 404, s3.list_parts, Bucket=bucket, Key="k", UploadId="none")
    refused("NoSuchTagSet", 404, s3.get_bucket_tagging, Bucket=bucket)
    refused("NoSuchBucketPolicy", 404, s3.get_bucket_policy, Bucket=bucket)
    refused("AccessControlListNotSupported", 400, s3.put_object, Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    assert "PutBucketVersioning" in refused("NotImplemented", 501, s3.put_bucket_versioning, Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "Status" not in s3.get_bucket_versioning(Bucket=bucket)
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"0123456789"
    import boto3

    stranger = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id="AKIASTRANGER00000000", aws_secret_access_key="x")
    refused("InvalidAccessKeyId", 403, stranger.list_buckets)
    liar = boto3.client("s3", endpoint_url=server.endpoint, region_name="us-east-1", aws_access_key_id=server.credentials["access_key"], aws_secret_access_key="x")
    refused("SignatureDoesNotMatch", 403, liar.list_buckets)


def test_ranges_overrides_and_versions(s3, bucket):
    body = os.urandom(3_000_000)
    s3.put_object(Bucket=bucket, Key="k", Body=body)
    part = s3.get_object(Bucket=bucket, Key="k", Range="bytes=1000-2500000")
    assert part["Body"].read() == body[1000:2500001] and part["ContentRange"] == "bytes 1000-2500000/3000000"
    assert part["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert s3.get_object(Bucket=bucket, Key="k", Range="bytes=-5")["Body"].read() == body[-5:]
    assert s3.get_object(Bucket=bucket, Key="k", ResponseContentType="a/b")["ContentType"] == "a/b"
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == body
    assert s3.get_object(Bucket=bucket, Key="k", VersionId="null")["ContentLength"] == len(body)
    refused("NoSuchVersion", 404, s3.get_object, Bucket=bucket, Key="k", VersionId="3sL4kqtJlcpXroDTDmJ.rmSpXd3dIbrHY")
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    assert s3.get_object(Bucket=bucket, Key="empty")["Body"].read() == b""


def test_lists_page_and_group(s3, bucket):
    keys = sorted([f"logs/{day}/{number}" for day in range(3) for number in range(5)] + ["a b+c", "z&<>", "ü"], key=lambda key: key.encode())
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: s3.put_object(Bucket=bucket, Key=key, Body=key.encode()), keys))
    for operation in ("list_objects", "list_objects_v2"):
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, PaginationConfig={"PageSize": 4}))
        assert [entry["Key"] for page in pages for entry in page["Contents"]] == keys
        assert len(pages) == 5 and pages[0]["IsTruncated"] and not pages[-1]["IsTruncated"]
        pages = list(s3.get_paginator(operation).paginate(Bucket=bucket, Delimiter="/", PaginationConfig={"PageSize": 2}))
        assert [entry["Prefix"] for page in pages for entry in page.get("CommonPrefixes", [])] == ["logs/"]
        assert [entry["Key"] for page in pages for entry in page.get("Contents", [])] == ["a b+c", "z&<>", "ü"]
    grouped = s3.list_objects_v2(Bucket=bucket, Prefix="logs/", Delimiter="/")
    assert [entry["Prefix"] for entry in grouped["CommonPrefixes"]] == ["logs/0/", "logs/1/", "logs/2/"] and grouped["KeyCount"] == 3
    after = s3.list_objects_v2(Bucket=bucket, StartAfter="logs/2/3", MaxKeys=1)
    assert after["Contents"][0]["Key"] == "logs/2/4" and after["Contents"][0]["Size"] == 8
    assert [entry["Key"] for entry in s3.list_object_versions(Bucket=bucket)["Versions"]] == keys
    deleted = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys] + [{"Key": "never"}]})
    assert len(deleted["Deleted"]) == len(keys) + 1 and "Errors" not in deleted
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


def test_copies_and_tags(s3, bucket):
    s3.put_object(Bucket=bucket, Key="k", Body=b"hello", Metadata={"a": "1"}, Tagging="x=1")
    copied = s3.copy_object(Bucket=bucket, Key="l/m", CopySource={"Bucket": bucket, "Key": "k"})
    assert copied["CopyObjectResult"]["ETag"] == s3.head_object(Bucket=bucket, Key="k")["ETag"]
    assert s3.get_object(Bucket=bucket, Key="l/m")["Metadata"] == {"a": "1"}
    s3.copy_object(Bucket=bucket, Key="k", CopySource=f"{bucket}/k", MetadataDirective="REPLACE", Metadata={"b": "2"}, ContentType="x/y")
    head = s3.head_object(Bucket=bucket, Key="k")
    assert head["Metadata"] == {"b": "2"} and head["ContentType"] == "x/y"
    refused("InvalidRequest", 400, s3.copy_object, Bucket=bucket, Key="k", CopySource=f"{bucket}/k")
    refused("NoSuchKey", 404, s3.copy_object, Bucket=bucket, Key="k", CopySource=f"{bucket}/none")
    assert s3.get_object_tagging(Bucket=bucket, Key="l/m")["TagSet"] == [{"Key": "x", "Value": "1"}]
    s3.put_object_tagging(Bucket=bucket, Key="l/m", Tagging={"TagSet": [{"Key": "y<", "Value": "&2"}]})
    assert s3.get_object_tagging(Bucket=bucket, Key="l/m")["TagSet"] == [{"Key": "y<", "Value": "&2"}]
    s3.delete_object_tagging(Bucket=bucket, Key="l/m")
    assert s3.get_object_tagging(Bucket=bucket, Key="l/m")["TagSet"] == []
    s3.put_bucket_tagging(Bucket=bucket, Tagging={"TagSet": [{"Key": "team", "Value": "a"}]})
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "team", "Value": "a"}]
    s3.delete_bucket_tagging(Bucket=bucket)


def test_large_files_go_up_in_parts_and_come_down_in_ranges(server, s3, bucket, tmp_path):
    source, target = tmp_path / "up", tmp_path / "down"
    source.write_bytes(os.urandom(20_000_000))
    s3.upload_file(str(source), bucket, "big", ExtraArgs={"Metadata": {"m": "v"}})
    head = s3.head_object(Bucket=bucket, Key="big", ChecksumMode="ENABLED")
    assert head["ContentLength"] == 20_000_000 and head["ETag"].endswith('-3"') and head["Metadata"] == {"m": "v"}
    assert "ChecksumCRC32" in head
    s3.download_file(bucket, "big", str(target))
    assert target.read_bytes() == source.read_bytes()
    assert s3.get_object(Bucket=bucket, Key="big", PartNumber=3)["ContentLength"] == 20_000_000 - 2 * 8 * 1024 * 1024
    s3.copy({"Bucket": bucket, "Key": "big"}, bucket, "copy")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    assert hashlib.sha256(s3.get_object(Bucket=bucket, Key="copy")["Body"].read()).hexdigest() == digest
    for algorithm in ("CRC64NVME", "SHA256", "CRC32C"):
        if algorithm in ("CRC64NVME", "CRC32C"):
            try:
                import awscrt  # noqa: F401
            except ImportError:
                continue
        s3.upload_file(str(source), bucket, algorithm, ExtraArgs={"ChecksumAlgorithm": algorithm})
        assert f"Checksum{algorithm}" in s3.head_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")


def test_an_upload_by_hand(s3, bucket):
    five = b"5" * (5 << 20)
    upload = s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="a/b")["UploadId"]
    assert [entry["UploadId"] for entry in s3.list_multipart_uploads(Bucket=bucket)["Uploads"]] == [upload]
    one = s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=1, Body=five)["ETag"]
    s3.put_object(Bucket=bucket, Key="source", Body=b"0123456789")
    two = s3.upload_part_copy(Bucket=bucket, Key="k", UploadId=upload, PartNumber=2, CopySource=f"{bucket}/source", CopySourceRange="bytes=2-4")["CopyPartResult"]["ETag"]
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload, MaxParts=1)
    assert listed["IsTruncated"] and [part["Size"] for part in listed["Parts"]] == [5 << 20]
    refused("InvalidPart", 400, s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 3, "ETag": one}]})
    refused("EntityTooSmall", 400, s3.complete_multipart_upload, Bucket=bucket, Key="k", UploadId=upload,
            MultipartUpload={"Parts": [{"PartNumber": 2, "ETag": two}, {"PartNumber": 4, "ETag": s3.upload_part(Bucket=bucket, Key="k", UploadId=upload, PartNumber=4, Body=b"x")["ETag"]}]})
    done = s3.complete_multipart_upload(Bucket=bucket, Key="k", UploadId=upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": one}, {"PartNumber": 2, "ETag": two}]})
    assert done["ETag"].endswith('-2"')
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == five + b"234" and got["ContentType"] == "a/b"
    abandoned = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    s3.abort_multipart_upload(Bucket=bucket, Key="k", UploadId=abandoned)
    refused("NoSuchUpload", 404, s3.upload_part, Bucket=bucket, Key="k", UploadId=abandoned, PartNumber=1, Body=b"x")


@pytest.mark.parametrize("signing", [{}, {"signature_version": "s3v4"}], ids=["as boto3 does by default", "version 4"])
def test_presigned_urls_get_and_put(server, bucket, signing):
    def call(url, method="GET", body=None, headers=None):
        try:
            with urllib.request.urlopen(urllib.request.Request(url, data=body, method=method, headers=headers or {}), timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    s3 = server.client("s3", **signing)
    put = s3.generate_presigned_url("put_object", Params={"Bucket": bucket, "Key": "k", "ContentType": "text/x", "Metadata": {"from": "a url"}}, ExpiresIn=60)
    assert ("X-Amz-Signature" in put) == bool(signing), put
    headers = {"Content-Type": "text/x", "x-amz-meta-from": "a url"}
    assert call(put, "PUT", b"from a browser", {**headers, "Content-Type": "text/y"})[0] == 403
    assert call(put, "PUT", b"from a browser", {**headers, "x-amz-meta-more": "unsigned"})[0] == 403
    assert call(put, "PUT", b"from a browser", headers)[0] == 200
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == b"from a browser" and got["ContentType"] == "text/x" and got["Metadata"] == {"from": "a url"}
    get = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k", "ResponseContentDisposition": "attachment"}, ExpiresIn=60)
    assert call(get) == (200, b"from a browser")
    assert call(get, headers={"Range": "bytes=0-3"}) == (206, b"from")
    status, body = call(get.replace("Signature=", "Signature=0"))
    assert status == 403 and b"<Code>SignatureDoesNotMatch</Code>" in body
    status, body = call(get.replace("attachment", "inline"))
    assert status == 403 and b"<Code>SignatureDoesNotMatch</Code>" in body
    short = s3.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"}, ExpiresIn=1)
    time.sleep(2.1)
    status, body = call(short)
    assert status == 403 and b"<Code>AccessDenied</Code><Message>Request has expired</Message>" in body


def test_streams_of_unknown_kind_are_signed_chunk_by_chunk_or_not_at_all(server, bucket):
    signed = server.client("s3", s3={"payload_signing_enabled": True})
    signed.put_object(Bucket=bucket, Key="signed", Body=io.BytesIO(b"s" * 2_000_000))
    assert signed.get_object(Bucket=bucket, Key="signed")["ContentLength"] == 2_000_000
    plain = server.client("s3", request_checksum_calculation="when_required", response_checksum_validation="when_required")
    plain.put_object(Bucket=bucket, Key="plain", Body=b"p")
    assert plain.get_object(Bucket=bucket, Key="plain")["Body"].read() == b"p"
    assert plain.list_objects_v2(Bucket=bucket)["KeyCount"] == 2


def crc64nvme(data):
    crc = 0xFFFFFFFFFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x9A6C9329AC4BC9B5 if crc & 1 else 0)
    return base64.b64encode((crc ^ 0xFFFFFFFFFFFFFFFF).to_bytes(8, "big")).decode()


def test_checksums_come_in_trailers_as_sdks_send_them_over_tls(server, s3, bucket):
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    def put(key, data, algorithm, value, decoded=None):
        body = b"".join(b"%x\r\n%s\r\n" % (len(data[at:at + 70_000]), data[at:at + 70_000]) for at in range(0, len(data), 70_000))
        body += f"0\r\nx-amz-checksum-{algorithm}:{value}\r\n\r\n".encode()
        request = AWSRequest("PUT", f"{server.endpoint}/{bucket}/{key}", headers={"Content-Encoding": "aws-chunked", "x-amz-trailer": f"x-amz-checksum-{algorithm}",
                                                                             "x-amz-decoded-content-length": str(len(data) if decoded is None else decoded)}, data=body)
        request.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
        S3SigV4Auth(Credentials(server.credentials["access_key"], server.credentials["secret_key"]), "s3", "us-east-1").add_auth(request)
        assert request.headers["X-Amz-Content-SHA256"] == "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
        try:
            with urllib.request.urlopen(urllib.request.Request(request.url, data=body, method="PUT", headers=dict(request.headers.items())), timeout=20) as answer:
                return answer.status, answer.headers
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    data = bytes(range(256)) * 1000
    status, headers = put("k", data, "crc64nvme", crc64nvme(data))
    assert status == 200 and headers["x-amz-checksum-crc64nvme"] == crc64nvme(data)
    got = s3.get_object(Bucket=bucket, Key="k")
    assert got["Body"].read() == data and "ContentEncoding" not in got
    assert put("large", os.urandom(3_000_000), "crc32", "AAAAAA==")[0] == 400
    status, body = put("k", b"other", "crc32", "AAAAAA==")
    assert status == 400 and b"<Code>BadDigest</Code>" in body and b"The CRC32 you specified did not match the calculated checksum." in body
    status, body = put("k", b"other", "crc32", base64.b64encode(zlib.crc32(b"other").to_bytes(4, "big")).decode(), decoded=6)
    assert status == 400 and b"<Code>IncompleteBody</Code>" in body
    assert s3.get_object(Bucket=bucket, Key="k")["ContentLength"] == len(data)
    assert s3.list_objects_v2(Bucket=bucket)["KeyCount"] == 1


def test_the_bucket_may_stand_in_the_host(server, s3, bucket, monkeypatch):
    import boto3
    from botocore.config import Config

    s3.put_object(Bucket=bucket, Key="a b/c", Body=b"hello")
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1" if str(host).endswith("localhost") else host, *rest, **more))
    for name in ("localhost", "s3.localhost"):
        port = server.endpoint.rsplit(":", 1)[1]
        virtual = boto3.client("s3", endpoint_url=f"http://{name}:{port}", region_name="us-east-1", aws_access_key_id=server.credentials["access_key"],
                               aws_secret_access_key=server.credentials["secret_key"], config=Config(s3={"addressing_style": "virtual"}))
        seen = []
        virtual.meta.events.register("before-send.s3", lambda request, **_: seen.append(request.url))
        assert virtual.get_object(Bucket=bucket, Key="a b/c")["Body"].read() == b"hello"
        assert seen[0].startswith(f"http://{bucket}.{name}:{port}/a"), seen
        assert virtual.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        with urllib.request.urlopen(virtual.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a b/c"}), timeout=20) as answer:
            assert answer.read() == b"hello"


def test_objects_survive_a_kill_and_half_of_one_does_not(own_server):
    server = own_server()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="k", Body=b"hello", Metadata={"a": "1"})
    url = server.client("s3", signature_version="s3v4").generate_presigned_url("put_object", Params={"Bucket": "kept", "Key": "half"}, ExpiresIn=60)
    host, port = server.endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as half:
        target = url.removeprefix(server.endpoint)
        half.sendall(f"PUT {target} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 9000000\r\n\r\n".encode() + b"h" * 3_000_000)
        deadline = time.monotonic() + 10
        while not os.listdir(os.path.join(server.data, "objects", "incoming")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert os.listdir(os.path.join(server.data, "objects", "incoming"))
        server.kill()
    server.start()
    s3 = server.client("s3")
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket="kept")["Contents"]] == ["k"]
    assert s3.get_object(Bucket="kept", Key="k")["Body"].read() == b"hello"
    assert os.listdir(os.path.join(server.data, "objects", "incoming")) == []


def test_memory_does_not_grow_with_the_object(own_server, tmp_path):
    server = own_server()
    s3 = server.client("s3")
    s3.create_bucket(Bucket="big")

    def peak_mb():
        with open(f"/proc/{server.process.pid}/status", encoding="ascii") as status:
            return next(int(line.split()[1]) // 1024 for line in status if line.startswith("VmHWM"))

    before = peak_mb()
    source = tmp_path / "file"
    with open(source, "wb") as file:
        file.truncate(300 << 20)
    with open(source, "rb") as body:
        s3.put_object(Bucket="big", Key="k", Body=body)
    received = sum(len(piece) for piece in s3.get_object(Bucket="big", Key="k")["Body"].iter_chunks(1 << 20))
    assert received == 300 << 20
    assert peak_mb() - before < 60


@pytest.mark.parametrize("version", sorted(AWS_CLIS))
def test_the_aws_cli_copies_lists_syncs_and_removes(server, bucket, tmp_path, version):
    program = AWS_CLIS[version]
    if not os.path.exists(program):
        pytest.skip(f"{program} is not installed")

    def aws(*words, expect=0):
        done = subprocess.run([program, "--endpoint-url", server.endpoint, *words], capture_output=True, text=True, timeout=180, check=False, env={**os.environ, **server.env})
        assert done.returncode in (expect if isinstance(expect, tuple) else (expect,)), (words, done.stdout, done.stderr)
        return done.stdout + done.stderr

    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "one.txt").write_text("one")
    (folder / "sub" / "two.bin").write_bytes(os.urandom(10_000_000))
    aws("s3", "cp", str(folder / "one.txt"), f"s3://{bucket}/one.txt")
    assert "one.txt" in aws("s3", "ls", f"s3://{bucket}/")
    aws("s3", "sync", str(folder), f"s3://{bucket}/tree/")
    assert aws("s3", "sync", str(folder), f"s3://{bucket}/tree/").strip() == "", "nothing is left to do"
    assert "PRE sub/" in aws("s3", "ls", f"s3://{bucket}/tree/")
    aws("s3", "cp", f"s3://{bucket}/tree/sub/two.bin", str(tmp_path / "back.bin"))
    assert (tmp_path / "back.bin").read_bytes() == (folder / "sub" / "two.bin").read_bytes()
    aws("s3", "mv", f"s3://{bucket}/one.txt", f"s3://{bucket}/moved.txt")
    assert json.loads(aws("s3api", "head-object", "--bucket", bucket, "--key", "moved.txt", "--output", "json"))["ContentLength"] == 3
    aws("s3", "rm", f"s3://{bucket}/", "--recursive")
    assert aws("s3", "ls", f"s3://{bucket}/", "--recursive", expect=(0, 1)).strip() == ""
    other = "cli-" + uuid.uuid4().hex[:10]
    aws("s3", "mb", f"s3://{other}")
    aws("s3", "rb", f"s3://{other}")
    assert "NoSuchBucket" in aws("s3", "ls", f"s3://{other}", expect=254 if version == "v2" else 255)


def test_cloudformation_package_uploads_the_code(server, s3, bucket, tmp_path):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "app.py").write_text("def handler(e, c):\n    return 1\n")
    (tmp_path / "template.yaml").write_text("Resources:\n  F:\n    Type: AWS::Lambda::Function\n    Properties:\n      Code: ./code\n      Handler: app.handler\n")
    packaged = tmp_path / "packaged.yaml"
    done = subprocess.run([AWS_CLIS["v1"], "--endpoint-url", server.endpoint, "cloudformation", "package", "--template-file", str(tmp_path / "template.yaml"), "--s3-bucket", bucket, "--output-template-file",
                           str(packaged)], capture_output=True, text=True, timeout=120, check=False, env={**os.environ, **server.env})
    assert done.returncode == 0, done.stderr
    key = next(line.split(":")[1].strip() for line in packaged.read_text().splitlines() if "S3Key" in line)
    assert s3.head_object(Bucket=bucket, Key=key)["ServerSideEncryption"] == "AES256"


INSIDE = """
import boto3, botocore

def handler(event, context):
    s3 = boto3.client('s3')
    bucket = event['bucket']
    told = {'read': s3.get_object(Bucket=bucket, Key='in')['Body'].read().decode()}
    s3.put_object(Bucket=bucket, Key='out', Body=told['read'].upper())
    told['keys'] = [entry['Key'] for entry in s3.list_objects_v2(Bucket=bucket)['Contents']]
    s3.delete_object(Bucket=bucket, Key='in')
    for name, call in (('create', lambda: s3.create_bucket(Bucket='made-inside')), ('delete', lambda: s3.delete_bucket(Bucket=bucket)), ('buckets', s3.list_buckets)):
        try:
            call()
            told[name] = 'allowed'
        except botocore.exceptions.ClientError as error:
            told[name] = error.response['Error']['Code']
    return told
"""


def boto3_files():
    """boto3 as a deployment package carries it, with the model of S3 only."""
    import boto3

    site = os.path.dirname(os.path.dirname(boto3.__file__))
    files = {}
    for package in ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3"):
        for folder, _, names in os.walk(os.path.join(site, package)):
            inside = os.path.relpath(folder, site)
            if "__pycache__" in inside or "examples" in inside or (inside.startswith("botocore/data/") and not inside.startswith("botocore/data/s3/")):
                continue
            for name in names:
                with open(os.path.join(folder, name), "rb") as file:
                    files[f"{inside}/{name}"] = file.read()
    with open(os.path.join(site, "six.py"), "rb") as file:
        files["six.py"] = file.read()
    return files


def test_functions_read_and_write_objects_from_inside(server, aws, s3, name, bucket):
    s3.put_object(Bucket=bucket, Key="in", Body=b"quiet")
    python_function(aws, name, INSIDE, files=boto3_files(), Timeout=30, MemorySize=512)
    aws.get_waiter("function_active_v2").wait(FunctionName=name)
    answer, error, log, _ = invoke(aws, name, {"bucket": bucket})
    assert error is None, (answer, log)
    assert answer == {"read": "quiet", "keys": ["in", "out"], "create": "AccessDenied", "delete": "AccessDenied", "buckets": "AccessDenied"}
    assert s3.get_object(Bucket=bucket, Key="out")["Body"].read() == b"QUIET"
    assert [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["out"]


TERRAFORM = """
terraform {{
  required_providers {{ aws = {{ source = "hashicorp/aws" }} }}
}}
provider "aws" {{
  region                      = "us-east-1"
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  s3_use_path_style           = true
}}
resource "aws_s3_bucket" "b" {{
  bucket        = "{bucket}"
  force_destroy = true
  tags          = {{ made = "by-terraform" }}
}}
resource "aws_s3_object" "o" {{
  bucket       = aws_s3_bucket.b.id
  key          = "code/f.zip"
  source       = "f.zip"
  etag         = filemd5("f.zip")
  content_type = "application/zip"
  tags         = {{ stage = "{stage}" }}
}}
"""


def test_terraform_makes_a_bucket_and_an_object(server, s3, tmp_path):
    terraform = shutil.which("terraform")
    mirror = next((path for path in ("/opt/tf-plugins", os.path.expanduser("~/.terraform.d/plugins"), "/usr/share/terraform/plugins") if os.path.isdir(path)), None)
    if terraform is None or mirror is None:
        pytest.skip("terraform or a local copy of its aws provider is not installed")
    bucket = "tf-" + uuid.uuid4().hex[:12]
    (tmp_path / "cli.tfrc").write_text(f'provider_installation {{ filesystem_mirror {{ path = "{mirror}" }} }}', encoding="ascii")
    (tmp_path / "f.zip").write_bytes(zip_of({"app.py": "def handler(e, c):\n    return 1\n"}))
    env = {**os.environ, **server.env, "TF_CLI_CONFIG_FILE": str(tmp_path / "cli.tfrc"), "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}

    def run(*words):
        done = subprocess.run([terraform, *words, "-no-color"], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    (tmp_path / "main.tf").write_text(TERRAFORM.format(bucket=bucket, stage="one"), encoding="ascii")
    run("init", "-input=false")
    run("apply", "-auto-approve", "-input=false")
    assert s3.get_object(Bucket=bucket, Key="code/f.zip")["Body"].read() == (tmp_path / "f.zip").read_bytes()
    assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == [{"Key": "made", "Value": "by-terraform"}]
    run("plan", "-detailed-exitcode", "-input=false")  # 2 would mean it sees a difference
    (tmp_path / "main.tf").write_text(TERRAFORM.format(bucket=bucket, stage="two"), encoding="ascii")
    run("apply", "-auto-approve", "-input=false")
    assert s3.get_object_tagging(Bucket=bucket, Key="code/f.zip")["TagSet"] == [{"Key": "stage", "Value": "two"}]
    run("destroy", "-auto-approve", "-input=false")
    refused("404", 404, s3.head_bucket, Bucket=bucket)
