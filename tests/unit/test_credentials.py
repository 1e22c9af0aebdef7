"""The table of names: which are those of a credential, by what happens to what they name."""

# ruff: noqa: RUF001  names in other scripts are the point
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
    "passwordLastSetAt": "tsx", "password_hint": "datsx", "passphrase_reset_at": "tsx",
    "token_type": "sx", "secretsVersion": "sx", "credentials": "datsx", "credential_type": "sx", "auth": "dasx", "basic_auth": "datsx",
    "key": "dasx", "publicKey": "asx", "linkWith": "a", "device_code": "datsx", "user_code": "datsx", "work_authorization": "a",
    "ticket": "dasx", "keys": "a",
    "login_url": "dax", "http_url": "", "link": "dax", "statusCode": "", "geo_location_code": "", "phoneCountryCode": "", "code_id": "",
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


CREDENTIALS = """
    password newPassword encryptedPassword passwd user.password password2 password_confirmation userPwd passwordText
    password-hash passphrase passcode pin secret client_secret secretKey secretData credentialData token access_token
    idToken jwt hash salt api_key signing-key Authorization proxy-authorization Set-Cookie client_assertion SAMLResponse
    code_verifier code otp otp_code smsCode verify_code oobCode recoveryCodes resetUrl magicLink verification_url
    invitation_uri pass userPass kennwort contraseña пароль mima apikey2 accessKey privateKeyPem tokenValue bearer
    set-cookie sessionId sid mfa_seed pinCode link href login_url nonce answer credential creds key hmac digest ticket
    card_number ＰＡＳＳＷＯＲＤ pаssword user_password_hash UserPassword unicodePwd sambaNTPassword PASSWORD_NEW password_plaintext
    plain_text_password pwd_hash passHash pw userPw user_pw new-pass db_pass DB_PASSWORD passwort Passwort_neu mot_de_passe
    motDePasse senha senha_atual wachtwoord hasło heslo lösenord passord salasana jelszó şifre parola 密码 口令 パスワード 비밀번호
    mật_khẩu x-api-key X-Auth-Token apiKey api-secret apiSecret access_key secretAccessKey aws_secret_access_key private_key
    privateKey signingKey encryptionKey ssh_key master_key session_key client_key bot_token csrf_token xsrfToken csrf-token
    refreshToken refresh_token id_token_hint device_token push_token bearerToken authToken auth_token session_token
    sessionToken session_cookie cookies JSESSIONID PHPSESSID connect.sid verification_code verificationCode
    email_verification_code loginCode mfa_code mfaCode backup_codes backupCodes scratch_codes totp totp_secret otpSecret
    otp_seed recovery_key recovery_codes one_time_code oneTimePassword one-time-password temporary_password
    temporaryPassword temp_pass tempPassword initial_password security_answer securityAnswer secret_answer user_code
    device_code activation_code invite_code invitationCode unlock_code passwordResetCode reset_code sso_code auth_code
    authorization_code reset_link resetLink password_reset_url passwordResetUrl activation_link confirm_url
    confirmation_link invite_url invitation_link magic_link signin_link webhook_url hookUrl presigned_url signedUrl
    unlockUrl verify_link signature x-hub-signature-256 hmac_signature X-Amz-Signature private_pem pem keystore dsn
    connection_string connectionString connStr cvv cvc credit_card_number cardNumber seed_phrase mnemonic qr_code ssoToken
    saml_response samlAssertion password_history password_hint token_id credentials credentials_json tokens secrets
    passwords
"""
"""As programs, directories and identity systems write them: in camel case, with dashes, with prefixes, in several languages and scripts."""
NEEDED = """
    email email_verified emailVerified phone_number phone phoneNumber name given_name username preferred_username user_id
    userId id type raw_type source tenant triggered_by language preferred_languages locale zoneinfo country_code countryCode
    zip_code postal_code statusCode status_code error_code errorCode area_code phoneCountryCode geo_location_code
    language_code currency_code dial_code code_id password_changed passwordChanged password_expired passwordExpired
    must_change_password mustChangePassword passwordLastSetAt password_last_changed passwordLastChangedAt pwdLastSet
    password_policy password_updated_at password_expires_at password_reset_required passwordResetRequired
    failed_password_attempts password_set has_password hasPassword isPasswordSet password_changed_at last_password_reset
    token_type tokenType token_expires_in token_endpoint token_endpoint_auth_method credential_type credentialType
    public_key publicKey login_id_key primary_key sort_key author authors pinned hashtag keyboard monkey passport_number
    passenger compass bypass boarding_pass secretary zip link_count linked linkedin linked_accounts auth_method auth_time
    authTime authentication_method client_id clientId resetPasswordOnFirstLogin resetPasswordOnNextLogin
    passwordSecurityLevel address street_address birthdate nickname picture profile website avatar redirect_uri callback_url
    url uri path method session_count ip_address user_agent app_id timestamp signed_up loginsCount logins_count last_login
    lastIp last_ip description disableableCredentialTypes requiredActions is_verified can_reauthenticate expired disabled
    keys code_challenge_method cookie_consent tokens_used salutation assigned design resigned shipping opinion spinning
    happiness company japan span
"""
"""What handlers read, and what only has to do with a credential."""


def test_a_credential_is_known_by_its_name() -> None:
    """However it is written."""
    assert [name for name in CREDENTIALS.split() if not names_credential(name)] == []


def test_what_handlers_need_is_not_taken_for_a_credential() -> None:
    """Addresses, names, codes of countries, and facts about a password stay."""
    assert [name for name in NEEDED.split() if names_credential(name)] == []
