"""What schemathesis is told beside the document: what a schema cannot say, and what a test may not do.

Only requests that follow the document are changed, and only in these ways; wrong ones go out as they were made.
"""

import os
import uuid

import schemathesis
from hypothesis import strategies as st

UPSTREAM = os.environ["FARCALL_TEST_UPSTREAM"]
UPSTREAM_NAME = "local"

_segments = st.lists(st.text(alphabet="abcXYZ019-._~%20", min_size=1, max_size=8), max_size=4)
_paths = _segments.map("/".join).filter(lambda path: "%" not in path and ".." not in path)
# Whatever is called is on this machine; which hosts are allowed where is tested elsewhere.
schemathesis.openapi.format("iri", st.builds(lambda path: f"{UPSTREAM}/{path}", _paths))
# A range does not end before it begins.
_codes = st.integers(100, 599)
_ranges = st.tuples(_codes, _codes).map(sorted).map(lambda pair: f"{pair[0]}-{pair[1]}")
schemathesis.openapi.format("status-range", st.one_of(_codes.map(str), _ranges))

_lines = st.lists(
    st.one_of(
        st.just('{"url": "%s/bulk", "body": [1, 2]}' % UPSTREAM),
        st.just('{"url": 1}'),
        st.just(""),
        st.just("{"),
        st.text(alphabet=st.characters(blacklist_categories=["Cs"], blacklist_characters="\n"), max_size=20),
    ),
    max_size=20,
)
schemathesis.openapi.format("ndjson", _lines.map("\n".join))


@schemathesis.serializer("application/x-ndjson")
def ndjson(context, value):
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


@schemathesis.hook
def before_call(context, case, kwargs):
    headers = case.headers
    if headers is not None and "Prefer" in headers and "wait" in str(headers["Prefer"]):
        # A client may ask to wait for ten minutes, and gets them.
        headers["Prefer"] = "wait=1"
    if not case.meta.generation.mode.is_positive:
        return
    if headers is not None and "Idempotency-Key" in headers:
        # One key is one content.
        headers["Idempotency-Key"] = str(uuid.uuid4())
    body = case.body
    if not isinstance(body, dict):
        return
    identity = case.operation.definition.raw.get("operationId")
    if identity == "createCall":
        _call(case, body)
    elif identity == "patchUpstream":
        _patch(body)
    elif identity == "beginOperation":
        # Each would double the number of calls.
        if body.get("action") == "retry":
            body["dry_run"] = True


def _call(case, body):
    # A document and its place belong together, which no schema can say.
    for key in ("url", "base_url"):
        if key in body and not str(body[key]).startswith(UPSTREAM + "/"):
            body[key] = UPSTREAM + "/a"
    if "end_point" in body and (".." in body["end_point"] or "%2" in body["end_point"]):
        body["end_point"] = "/b"
    if "cost" in body:
        # It has to fit the upstream's limits, which a patch may have lowered to one.
        body["cost"] = 1
    if isinstance(body.get("callback"), dict):
        body["callback"]["url"] = UPSTREAM + "/hook"
    # One key is one content, and the same in the header.
    if case.headers is not None and "Idempotency-Key" in case.headers:
        body.pop("idempotency_key", None)
    elif "idempotency_key" in body:
        body["idempotency_key"] = str(uuid.uuid4())
    # Names of headers do not differ by case.
    if isinstance(body.get("headers"), dict):
        names = {}
        for name in list(body["headers"]):
            if names.setdefault(name.lower(), name) != name:
                del body["headers"][name]


def _patch(body):
    # What was patched before stays, so a second form of delay, or a second place for one setting, would contradict it.
    body.setdefault("wait", None)
    body.setdefault("on_unknown", None)
    if isinstance(body.get("retry"), dict):
        if body["wait"] is not None:
            for key in ("wait", "base", "factor", "backoff_factor"):
                body["retry"].pop(key, None)
        if body["on_unknown"] is not None:
            body["retry"].pop("on_unknown", None)
    else:
        body.setdefault("retry", None)
