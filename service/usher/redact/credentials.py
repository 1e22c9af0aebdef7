"""The names of credentials: of passwords, keys, tokens, codes, and links that log their reader in.

A name is folded before it is looked at: case, punctuation, accents, wide letters and letters of another script that look like
Latin ones make no difference, so that ``newPassword``, ``new_password`` and ``NEW-PASSWORD`` are one name.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Literal

Where = Literal["document", "pair", "auth0", "template", "setting", "text"]
"""Where the name stands: see `names_credential`."""

_LONGEST = 120
"""Characters of a name that are looked at, from its end: that is where the noun is."""
_LOOKALIKES = str.maketrans("\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0456\u0455\u0501\u051b\u051d", "aeopcyxisdqw")
"""Cyrillic letters, each with the Latin one that it looks like."""
_NOT_DECOMPOSED = str.maketrans({"ł": "l", "ø": "o", "đ": "d", "\u0131": "i", "æ": "ae", "œ": "oe"})
_NOT_OF_NAMES = re.compile(r"[\W_]")
_LATIN = re.compile(r"[a-z]")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def _folded(name: str) -> str:
    if not name.isascii():
        name = name.translate(_NOT_DECOMPOSED)
        name = "".join(char for char in unicodedata.normalize("NFKD", name) if not unicodedata.combining(char))
        name = name.casefold()
        if _LATIN.search(name):
            name = name.translate(_LOOKALIKES)
    return _NOT_OF_NAMES.sub("", name.lower())


_PASSWORDS = (
    "password", "passwd", "passwrd", "pasword", "passw0rd", "passphrase", "passcode", "pswd", "pwd",
    "passwort", "kennwort", "geheimzahl", "motdepasse", "contraseña", "contrasinal", "senha", "palavrapasse", "parola", "parole",
    "wachtwoord", "hasło", "heslo", "lösenord", "loesenord", "passord", "adgangskode", "kodeord", "salasana", "jelszó", "şifre",
    "lozinka", "zaporka", "katasandi", "matkhau", "пароль", "парола", "密码", "密碼", "口令", "パスワード", "暗証番号", "비밀번호",
    "암호", "סיסמה", "كلمةالمرور", "κωδικόςπρόσβασης", "รหัสผ่าน",
)  # fmt: skip
_STEM = re.compile("|".join([*map(_folded, _PASSWORDS), "secret", "token", "credential", "cookie", "jwt"]))
"""What makes a name that of a credential, wherever in the name it stands."""
_ABOUT = re.compile(
    r"""s?(is|was|has|been|last|next|max|min|must|be|never|first|not|needs?|requires?|to|on|no|auto)*
    (ary|arial|i[sz]e\w*|i[sz]ation
    |set|chang(e|es|ed|ing)|resets?|updated?|created?|expir(e|es|ed|y|ation|ing)|modified|modification|rotat(ed|ion)|issued?|used|used?count
    |verified|validated|enabled|disabled|required|optional|allowed|forced?|temporary|compromised|leaked|breached?|failed|failures?
    |attempts?|retries|count(er)?|types?|polic(y|ies)|rules?|requirements?|strength|score|length|age|days|status|state|methods?
    |algorithm|alg|format|version|provider|origin|scopes?|ttl|lifetime|validity|endpoint|requested|sent|login|authentication
    |settings?|configuration|config|options?|(security)?level|endpoint(auth)?method|category|reason|event|flow|question|banner|consent|preferences?|less|manager|grant)
    (is|at|on|in|by|date|time|timestamp|count|after|before|ms|seconds|secs|days|utc|required|reason|types?|count|needed|url)?s?""",
    re.VERBOSE,
)
"""What follows the stem in the name of a fact about a credential, as in ``passwordLastSetAt`` and ``token_type``."""
_ASKS = frozenset({"is", "has", "must", "should", "can", "needs", "requires", "require", "allow", "allows", "force"})
"""First words of a name that asks for yes or no, as in ``must_change_password``."""

_SECRETS = re.compile(
    r"""
    .*(otps?|hash(es|ed)?|salt|nonces?|hmac)
    | .*(api|access|account|app|application|auth|backup|bot|client|consumer|decryption|deploy|device|encryption|gpg|license|licence|master
        |mfa|pgp|preshared|private|recovery|root|rsa|security|secret|service|session|shared|signing|ssh|storage|symmetric|totp|webhook|wrapping)
      keys?(pem|value|data|text|jwk|[0-9])?
    | (user|login|db|database|my|new|old|admin|smtp|imap|ftp|ldap|root|mail|email|temp|current|initial|default|wifi|http|proxy)?
      pass(hash|[0-9])?
    | (user|login|db|new|old|admin|current|temp)?pw(hash|[0-9])?
    | pins? | (user|new|old|sim|card|access|login|account|security|atm|phone|device)pin | pin(code|number|hash)s?
    | mima | clave | geslo | parool | slaptazodis | mdp | geheimnis | токен | секрет | 令牌 | 密钥 | 验证码
    | (proxy|http|x)*authorization(header)? | bearer
    | (basic|http|proxy|smtp)auth | creds? | .*(assertion|samlresponse|samlrequest|codeverifier)s?
    | (mfa|totp|otp|hd|wallet)?seed(phrase|words)? | mnemonic(phrase)? | recoveryphrase
    | (http|auth|password|content|md5|sha[0-9]*)?digest | (x?(aws|amz|goog|hub|hmac|signed|request|body|auth|webhook)\w*)?signature[0-9]*
    | sig
    | (private|key|client)?pem | pfx | p12 | pkcs12 | jks | keystore | psk | sas | dsn | conn(ection)?str(ing)?
    | krbprincipalkey | nthash | lmhash
    | php(sess(ion)?)?id | j?sess(ion)?id | sid | connectsid
    | (credit|debit|bank)?card(number|no|num) | cvv2? | cvc2? | pan
    | (security|secret|challenge|recovery)answers?
    | (email|sms|user|device|phone)?codes?
    | .*(2fa|access|activation|auth|authentication|authorization|authz|backup|bypass|challenge|confirm|confirmation|emailverification
        |emergency|exchange|grant|invit(e|ation)|link|login|magic|mfa|multifactor|onetime|oob|otp|pairing|password|passwordless|passwordreset|phoneverification
        |recovery|reset|scratch|secret|security|session|sign(in|up)|sso|temp|temporary|totp|twofactor|unlock|validation|verif(y|ication))codes?
    """,
    re.VERBOSE | re.DOTALL,
)
_LINKS = re.compile(
    r""".*(activat(e|ion)|confirm|confirmation|enroll?ment|hook|invitation|invite|login|magic|passwordless|presigned|recover|recovery
        |registration|reset|setup|sign(in|up|ed)|sso|unlock|verification|verify)(url|uri|link|href)s? | links? | href""",
    re.VERBOSE,
)
_WEAK = re.compile(r"key | auth | ticket | answers? | session | qr(code)?", re.VERBOSE)
"""Names of a credential where a text stands there and nothing beside it, as in ``{"key": "…"}``; an object is something else."""
_OF_AUTH0 = re.compile(r".*(ticket|authorization|linkwith|devicecode|usercode|key)s?")
_WIDE = re.compile(r".*(password|passwd|passphrase|passcode).*")
_WIDER = re.compile(r".*(secret|token|credential).* | .*(key|auth|pin)", re.VERBOSE)


def names_credential(name: object, where: Where = "document") -> bool:
    """Whether *name* names a credential.

    The rule differs by what happens to the value:

    * ``document``: the field is dropped, so it has to be a credential. ``passwordLastSetAt`` and ``login_id_key`` stay.
    * ``pair``: the name is itself a value, as in ``{"name": "password", "value": …}``: as in a document, and no weak names.
    * ``auth0``: in Auth0's log entries, which also say how keys and live tickets were configured.
    * ``template``: the template is refused; no message shows what only has to do with a password. Links are what a message
      is for: ``reset_url`` is a variable of ours.
    * ``setting``: the value is masked where it is shown, which costs nothing; but a link is the address of a page.
    * ``text``: likewise, in any text of others; a link there is a person's own.
    """
    return isinstance(name, str) and _names(name[-_LONGEST:], where)


def is_weak(name: str) -> bool:
    """Whether *name* names a credential only where its value is a text: see `_WEAK`."""
    return _WEAK.fullmatch(_folded(name)) is not None


@lru_cache(maxsize=8192)
def _names(name: str, where: Where) -> bool:
    folded = _folded(name)
    if _is_secret(name, folded):
        return True
    if where == "template":
        return _WIDE.fullmatch(folded) is not None
    if where == "pair":
        return _LINKS.fullmatch(folded) is not None
    if where == "setting":
        return any(rule.fullmatch(folded) for rule in (_WEAK, _WIDE, _WIDER))
    rules = {"document": (_LINKS, _WEAK), "auth0": (_LINKS, _WEAK, _OF_AUTH0), "text": (_LINKS, _WEAK, _WIDE, _WIDER)}
    return any(rule.fullmatch(folded) for rule in rules[where])


def _is_secret(name: str, folded: str) -> bool:
    if _SECRETS.fullmatch(folded):
        return True
    words = [word.lower() for word in _WORD.findall(name)]
    if len(words) > 1 and words[-1] in {"pass", "pw", "pin", "sid"} and words[-2] not in {"boarding", "by", "com"}:
        return True
    stems = list(_STEM.finditer(folded))
    if not stems or (name.isascii() and words and words[0] in _ASKS):
        return False
    return _ABOUT.fullmatch(folded, stems[-1].end()) is None
