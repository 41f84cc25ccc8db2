"""An S3 server on a free port of this machine, by moto: one bucket, and one user who may use it.

Says `READY port access-key secret-key`, then does what its standard input says, and ends with it: `down` and `up` take the server
away and back with all that it holds; `ahead SECONDS` sets the time that it gives to objects forward; `tags` has every object have one ETag,
whatever its content. Each is answered by `DONE`.
"""

import datetime
import logging
import os
import sys

import boto3
import moto.s3.models
import moto.settings
from moto.server import ThreadedMotoServer

BUCKET = "kiln"
POLICY = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}'

ahead = datetime.timedelta()
now = moto.s3.models.utcnow
moto.s3.models.utcnow = lambda: now() + ahead
logging.getLogger("werkzeug").setLevel(logging.ERROR)


def start(port):
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    server.start()
    return server


server = start(0)
port = server.get_host_and_port()[1]
anyone = {
    "endpoint_url": f"http://127.0.0.1:{port}",
    "region_name": "us-east-1",
    "aws_access_key_id": "anyone",
    "aws_secret_access_key": "anything",
}
boto3.client("s3", **anyone).create_bucket(Bucket=BUCKET)
iam = boto3.client("iam", **anyone)
iam.create_user(UserName="kiln")
iam.put_user_policy(UserName="kiln", PolicyName="all", PolicyDocument=POLICY)
key = iam.create_access_key(UserName="kiln")["AccessKey"]
# From here on signatures and rights are checked.
moto.settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print("READY", port, key["AccessKeyId"], key["SecretAccessKey"], flush=True)

for line in sys.stdin:
    match line.split():
        case ["down"]:
            server.stop()
        case ["up"]:
            server = start(port)
        case ["ahead", seconds]:
            ahead = datetime.timedelta(seconds=float(seconds))
        case ["tags"]:
            moto.s3.models.FakeKey.etag = property(lambda _: '"' + 32 * "0" + '"')
    print("DONE", flush=True)
os._exit(0)
