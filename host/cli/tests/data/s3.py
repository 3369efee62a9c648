"""A store of objects on loopback that checks each signature (moto, which signs as boto3 does), with one empty bucket."""

import json
import os
import sys

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

os.environ.update(AWS_ACCESS_KEY_ID="first", AWS_SECRET_ACCESS_KEY="first", AWS_DEFAULT_REGION="us-east-1")
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=True)
server.start()
url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
iam = boto3.client("iam", endpoint_url=url)
iam.create_user(UserName="dray")
everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
iam.put_user_policy(UserName="dray", PolicyName="all", PolicyDocument=json.dumps(everything))
key = iam.create_access_key(UserName="dray")["AccessKey"]
boto3.client("s3", endpoint_url=url).create_bucket(Bucket="images")
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print(json.dumps({"host": url[7:], "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)
# What boto3 reads and writes, one request a line: another tool's view of the bucket.
s3 = boto3.client("s3", endpoint_url=url, aws_access_key_id=key["AccessKeyId"], aws_secret_access_key=key["SecretAccessKey"])
for line in sys.stdin:
    verb, name = line.split()
    if verb == "get":
        answer = s3.get_object(Bucket="images", Key=name)["Body"].read().decode(errors="replace")
    elif verb == "delete":
        s3.delete_object(Bucket="images", Key=name)
        answer = True
    else:
        answer = sorted(entry["Key"] for entry in s3.list_objects_v2(Bucket="images", Prefix=name)["Contents"])
    print(json.dumps(answer), flush=True)
