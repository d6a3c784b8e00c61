"""The messages of the store's errors, and secrets that they must not hold."""

from pipeline.store.errors import from_client_error


def test_messages_hold_no_signatures() -> None:
    url = "https://host/b/k?X-Amz-Credential=AKIAXXXXXXXXXXXXXXXX%2F20260101&X-Amz-Signature=0123abcd&x=1"
    headers = (
        "Authorization: AWS4-HMAC-SHA256 Credential=AKIAXXXXXXXXXXXXXXXX/us, SignedHeaders=host, Signature=0123abcd"
    )
    body = (
        "<Error><Code>SignatureDoesNotMatch</Code><Message>No match for AKIAXXXXXXXXXXXXXXXX</Message>"
        "<AWSAccessKeyId>AKIAXXXXXXXXXXXXXXXX</AWSAccessKeyId><SignatureProvided>0123abcd</SignatureProvided></Error>"
    )
    for text in (
        f"Error performing GET {url} in 1ms - Server returned non-2xx status code: 403 Forbidden: {body}",
        f"Unknown: {url}",
        f"Unknown: {headers}",
        "Unknown: aws_session_token = 0123abcd, aws_secret_access_key=0123abcd",
        'Unknown: {"x-amz-security-token": "0123abcd"}',
        "Unknown: http://user:0123abcd@host/b",
    ):
        message = str(from_client_error("s3://b/k", OSError(text)))
        assert "AKIA" not in message and "0123abcd" not in message
        assert message.startswith("s3://b/k: ") and "\n" not in message and len(message) < 300
