"""The table of names: which are those of a credential, by what happens to what they name."""

from __future__ import annotations

import pytest

from usher.redact.credentials import Where, names_credential

PLACES: dict[str, Where] = {"d": "document", "a": "auth0", "t": "template", "s": "setting", "x": "text"}
TABLE = {
    "password": "datsx", "newPassword": "datsx", "encryptedPassword": "datsx", "passwd": "datsx", "user.password": "datsx",
    "new password ": "datsx", "A\nPASSWORD": "datsx", "password2": "datsx", "password_confirmation": "datsx", "userPwd": "datsx",
    "passwordText": "datsx", "password-hash": "datsx", "passphrase": "datsx", "passcode": "datsx", "pin": "datsx",
    "secret": "datsx", "client_secret": "datsx", "secretKey": "datsx", "secretData": "datsx", "credentialData": "datsx",
    "token": "datsx", "access_token": "datsx", "idToken": "datsx", "jwt": "datsx", "hash": "datsx", "salt": "datsx",
    "api_key": "datsx", "signing-key": "datsx", "Authorization": "datsx", "proxy-authorization": "datsx", "Set-Cookie": "datsx",
    "client_assertion": "datsx", "SAMLResponse": "datsx", "code_verifier": "datsx",
    "code": "datsx", "otp": "datsx", "otp_code": "datsx", "smsCode": "datsx", "verify_code": "datsx", "oobCode": "datsx",
    "recoveryCodes": "datsx",
    "resetUrl": "dax", "magicLink": "dax", "verification_url": "dax", "invitation_uri": "dax",
    "passwordLastSetAt": "tsx", "password_hint": "tsx", "passphrase_reset_at": "tsx",
    "token_type": "sx", "secretsVersion": "sx", "credentials": "sx", "credential_type": "sx", "auth": "sx", "basic_auth": "sx",
    "key": "asx", "publicKey": "asx", "linkWith": "a", "device_code": "a", "user_code": "a", "work_authorization": "a",
    "ticket": "a", "keys": "a",
    "login_url": "", "http_url": "", "link": "", "statusCode": "", "geo_location_code": "", "phoneCountryCode": "", "code_id": "",
    "author": "", "pinned": "", "hashtag": "", "keyboard": "", "email": "", "zip": "", "sasl_mechanism": "", "ssl_cafile": "", "": "",
}  # fmt: skip


@pytest.mark.parametrize(("name", "places"), TABLE.items(), ids=repr)
def test_which_names_are_those_of_a_credential(name: str, places: str) -> None:
    """In a document, in Auth0's entries (a), a template, a setting, a text (x): one rule, wider where nothing is lost by it."""
    assert {short for short, where in PLACES.items() if names_credential(name, where)} == set(places)


@pytest.mark.parametrize("name", [None, 5, ["password"], b"password"])
def test_what_is_no_name_names_nothing(name: object) -> None:
    """Documents hold anything where a name is expected."""
    assert not names_credential(name)
