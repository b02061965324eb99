"""What is kept of secrets."""

from services.auth.adapters.hashing import API_KEYS, SHARE_LINKS, KeyedHash


def test_what_is_kept_of_a_secret_depends_on_the_key_and_on_what_it_is_for() -> None:
    one = KeyedHash("one secret", SHARE_LINKS)
    assert one("yl_a") == one("yl_a") != one("yl_b")
    assert one("yl_a") != KeyedHash("another secret", SHARE_LINKS)("yl_a")
    assert one("yl_a") != KeyedHash("one secret", API_KEYS)("yl_a")
    assert b"yl_a" not in one("yl_a")
