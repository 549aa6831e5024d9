"""Keys of locks: which names and schemas exclude each other, and which do not."""

import hashlib

import pytest
from django.db import connection, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from once.databases import tables
from once.databases.postgresql_lock import KEY
from tests.support import rows

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

NAMES = st.from_regex(r"\w[\w.:/@+-]{0,9}", fullmatch=True)
#: Those of tenants may be quoted ones.
SCHEMAS = st.text(alphabet='aB1-_ ."é', min_size=1, max_size=9)
few = settings(max_examples=settings().max_examples // 4)


def key(name: str) -> int:
    [(found,)] = rows("default", f"SELECT {KEY}", [tables.quoted(connection, "completion"), name])
    assert isinstance(found, int)
    return found


def digest(schema: str, name: str) -> int:
    """Eight bytes of SHA-256, as a signed number."""
    whole = hashlib.sha256(f"once:{schema}:{name}".encode()).digest()
    return int.from_bytes(whole[:8], "big", signed=True)


@given(NAMES)
def test_key_is_64_bits_of_a_digest_of_schema_and_name(name: str) -> None:
    assert key(name) == digest("public", name)


@few
@given(schema=SCHEMAS, name=NAMES)
def test_key_is_the_same_before_and_after_the_first_migration(schema: str, name: str) -> None:
    quoted = '"' + schema.replace('"', '""') + '"'
    with transaction.atomic():
        rows("default", f"CREATE SCHEMA {quoted}")
        rows("default", "SELECT set_config('search_path', %s, true)", [quoted])
        before = key(name)
        rows("default", "CREATE TABLE once_completion ()")
        after = key(name)
        transaction.set_rollback(True)
    assert before == after
    assert after != digest("public", name)
